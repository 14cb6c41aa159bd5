"""Finished slices of a reconstruction, a file each, until all are there."""

import io
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.files import write_atomically
from evaluation.own.engine import Solution

log = logging.getLogger(__name__)

IMAGES = ("image", "std", "low", "high", "direct")  # of a `Part`


class Part(NamedTuple):
    """Result of a slice, in the unit of the measurement.

    Attributes:
        image: ``(H, W)`` mean over samples, float32, or complex64 for k-space.
        std: ``(H, W)`` standard deviation over samples.
        low: ``(H, W)`` 5 % quantile over samples, of magnitudes.
        high: ``(H, W)`` 95 % quantile.
        direct: ``(H, W)`` reconstruction without a prior.
        scale: intensity range, by which images are divided for the prior, of shape ``()``.
        sigma_y: standard deviation of the measurement noise, given or estimated, of shape ``()``.
        seconds: time for the slice, of shape ``()``.
    """

    image: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    direct: np.ndarray
    scale: np.ndarray
    sigma_y: np.ndarray
    seconds: np.ndarray


def part_path(parts: Path, item: int) -> Path:
    """File of a slice.

    Args:
        parts: folder of the finished slices.
        item: number of the slice among the chosen ones, from 0.
    """
    return parts / f"{item:05d}.npz"


def save_parts(parts: Path, items: list[int], solution: Solution, seconds: float) -> None:
    """Write a file for each of the slices `items` that did not fail."""
    for b, item in enumerate(items):
        if b not in solution.failures:
            values = {name: getattr(solution, name)[b, 0] for name in IMAGES}
            values |= {"scale": solution.scale[b], "sigma_y": solution.sigma_y[b]}
            arrays = {name: value.cpu().numpy() for name, value in values.items()}
            part = Part(**arrays, seconds=np.array(seconds))
            content = io.BytesIO()
            np.savez(content, **part._asdict())
            write_atomically(part_path(parts, item), content.getvalue())


def load_part(path: Path) -> Part | None:
    """Result of a finished slice; None if there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Part(**file)
    except FileNotFoundError:
        return None
    except Exception as error:  # damaged files raise anything
        log.warning("%s: damaged, and done again (%s)", path, error)
        return None
