"""Reconstructions that need no prior: zero filling and CG-SENSE."""

from torch import Tensor

from operators.base import LinearOperator
from operators.solvers import solve_normal_equations


def zero_filled(operator: LinearOperator, y: Tensor) -> Tensor:
    """A^H y: what was not measured counts as 0. ``(B, *range_shape)`` to ``(B, *domain_shape)``."""
    return operator.adjoint(y)


def cg_sense(
    operator: LinearOperator,
    y: Tensor,
    *,
    regularization: float | Tensor = 0.0,
    max_iterations: int = 30,
    tolerance: float = 1e-4,
) -> Tensor:
    """argmin_x ||A x - y||^2 + regularization ||x||^2 by conjugate gradients.

    Pruessmann et al., Magn. Reson. Med. 46 (2001) 638-651. Without regularization the number of
    iterations is what keeps noise down where the coils hardly tell positions apart.

    Args:
        operator: `MultiCoilMRI`, or any other.
        y: ``(B, *range_shape)`` measurement.
        regularization: 0 or more, one number or ``(B,)``, in units of |S|^2 (1 for maps
            normalised as `MultiCoilMRI` expects them).
        max_iterations: products with A^H A at most.
        tolerance: relative residual of the normal equations at which a sample is finished.

    Returns:
        ``(B, *domain_shape)``. `solve_normal_equations` also says how it converged.
    """
    solution = solve_normal_equations(
        operator,
        y,
        regularization=regularization,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    return solution.x
