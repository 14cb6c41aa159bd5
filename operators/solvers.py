"""Linear solvers on batches of independent samples."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, dot, expand, norm

FLOOR = 20  # machine epsilons: relative rounding error left by FFTs and sums


class Solution(NamedTuple):
    """Solution of an iterative solver, with its convergence per sample."""

    x: Tensor  # (B, ...)
    iterations: Tensor  # (B,) int64, number of updates of x
    residual: Tensor  # (B,) ||rhs - N x|| / ||rhs|| by the recursion; absolute if rhs is 0
    converged: Tensor  # (B,) bool, residual <= tolerance


def conjugate_gradient(
    normal: Callable[[Tensor], Tensor],
    rhs: Tensor,
    *,
    x0: Tensor | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
    precondition: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    """Conjugate gradients for N x = rhs, on each sample of a batch independently.

    A sample stops when ||rhs - N x|| <= tolerance * ||rhs|| and no longer changes while the others
    go on, so that its solution does not depend on the batch.

    Args:
        normal: x -> N x, ``(B, ...)`` to ``(B, ...)``; Hermitian and positive (semi-)definite,
            and acting on each sample independently. If N is semi-definite, `rhs` has to be in its
            range (A^H y is in the range of A^H A).
        rhs: ``(B, ...)``, real or complex. Inner products are Re<., .>.
        x0: ``(B, ...)`` start; zero by default.
        max_iterations: maximum number of products with N, 0 or more.
        tolerance: relative residual at which a sample stops; at least `FLOOR` machine epsilons,
            as smaller residuals are rounding errors, which grow if N is semi-definite.
        precondition: r -> about N^-1 r, Hermitian and positive definite on each sample; None: r.

    Returns:
        The solution, iterations, relative residual and convergence of each sample. Running out
        of iterations raises no error; check `converged`.

    Raises:
        ValueError: a wrong shape, or negative `max_iterations` or `tolerance`.

    Source: M. R. Hestenes, E. Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409-436.
    """
    _check_limits(rhs, x0, max_iterations, tolerance)
    epsilon = torch.finfo(rhs.dtype).eps
    tolerance = max(tolerance, FLOOR * epsilon)
    x = torch.zeros_like(rhs) if x0 is None else x0
    residual = rhs if x0 is None else rhs - normal(x0)
    solved = residual if precondition is None else precondition(residual)
    direction = solved
    square = dot(residual, residual)  # (B,)
    energy = square if precondition is None else dot(residual, solved)
    scale = norm(rhs)
    scale = torch.where(scale > 0, scale, 1.0)
    iterations = torch.zeros(rhs.shape[0], dtype=torch.int64, device=rhs.device)
    largest = torch.zeros_like(scale)  # largest Rayleigh quotient of N so far, (B,)

    active = square.sqrt() > tolerance * scale  # (B,)
    for _ in range(max_iterations):
        if not active.any():
            break
        product = normal(direction)
        curvature = dot(direction, product)
        # a curvature of rounding size means that the direction is outside the range of N
        size = dot(direction, direction)
        largest = torch.maximum(largest, frozen_ratio(curvature, size, active))
        active = active & (curvature > FLOOR * epsilon * largest * size)
        step = frozen_ratio(energy, curvature, active)
        x = frozen_update(x, step, direction, active)
        residual = frozen_update(residual, -step, product, active)
        square = torch.where(active, dot(residual, residual), square)
        previous = energy
        if precondition is None:
            solved, energy = residual, square
        else:
            solved = precondition(residual)
            energy = torch.where(active, dot(residual, solved), energy)
        direction = frozen_update(solved, frozen_ratio(energy, previous, active), direction, active)
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
    """Regularised least squares by conjugate gradients on the normal equations.

    Solves argmin_x ||A x - y||^2 + regularization ||x - x0||^2, that is

        (A^H A + regularization) x = A^H y + regularization x0.

    The unknown is x - x0 and the measurement y - A x0, so that the iteration starts at x0. For
    multi-coil MRI this is CG-SENSE; with x0 from a prior it is the proximal step of the data term.

    Args:
        operator: A.
        y: ``(B, *range_shape)`` measurement.
        regularization: 0 or more, one number or ``(B,)``. At 0 the result is the least-squares
            solution nearest to x0.
        x0: ``(B, *domain_shape)``, the start of the iteration and the centre of the penalty; zero
            by default.
        max_iterations: maximum number of products with A^H A, 0 or more.
        tolerance: residual of the normal equations, relative to A^H (y - A x0), at which a sample
            stops; at least `FLOOR` machine epsilons.

    Returns:
        The solution, iterations, relative residual and convergence of each sample. Running out
        of iterations raises no error; check `converged`.

    Raises:
        ValueError: a wrong shape, or a negative regularization, `max_iterations` or `tolerance`.
        TypeError: `y` or `x0` is real but should be complex, or the other way round.
    """
    if x0 is None:
        rhs = operator.adjoint(y)
    elif operator.fast_normal:
        rhs = operator.adjoint(y) - operator.normal(x0)
    else:
        rhs = operator.adjoint(y - operator.forward(x0))
    weight = expand(regularization_weight(regularization, rhs), rhs)  # (B or 1, 1, ...)
    solution = conjugate_gradient(
        lambda x: operator.normal(x) + weight * x,
        rhs,
        max_iterations=max_iterations,
        tolerance=tolerance,
        precondition=operator.normal_inverse(weight.reshape(-1)),
    )
    return solution if x0 is None else solution._replace(x=x0 + solution.x)


def regularization_weight(regularization: float | Tensor, like: Tensor) -> Tensor:
    """`regularization` in the precision and on the device of a batch: ``(1,)`` or ``(B,)``.

    Raises:
        ValueError: a wrong shape, or a negative value.
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
    """Operator norm ||A||, the largest singular value, by power iteration on A^H A.

    The estimate converges from below.

    Args:
        operator: A.
        metric: Hermitian, positive definite map M on measurements, whose norm is then
            sqrt(<r, M r>); None for the Euclidean norm.
        num_iterations: number of products with A^H M A, 1 or more.
        seed: seed of the start vector, the same for each sample, so that ``operator[i]`` gives the
            same number.
        dtype: precision, float32 or float64, also for complex images.
        device: device of the operator.

    Returns:
        ``(B,)`` if the operator has a `batch_size`, otherwise ``(1,)``.

    Raises:
        ValueError: `num_iterations` is below 1.
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
        if metric is None and operator.fast_normal:
            x = operator.normal(x)
        else:
            y = operator.forward(x)
            x = operator.adjoint(y if metric is None else metric(y))
        eigenvalue = norm(x)
    return eigenvalue.sqrt()


def frozen_ratio(numerator: Tensor, denominator: Tensor, active: Tensor) -> Tensor:
    """numerator / denominator ``(B,)`` in active samples, 0 in the others."""
    return torch.where(active, numerator / torch.where(active, denominator, 1.0), 0.0)


def frozen_update(base: Tensor, step: Tensor, direction: Tensor, active: Tensor) -> Tensor:
    """base + step * direction in active samples, base in the others: ``(B, ...)``."""
    return torch.where(expand(active, base), base + expand(step, base) * direction, base)


def _check_limits(rhs: Tensor, x0: Tensor | None, max_iterations: int, tolerance: float) -> None:
    if x0 is not None and x0.shape != rhs.shape:
        raise ValueError(f"expected x0 of shape {tuple(rhs.shape)}, got {tuple(x0.shape)}")
    if max_iterations < 0:
        raise ValueError(f"expected max_iterations of 0 or more, got {max_iterations}")
    if not tolerance >= 0:
        raise ValueError(f"expected a tolerance of 0 or more, got {tolerance}")
