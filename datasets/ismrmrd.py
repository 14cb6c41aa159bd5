"""Raw MRI data in the ISMRMRD (MRD) format: Cartesian slices as k-space on a grid.

A file holds one group (`dataset`) with `xml`, a text about the measurement, and `data`, a record
for each readout: `head` (counters, flags), `traj` and `data` (real and imaginary part, sample by
sample, coil by coil). Inati et al., Magn. Reson. Med. 77 (2017) 411-421.
"""

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import h5py
import numpy as np

from datasets.bad_input import reading
from datasets.sample import DataError

NAMESPACE = "{http://www.ismrm.org/ISMRMRD}"
# bit numbers from 1, as ismrmrd.h counts: noise, navigator, phase correction, feedback, dummy, ...
NOT_IMAGING = (19, 23, 24, 26, 27, 28, 29, 30, 31)
CALIBRATION, REVERSE = 20, 22
# calibration lines of these modes belong to the image's k-space; "separate" ones do not
SAME_SCAN = ("embedded", "interleaved", "")
# counters of which one value only makes a series of slices
SINGLE = ("kspace_encode_step_2", "contrast", "phase", "repetition", "set")


class Encoding(NamedTuple):
    """What the XML text says about the first encoding: x is the readout, y the phase encoding."""

    matrix: tuple[int, int]  # encoded (x, y)
    field_of_view: tuple[float, float] | None  # encoded (x, y), mm
    image_matrix: tuple[int, int]  # reconstructed (x, y)
    image_field_of_view: tuple[float, float] | None  # reconstructed (x, y), mm
    thickness: float | None  # mm
    centre: int | None  # counter of the line through the origin
    trajectory: str
    calibration: str


def find_group(file: h5py.File) -> str | None:
    """The first group that looks like ISMRMRD data; None if there is none."""
    for name, group in file.items():
        data = group.get("data") if isinstance(group, h5py.Group) else None
        if isinstance(data, h5py.Dataset) and {"head", "data"} <= set(data.dtype.names or ()):
            return name
    return None


def parse_header(path: Path, text: bytes | str) -> Encoding:
    """The XML text of an ISMRMRD or fastMRI file.

    Raises:
        DataError: not XML, or without the sizes of k-space.
    """
    with reading(path, "an ISMRMRD header in XML"):
        root = ElementTree.fromstring(text)

        def number(name: str, kind: type) -> int | float | None:
            found = root.findtext("/".join(NAMESPACE + n for n in f"encoding/{name}".split("/")))
            return None if found is None else kind(found)

        def pair(name: str, kind: type) -> tuple | None:
            values = tuple(number(f"{name}/{axis}", kind) for axis in "xy")
            return None if None in values else values

        matrix = pair("encodedSpace/matrixSize", int)
        if matrix is None:
            raise ValueError("no encodedSpace/matrixSize")
        calibration = "/".join(
            NAMESPACE + n for n in ("encoding", "parallelImaging", "calibrationMode")
        )
        return Encoding(
            matrix=matrix,
            field_of_view=pair("encodedSpace/fieldOfView_mm", float),
            image_matrix=pair("reconSpace/matrixSize", int) or matrix,
            image_field_of_view=pair("reconSpace/fieldOfView_mm", float),
            thickness=number("reconSpace/fieldOfView_mm/z", float),
            centre=number("encodingLimits/kspace_encoding_step_1/center", int),
            trajectory=root.findtext(f"{NAMESPACE}encoding/{NAMESPACE}trajectory") or "cartesian",
            calibration=root.findtext(calibration) or "",
        )


def read_ismrmrd(file: h5py.File, path: Path) -> tuple[np.ndarray, Encoding]:
    """All slices of a file as ``(slices, coils, x, y)`` complex64, 0 where nothing was measured.

    Repeated lines are averaged. Readout runs along the rows' index, as in fastMRI files.

    Raises:
        DataError: not Cartesian slices of one image each; says what there is.
    """
    group = file[find_group(file)]
    if "xml" not in group:
        raise DataError(f"{path}: expected the ISMRMRD header in '{group.name}/xml', got none")
    encoding = parse_header(path, np.atleast_1d(group["xml"][()])[0])
    if encoding.trajectory.lower() != "cartesian":
        raise DataError(
            f"{path}: expected Cartesian k-space, got trajectory '{encoding.trajectory}'; grid it, "
            "and save it as 'kspace' (see docs/reconstruct.md)"
        )
    records = group["data"][()]
    head = records["head"]
    chosen = np.flatnonzero(_is_imaging(head, encoding))
    if not len(chosen):
        raise DataError(f"{path}: expected readouts of images, got {len(records)} of other kinds")
    _check_counters(head[chosen], path)
    return _fill_grid(records[chosen], encoding, path), encoding


def _flag(head: np.ndarray, bit: int) -> np.ndarray:
    return (head["flags"] >> np.uint64(bit - 1)) & np.uint64(1) == 1


def _is_imaging(head: np.ndarray, encoding: Encoding) -> np.ndarray:
    other = head["encoding_space_ref"] != 0
    for bit in NOT_IMAGING:
        other |= _flag(head, bit)
    if encoding.calibration not in SAME_SCAN:
        other |= _flag(head, CALIBRATION)
    return ~other


def _check_counters(head: np.ndarray, path: Path) -> None:
    for name in SINGLE:
        values = np.unique(head["idx"][name])
        if len(values) > 1:
            raise DataError(
                f"{path}: expected slices of one image each, got {len(values)} values of "
                f"'{name}'; save one of them as 'kspace' (see docs/reconstruct.md)"
            )
    if _flag(head, REVERSE).any():
        raise DataError(
            f"{path}: got reversed readouts (echo-planar), whose phase has to be corrected first; "
            "save corrected lines as 'kspace' (see docs/reconstruct.md)"
        )


def _fill_grid(records: np.ndarray, encoding: Encoding, path: Path) -> np.ndarray:
    head = records["head"]
    coils = int(head["active_channels"][0])
    width, height = encoding.matrix
    centre = height // 2 if encoding.centre is None else encoding.centre
    slices, index = np.unique(head["idx"]["slice"], return_inverse=True)
    kspace = np.zeros((len(slices), coils, width, height), dtype=np.complex64)
    count = np.zeros((len(slices), 1, width, height), dtype=np.float32)
    with reading(path, "readouts that fit the encoded matrix of the header"):
        for record, z in zip(records, index, strict=True):
            line = record["head"]
            samples = int(line["number_of_samples"])
            values = np.asarray(record["data"], dtype=np.float32).view(np.complex64)
            values = values.reshape(coils, samples)  # (C, samples)
            used = slice(int(line["discard_pre"]), samples - int(line["discard_post"]))
            x = width // 2 - int(line["center_sample"])  # where sample 0 lies
            y = height // 2 - centre + int(line["idx"]["kspace_encode_step_1"])
            first, last = max(used.start, -x), min(used.stop, width - x)
            if not 0 <= y < height or first >= last:
                raise ValueError(f"a line at {y} of {height}, its samples from {x} of {width}")
            kspace[z, :, x + first : x + last, y] += values[:, first:last]
            count[z, 0, x + first : x + last, y] += 1
    return kspace / np.maximum(count, 1)
