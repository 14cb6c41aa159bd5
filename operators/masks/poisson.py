"""Variable-density Poisson-disc sampling (sigpy)."""

import numpy as np
import torch
from torch import Tensor

from operators.masks.sampling import (
    Shape,
    center_block,
    check_acceleration,
    check_fraction,
    check_shape,
    count_outside,
)

STUDY_SEED = 0  # sigpy's default, which the study used
STUDY_TOLERANCE = 0.1  # of the acceleration; sigpy's default, which the study used
BISECTIONS = 20
SURPLUS = 1.02  # the search stops at up to this multiple of the requested count
ATTEMPTS = 30  # number of tries for a new position near a taken one; sigpy's default


def poisson(
    shape: Shape,
    *,
    seed: int,
    acceleration: float,
    center_fraction: float | None = None,
    study: bool = False,
) -> Tensor:
    """Variable-density Poisson-disc sampling without corners.

    Positions are at least 1 + s r apart, where r is the distance from the origin and s is found by
    bisection. As the number of discs cannot be set exactly, slightly too many are drawn (Bridson,
    SIGGRAPH sketches 2007, in sigpy's implementation) and the excess is dropped at random.

    Args:
        shape: (H, W).
        seed: seed of the draw.
        acceleration: positions divided by measured ones, corners and centre included.
        center_fraction: side of the fully measured central block as a fraction of each axis; None
            for none.
        study: the mask of `sigpy.mri.poisson` with its own seed 0 (`seed` is not used), without a
            centre and with an acceleration accurate to 0.1.

    Returns:
        bool ``(H, W)``, exactly ``round(H * W / acceleration)`` positions True unless `study`.

    Raises:
        ValueError: more positions are requested than discs allow (acceleration below about 1.7),
            or, with `study`, no mask is within the tolerance.
    """
    shape = check_shape(shape)
    acceleration = check_acceleration(acceleration)
    if study:
        return torch.from_numpy(_study_mask(shape, acceleration))
    center = center_block(shape, check_fraction(center_fraction or 0))
    count = count_outside(center, acceleration)
    mask = _search(_radius(center), center, count, seed)
    dropped = np.random.default_rng(seed).permutation(np.flatnonzero(mask & ~center))[count:]
    mask.reshape(-1)[dropped] = False
    return torch.from_numpy(mask)


def _radius(center: np.ndarray) -> np.ndarray:
    """Distance ``(H, W)`` from the central block; 1 at the middle of each edge."""
    squares = []
    for axis in (0, 1):
        size = center.shape[axis]
        distance = abs(np.arange(size) - size // 2) - center.any(1 - axis).sum() / 2
        squares.append((distance.clip(0) / max(distance.max(), 1)) ** 2)
    return np.sqrt(squares[0][:, None] + squares[1])  # (H, W)


def _study_mask(shape: Shape, acceleration: float) -> np.ndarray:
    radius = _radius(np.zeros(shape, dtype=bool))
    low, high = 0.0, float(max(shape))
    for _ in range(BISECTIONS):
        slope = (low + high) / 2
        mask = _discs(radius, slope, STUDY_SEED)
        reached = mask.size / max(mask.sum(), 1)
        if abs(reached - acceleration) < STUDY_TOLERANCE:
            return mask
        low, high = (slope, high) if reached < acceleration else (low, slope)
    raise ValueError(
        f"expected an acceleration that sigpy's search reaches at {shape}, got {acceleration}; "
        "use study=False"
    )


def _search(radius: np.ndarray, center: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sparsest mask found that has the centre and at least `count` positions outside it."""
    best = _discs(radius, 0.0, seed) & ~center
    if best.sum() < count:
        raise ValueError(
            f"expected at most {best.sum()} positions (as many as discs and corners leave) outside "
            f"the centre, got {count}; raise acceleration or use gaussian2d"
        )
    low, high = 0.0, float(max(radius.shape))
    for _ in range(BISECTIONS):
        slope = (low + high) / 2
        mask = _discs(radius, slope, seed) & ~center
        if mask.sum() < count:
            high = slope
        else:
            low, best = slope, mask
            if mask.sum() <= SURPLUS * count:
                break
    return best | center


def _discs(radius: np.ndarray, slope: float, seed: int) -> np.ndarray:
    # sigpy's public function bisects until it meets its tolerance, and may never end.
    from sigpy.mri.samp import _poisson  # compiles: seconds, so only where needed

    height, width = radius.shape
    distance = (1 + slope * radius) / max(height, width)
    x, y = (distance * width).clip(1), (distance * height).clip(1)
    return (_poisson(width, height, ATTEMPTS, x, y, (0, 0), seed % 2**32) != 0) & (radius < 1)
