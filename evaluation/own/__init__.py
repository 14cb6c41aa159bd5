"""A user's file and a config as inverse problems, slice by slice: k-space, sinograms, images.

Everything that can be wrong with the file is looked for when it is opened.
"""

from pathlib import Path

from ml_collections import ConfigDict

from datasets.image_series import is_image_path
from datasets.measured import KSPACE, open_measured
from datasets.sample import DataError
from evaluation.own.base import Input, digest
from evaluation.own.images import open_image_series
from evaluation.own.kspace import open_kspace
from evaluation.own.sinogram import open_sinogram

__all__ = ["Input", "digest", "open_input"]


def open_input(path: Path, config: ConfigDict) -> Input:
    """Open `path` and check the chosen slices.

    Args:
        path: a measurement (`datasets.measured`), or images to simulate one of.
        config: as `configs.reconstruct`.

    Raises:
        DataError, ValueError: unreadable or unfit, or a field that this input does not read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check --input")
    if is_image_path(path):
        return open_image_series(path, config)
    measured = open_measured(path, first_axis=config.data.first_axis)
    return (open_kspace if measured.kind == KSPACE else open_sinogram)(measured, config)
