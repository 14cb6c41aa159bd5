"""Image quality of whole volumes as on fastMRI's leaderboard: ``volumes.csv``.

The name of a volume is the part of a slice's key before the last colon: a scan in fastMRI, a file
of up to 128 slices in LoDoPaB, or a single picture. Metrics are of the slices that were evaluated.
If each slice is scaled to [0, 1] (``data.normalize=slice``, as in the study), the maximum of every
volume is 1 and the numbers are not comparable to a leaderboard; ``data.normalize=volume`` keeps the
relative intensities of the slices.

Volumes of neighbouring slices (`SliceDataset.is_stack`), `LEAST_SLICES` or more without a gap, are
also looked at from the side (`evaluation.metrics.across_metrics`); for others, among them LoDoPaB's
files, these columns are empty.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from datasets import Sample
from datasets.files import to_csv, write_atomically
from datasets.parallel import fetch
from evaluation.metrics import LEAST_SLICES, across_metrics, volume_metrics
from evaluation.results.recon_file import open_reconstructions

ACROSS = ("psnr_rows", "psnr_columns", "step_error")
COLUMNS = ("volume", "slices", "psnr", "ssim", "nmse", *ACROSS)


def volume_of(key: str) -> str:
    """Volume of a slice's key, ``file1000001.h5:12`` -> ``file1000001.h5``."""
    volume, colon, number = key.rpartition(":")
    return volume if colon and number.isdecimal() else key


def are_neighbours(keys: Sequence[str]) -> bool:
    """Whether numbers of slices follow each other without a gap, and are enough of them."""
    numbers = [key.rpartition(":")[2] for key in keys]
    if len(keys) < LEAST_SLICES or not all(number.isdecimal() for number in numbers):
        return False
    first = int(numbers[0])
    return list(map(int, numbers)) == list(range(first, first + len(keys)))


def write_volumes(
    folder: Path,
    dataset: Dataset,
    keys: Sequence[str],
    *,
    target: Callable[[Sample], np.ndarray],
) -> None:
    """Write ``volumes.csv`` with one row for each volume whose requested slices are all finished.

    Args:
        folder: results folder with a ``recon.h5``.
        dataset: data set of the targets, whose first items have the `keys`.
        keys: keys of the requested slices, in the order of the data set.
        target: target ``(H, W)`` of an item.
    """
    volumes: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        volumes.setdefault(volume_of(key), []).append(i)
    rows, is_stack = [], getattr(dataset, "is_stack", False)
    with open_reconstructions(folder) as images:
        for volume, items in volumes.items():
            if not images.keys() >= {keys[i] for i in items}:
                continue
            truth = np.stack([target(sample) for sample in fetch(dataset, items)])
            image = np.stack([images[keys[i]] for i in items])  # (S, H, W)
            metrics = volume_metrics(truth, image)
            if is_stack and are_neighbours([keys[i] for i in items]):
                metrics |= across_metrics(truth, image)
            rows.append({"volume": volume, "slices": len(items), **metrics})
    write_atomically(folder / "volumes.csv", to_csv(rows, COLUMNS))
