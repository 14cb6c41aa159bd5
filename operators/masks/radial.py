"""Radial spokes on the Cartesian grid."""

import math

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
)

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2  # 111.25 degrees; Winkelmann et al., TMI 2007


def radial(
    shape: Shape,
    *,
    acceleration: float | None = None,
    center_fraction: float | None = None,
    num_spokes: int | None = None,
    seed: int | None = None,
    study: bool = False,
) -> Tensor:
    """Radial spokes through the centre, ``pi / num_spokes`` apart, the first along W.

    Angles are measured in the plane of frequencies in cycles per pixel, so that every spoke
    crosses all of k-space even if H is not W.

    Args:
        shape: (H, W).
        acceleration: positions divided by measured ones; the number of spokes is chosen to come
            nearest. Not used if `num_spokes` is given.
        center_fraction: side of the fully measured central block as a fraction of each axis; None
            for none.
        num_spokes: number of full spokes, from edge to edge.
        seed: not used, as nothing is drawn.
        study: whether to draw spokes as the study does: a line through row ``H // 2``, rotated by
            nearest-neighbour interpolation and thinned, without central block. Square only.

    Returns:
        bool ``(H, W)``.

    Raises:
        ValueError: neither `acceleration` nor `num_spokes`, or one of them below 1, a fraction
            outside [0, 1], or `study` with a shape that is not square.
    """
    return _radial(shape, acceleration, center_fraction, num_spokes, None, study)


def radial_golden(
    shape: Shape,
    *,
    acceleration: float | None = None,
    center_fraction: float | None = None,
    num_spokes: int | None = None,
    seed: int | None = None,
    study: bool = False,
) -> Tensor:
    """Radial spokes through the centre, the golden angle (111.25 degrees) apart.

    Args:
        shape: (H, W).
        acceleration: positions divided by measured ones; the number of spokes is chosen to come
            nearest. Not used if `num_spokes` is given.
        center_fraction: side of the fully measured central block as a fraction of each axis; None
            for none.
        num_spokes: number of full spokes, from edge to edge.
        seed: not used, as nothing is drawn.
        study: whether to draw spokes as the study does (see `radial`). Square only.

    Returns:
        bool ``(H, W)``.

    Raises:
        ValueError: neither `acceleration` nor `num_spokes`, or one of them below 1, a fraction
            outside [0, 1], or `study` with a shape that is not square.

    Source: S. Winkelmann et al., IEEE Trans. Med. Imaging 26 (2007) 68-76.
    """
    return _radial(shape, acceleration, center_fraction, num_spokes, GOLDEN_ANGLE, study)


def _radial(
    shape: Shape,
    acceleration: float | None,
    center_fraction: float | None,
    num_spokes: int | None,
    step: float | None,
    study: bool,
) -> Tensor:
    shape = check_shape(shape)
    center = center_block(shape, check_fraction(center_fraction or 0))
    if num_spokes is None:
        num_spokes = _nearest(shape, check_acceleration(acceleration), center, step)
    elif num_spokes < 1 or num_spokes != int(num_spokes):
        raise ValueError(f"expected a whole num_spokes >= 1, got {num_spokes}")
    if study:
        return torch.from_numpy(_study_mask(check_square(shape), _angles(num_spokes, step)))
    return torch.from_numpy(center | _spokes(shape, _angles(num_spokes, step)))


def _angles(num_spokes: int, step: float | None) -> np.ndarray:
    """Angles of the spokes in radians from the W axis."""
    return np.arange(num_spokes) * (math.pi / num_spokes if step is None else step)


def _nearest(shape: Shape, acceleration: float, center: np.ndarray, step: float | None) -> int:
    """Number of spokes whose acceleration is nearest to the requested one, by bisection."""
    target = center.size / acceleration
    low, high = 1, 4 * max(shape)  # more than are needed to cover all positions

    def count(num_spokes: int) -> int:
        return int((center | _spokes(shape, _angles(num_spokes, step))).sum())

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= target else (low, middle)
    return min(low, high, key=lambda n: abs(count(n) - target))


def _spokes(shape: Shape, angles: np.ndarray) -> np.ndarray:
    """Lines one position wide through ``(H // 2, W // 2)``, edge to edge: bool ``(H, W)``."""
    mask = np.zeros(shape, dtype=bool)
    rows, columns = (np.arange(n) - n // 2 for n in shape)
    for angle in angles:
        dy, dx = shape[0] * math.sin(angle), shape[1] * math.cos(angle)
        if abs(dx) >= abs(dy):  # one position per column, otherwise one per row: no gaps
            y, x = np.rint(columns * dy / dx).astype(int), columns
        else:
            y, x = rows, np.rint(rows * dx / dy).astype(int)
        y, x = y + shape[0] // 2, x + shape[1] // 2
        inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
        mask[y[inside], x[inside]] = True
    return mask


def _study_mask(size: int, angles: np.ndarray) -> np.ndarray:
    from skimage.morphology import skeletonize
    from skimage.transform import rotate

    line = np.zeros((size, size), dtype=bool)
    line[size // 2] = True
    mask = np.zeros_like(line)
    for angle in angles:
        # The line rotated by nearest-neighbour interpolation is up to 2 wide, hence the thinning.
        mask |= skeletonize(rotate(line, np.rad2deg(angle), mode="wrap").astype(bool))
    return mask
