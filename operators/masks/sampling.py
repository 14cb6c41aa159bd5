"""Functions shared by the masks: checks, the fully measured centre, draws without replacement."""

import math
import numbers

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, int]


def check_shape(shape: Shape) -> Shape:
    """`shape` as two ints (H, W); ValueError where it is not two positive whole numbers."""
    try:
        sides = tuple(shape)
    except TypeError:
        sides = (shape,)
    whole = all(isinstance(n, numbers.Integral) and n > 0 for n in sides)
    if len(sides) != 2 or not whole:
        raise ValueError(f"expected a shape (H, W) of two positive ints, got {shape!r}")
    return int(sides[0]), int(sides[1])


def check_acceleration(acceleration: float | None) -> float:
    """`acceleration` as a float; ValueError where it is missing or below 1."""
    if acceleration is None:
        raise ValueError("expected an acceleration (positions divided by measured ones), got None")
    if not math.isfinite(acceleration) or acceleration < 1:
        raise ValueError(
            f"expected acceleration >= 1 (positions divided by measured ones), got {acceleration}; "
            "to measure a fraction f of k-space, pass 1 / f"
        )
    return float(acceleration)


def check_fraction(center_fraction: float | None) -> float:
    """`center_fraction` as a float in [0, 1]; ValueError where it is missing or outside."""
    if center_fraction is None:
        raise ValueError("expected a center_fraction between 0 and 1, got None; 0 for no centre")
    if not 0 <= center_fraction <= 1:
        raise ValueError(f"expected center_fraction between 0 and 1, got {center_fraction}")
    return float(center_fraction)


def check_study_seed(seed: int) -> int:
    """`seed` as an int for NumPy's legacy generator; ValueError outside 32 bits."""
    if not 0 <= seed < 2**32:
        raise ValueError(
            f"expected a seed below 2**32 for study=True (NumPy's legacy generator), got {seed}"
        )
    return int(seed)


def check_square(shape: Shape) -> int:
    """The side of a square `shape`; ValueError otherwise, as the study's 2-D masks are square."""
    if shape[0] != shape[1]:
        raise ValueError(f"expected a square shape for study=True, got {shape}; use study=False")
    return shape[0]


def center_slice(size: int, count: int) -> slice:
    """The `count` positions around the origin ``size // 2`` of a centred axis."""
    start = size // 2 - count // 2
    return slice(start, start + count)


def center_lines(width: int, center_fraction: float) -> np.ndarray:
    """The ``round(W * center_fraction)`` central lines, as in fastMRI: bool ``(W,)``."""
    lines = np.zeros(width, dtype=bool)
    lines[center_slice(width, round(width * center_fraction))] = True
    return lines


def center_block(shape: Shape, center_fraction: float) -> np.ndarray:
    """Centred block of ``round(H * fraction)`` by ``round(W * fraction)``: bool ``(H, W)``."""
    block = np.zeros(shape, dtype=bool)
    rows, columns = (center_slice(n, round(n * center_fraction)) for n in shape)
    block[rows, columns] = True
    return block


def count_outside(center: np.ndarray, acceleration: float) -> int:
    """Number of positions to measure outside `center` for ``round(N / acceleration)`` in total.

    Raises:
        ValueError: the centre alone has more, or nothing would be measured.
    """
    total, measured = round(center.size / acceleration), int(center.sum())
    if total == 0:
        raise ValueError(
            f"expected acceleration to leave at least one of {center.size} positions, "
            f"got {acceleration}"
        )
    if measured > total:
        raise ValueError(
            f"expected a centre of at most {total} of {center.size} positions at acceleration "
            f"{acceleration}, got {measured}; lower center_fraction or acceleration"
        )
    return total - measured


def draw(
    center: np.ndarray, log_density: np.ndarray, *, acceleration: float, seed: int
) -> np.ndarray:
    """Random mask with a measured centre, drawn without replacement to an exact acceleration.

    Drawing positions one after another in proportion to their density is equivalent to taking the
    largest values of log density + Gumbel noise (Efraimidis & Spirakis, Inf. Process. Lett. 2006,
    in logarithmic form, which cannot underflow).

    Args:
        center: bool array of the positions that are always measured.
        log_density: log density up to a constant, of the same shape.
        acceleration: positions divided by measured ones, the centre included.
        seed: seed of a generator used only for this mask.

    Returns:
        bool array of the shape of `center` with exactly ``round(N / acceleration)`` True.
    """
    count = count_outside(center, acceleration)
    keys = log_density + np.random.default_rng(seed).gumbel(size=center.shape)
    keys[center] = -np.inf
    chosen = np.argsort(keys, axis=None, kind="stable")[keys.size - count :]
    mask = center.copy()
    mask.reshape(-1)[chosen] = True
    return mask


def from_lines(lines: np.ndarray, height: int) -> Tensor:
    """Mask ``(H, W)`` of whole columns, from the measured phase-encoding lines, bool ``(W,)``."""
    return torch.from_numpy(np.tile(lines, (height, 1)))  # (H, W)
