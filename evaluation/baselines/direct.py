"""Reconstructions in one step: zero filling and filtered back-projection."""

from torch import Tensor

from operators import FanBeamCT, LinearOperator, ParallelBeamCT
from operators.fbp import fbp as filtered_back_projection
from operators.sense import zero_filled


def fbp(operator: LinearOperator, y: Tensor) -> Tensor:
    """Filtered back-projection with the ramp filter (`operators.fbp`).

    Args:
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.

    Returns:
        ``(B, *domain_shape)`` images.

    Raises:
        ValueError: not a CT operator.
    """
    if not isinstance(operator, ParallelBeamCT | FanBeamCT):
        raise ValueError(f"expected a CT operator for fbp, got {type(operator).__name__}")
    return filtered_back_projection(operator, y)


def direct(operator: LinearOperator, y: Tensor) -> Tensor:
    """`fbp` for CT, else `zero_filled`: what a scanner would show; where warm starts begin."""
    is_ct = isinstance(operator, ParallelBeamCT | FanBeamCT)
    return fbp(operator, y) if is_ct else zero_filled(operator, y)
