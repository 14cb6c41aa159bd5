"""Gaussian vectors whose covariance is known by its products only: drawn, and given data."""

from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import dot, expand, norm
from operators.solvers import FLOOR, frozen_ratio, frozen_update

Map = Callable[[Tensor], Tensor]
INNER_STEPS, INNER_TOLERANCE = 60, 0.03  # of the preconditioner that knows A, not the covariance


def lanczos_sqrt(
    matrix: Map, z: Tensor, *, max_products: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """M^(1/2) z by Lanczos' method, a vector of covariance M if z is white.

    The basis is orthogonalised in full and M's part in it made symmetric, with eigenvalues of at
    least 0: the Jacobian of a network's denoiser is only nearly so. Each sample stops on its own.

    Args:
        matrix: x -> M x, ``(B, ...)`` to ``(B, ...)``, on each sample independently.
        z: ``(B, ...)``, real or complex; inner products are Re<., .>.
        max_products: products with M at most, 1 or more.
        tolerance: the change by a further product, relative to z, at which a sample stops.

    Returns:
        M^(1/2) z, and the Rayleigh quotient <z, M z> / <z, z> ``(B,)``, an estimate of the mean
        eigenvalue.

    Source: Y. Saad, SIAM J. Numer. Anal. 29 (1992) 209-228, on f(M) z in Krylov spaces.
    """
    epsilon = torch.finfo(z.real.dtype).eps
    length = norm(z)
    unit = torch.where(length > 0, length, 1.0)
    basis, images = [z / expand(unit, z)], []
    found = torch.zeros_like(z)
    active = length > 0  # (B,)
    for _ in range(max_products):
        images.append(matrix(basis[-1]))
        root = expand(length, z) * _root(basis, images)
        change, found = norm(root - found), torch.where(expand(active, z), root, found)
        active = active & (change > tolerance * length)
        if len(images) == max_products or not active.any():
            break
        rest = images[-1]
        for _ in range(2):  # once loses orthogonality in float32
            for q in basis:
                rest = rest - expand(dot(q, rest), rest) * q
        size = norm(rest)
        # samples that are finished, or whose invariant subspace is complete, go on with 0
        kept = active & (size > FLOOR * epsilon * norm(images[-1]))
        basis.append(expand(torch.where(kept, 1 / torch.where(kept, size, 1.0), 0.0), rest) * rest)
    return found, dot(basis[0], images[0])


def _root(basis: list[Tensor], images: list[Tensor]) -> Tensor:
    """M^(1/2) q of the first vector q of an orthonormal basis whose images are M times it."""
    products = torch.stack([torch.stack([dot(q, w) for w in images], 1) for q in basis], 1)
    values, vectors = torch.linalg.eigh((products + products.mT) / 2)  # (B, m), (B, m, m)
    weights = (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors[:, 0, :, None]  # (B, m, 1)
    return sum(expand(weights[:, i, 0], q) * q for i, q in enumerate(basis))


def gain_product(
    operator: LinearOperator,
    residual: Tensor,
    covariance: Map,
    *,
    sigma_y: Tensor,
    level: Tensor,
    max_products: int,
    length: Tensor,
) -> Tensor:
    """V A^H (A V A^H + sigma_y^2)^-1 r: what data with the residual r change in a Gaussian.

    By conjugate gradients, preconditioned by (v A A^H + sigma_y^2)^-1 with a number v for V; that
    is solved by iterations of its own, which cost no product with V.

    Args:
        operator: A.
        residual: r, ``(B, *range_shape)``.
        covariance: x -> V x, ``(B, *domain_shape)``, on each sample independently.
        sigma_y: ``(B,)``, 0 or more; at 0 with a residual in the range of A.
        level: v ``(B,)``, about the mean eigenvalue of V.
        max_products: products with V at most.
        length: norm ``(B,)`` of an iteration's change of the image at which a sample stops.

    Returns:
        ``(B, *domain_shape)``.
    """
    variance = expand(sigma_y**2, residual)
    penalty = torch.where(level > 0, sigma_y**2 / torch.where(level > 0, level, 1.0), 1.0)
    precondition = _data_inverse(operator, penalty)

    def product(u: Tensor) -> tuple[Tensor, Tensor]:
        image = covariance(operator.adjoint(u))
        return operator.forward(image) + variance * u, image

    return _conjugate_gradient(
        product, residual, precondition, max_products=max_products, length=length
    )


def nearest_fit(operator: LinearOperator, y: Tensor, x: Tensor, *, max_products: int) -> Tensor:
    """The image nearest to x that fits y as well as can be: x + A^H (A A^H)^-1 (y - A x)."""
    filtered = operator.gram_inverse(torch.zeros(1, dtype=y.real.dtype, device=y.device))

    def product(u: Tensor) -> tuple[Tensor, Tensor]:
        image = operator.adjoint(u)
        return operator.forward(image), image

    return x + _conjugate_gradient(
        product,
        y - operator.forward(x),
        filtered or (lambda r: r),
        max_products=max_products,
    )


def _data_inverse(operator: LinearOperator, penalty: Tensor) -> Map:
    """r -> (A A^H + penalty)^-1 r, about; penalty ``(B,)``."""
    filtered = operator.gram_inverse(penalty) or (lambda r: r)

    def inverse(r: Tensor) -> Tensor:
        def product(u: Tensor) -> tuple[Tensor, Tensor]:
            return operator.forward(operator.adjoint(u)) + expand(penalty, u) * u, u

        return _conjugate_gradient(
            product, r, filtered, max_products=INNER_STEPS, tolerance=INNER_TOLERANCE
        )

    return inverse


def _conjugate_gradient(
    product: Callable[[Tensor], tuple[Tensor, Tensor]],
    rhs: Tensor,
    precondition: Map,
    *,
    max_products: int,
    tolerance: float = 0.0,
    length: Tensor | None = None,
) -> Tensor:
    """B N^-1 rhs by preconditioned conjugate gradients, where `product` is u -> (N u, B u).

    With the ratio of Polak and Ribiere, which stands a preconditioner that changes a little. Each
    sample of the batch stops on its own: where the residual, in the preconditioner's norm and
    relative to its first, is at the tolerance; where an iteration changes B N^-1 rhs by no more
    than `length`; or where rounding leaves no direction.
    """
    epsilon = torch.finfo(rhs.real.dtype).eps
    tolerance = max(tolerance, FLOOR * epsilon)
    residual = rhs
    filtered = precondition(residual)
    direction = filtered
    square = first = dot(residual, filtered)  # (B,)
    largest = torch.zeros_like(square)
    active = square > 0
    found = None
    for _ in range(max_products):
        if not active.any():
            break
        image, change = product(direction)
        found = torch.zeros_like(change) if found is None else found
        curvature, size = dot(direction, image), dot(direction, direction)
        largest = torch.maximum(largest, frozen_ratio(curvature, size, active))
        active = active & (curvature > FLOOR * epsilon * largest * size)
        step = frozen_ratio(square, curvature, active)
        found = frozen_update(found, step, change, active)
        before, residual = residual, frozen_update(residual, -step, image, active)
        filtered = precondition(residual)
        previous, square = square, torch.where(active, dot(residual, filtered), square)
        active = active & (square > tolerance**2 * first)
        if length is not None:
            active = active & (step.abs() * norm(change) > length)
        ratio = frozen_ratio(dot(residual - before, filtered), previous, active)
        direction = torch.where(
            expand(active, filtered), filtered + expand(ratio, filtered) * direction, 0.0
        )
    if found is None:  # nothing to do: the shape of B u without a product with V
        return torch.zeros_like(product(torch.zeros_like(rhs))[1])
    return found
