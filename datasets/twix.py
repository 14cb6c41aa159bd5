"""Raw data of Siemens scanners (twix, ``.dat``): Cartesian slices, by the package twixtools."""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.bad_input import reading, require
from datasets.compressed import check_claim
from datasets.sample import DataError

SUFFIX = ".dat"
# counters that have to be constant in a series of slices, by their names in twix files
SINGLE = {"Par": "partition", "Eco": "echo", "Phs": "phase", "Rep": "repetition", "Set": "set"}
VE = 10000  # first number of a file of versions VB: the length of its header; of VD, VE: 0 or 1
LARGEST_COUNT = 64  # of measurements in a file


class Twix(NamedTuple):
    """Slices of a twix file.

    Attributes:
        kspace: complex64 ``(slices, coils, readout, lines)``, 0 where not measured.
        notes: remarks on what was read.
    """

    kspace: np.ndarray
    notes: list[str]


def looks_like_twix(path: Path) -> bool:
    """Whether the first numbers of a file are those of a twix file of versions VD or VE."""
    with path.open("rb") as file:
        first = file.read(8)
    if len(first) < 8:
        return False
    zero, count = struct.unpack("<II", first)
    return zero < VE and 0 < count <= LARGEST_COUNT


def read_twix(path: Path) -> Twix:
    """All slices of the last measurement in a twix file that has imaging lines.

    Repeated lines are averaged; the calibration lines of parallel imaging are used. The readout
    runs along the first axis and is as sampled, with oversampling, which the header of these files
    counts as twice the matrix.

    Args:
        path: the file.

    Raises:
        DataError: twixtools is missing, the file is truncated or of another kind, or it is not of
            Cartesian slices of one image each.
    """
    tools = require("twixtools", "twix")
    with reading(path, "an intact twix file of a Siemens scanner"):
        scans = tools.read_twix(
            str(path), parse_prot=False, parse_pmu=False, parse_geometry=False, verbose=False
        )
        chosen = [(n, lines) for n, scan in enumerate(scans) if (lines := _imaging(scan))]
        if not chosen:
            raise ValueError(f"{len(scans)} measurements without a line of an image")
        number, lines = chosen[-1]
        counters = {name: {_count(m, name) for m in lines} for name in (*SINGLE, "Sli", "Lin")}
        _check(path, counters, lines)
        kspace = _fill(path, lines, sorted(counters["Sli"]))
    notes = ["k-space of a twix file: slices by their counters, their positions are not read"]
    if len(scans) > 1:
        notes.append(
            f"the file has {len(scans)} measurements; read is number {number + 1}, the last one "
            "with images"
        )
    return Twix(kspace, notes)


def _imaging(scan: dict) -> list:
    """Lines of images and of their calibration."""
    found = []
    for line in scan.get("mdb", ()):
        if line.is_flag_set("ACQEND") or line.is_flag_set("SYNCDATA"):
            continue
        reference = line.is_flag_set("PATREFSCAN") or line.is_flag_set("PATREFANDIMASCAN")
        other = ("NOISEADJSCAN", "PHASCOR", "PHASESTABSCAN", "REFPHASESTABSCAN", "RTFEEDBACK")
        if not any(line.is_flag_set(flag) for flag in other) and (
            reference or line.is_image_scan()
        ):
            found.append(line)
    return found


def _count(line, name: str) -> int:
    return int(getattr(line.mdh.Counter, name))


def _check(path: Path, counters: dict[str, set[int]], lines: list) -> None:
    for name, word in SINGLE.items():
        if len(counters[name]) > 1:
            raise DataError(
                f"{path}: expected slices of one image each, got {len(counters[name])} values of "
                f"the counter '{word}'; save one of them as 'kspace' (docs/reconstruct.md)"
            )
    if any(line.is_flag_set("REFLECT") for line in lines):
        raise DataError(
            f"{path}: got reversed readouts (echo-planar), whose phase has to be corrected first; "
            "save corrected lines as 'kspace' (docs/reconstruct.md)"
        )
    shapes = {np.shape(line.data) for line in lines}
    if len({shape[0] for shape in shapes}) > 1:
        raise DataError(f"{path}: expected lines of the same coils, got arrays {sorted(shapes)}")


def _fill(path: Path, lines: list, slices: list[int]) -> np.ndarray:
    """K-space on a grid with its origin in the middle."""
    coils = lines[0].data.shape[0]
    before = max(int(line.mdh.CenterCol) for line in lines)
    behind = max(line.data.shape[1] - int(line.mdh.CenterCol) for line in lines)
    width = 2 * max(before, behind)
    centre = int(lines[0].mdh.CenterLin)
    rows = [_count(line, "Lin") - centre for line in lines]
    height = 2 * max(-min(rows), max(rows) + 1)
    check_claim(path, len(slices) * coils * width * height * np.dtype(np.complex64).itemsize)
    kspace = np.zeros((len(slices), coils, width, height), dtype=np.complex64)
    count = np.zeros((len(slices), 1, width, height), dtype=np.float32)
    for line, row in zip(lines, rows, strict=True):
        data, z = np.asarray(line.data), slices.index(_count(line, "Sli"))
        first, y = width // 2 - int(line.mdh.CenterCol), height // 2 + row
        kspace[z, :, first : first + data.shape[1], y] += data
        count[z, :, first : first + data.shape[1], y] += 1
    return kspace / np.maximum(count, 1)
