"""A user's file and a config as inverse problems, slice by slice: k-space, sinograms, images.

Everything that can be wrong with the file is found when it is opened.
"""

from pathlib import Path

from ml_collections import ConfigDict

from datasets.array_layout import KSPACE
from datasets.image_series import is_image_path
from datasets.measured_files import open_measurement
from datasets.sample import DataError
from evaluation.own.base import Input, choose_shape, digest, read_positions
from evaluation.own.images import open_image_series
from evaluation.own.kspace import open_kspace
from evaluation.own.sinogram import open_sinogram
from evaluation.own.trajectory import open_trajectory

__all__ = ["Input", "digest", "open_input"]


def open_input(path: Path, config: ConfigDict) -> Input:
    """Input of a file or folder, with the chosen slices checked.

    Args:
        path: a measurement (`datasets.measured_files`), or images to simulate a measurement of.
        config: config with the fields of configs/reconstruct.py.

    Raises:
        DataError, ValueError: an unreadable or unfit file, or a field that this input does not
            read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check --input")
    if is_image_path(path):
        return open_image_series(path, config)
    measured = open_measurement(path, **_how(config))
    if measured.kind != KSPACE:
        return open_sinogram(measured, config)
    return (open_kspace if measured.trajectory is None else open_trajectory)(measured, config)


def _how(config: ConfigDict) -> dict:
    """Keywords of `open_measurement` that the config has."""
    size = config.data.image_size
    return {
        "first_axis": config.data.first_axis,
        "trajectory": read_positions(config.data.trajectory) if config.data.trajectory else None,
        "matrix": choose_shape(size, None, ()) if size else None,
    }
