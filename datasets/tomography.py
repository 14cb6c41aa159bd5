"""Sinograms with their geometry: MATLAB structs of Helsinki's CT laboratory, LoDoPaB's files."""

import math
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from datasets.sample import DataError

MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
# LoDoPaB-CT (Leuschner et al., Sci. Data 8 (2021) 109): parallel beam, 1000 views in the middle of
# equal parts of 180 degrees, 513 bins over the diagonal of a square of 260 mm
LODOPAB_VIEWS, LODOPAB_BINS, LODOPAB_SIDE = 1000, 513, 260.0
LODOPAB_PIXELS = 362


def find_helsinki(arrays: Mapping) -> Mapping | None:
    """The struct with ``sinogram`` and ``parameters`` among a MATLAB file's variables, or None."""
    for value in arrays.values():
        if isinstance(value, Mapping) and {"sinogram", "parameters"} <= value.keys():
            return value
    return None


def read_helsinki(path: Path, scan: Mapping) -> tuple[np.ndarray, np.ndarray, dict, str]:
    """Sinogram, angles and geometry of a struct of the Helsinki Tomography Challenge 2022.

    Other scans of the same laboratory (FIPS data sets) have the same fields. The source goes round
    the central slice of a cone beam, so that the beam is a fan.

    Args:
        path: the file, for errors.
        scan: struct with ``sinogram`` (views, bins) and ``parameters``.

    Returns:
        The sinogram, float64 ``(views, bins)``; degrees of the views; fields of ``config.operator``
        in mm; and a note of it.

    Raises:
        DataError: a parameter is missing, or the numbers of angles and views differ.
    """
    given = scan["parameters"]
    unit = MILLIMETRES.get(str(given.get("distanceUnit", "mm")))
    binned = ("pixelSizePost", "pixelSize", "detectorPixelSize")
    spacing = next((name for name in binned if name in given), binned[0])
    names = ("distanceSourceOrigin", "distanceSourceDetector", "angles", spacing)
    missing = [name for name in names if name not in given]
    if missing or unit is None:
        raise DataError(
            f"{path}: expected the parameters {', '.join(names)} (distances in mm, cm or m), got "
            f"{sorted(given)}"
        )
    sinogram = np.asarray(scan["sinogram"], dtype=np.float64)
    angles = np.asarray(given["angles"], dtype=np.float64).ravel()
    if sinogram.ndim != 2 or len(angles) != len(sinogram):
        raise DataError(
            f"{path}: expected a sinogram (views, bins) with an angle for each of {len(angles)} "
            f"views, got the shape {sinogram.shape}"
        )
    source, detector = (unit * float(given[name]) for name in names[:2])
    bins = unit * float(given[spacing])
    geometry = {
        "geometry": "fan",
        "source_distance": source,
        "detector_distance": detector - source,
        "bin_spacing": bins,
        "pixel_size": bins * source / detector,
    }
    note = (
        f"geometry of the file: fan beam, source {source:g} mm and detector {detector - source:g} "
        f"mm from the axis, bins of {bins:g} mm"
    )
    return sinogram, angles, geometry, note


def is_lodopab(file: h5py.File) -> bool:
    """Whether an HDF5 file is one of LoDoPaB's observations."""
    data = file.get("data")
    whole = isinstance(data, h5py.Dataset) and data.ndim == 3
    return whole and tuple(data.shape[1:]) == (LODOPAB_VIEWS, LODOPAB_BINS)


def lodopab_geometry(shape: tuple[int, int, int]) -> tuple[np.ndarray, dict, str]:
    """Angles, fields of ``config.operator`` in mm, and a note, of LoDoPaB's observations."""
    _, views, bins = shape
    angles = (np.arange(views) + 0.5) * 180 / views
    geometry = {
        "geometry": "parallel",
        "bin_spacing": math.sqrt(2) * LODOPAB_SIDE / bins,
        "pixel_size": LODOPAB_SIDE / LODOPAB_PIXELS,
    }
    return angles, geometry, "taken for an observation of LoDoPaB-CT, whose geometry is used"
