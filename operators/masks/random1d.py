"""fastMRI's random phase-encoding lines."""

import numpy as np
from torch import Tensor

from operators.masks.sampling import (
    Shape,
    center_lines,
    check_acceleration,
    check_fraction,
    check_shape,
    draw,
    from_lines,
)


def random1d(
    shape: Shape, *, seed: int, acceleration: float, center_fraction: float, study: bool = False
) -> Tensor:
    """fastMRI's random lines, with an exact number of lines.

    fastMRI (Zbontar et al., arXiv:1811.08839, `RandomMaskFunc`) measures the central
    ``round(W * center_fraction)`` lines, and each other line with a probability that gives
    W / acceleration lines on average. Here the number is exact; otherwise the distribution is the
    same, and equals that of `uniform1d`.

    Args:
        shape: (H, W); lines run along H, phase encoding along W.
        seed: seed of the draw.
        acceleration: lines divided by measured lines, the centre included; at least 1.
        center_fraction: central lines divided by all.
        study: not used, as the study has no such mask.

    Returns:
        bool ``(H, W)``, exactly ``round(W / acceleration)`` columns True.
    """
    height, width = check_shape(shape)
    acceleration = check_acceleration(acceleration)
    center = center_lines(width, check_fraction(center_fraction))
    return from_lines(draw(center, np.zeros(width), acceleration=acceleration, seed=seed), height)
