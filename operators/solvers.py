"""Linear solvers on batches of independent samples."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, dot, expand, norm

FLOOR = 20  # machine epsilons of relative residual or curvature: what FFTs and sums leave


class Solution(NamedTuple):
    """What `conjugate_gradient` found, and how, for each sample."""

    x: Tensor  # (B, ...)
    iterations: Tensor  # (B,) int64, how often x was changed
    residual: Tensor  # (B,) ||rhs - N x|| / ||rhs|| by the recursion; the absolute one for rhs 0
    converged: Tensor  # (B,) bool, residual <= tolerance


def conjugate_gradient(
    normal: Callable[[Tensor], Tensor],
    rhs: Tensor,
    *,
    x0: Tensor | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
) -> Solution:
    """Solve N x = rhs for each sample by conjugate gradients.

    A sample stops when ||rhs - N x|| <= tolerance * ||rhs||, and from then on keeps its numbers
    while the others go on: what it gets does not depend on the batch.

    Args:
        normal: x -> N x, ``(B, ...)`` to the same; Hermitian and positive (semi-)definite in
            each sample, and treating each on its own. With a semi-definite N, rhs has to be in
            its range (A^H y is in that of A^H A).
        rhs: ``(B, ...)``, real or complex. Inner products are Re<., .>.
        x0: where to start, ``(B, ...)``; zero by default.
        max_iterations: products with N at most, 0 or more.
        tolerance: relative residual to stop at; at least `FLOOR` machine epsilons are taken, as
            below them there is nothing but rounding, which a semi-definite N would let grow.

    Returns:
        The solution, iterations, relative residual and convergence of each sample. Running out
        of iterations is no error: look at `converged`.

    Raises:
        ValueError: a wrong shape, negative iterations or tolerance.

    Source: M. R. Hestenes, E. Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409-436.
    """
    _check_limits(rhs, x0, max_iterations, tolerance)
    epsilon = torch.finfo(rhs.dtype).eps
    tolerance = max(tolerance, FLOOR * epsilon)
    x = torch.zeros_like(rhs) if x0 is None else x0
    residual = rhs if x0 is None else rhs - normal(x0)
    direction = residual
    square = dot(residual, residual)  # (B,)
    scale = norm(rhs)
    scale = torch.where(scale > 0, scale, 1.0)
    iterations = torch.zeros(rhs.shape[0], dtype=torch.int64, device=rhs.device)
    largest = torch.zeros_like(scale)  # eigenvalue of N met so far, (B,)

    active = square.sqrt() > tolerance * scale  # (B,)
    for _ in range(max_iterations):
        if not active.any():
            break
        product = normal(direction)
        curvature = dot(direction, product)
        # of relative size epsilon: the direction is outside the range of N, but for rounding
        size = dot(direction, direction)
        largest = torch.maximum(largest, frozen_ratio(curvature, size, active))
        active = active & (curvature > FLOOR * epsilon * largest * size)
        step = frozen_ratio(square, curvature, active)
        x = frozen_update(x, step, direction, active)
        residual = frozen_update(residual, -step, product, active)
        previous, square = square, torch.where(active, dot(residual, residual), square)
        direction = frozen_update(
            residual, frozen_ratio(square, previous, active), direction, active
        )
        iterations = iterations + active
        active = active & (square.sqrt() > tolerance * scale)
    relative = square.sqrt() / scale
    return Solution(x, iterations, relative, relative <= tolerance)


def solve_normal_equations(
    operator: LinearOperator,
    y: Tensor,
    *,
    regularization: float | Tensor = 0.0,
    x0: Tensor | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
) -> Solution:
    """argmin_x ||A x - y||^2 + regularization ||x - x0||^2, by CG on its normal equations

        (A^H A + regularization) x = A^H y + regularization x0.

    With y - A x0 in place of y this solves for x - x0, so that the iteration starts at x0. For
    MRI with coil maps this is CG-SENSE; with x0 the image from a prior it is the proximal step
    of its data term.

    Args:
        operator: A.
        y: ``(B, *range_shape)`` measurement.
        regularization: 0 or more, one number or ``(B,)``. At 0 the result is the least-squares
            solution that is nearest to x0.
        x0: ``(B, *domain_shape)``, the start of the iteration and the centre of the penalty; zero
            by default.
        max_iterations: as in `conjugate_gradient`.
        tolerance: as there, relative to A^H (y - A x0).

    Returns:
        As `conjugate_gradient`.

    Raises:
        ValueError: a wrong shape, or a negative regularization.
        TypeError: real where complex is expected, or the other way round.
    """
    if x0 is not None:
        y = y - operator.forward(x0)
    rhs = operator.adjoint(y)
    weight = expand(regularization_weight(regularization, rhs), rhs)  # (B or 1, 1, ...)
    solution = conjugate_gradient(
        lambda x: operator.normal(x) + weight * x,
        rhs,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    return solution if x0 is None else solution._replace(x=x0 + solution.x)


def regularization_weight(regularization: float | Tensor, like: Tensor) -> Tensor:
    """`regularization` in the precision and on the device of a batch: ``(1,)`` or ``(B,)``.

    Raises:
        ValueError: a wrong shape, or below 0.
    """
    weight = torch.as_tensor(regularization, dtype=like.real.dtype, device=like.device)
    if weight.ndim > 1 or (weight.ndim == 1 and weight.shape[0] != like.shape[0]):
        raise ValueError(
            f"expected regularization as a number or of shape ({like.shape[0]},), "
            f"got {tuple(weight.shape)}"
        )
    if not (weight >= 0).all():
        raise ValueError(f"expected regularization of 0 or more, got {regularization}")
    return weight.reshape(-1)


def power_method(
    operator: LinearOperator,
    *,
    metric: Callable[[Tensor], Tensor] | None = None,
    num_iterations: int = 30,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The operator norm ||A||, the largest singular value, by power iteration on A^H A.

    Converges from below.

    Args:
        operator: A.
        metric: M, Hermitian and positive definite, on measurements, whose length then is
            sqrt(<r, M r>); None: 1.
        num_iterations: products with A^H M A, 1 or more.
        seed: of the start, the same for each sample, so that op[i] alone gives the same number.
        dtype: precision, float32 or float64; also where images are complex.
        device: where the operator is.

    Returns:
        ``(B,)`` with the operator's `batch_size`, ``(1,)`` where the same A serves all samples.

    Raises:
        ValueError: no iterations.
    """
    if num_iterations < 1:
        raise ValueError(f"expected at least 1 iteration, got {num_iterations}")
    batch = operator.batch_size or 1
    kind = dtype.to_complex() if operator.domain_complex else dtype
    like = torch.empty(batch, *operator.domain_shape, dtype=kind, device=device)
    x = BatchGenerator([seed] * batch).normal_like(like)
    eigenvalue = norm(x)  # (B,)
    for _ in range(num_iterations):
        x = x / expand(eigenvalue.clamp(min=torch.finfo(dtype).tiny), x)
        y = operator.forward(x)
        x = operator.adjoint(y if metric is None else metric(y))
        eigenvalue = norm(x)
    return eigenvalue.sqrt()


def frozen_ratio(numerator: Tensor, denominator: Tensor, active: Tensor) -> Tensor:
    """numerator / denominator in active samples, 0 in the others."""
    return torch.where(active, numerator / torch.where(active, denominator, 1.0), 0.0)


def frozen_update(base: Tensor, step: Tensor, direction: Tensor, active: Tensor) -> Tensor:
    """base + step * direction in active samples, base as it was in the others."""
    return torch.where(expand(active, base), base + expand(step, base) * direction, base)


def _check_limits(rhs: Tensor, x0: Tensor | None, max_iterations: int, tolerance: float) -> None:
    if x0 is not None and x0.shape != rhs.shape:
        raise ValueError(f"expected x0 of shape {tuple(rhs.shape)}, got {tuple(x0.shape)}")
    if max_iterations < 0:
        raise ValueError(f"expected max_iterations of 0 or more, got {max_iterations}")
    if not tolerance >= 0:
        raise ValueError(f"expected a tolerance of 0 or more, got {tolerance}")
