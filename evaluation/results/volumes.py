"""Image quality of whole volumes, as fastMRI's leaderboard measures it: ``volumes.csv``.

A volume is what comes before the last colon of its slices' keys: for fastMRI a scan, for LoDoPaB a
file of up to 128 slices, for pictures a picture. It is measured on the slices that were evaluated.
Where each slice is scaled to [0, 1] by itself (``data.normalize=slice``, the study's way) the
volume's maximum is that of the scaled slices, 1, and the numbers are not those of a leaderboard;
``data.normalize=volume`` keeps the slices' relation to each other.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from datasets.files import to_csv, write_atomically
from datasets.parallel import fetch
from evaluation.metrics import volume_metrics
from evaluation.results.recon_file import open_reconstructions

COLUMNS = ("volume", "slices", "psnr", "ssim", "nmse")


def volume_of(key: str) -> str:
    """The volume in a slice's key: ``file1000001.h5:12`` -> ``file1000001.h5``."""
    volume, colon, number = key.rpartition(":")
    return volume if colon and number.isdecimal() else key


def write_volumes(folder: Path, dataset: Dataset, keys: Sequence[str]) -> None:
    """Write ``volumes.csv``: one row for each volume all of whose slices are finished.

    Args:
        folder: results with a ``recon.h5``.
        dataset: gives the targets; its first items have the `keys`.
        keys: of the slices that were wanted, in the data set's order.
    """
    volumes: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        volumes.setdefault(volume_of(key), []).append(i)
    rows = []
    with open_reconstructions(folder) as images:
        for volume, items in volumes.items():
            if not images.keys() >= {keys[i] for i in items}:
                continue
            target = np.stack([sample.image[0].numpy() for sample in fetch(dataset, items)])
            image = np.stack([images[keys[i]] for i in items])  # (S, H, W)
            metrics = volume_metrics(target, image)
            rows.append({"volume": volume, "slices": len(items), **metrics})
    write_atomically(folder / "volumes.csv", to_csv(rows, COLUMNS))
