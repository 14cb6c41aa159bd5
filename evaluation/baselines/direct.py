"""Direct (non-iterative) reconstructions: zero filling, gridding, filtered back-projection."""

from torch import Tensor

from operators import LinearOperator

# names that operators give their direct reconstruction -> the baseline that it is
ZERO_FILLED, GRIDDED, FBP = "zero-filled", "gridded", "FBP"
DIRECT = {ZERO_FILLED: "zero_filled", GRIDDED: "gridded", FBP: "fbp"}


def check_direct(name: str, kind: type[LinearOperator], direct_name: str = "") -> None:
    """Raise a ValueError for a direct reconstruction that measurements of this kind do not have.

    Args:
        name: of a baseline; others than the direct ones pass.
        kind: class of the measurement operator.
        direct_name: of the operator's own direct reconstruction; "": that of its class.
    """
    own = direct_name or kind.direct_name
    if name == "zero_filled" and own == GRIDDED:
        raise ValueError(
            f"expected k-space on a grid for zero_filled, got {kind.__name__}; the direct "
            "reconstruction along a trajectory is gridded"
        )
    if name == "gridded" and own != GRIDDED:
        raise ValueError(
            f"expected k-space along a trajectory for gridded, got {kind.__name__}; its direct "
            f"reconstruction is called {own}"
        )
    if name == "fbp" and own != FBP:
        raise ValueError(f"expected a CT operator for fbp, got {kind.__name__}")


def zero_filled(operator: LinearOperator, y: Tensor) -> Tensor:
    """Zero-filled reconstruction A^H y of undersampled k-space.

    Args:
        operator: measurement operator A.
        y: ``(B, *range_shape)`` measurement.

    Returns:
        ``(B, *domain_shape)`` images.

    Raises:
        ValueError: k-space along a trajectory, whose A^H y is weighted by how densely positions lie
            and has no meaning as an image.
    """
    check_direct("zero_filled", type(operator), operator.direct_name)
    return operator.adjoint(y)


def gridded(operator: LinearOperator, y: Tensor) -> Tensor:
    """Gridded image of k-space along a trajectory: A^H of density-compensated data, scaled to fit.

    Args:
        operator: MRI along a trajectory.
        y: ``(B, *range_shape)`` measurement.

    Returns:
        ``(B, *domain_shape)`` images.

    Raises:
        ValueError: another operator.

    Source: J. I. Jackson et al., IEEE Trans. Med. Imaging 10 (1991) 473-478, here with the exact
    adjoint.
    """
    check_direct("gridded", type(operator), operator.direct_name)
    return operator.direct(y)


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
    check_direct("fbp", type(operator), operator.direct_name)
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
