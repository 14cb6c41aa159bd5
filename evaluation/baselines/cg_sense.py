"""Least squares with a Tikhonov penalty, by conjugate gradients."""

from torch import Tensor

from evaluation.baselines.accelerated import squared_norm
from operators import LinearOperator
from operators.solvers import solve_normal_equations


def cg_sense(
    operator: LinearOperator,
    y: Tensor,
    *,
    weight: float = 0.0,
    max_iterations: int = 30,
    tolerance: float = 1e-4,
) -> Tensor:
    """CG-SENSE: argmin_x |A x - y|^2 + weight |A|^2 |x|^2 by conjugate gradients.

    If A A^H = 1 (single-coil Cartesian MRI of complex images) this is the zero-filled image divided
    by 1 + weight.

    Args:
        operator: measurement operator A.
        y: ``(B, *range_shape)`` measurement.
        weight: weight of the penalty in units of |A|^2, 0 or more. At 0, stopping early limits the
            noise.
        max_iterations: maximum number of products with A^H A.
        tolerance: relative residual of the normal equations at which a sample stops.

    Returns:
        ``(B, *domain_shape)``.

    Raises:
        ValueError: a wrong shape, or a negative `weight`, `max_iterations` or `tolerance`.

    Source: K. P. Pruessmann et al., Magn. Reson. Med. 46 (2001) 638-651.
    """
    regularization = weight * squared_norm(operator, y) if weight else 0.0
    solution = solve_normal_equations(
        operator,
        y,
        regularization=regularization,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    return solution.x
