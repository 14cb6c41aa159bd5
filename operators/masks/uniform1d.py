"""Phase-encoding lines drawn uniformly, with a fully measured centre."""

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


def uniform1d(
    shape: Shape, *, seed: int, acceleration: float, center_fraction: float, study: bool = False
) -> Tensor:
    """Columns drawn uniformly, and ``round(W * center_fraction)`` central ones.

    Args:
        shape: (H, W); lines run along H, phase encoding along W.
        seed: seed of the draw.
        acceleration: lines divided by measured lines, the centre included; at least 1.
        center_fraction: central lines divided by all.
        study: the study's own draw, with replacement (Chung & Ye, 2022, score-MRI's code).

    Returns:
        bool ``(H, W)``, exactly ``round(W / acceleration)`` columns True unless `study`.
    """
    height, width = check_shape(shape)
    acceleration = check_acceleration(acceleration)
    center_fraction = check_fraction(center_fraction)
    if study:
        return from_lines(_study_lines(width, seed, acceleration, center_fraction), height)
    center = center_lines(width, center_fraction)
    return from_lines(draw(center, np.zeros(width), acceleration=acceleration, seed=seed), height)


def _study_lines(width: int, seed: int, acceleration: float, fraction: float) -> np.ndarray:
    rng = np.random.RandomState(check_study_seed(seed))
    num_center = int(width * fraction)
    draws = int(width // acceleration) - num_center
    if draws < 0:
        raise ValueError(
            f"expected center_fraction <= 1 / acceleration, got {fraction} at {acceleration}"
        )
    lines = np.zeros(width, dtype=bool)
    lines[rng.choice(width, draws)] = True
    lines[center_slice(width, num_center)] = True
    return lines
