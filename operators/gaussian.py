"""Gaussian vectors whose covariance is known by its products only: drawn, and given data."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, dot, expand, norm
from operators.most_probable import most_probable_change
from operators.projection import Map, projected_gain
from operators.rows import as_rows_of, eigh, new_direction, real_rows
from operators.solvers import FLOOR, conjugate_gradient, frozen_ratio, frozen_update

PRECONDITION_TOLERANCE = 0.003  # of the preconditioner that knows A, not the covariance
NORMAL_TOLERANCE = 0.03  # of the same among images
IMAGE_PART = 0.1  # of the change at which a sample stops: among images its steps are shorter
FIT_TOLERANCE = 1e-4  # of what an image has left of the misfit
FIT_STEPS = 100
NORM_STEPS, NORM_MARGIN = 30, 1.02  # of the power iteration, which comes from below
ROOT_STEPS, ROOT_TOLERANCE = 40, 1e-3  # of the noise's root, without network calls


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
    length = norm(z)
    start = real_rows(z) / torch.where(length > 0, length, 1.0)[:, None]  # (B, n)
    basis = start.new_zeros(max_products, *start.shape)  # (m, B, n)
    basis[0] = start
    matrix_part = start.new_zeros(len(z), max_products, max_products)
    found = torch.zeros_like(start)
    active = length > 0  # (B,)
    for k in range(max_products):
        image = real_rows(matrix(as_rows_of(basis[k], z)))
        known = basis[: k + 1]
        matrix_part[:, : k + 1, k] = (known * image).sum(-1).T
        root = length[:, None] * (first_root(matrix_part[:, : k + 1, : k + 1]) * known).sum(0)
        change, found = norm(root - found), torch.where(active[:, None], root, found)
        active = active & (change > tolerance * length)
        if k + 1 == max_products or not active.any():
            break
        direction, size = new_direction(image, known)
        basis[k + 1] = torch.where(active[:, None], direction, 0.0)  # finished samples go on with 0
        matrix_part[:, k + 1, k] = torch.where(active, size, 0.0)
    return as_rows_of(found, z), matrix_part[:, 0, 0]


def first_root(matrix: Tensor) -> Tensor:
    """First column of the root of ``(B, m, m)``, made symmetric and positive: ``(m, B, 1)``."""
    values, vectors = eigh((matrix + matrix.mT) / 2)
    columns = (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors[:, 0, :, None]  # (B, m, 1)
    return columns.transpose(0, 1)


def gain_product(
    operator: LinearOperator,
    residual: Tensor,
    covariance: Map,
    *,
    sigma_y: Tensor,
    level: Tensor,
    ridge: Tensor,
    largest: Tensor,
    max_products: int,
    length: Tensor,
    precondition_steps: int,
) -> Tensor:
    """V A^H (A V A^H + sigma_y^2)^-1 r: what data with the residual r change in a Gaussian.

    By an iteration that stands a V that is only nearly a covariance
    (`operators.projection.projected_gain`), preconditioned by (v A A^H + sigma_y^2)^-1 with a
    number v for V; that is solved by iterations of its own, which cost no product with V. Where A^H
    A is quicker than A (`LinearOperator.fast_normal`: along trajectories) it is solved among images
    (`operators.most_probable`), preconditioned by (v A^H A + sigma_y^2)^-1.

    Args:
        operator: A.
        residual: r, ``(B, *range_shape)``.
        covariance: x -> V x, ``(B, *domain_shape)``, on each sample independently.
        sigma_y: ``(B,)``, 0 or more; at 0 with a residual in the range of A.
        level: v ``(B,)``, about the mean eigenvalue of V.
        ridge: ``(B,)``, 0 or more: V counts as V + ridge in (...)^-1. With little noise it keeps
            variances below it, which rounding or a network has spoilt, from being divided by.
        largest: ``(B,)``, about the largest eigenvalue of V; directions along which V is longer
            than any covariance with it, by far, are left out.
        max_products: products with V at most.
        length: norm ``(B,)`` of an iteration's change of the image at which a sample stops.
        precondition_steps: iterations of the preconditioner at most, 1 or more.

    Returns:
        ``(B, *domain_shape)``.
    """
    penalty = torch.where(level > 0, sigma_y**2 / torch.where(level > 0, level, 1.0), 1.0)
    if operator.fast_normal:
        return most_probable_change(
            covariance,
            operator.normal,
            operator.adjoint(residual),
            _normal_solve(operator, penalty, precondition_steps),
            variance=sigma_y**2,
            ridge=ridge,
            largest=largest,
            max_products=max_products,
            length=IMAGE_PART * length,
        )

    def product(u: Tensor) -> tuple[Tensor, Tensor]:
        back = operator.adjoint(u)
        image = covariance(back)
        return operator.forward(image + expand(ridge, back) * back), image

    return projected_gain(
        product,
        residual,
        _data_inverse(operator, penalty, precondition_steps),
        variance=sigma_y**2,
        largest=largest,
        max_products=max_products,
        length=length,
    )


def coupled_draw(
    operator: LinearOperator,
    y: Tensor,
    x: Tensor,
    rho: Tensor,
    *,
    sigma_y: Tensor,
    largest: Tensor,
    rng: BatchGenerator,
    last: Tensor | None = None,
    overrelaxation: float = 0.0,
) -> Tensor:
    """A draw of z ~ p(y | z) N(z; x, rho^2), with less noise in p(y | z) than y has.

    The likelihood step of split Gibbs samplers. Where x stands for z, y = A x + rho A e + n: with
    noise n of sigma_y^2, x would be of the posterior for data with noise of sigma_y^2 + rho^2 A
    A^H. Here n has the covariance

        sigma_y^2 - a A A^H,    a = min(rho^2, sigma_y^2 / |A|^2),

    so that up to rho = sigma_y / |A| there is no such error, and (rho^2 - a) A A^H beyond (the
    auxiliary variables of Marnissi et al., Entropy 20 (2018) 110). With m = x + rho e,

        z = m + rho^2 A^H (sigma_y^2 + (rho^2 - a) A A^H)^-1 (y + n - A m).

    With a `last` z of the same coupling and c = `overrelaxation` the draw, w, is on the other side
    of the mean mu than that: z = mu - c (z_last - mu) + (1 - c^2)^(1/2) (w - mu). It leaves
    p(y | z) N(z; x, rho^2) as it is, and a chain of such sweeps walks less to and fro (S. L. Adler,
    Phys. Rev. D 23 (1981) 2901).

    Args:
        operator: A.
        y: ``(B, *range_shape)`` measurement.
        x: ``(B, *domain_shape)`` images.
        rho: ``(B,)``, above 0.
        sigma_y: ``(B,)``, 0 or more; at 0 z is the nearest image to m that fits y.
        largest: ``(B,)`` largest eigenvalue |A|^2 of A^H A (`largest_eigenvalue`).
        rng: draws e, then n.
        last: z of the sweep before, ``(B, *domain_shape)``; None: independent draws.
        overrelaxation: c, from 0, which is an independent draw, to below 1.

    Returns:
        ``(B, *domain_shape)``.
    """
    c = 0.0 if last is None else overrelaxation
    part_drawn = math.sqrt(1 - c**2)
    moved = (1 + c) * x + part_drawn * expand(rho, x) * rng.normal_like(x)
    part = torch.minimum((rho / sigma_y) ** 2, 1 / largest)  # a / sigma_y^2; inf if that is 0
    drawn = rng.normal_like(y) * operator.measured().to(y.device)
    root, _ = lanczos_sqrt(
        lambda u: u - expand(part, u) * operator.forward(operator.adjoint(u)),
        drawn,
        max_products=ROOT_STEPS,
        tolerance=ROOT_TOLERANCE,
    )
    residual = (1 + c) * y + part_drawn * expand(sigma_y, y) * root - operator.forward(moved)
    solved = _coupled_solve(operator, residual, rho, sigma_y=sigma_y, largest=largest)
    z = moved + expand(rho**2, x) * operator.adjoint(solved)
    return z if last is None else z - c * last


def coupled_misfit(
    operator: LinearOperator,
    residual: Tensor,
    rho: Tensor,
    *,
    sigma_y: Tensor,
    largest: Tensor,
) -> Tensor:
    """Misfit -log p(y | x), up to a constant, where z of `coupled_draw` is integrated out.

    Args:
        operator: A.
        residual: y - A x, ``(B, *range_shape)``.
        rho: ``(B,)``, above 0.
        sigma_y: ``(B,)``, above 0.
        largest: ``(B,)`` largest eigenvalue of A^H A.

    Returns:
        r^H (sigma_y^2 + (rho^2 - a) A A^H)^-1 r / 2, ``(B,)`` real.
    """
    solved = _coupled_solve(operator, residual, rho, sigma_y=sigma_y, largest=largest)
    return dot(residual, solved) / 2


def _coupled_solve(
    operator: LinearOperator, rhs: Tensor, rho: Tensor, *, sigma_y: Tensor, largest: Tensor
) -> Tensor:
    """(sigma_y^2 + (rho^2 - a) A A^H)^-1 rhs."""
    rest = (rho**2 - sigma_y**2 / largest).clamp(min=0)  # (B,), rho^2 - a

    def product(u: Tensor) -> tuple[Tensor, Tensor]:
        seen = operator.forward(operator.adjoint(u))
        return expand(rest, u) * seen + expand(sigma_y**2, u) * u, u

    floor = torch.finfo(rho.dtype).eps * rho**2  # where rho^2 is a
    precondition = operator.gram_inverse(sigma_y**2 / torch.maximum(rest, floor))
    return _conjugate_gradient(
        product,
        rhs,
        precondition or (lambda r: r),
        max_products=FIT_STEPS,
        tolerance=FIT_TOLERANCE,
    )


def largest_eigenvalue(operator: LinearOperator, like: Tensor) -> Tensor:
    """Largest eigenvalue of A^H A, by the power method from one image, a little too high.

    Args:
        operator: A.
        like: ``(B, *domain_shape)`` images, whose dtype and device are taken.

    Returns:
        ``(B,)``, real.
    """
    size = len(like) if operator.batch_size else 1
    x = BatchGenerator([0] * size).normal_like(like[:size])
    least = torch.finfo(x.real.dtype).tiny  # of an A that is 0
    for _ in range(NORM_STEPS):
        x = operator.normal(x / expand(norm(x).clamp(min=least), x))
    return (NORM_MARGIN * norm(x)).clamp(min=least).expand(len(like))


def nearest_fit(operator: LinearOperator, y: Tensor, x: Tensor) -> Tensor:
    """The image nearest to x that fits y as well as can be: x + A^H (A A^H)^-1 (y - A x)."""
    filtered = operator.gram_inverse(torch.zeros(1, dtype=y.real.dtype, device=y.device))

    def product(u: Tensor) -> tuple[Tensor, Tensor]:
        image = operator.adjoint(u)
        return operator.forward(image), image

    return x + _conjugate_gradient(
        product,
        y - operator.forward(x),
        filtered or (lambda r: r),
        max_products=FIT_STEPS,
        tolerance=FIT_TOLERANCE,
    )


def _data_inverse(operator: LinearOperator, penalty: Tensor, most: int) -> Map:
    """r -> (A A^H + penalty)^-1 r, about, by `most` iterations; penalty ``(B,)``."""
    filtered = operator.gram_inverse(penalty) or (lambda r: r)

    def inverse(r: Tensor) -> Tensor:
        def product(u: Tensor) -> tuple[Tensor, Tensor]:
            return operator.forward(operator.adjoint(u)) + expand(penalty, u) * u, u

        return _conjugate_gradient(
            product, r, filtered, max_products=most, tolerance=PRECONDITION_TOLERANCE
        )

    return inverse


def _normal_solve(operator: LinearOperator, penalty: Tensor, most: int) -> Map:
    """b -> (A^H A + penalty)^-1 b, about, by `most` iterations; penalty ``(B,)``."""

    filtered = operator.normal_inverse(penalty)

    def solve(b: Tensor) -> Tensor:
        return conjugate_gradient(
            lambda x: operator.normal(x) + expand(penalty, x) * x,
            b,
            max_iterations=most,
            tolerance=NORMAL_TOLERANCE,
            precondition=filtered,
        ).x

    return solve


def _conjugate_gradient(
    product: Callable[[Tensor], tuple[Tensor, Tensor]],
    rhs: Tensor,
    precondition: Map,
    *,
    max_products: int,
    tolerance: float,
) -> Tensor:
    """B N^-1 rhs by preconditioned conjugate gradients, where `product` is u -> (N u, B u).

    Each sample stops on its own: where the residual, in the preconditioner's norm and relative to
    its first, is at the tolerance, or where rounding leaves no direction.
    """
    epsilon = torch.finfo(rhs.real.dtype).eps
    tolerance = max(tolerance, FLOOR * epsilon)
    residual = rhs
    direction = filtered = precondition(residual)
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
        step = frozen_ratio(dot(direction, residual), curvature, active)
        found = frozen_update(found, step, change, active)
        residual = frozen_update(residual, -step, image, active)
        filtered = precondition(residual)
        square = torch.where(active, dot(residual, filtered), square)
        active = active & (square > tolerance**2 * first)
        back = dot(image, filtered) / torch.where(active, curvature, 1.0)
        direction = frozen_update(filtered, -back, direction, active)
        direction = torch.where(expand(active, direction), direction, 0.0)
    if found is None:  # nothing to do: the shape of B u without a product with N
        return torch.zeros_like(product(torch.zeros_like(rhs))[1])
    return found
