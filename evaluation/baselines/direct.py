"""Direct (non-iterative) reconstructions: zero filling and filtered back-projection."""

from torch import Tensor

from operators import LinearOperator


def zero_filled(operator: LinearOperator, y: Tensor) -> Tensor:
    """Zero-filled reconstruction A^H y of undersampled k-space.

    Args:
        operator: measurement operator A.
        y: ``(B, *range_shape)`` measurement.

    Returns:
        ``(B, *domain_shape)`` images.
    """
    return operator.adjoint(y)


def fbp(operator: LinearOperator, y: Tensor) -> Tensor:
    """Filtered back-projection with the ramp filter (`operators.fbp`).

    Args:
        operator: one of CT, perhaps with weights, which have no effect.
        y: ``(B, *range_shape)`` measurement.

    Returns:
        ``(B, *domain_shape)`` images.

    Raises:
        ValueError: the operator is not one of CT.
    """
    if operator.direct_name != "FBP":
        raise ValueError(f"expected a CT operator for fbp, got {type(operator).__name__}")
    return operator.direct(y)


def direct(operator: LinearOperator, y: Tensor) -> Tensor:
    """Direct reconstruction of an operator, the initial image of warm starts.

    Args:
        operator: measurement operator.
        y: ``(B, *range_shape)`` measurement.

    Returns:
        ``(B, *domain_shape)``; see `LinearOperator.direct`.
    """
    return operator.direct(y)
