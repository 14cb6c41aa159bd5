"""What the viewer of a report shows: images of slices, what they are compared with, their unit."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.show.undecided import undecided


def _nothing(*_) -> Mapping:
    return {}


class Shown(NamedTuple):
    """An image that every slice has.

    Attributes:
        title: its name.
        image: key of a slice -> its image ``(H, W)``, float32.
        spread: key -> how its posterior samples differ, ``(H, W)`` each: `std`, and where they are
            known `quantile_05` and `quantile_95`; empty if there was one sample.
        metrics: key, image and reference -> metrics by name.
        is_direct: whether it was made without prior or regularisation, so that it is an order
            farther from the truth than the others.
    """

    title: str
    image: Callable[[str], np.ndarray]
    spread: Callable[[str], Mapping[str, np.ndarray]] = _nothing
    metrics: Callable[[str, np.ndarray, np.ndarray], Mapping[str, float]] = _nothing
    is_direct: bool = False

    def maps(self, key: str, image: np.ndarray) -> dict[str, np.ndarray]:
        """How posterior samples differ, ``(H, W)`` each: std, width from 5 to 95 %, undecided part.

        Args:
            key: key of the slice.
            image: its image.

        Returns:
            Empty if there was one sample; without the width where there are no quantiles.
        """
        spread = self.spread(key)
        if "std" not in spread:
            return {}
        found = {"std": spread["std"]}
        if {"quantile_05", "quantile_95"} <= spread.keys():
            found["width"] = spread["quantile_95"] - spread["quantile_05"]
        return found | {"undecided": undecided(image, spread["std"])}


class Gallery(NamedTuple):
    """Images of the same slices, side by side.

    Attributes:
        keys: keys of the slices.
        shown: the images; the others are compared with the first, at first.
        unit: unit in which they are shown, see `evaluation.show.windows.windows`.
        values: key -> factor and offset from the images of a slice, whose range is about 0 to 1, to
            the unit.
        metrics: names of the metrics against the first image (of `results.cells.METRICS`); empty if
            it is no truth.
        lead: number of the image whose values set windows, and which small pictures are of.
        left: number of the image on the left of the slider, at first.
        right: number of that on the right.
        map: name of the map that is shown at first, where there is one.
    """

    keys: Sequence[str]
    shown: Sequence[Shown]
    unit: str
    values: Callable[[str], tuple[float, float]]
    metrics: Sequence[str] = ()
    lead: int = 0
    left: int = 0
    right: int = 1
    map: str = "size"
