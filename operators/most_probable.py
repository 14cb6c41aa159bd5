"""What data change most probably in an image, where A^H A is quick: solved among images."""

import torch
from torch import Tensor

from operators.batch import expand, norm
from operators.projection import LARGEST, Map, of_covariance
from operators.rows import as_rows_of, bordered, eigh, new_direction, real_rows
from operators.solvers import FLOOR

PATIENCE = 4  # products after the residual's least; then it is rounding


def most_probable_change(
    covariance: Map,
    normal: Map,
    rhs: Tensor,
    precondition: Map,
    *,
    variance: Tensor,
    ridge: Tensor,
    largest: Tensor,
    max_products: int,
    length: Tensor,
) -> Tensor:
    """V q of (N (V + ridge) + variance) q = A^H r, without a measurement: N = A^H A.

    What data with the residual r and noise of `variance` change in an image of covariance V, V A^H
    (A (V + ridge) A^H + variance)^-1 r. After each product q is what is least, in a growing space,
    in

        |r - A (V + ridge) q|^2 + variance <q, (V + ridge) q>,

    the negative logarithm of the change's posterior, up to constants. The space is that of the
    preconditioned residuals. What is no covariance is treated as `projection.projected_gain` does;
    here an antisymmetric part of V counts in the misfit, which is that of the change as it is.

    Beside that iteration, products are with N alone, and the preconditioner needs no (A A^H +
    variance)^-1. It comes nearer in a few products; without noise and with an A of very different
    singular values, as those of tomography are, more products are needed to the end.

    Args:
        covariance: q -> V q, on each sample independently, linear over the reals.
        normal: x -> N x.
        rhs: A^H r, ``(B, ...)``, real or complex; inner products are Re<., .>.
        precondition: b -> about (N (V + ridge) + variance)^-1 b.
        variance: ``(B,)``, 0 or more.
        ridge: ``(B,)``, 0 or more.
        largest: ``(B,)``, about the largest eigenvalue of V. Directions with |V q|^2 above
            `LARGEST` times that times <q, (V + ridge) q> are left out.
        max_products: products with V at most, 1 or more.
        length: ``(B,)`` change of V q by a further product at which a sample stops.

    Returns:
        V q, of the shape of `rhs`.
    """
    whole = real_rows(rhs)  # (B, n)
    least = FLOOR * torch.finfo(whole.dtype).eps * norm(whole)
    # without noise q is in the range of N; a residual that is rounding leads out of it
    lowest, stalled = norm(whole), torch.zeros_like(length)
    space = _Space(whole, variance, LARGEST * largest)
    residual, active = whole, norm(whole) > 0
    found = best = torch.zeros_like(whole)
    for _ in range(max_products):
        direction = real_rows(precondition(as_rows_of(residual, rhs)))
        q = as_rows_of(space.add(torch.where(active[:, None], direction, 0.0)), rhs)
        image = covariance(q)
        raised = image + expand(ridge, image) * q
        space.learn(real_rows(image), real_rows(raised), real_rows(normal(raised)))
        changed, left = space.solve()
        step = norm(changed - found)
        found = torch.where(active[:, None], changed, found)
        residual = torch.where(active[:, None], left, 0.0)
        falls = active & (norm(left) < lowest)
        best = torch.where(falls[:, None], changed, best)
        lowest = torch.where(falls, norm(left), lowest)
        stalled = torch.where(falls, 0.0, stalled + active.to(stalled))
        active = active & (step > length) & (norm(left) > least) & (stalled < PATIENCE)
        if not active.any():
            break
    found = torch.where((stalled >= PATIENCE)[:, None], best, found)
    return as_rows_of(found, rhs)


class _Space:
    """Orthonormal directions q ``(B, n)`` with V q, W q = (V + ridge) q and N W q."""

    def __init__(self, rhs: Tensor, variance: Tensor, bound: Tensor):
        self.rhs, self.variance, self.bound = rhs, variance[:, None], bound[:, None]
        self.basis, self.images, self.raised, self.seen = [], [], [], []
        self.known = []  # <W q, rhs>, (B,)
        empty = rhs.new_zeros(len(rhs), 0, 0)
        self.prior = self.squares = self.misfit = empty  # <q, W p>; <V q, V p>; <W q, N W p>

    def add(self, direction: Tensor) -> Tensor:
        """What is new in a direction; where that is nothing, 0."""
        q, _ = new_direction(direction, self.basis)
        self.basis.append(q)
        return q

    def learn(self, image: Tensor, raised: Tensor, seen: Tensor) -> None:
        """V q, W q and N W q of the direction that was added last."""
        self.images.append(image)
        self.raised.append(raised)
        self.seen.append(seen)
        q = self.basis[-1]
        along = [
            ((p * raised).sum(1) + (q * other).sum(1)) / 2
            for p, other in zip(self.basis, self.raised, strict=True)
        ]
        self.prior = bordered(self.prior, along)
        self.squares = bordered(self.squares, [(image * other).sum(1) for other in self.images])
        self.misfit = bordered(self.misfit, [(seen * other).sum(1) for other in self.raised])
        self.known.append((raised * self.rhs).sum(1))

    def solve(self) -> tuple[Tensor, Tensor]:
        """V q ``(B, n)`` and what is left of the right-hand side ``(B, n)``."""
        values, vectors = eigh(self.prior)  # (B, k), (B, k, k)
        kept = of_covariance(values, vectors, self.squares, self.bound)  # (B, k)
        vectors = vectors * kept[:, None]
        energy = torch.where(kept, self.variance * values, 0.0)
        matrix = vectors.mT @ self.misfit @ vectors + torch.diag_embed(energy)
        known = vectors.mT @ torch.stack(self.known, dim=1)[..., None]  # (B, k, 1)
        parts = (vectors @ _least(matrix, known)).permute(1, 0, 2)  # (k, B, 1)
        change = sum(c * image for c, image in zip(parts, self.images, strict=True))
        taken = sum(
            c * (seen + self.variance * q)
            for c, seen, q in zip(parts, self.seen, self.basis, strict=True)
        )
        return change, self.rhs - taken


def _least(matrix: Tensor, rhs: Tensor) -> Tensor:
    """Shortest least-squares solution of symmetric equations ``(B, k, k)``, scaled to their size.

    Args:
        matrix: positive, but for rounding; with rows and columns of 0 for numbers that stay 0.
        rhs: ``(B, k, 1)``.
    """
    size = torch.diagonal(matrix, dim1=1, dim2=2).clamp(min=0).sqrt()[..., None]  # (B, k, 1)
    scale = torch.where(size > 0, 1 / torch.where(size > 0, size, 1.0), 0.0)
    values, vectors = eigh(scale * matrix * scale.mT)
    floor = FLOOR * torch.finfo(matrix.dtype).eps * values[:, -1:]
    inverse = torch.where(values > floor, 1 / torch.where(values > floor, values, 1.0), 0.0)
    return scale * (vectors @ (inverse[..., None] * (vectors.mT @ (scale * rhs))))
