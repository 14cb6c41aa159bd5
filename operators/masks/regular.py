"""Every n-th phase-encoding line."""

import numpy as np
from torch import Tensor

from operators.masks.sampling import (
    Shape,
    center_lines,
    check_acceleration,
    check_fraction,
    check_shape,
    from_lines,
)


def regular(
    shape: Shape,
    *,
    acceleration: float,
    center_fraction: float | None = None,
    seed: int | None = None,
    study: bool = False,
) -> Tensor:
    """Every `acceleration`-th line including the central one, optionally with a measured centre.

    Args:
        shape: (H, W); lines run along H, phase encoding along W.
        acceleration: spacing of the lines, a whole number. Central lines are added to these, so
            that the effective acceleration is lower.
        center_fraction: central lines divided by all; None for none.
        seed: not used, as nothing is drawn.
        study: not used.

    Returns:
        bool ``(H, W)``.

    Raises:
        ValueError: the acceleration is below 1 or not whole, or the fraction is outside [0, 1].
    """
    height, width = check_shape(shape)
    acceleration = check_acceleration(acceleration)
    if acceleration != int(acceleration):
        raise ValueError(
            f"expected a whole acceleration (spacing of lines) for regular, got {acceleration}; "
            "equispaced1d takes any"
        )
    lines = center_lines(width, check_fraction(center_fraction or 0))
    lines |= (np.arange(width) - width // 2) % int(acceleration) == 0
    return from_lines(lines, height)
