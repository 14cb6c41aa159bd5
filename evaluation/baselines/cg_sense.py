"""Least squares with a Tikhonov penalty, by conjugate gradients."""

from torch import Tensor

from evaluation.baselines.accelerated import squared_norm
from operators import LinearOperator, sense


def cg_sense(
    operator: LinearOperator,
    y: Tensor,
    *,
    weight: float = 0.0,
    max_iterations: int = 30,
    tolerance: float = 1e-4,
) -> Tensor:
    """argmin_x |A x - y|^2 + weight |A|^2 |x|^2; CG-SENSE where the operator has coils.

    Pruessmann et al., Magn. Reson. Med. 46 (2001) 638-651. Where A A^H = 1 (single-coil Cartesian
    MRI of complex images) this is zero filling over 1 + weight.

    Args:
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        weight: 0 or more, in units of |A|^2. At 0, ending early is what keeps noise down.
        max_iterations: products with A^H A at most.
        tolerance: relative residual of the normal equations at which a sample is finished.

    Returns:
        ``(B, *domain_shape)``.
    """
    regularization = weight * squared_norm(operator, y) if weight else 0.0
    return sense.cg_sense(
        operator,
        y,
        regularization=regularization,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
