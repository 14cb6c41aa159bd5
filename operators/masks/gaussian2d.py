"""Single positions of k-space drawn from a two-dimensional normal density."""

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

VARIANCE = 1.5 / 128  # of the axis squared; Chung & Ye (2022), score-MRI's code


def gaussian2d(
    shape: Shape,
    *,
    seed: int,
    acceleration: float,
    center_fraction: float | None = None,
    study: bool = False,
) -> Tensor:
    """Positions drawn from a normal density around the origin, variances 1.5/128 H^2 and W^2.

    Args:
        shape: (H, W).
        seed: seed of the draw.
        acceleration: positions divided by measured ones, the centre included; at least 1.
        center_fraction: side of the fully measured central block as a fraction of each axis; None
            for none.
        study: the study's own draw: H W / acceleration positions with replacement and no centre,
            so that far fewer are measured than requested (320 x 320 at "4x": 7.5x). Square only.

    Returns:
        bool ``(H, W)``, exactly ``round(H * W / acceleration)`` positions True unless `study`.
    """
    shape = check_shape(shape)
    acceleration = check_acceleration(acceleration)
    if study:
        return torch.from_numpy(_study_mask(check_square(shape), seed, acceleration))
    y, x = (np.arange(n) - n // 2 for n in shape)
    log_density = -((y[:, None] / shape[0]) ** 2 + (x / shape[1]) ** 2) / (2 * VARIANCE)  # (H, W)
    center = center_block(shape, check_fraction(center_fraction or 0))
    return torch.from_numpy(draw(center, log_density, acceleration=acceleration, seed=seed))


def _study_mask(size: int, seed: int, acceleration: float) -> np.ndarray:
    rng = np.random.RandomState(check_study_seed(seed))
    covariance = VARIANCE * size**2 * np.eye(2)
    draws = int(size**2 // acceleration)
    position = rng.multivariate_normal([size // 2] * 2, covariance, draws)  # (draws, 2)
    row, column = position.astype(int).clip(0, size - 1).T
    mask = np.zeros((size, size), dtype=bool)
    mask[row, column] = True
    return mask
