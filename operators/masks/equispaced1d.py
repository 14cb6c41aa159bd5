"""fastMRI's equispaced phase-encoding lines."""

import numpy as np
from torch import Tensor

from operators.masks.sampling import (
    Shape,
    center_lines,
    check_acceleration,
    check_fraction,
    check_shape,
    count_outside,
    from_lines,
)


def equispaced1d(
    shape: Shape, *, seed: int, acceleration: float, center_fraction: float, study: bool = False
) -> Tensor:
    """Equally spaced lines from a random offset, and a fully measured centre.

    As documented for fastMRI's `EquispacedMaskFractionFunc` (arXiv:1811.08839): there are exactly
    ``n = round(W * center_fraction)`` central lines, and the others are spaced by
    (W - n) / (W / acceleration - n), so that the acceleration includes the centre. The spacing is
    rarely an integer; positions are rounded down and counted over the lines outside the centre,
    which makes the total exact.

    Args:
        shape: (H, W); lines run along H, phase encoding along W.
        seed: seed of the offset.
        acceleration: lines divided by measured lines, the centre included; at least 1.
        center_fraction: central lines divided by all.
        study: not used, as the study has no such mask.

    Returns:
        bool ``(H, W)``, exactly ``round(W / acceleration)`` columns True.
    """
    height, width = check_shape(shape)
    lines = center_lines(width, check_fraction(center_fraction))
    count = count_outside(lines, check_acceleration(acceleration))
    outside = np.flatnonzero(~lines)
    offset = np.random.default_rng(seed).random()
    lines[
        outside[np.floor((np.arange(count) + offset) * len(outside) / max(count, 1)).astype(int)]
    ] = True
    return from_lines(lines, height)
