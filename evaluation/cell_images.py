"""The images behind a results folder: targets, reconstructions, and what a scanner would show."""

from collections.abc import Sequence

import h5py
import numpy as np
from ml_collections import ConfigDict
from torch.utils.data import Dataset

from datasets import create_dataset
from evaluation.baselines import direct
from evaluation.cells import Cell
from evaluation.measurements import build_operator


class CellImages:
    """Images of a results folder by key, ``(H, W)`` float32; of complex ones the magnitude.

    Args:
        cell: a results folder; its config says where the targets are.

    Raises:
        ValueError: no reconstructions there; DataError: as the data set.
    """

    def __init__(self, cell: Cell):
        self.cell = cell
        self.path = cell.folder / "recon.h5"
        if not self.path.is_file():
            raise ValueError(
                f"{cell.folder}: no recon.h5; run evaluation.evaluate to its end, which writes it"
            )
        with h5py.File(self.path) as file:
            self.places = {key: i for i, key in enumerate(file["key"].asstr()[()])}
        self.config = ConfigDict(cell.config)
        self._dataset: Dataset | None = None
        self._items: dict[str, int] = {}

    @property
    def keys(self) -> list[str]:
        """CellImages that have a reconstruction and their metrics."""
        return [key for key in self.places if key in self.cell.rows]

    def reconstruction(self, key: str) -> np.ndarray:
        """The reconstruction of a slice."""
        with h5py.File(self.path) as file:
            return _magnitude(file["reconstruction"][self.places[key]])

    def target(self, key: str) -> np.ndarray:
        """The slice itself, out of the data set."""
        return _magnitude(self._sample(key).image[0].numpy())

    def direct(self, key: str) -> np.ndarray:
        """Zero-filled or FBP of the slice's noise-free measurement, made again."""
        image = self._sample(key).image[None]  # (1, 1, H, W)
        operator = build_operator(self.config, tuple(image.shape[-2:]), [key])
        return _magnitude(direct(operator, operator.forward(image))[0, 0].numpy())

    def _sample(self, key: str):
        if self._dataset is None:
            # not prepare_dataset: a few slices are read, all of which were read before
            self._dataset = create_dataset(self.config.data, self.config.data.split)
            self._items = {name: i for i, name in enumerate(self._dataset.keys)}
        if key not in self._items:
            raise ValueError(f"{key}: not in the data set of {self.cell.folder}; has it moved?")
        return self._dataset[self._items[key]]


def common_keys(folders: Sequence[CellImages]) -> list[str]:
    """CellImages that all folders have, in the first one's order.

    Raises:
        ValueError: there is none.
    """
    others = [set(folder.keys) for folder in folders[1:]]
    keys = [key for key in folders[0].keys if all(key in other for other in others)]
    if not keys:
        names = ", ".join(str(folder.cell.folder) for folder in folders)
        raise ValueError(f"expected slices that all folders have, got none in common: {names}")
    return keys


def _magnitude(image: np.ndarray) -> np.ndarray:
    """As the metrics see it: real images keep their sign."""
    return (np.abs(image) if np.iscomplexobj(image) else image).astype(np.float32)
