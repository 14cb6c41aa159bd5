"""Phase-encoding lines drawn from a normal density, with a fully measured centre."""

import numpy as np
from torch import Tensor

from operators.masks.sampling import (
    Shape,
    center_lines,
    center_slice,
    check_acceleration,
    check_fraction,
    check_shape,
    check_study_seed,
    draw,
    from_lines,
)

STD = 15 / 128  # of the axis; Chung & Ye (2022), score-MRI's code
STUDY_DRAWS = 1.2  # draws per requested line, to compensate roughly for lines drawn twice


def gaussian1d(
    shape: Shape, *, seed: int, acceleration: float, center_fraction: float, study: bool = False
) -> Tensor:
    """Columns drawn from N(W // 2, (15/128 W)^2), and ``round(W * center_fraction)`` central ones.

    Args:
        shape: (H, W); lines run along H, phase encoding along W.
        seed: seed of the draw.
        acceleration: lines divided by measured lines, the centre included; at least 1.
        center_fraction: central lines divided by all.
        study: the study's own draw: 1.2 W / acceleration lines with replacement, then the
            centre, ``int(W * center_fraction)`` wide, so that the number of lines is random.

    Returns:
        bool ``(H, W)``, exactly ``round(W / acceleration)`` columns True unless `study`.
    """
    height, width = check_shape(shape)
    acceleration = check_acceleration(acceleration)
    center_fraction = check_fraction(center_fraction)
    if study:
        return from_lines(_study_lines(width, seed, acceleration, center_fraction), height)
    offset = (np.arange(width) - width // 2) / (STD * width)
    center = center_lines(width, center_fraction)
    return from_lines(draw(center, -(offset**2) / 2, acceleration=acceleration, seed=seed), height)


def _study_lines(width: int, seed: int, acceleration: float, fraction: float) -> np.ndarray:
    rng = np.random.RandomState(check_study_seed(seed))
    draws = int(width // acceleration * STUDY_DRAWS)
    position = rng.normal(width // 2, STD * width, size=draws)
    lines = np.zeros(width, dtype=bool)
    lines[position.astype(int).clip(0, width - 1)] = True
    lines[center_slice(width, int(width * fraction))] = True
    return lines
