"""Base class of data sets of volume slices, and the choice of slices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from datasets.sample import DataError, Sample, finite_range

SLICE_CHOICES = "all, central:N, first:N, range:A:B, range:A:B:STEP, spread:N"
NORMALIZATIONS = ("slice", "volume")


class SliceDataset(Dataset):
    """Base class of data sets whose items are slices of volumes.

    Sources are paths, or objects with a `name`. Slices of one source in a batch (``__getitems__``,
    which a `DataLoader` calls) are read together by the subclass's `read`.

    Args:
        slices: (source, index) of each item.
        normalize: whether to scale to [0, 1] over each "slice" or its "volume".
        skipped: reasons of what was left out of the data set.

    Attributes:
        hounsfield: factor and offset that turn values of the files into Hounsfield units; None
            where the data set does not know that they are CT, or in which unit.
        is_stack: whether slices of a source with successive numbers lie beside each other.
    """

    hounsfield: tuple[float, float] | None = None
    is_stack = True

    def __init__(
        self,
        slices: Sequence[tuple[Path, int]],
        *,
        normalize: str = "slice",
        skipped: Sequence[str] = (),
    ):
        self.slices = list(slices)
        self.normalize = normalize
        self.skipped = list(skipped)
        self._ranges: dict[Path, tuple[float, float]] = {}

    @property
    def keys(self) -> list[str]:
        """Keys of the items, such as ``"file1000001.h5:12"``."""
        return [f"{source.name}:{index}" for source, index in self.slices]

    @property
    def files(self) -> list[Path]:
        """Files of the items, each once."""
        return list(dict.fromkeys(source for source, _ in self.slices))

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, i: int) -> Sample:
        return self.__getitems__([i])[0]

    def __getitems__(self, items: Sequence[int]) -> list[Sample]:
        by_source: dict[Path, list[int]] = {}
        for i in items:
            source, index = self.slices[i]
            by_source.setdefault(source, []).append(index)
        samples = {source: iter(self.read(source, by_source[source])) for source in by_source}
        return [next(samples[self.slices[i][0]]) for i in items]

    def read(self, source: Path, indices: Sequence[int]) -> list[Sample]:
        """Samples of some slices of one source."""
        raise NotImplementedError

    def volume(self, source: Path) -> np.ndarray:
        """All slices of a source in their own unit."""
        raise NotImplementedError

    def bounds(self, source: Path) -> tuple[float, float] | None:
        """Range of the volume, which becomes [0, 1]; None if each slice is scaled by itself."""
        if self.normalize == "slice":
            return None
        if source not in self._ranges:
            self._ranges[source] = finite_range(self.volume(source), source.name)
        return self._ranges[source]


def choose_slices(slices: str, count: int, path: Path) -> range:
    """Indices of the slices that a choice such as "central:15" selects.

    Args:
        slices: "all" (or ""), "central:N", "first:N", "range:A:B" for A to B - 1
            ("range:A:B:STEP" for every STEP-th of them), or "spread:N" for N evenly spaced slices
            of the central half.
        count: number of slices of the volume.
        path: the volume, for errors.

    Raises:
        DataError: an unknown choice, or a volume with too few slices.
    """
    kind, *numbers = (slices or "all").split(":")
    expected = {"all": (0,), "central": (1,), "first": (1,), "range": (2, 3), "spread": (1,)}
    if len(numbers) not in expected.get(kind, ()) or not all(n.isdecimal() for n in numbers):
        raise DataError(f"unknown data.slices '{slices}'; known: {SLICE_CHOICES}")
    if kind == "all":
        return range(count)
    first, last, every = 0, int(numbers[0]), 1
    if kind == "range":
        first, last, every = map(int, [*numbers, 1][:3])
    if first >= last or every < 1:
        raise DataError(f"data.slices '{slices}' takes no slice; known: {SLICE_CHOICES}")
    needed = 2 * last if kind == "spread" else last
    if needed > count:
        raise DataError(
            f"{path}: expected at least {needed} slices for data.slices '{slices}', got {count}; "
            "ask for fewer or leave the file out"
        )
    if kind == "spread":
        step = count // needed
        start = (count - 1 - (last - 1) * step) // 2
        return range(start, start + last * step, step)
    shift = (count - last) // 2 if kind == "central" else 0
    return range(first + shift, last + shift, every)


def check_normalize(normalize: str) -> None:
    """Raise a DataError if `normalize` is not one of `NORMALIZATIONS`."""
    if normalize not in NORMALIZATIONS:
        raise DataError(f"unknown data.normalize '{normalize}'; known: {', '.join(NORMALIZATIONS)}")
