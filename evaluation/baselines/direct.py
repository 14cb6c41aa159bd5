"""Reconstructions in one step: zero filling and filtered back-projection."""

from torch import Tensor

from operators import LinearOperator
from operators.fbp import fbp as filtered_back_projection


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
    if operator.direct_name != "FBP":
        raise ValueError(f"expected a CT operator for fbp, got {type(operator).__name__}")
    return filtered_back_projection(operator, y)


def direct(operator: LinearOperator, y: Tensor) -> Tensor:
    """What a scanner would show (`LinearOperator.direct`); where warm starts begin."""
    return operator.direct(y)
