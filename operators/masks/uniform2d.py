"""Single positions of k-space drawn uniformly."""

import numpy as np
import torch
from torch import Tensor

from operators.masks.sampling import (
    Shape,
    center_block,
    check_acceleration,
    check_fraction,
    check_shape,
    check_square,
    check_study_seed,
    draw,
)


def uniform2d(
    shape: Shape,
    *,
    seed: int,
    acceleration: float,
    center_fraction: float | None = None,
    study: bool = False,
) -> Tensor:
    """Positions drawn uniformly from all of k-space.

    Args:
        shape: (H, W).
        seed: seed of the draw.
        acceleration: positions divided by measured ones, the centre included; at least 1.
        center_fraction: side of the fully measured central block as a fraction of each axis; None
            for none.
        study: the study's own draw: H W / acceleration positions with replacement and no centre
            (Chung & Ye, 2022, score-MRI's code). Square only.

    Returns:
        bool ``(H, W)``, exactly ``round(H * W / acceleration)`` positions True unless `study`.
    """
    shape = check_shape(shape)
    acceleration = check_acceleration(acceleration)
    if study:
        return torch.from_numpy(_study_mask(check_square(shape), seed, acceleration))
    center = center_block(shape, check_fraction(center_fraction or 0))
    return torch.from_numpy(draw(center, np.zeros(shape), acceleration=acceleration, seed=seed))


def _study_mask(size: int, seed: int, acceleration: float) -> np.ndarray:
    rng = np.random.RandomState(check_study_seed(seed))
    mask = np.zeros(size**2, dtype=bool)
    mask[rng.choice(size**2, int(size**2 // acceleration))] = True
    return mask.reshape(size, size)  # (H, W)
