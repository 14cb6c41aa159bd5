"""Reconstructions without a prior: zero filling and CG-SENSE."""

from torch import Tensor

from operators.base import LinearOperator
from operators.solvers import solve_normal_equations


def zero_filled(operator: LinearOperator, y: Tensor) -> Tensor:
    """Zero-filled reconstruction A^H y: ``(B, *range_shape)`` to ``(B, *domain_shape)``."""
    return operator.adjoint(y)


def cg_sense(
    operator: LinearOperator,
    y: Tensor,
    *,
    regularization: float | Tensor = 0.0,
    max_iterations: int = 30,
    tolerance: float = 1e-4,
) -> Tensor:
    """CG-SENSE: argmin_x ||A x - y||^2 + regularization ||x||^2 by conjugate gradients.

    Without regularization, stopping early limits the noise where the coils hardly distinguish
    positions.

    Args:
        operator: A, usually `MultiCoilMRI`.
        y: ``(B, *range_shape)`` measurement.
        regularization: 0 or more, one number or ``(B,)``, in units of sum_c |S_c|^2 (1 for maps
            normalised as `MultiCoilMRI` expects them).
        max_iterations: maximum number of products with A^H A.
        tolerance: relative residual of the normal equations at which a sample stops.

    Returns:
        ``(B, *domain_shape)``. Use `solve_normal_equations` to also get its convergence.

    Raises:
        ValueError: a wrong shape, a negative regularization, iterations or tolerance.
        TypeError: `y` is real but should be complex, or the other way round.

    Source: K. P. Pruessmann et al., Magn. Reson. Med. 46 (2001) 638-651.
    """
    solution = solve_normal_equations(
        operator,
        y,
        regularization=regularization,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    return solution.x
