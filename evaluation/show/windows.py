"""Units in which images are shown, windows to look through, and the full scale of maps."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HU = "HU"
RANGE = "parts of the slice's range"  # unit of images whose own one is not known
TYPICAL_LARGE = 99.5  # percentile of a map that its full scale is to be like


class Window(NamedTuple):
    """Grey levels: black at level - width / 2, white at level + width / 2."""

    name: str
    level: float
    width: float


# usual ones of radiology, in Hounsfield units
CT_WINDOWS = (
    Window("soft tissue", 40, 400),
    Window("lung", -600, 1500),
    Window("bone", 400, 1800),
    Window("brain", 40, 80),
)
FULL = Window("full range", 0.5, 1.0)


def windows(unit: str, low: float, high: float) -> list[Window]:
    """Windows to choose from, the one to begin with first.

    Of CT they are those of `CT_WINDOWS` whose level the images reach, and their whole range, which
    comes first if they were clipped to little; of images without a unit the range from 0 to 1, of
    others the whole one.

    Args:
        unit: `HU`, `RANGE` or another unit, in words.
        low: smallest value of the images, in this unit.
        high: largest value.
    """
    if unit == RANGE:
        return [FULL]
    whole = Window(FULL.name, (low + high) / 2, (high - low) or 1.0)
    if unit != HU:
        return [whole]
    inside = [w for w in CT_WINDOWS if low < w.level < high]
    if whole.width < CT_WINDOWS[0].width:  # images that were clipped to a window of their own
        return [whole, *(w for w in inside if w.width <= whole.width)]
    return [*inside, whole]


def full_scale(maps: Sequence[np.ndarray]) -> float:
    """Full scale of maps: the 1, 2 or 5 times a power of ten that is nearest to their large values.

    Those are the median over the maps of `TYPICAL_LARGE` per cent; nearest is by the ratio.

    Args:
        maps: ``(H, W)`` each, not negative.

    Returns:
        A positive number; 1 if all maps are 0.
    """
    needed = float(np.median([np.percentile(image, TYPICAL_LARGE) for image in maps]))
    if not (needed > 0 and math.isfinite(needed)):
        return 1.0
    power = math.floor(math.log10(needed))
    steps = [float(f"{step}e{power}") for step in (1, 2, 5, 10)]
    return min(steps, key=lambda step: abs(math.log(step / needed)))
