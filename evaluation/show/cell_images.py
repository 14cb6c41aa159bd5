"""Images of a results folder: targets, reconstructions and direct reconstructions."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from torch.utils.data import Dataset

from datasets import Sample, collate, create_dataset
from datasets.identity import describe_files, read_files
from evaluation.results.cells import CellResults
from evaluation.results.recon_file import open_reconstructions
from evaluation.run.measurements import measure, pose, targets
from evaluation.run.slices import measurement_hash
from operators import LinearOperator


class CellImages:
    """Images of a results folder by key: float32 ``(H, W)``, of complex images the magnitude.

    Args:
        cell: cell of the results folder; its config locates the data set of the targets.

    Raises:
        FileNotFoundError: the folder has no reconstructions yet.
        DataError: the data set is missing or damaged; raised on the first access to a target.
    """

    def __init__(self, cell: CellResults):
        self.cell = cell
        with open_reconstructions(cell.folder) as images:
            self.keys = [key for key in images if key in cell.rows]
        self.config = ConfigDict(cell.config)
        self._dataset: Dataset | None = None
        self._items: dict[str, int] = {}
        self._changed = False  # whether files of the data have changed since the evaluation
        self._last: Sample | None = None  # the sample that was read last
        self._stored_last: tuple[str | None, dict[str, np.ndarray]] = (None, {})  # and its images

    def reconstruction(self, key: str) -> np.ndarray:
        """Reconstruction of a slice."""
        return _real(self._stored(key)["reconstruction"])

    def std(self, key: str) -> np.ndarray | None:
        """Standard deviation over posterior samples of a slice; None if there was one sample."""
        return self.spread(key).get("std")

    def spread(self, key: str) -> dict[str, np.ndarray]:
        """How posterior samples of a slice differ; empty if there was one sample.

        Returns:
            `std`, and in newer folders the limits `quantile_05` and `quantile_95`, ``(H, W)`` each.
        """
        found = self._stored(key)
        return {name: image for name, image in found.items() if name != "reconstruction"}

    def target(self, key: str) -> np.ndarray:
        """Target of a slice, read from the data set."""
        return _real(targets(self.config, collate([self._sample(key)]))[0, 0].numpy())

    def direct(self, key: str) -> np.ndarray:
        """Direct reconstruction (zero-filled or FBP) of a slice, from its measurement."""
        problem = pose(self.config, measure(self.config, collate([self._sample(key)])))
        return _real(problem.restore(problem.direct)[0, 0].numpy())

    def operator(self, key: str) -> LinearOperator:
        """Operator that measured a slice."""
        return measure(self.config, collate([self._sample(key)])).operator

    def hounsfield(self, key: str) -> tuple[float, float] | None:
        """Factor and offset from values of a slice's images to Hounsfield units; None: no such."""
        sample = self._sample(key)
        known = getattr(self._dataset, "hounsfield", None)
        if known is None:
            return None
        (factor, offset), (low, high) = known, sample.scale
        return factor * (high - low), factor * low + offset

    def _stored(self, key: str) -> dict[str, np.ndarray]:
        if self._stored_last[0] != key:
            with open_reconstructions(self.cell.folder) as images:
                self._stored_last = key, images.all(key)
        return self._stored_last[1]

    def _sample(self, key: str) -> Sample:
        if self._last is not None and self._last.key == key:
            return self._last
        if self._dataset is None:
            # prepare_dataset would read all slices; here only a few are needed
            self._dataset = create_dataset(self.config.data, self.config.data.split)
            old = read_files(self.cell.folder / "files.csv")
            now = describe_files(self._dataset, self.config.data) if old else {}
            self._changed = any(old.get(name, what) != what for name, what in now.items())
            self._items = {name: i for i, name in enumerate(self._dataset.keys)}
        if key not in self._items:
            raise ValueError(f"{key}: not in the data set of {self.cell.folder}; has it moved?")
        sample = self._dataset[self._items[key]]
        hashed = self.cell.measured.get(key)
        if self._changed and hashed and measurement_hash(self.config, sample) != hashed:
            raise ValueError(
                f"{key}: has changed since {self.cell.folder} was made of it; bring the old data "
                "back, or evaluate again into another folder"
            )
        self._last = sample
        return sample


def common_keys(folders: Sequence[CellImages]) -> list[str]:
    """Keys of the slices that all folders have, in the order of the first folder.

    Raises:
        ValueError: there is none.
    """
    others = [set(folder.keys) for folder in folders[1:]]
    keys = [key for key in folders[0].keys if all(key in other for other in others)]
    if not keys:
        names = ", ".join(str(folder.cell.folder) for folder in folders)
        raise ValueError(f"expected slices that all folders have, got none in common: {names}")
    return keys


def _real(image: np.ndarray) -> np.ndarray:
    """Image as the metrics use it: the magnitude if complex; real images keep their sign."""
    return (np.abs(image) if np.iscomplexobj(image) else image).astype(np.float32)
