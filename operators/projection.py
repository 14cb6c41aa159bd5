"""Solving with a covariance that is only nearly one, in a space in which it is made one."""

from collections.abc import Callable

import torch
from torch import Tensor

from operators.batch import expand, norm
from operators.rows import as_rows_of, bordered, eigh, new_direction, real_rows
from operators.solvers import FLOOR

LARGEST = 10.0  # more room for a covariance of modes far apart
Map = Callable[[Tensor], Tensor]


def projected_gain(
    product: Callable[[Tensor], tuple[Tensor, Tensor]],
    rhs: Tensor,
    precondition: Map,
    *,
    variance: Tensor,
    largest: Tensor,
    max_products: int,
    length: Tensor,
) -> Tensor:
    """C (M + variance)^-1 rhs, where `product` is u -> (M u, C u) and M should be a covariance.

    The Jacobian of a network's denoiser is no covariance: it has an antisymmetric part and negative
    eigenvalues (docs/calibration.md), and conjugate gradients diverge. Here u is searched for in
    the space of the preconditioned residuals, in which M is made symmetric and parts of it are left
    out that a covariance does not have: eigenvalues of 0 or less, and directions along which C u is
    longer than they allow. For a symmetric, positive M it is the iteration of conjugate gradients.

    Args:
        product: u -> M u, of the shape of `rhs`, and C u, ``(B, ...)`` of another; on each sample
            independently, linear over the reals.
        rhs: ``(B, ...)``, real or complex; inner products are Re<., .>.
        precondition: r -> about (M + variance)^-1 r.
        variance: ``(B,)``, 0 or more.
        largest: ``(B,)``, about the largest eigenvalue of the covariance V with C u = V B u and
            <u, M u> = <B u, V B u>. Directions with |C u|^2 above `LARGEST` times that times
            <u, M u> are left out.
        max_products: products at most, 1 or more.
        length: ``(B,)`` change of C u by a further product at which a sample stops.

    Returns:
        C u, ``(B, ...)``.
    """
    rows = real_rows(rhs)  # (B, m)
    epsilon = torch.finfo(rows.dtype).eps
    space = _Space(rows, variance, LARGEST * largest)
    residual, active = rows, norm(rows) > 0
    found = None
    for _ in range(max_products):
        direction = real_rows(precondition(as_rows_of(residual, rhs)))
        space.add(torch.where(active[:, None], direction, 0.0))
        seen, image = product(as_rows_of(space.basis[-1], rhs))
        space.learn(real_rows(seen), real_rows(image))
        found = torch.zeros_like(image) if found is None else found
        changed, left = space.solve()
        changed = as_rows_of(changed, image)
        step = norm(changed - found)
        found = torch.where(expand(active, found), changed, found)
        residual = torch.where(active[:, None], left, 0.0)
        active = active & (step > length) & (norm(left) > FLOOR * epsilon * norm(rows))
        if not active.any():
            break
    return found


class _Space:
    """Orthonormal directions p with M p and C p: ``(B, m)`` and ``(B, n)`` each."""

    def __init__(self, rhs: Tensor, variance: Tensor, bound: Tensor):
        self.rhs, self.variance, self.bound = rhs, variance[:, None], bound[:, None]
        self.basis, self.seen, self.images = [], [], []
        self.known = []  # <p, rhs>, (B,)
        self.matrix = self.squares = rhs.new_zeros(len(rhs), 0, 0)  # <p, M q>; <C p, C q>

    def add(self, direction: Tensor) -> None:
        """Take in what is new in a direction; nothing of it is a direction of 0."""
        p, _ = new_direction(direction, self.basis)
        self.basis.append(p)
        self.known.append((p * self.rhs).sum(1))

    def learn(self, seen: Tensor, image: Tensor) -> None:
        """M p and C p of the direction that was added last."""
        self.seen.append(seen)
        self.images.append(image)
        p = self.basis[-1]
        along = [
            ((a * seen).sum(1) + (p * b).sum(1)) / 2
            for a, b in zip(self.basis, self.seen, strict=True)
        ]
        self.matrix = bordered(self.matrix, along)
        self.squares = bordered(self.squares, [(a * image).sum(1) for a in self.images])

    def solve(self) -> tuple[Tensor, Tensor]:
        """C u ``(B, n)`` and what is left of the right-hand side ``(B, m)``."""
        values, vectors = eigh(self.matrix)  # (B, k), (B, k, k)
        is_covariance = of_covariance(values, vectors, self.squares, self.bound)  # (B, k)
        known = torch.stack(self.known, dim=1)  # (B, k)
        divisor = torch.where(is_covariance, values + self.variance, 1.0)
        parts = torch.where(is_covariance, (vectors.mT @ known[:, :, None])[..., 0] / divisor, 0.0)
        u = (vectors @ parts[:, :, None])[..., 0].T[..., None]  # (k, B, 1)
        change = sum(a * image for a, image in zip(u, self.images, strict=True))
        taken = sum(
            a * (seen + self.variance * p)
            for a, seen, p in zip(u, self.seen, self.basis, strict=True)
        )
        return change, self.rhs - taken


def of_covariance(values: Tensor, vectors: Tensor, squares: Tensor, bound: Tensor) -> Tensor:
    """Which eigenvectors q of a part of V a covariance could have: bool ``(B, k)``.

    Args:
        values: <q, V q>, ``(B, k)``.
        vectors: q in the directions p of a space, ``(B, k, k)``.
        squares: <V p, V p'> of these directions, ``(B, k, k)``.
        bound: what |V q|^2 over <q, V q> may be at most, ``(B, 1)``.
    """
    lengths = (vectors * (squares @ vectors)).sum(1)  # |V q|^2, (B, k)
    return (values > 0) & (lengths <= bound * values)
