"""Raw MRI data in the ISMRMRD (MRD) format: slices, on a grid or along trajectories.

A file holds a group (`dataset`; converters also write `dataset_1`, ... for the measurements of one
raw file, adjustments first). The group has `xml`, a description of the measurement, and `data` with
one record per readout: `head` (counters, flags), `traj` and `data` (real and imaginary part, sample
by sample, coil by coil). Inati et al., Magn. Reson. Med. 77 (2017) 411-421.
"""

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import h5py
import numpy as np
import torch

from datasets.bad_input import reading
from datasets.compressed import check_claim
from datasets.sample import DataError
from operators.prewhiten import noise_covariance, whitening_matrix

ANY = "{*}"  # any XML namespace, as some writers omit it
# bit numbers from 1, as in ismrmrd.h: noise, navigator, phase correction, feedback, dummy, ...
NOISE = 19
NOT_IMAGING = (NOISE, 23, 24, 26, 27, 28, 29, 30, 31)
CALIBRATION, REVERSE = 20, 22
# modes whose calibration lines belong to the k-space of the image, unlike "separate" ones
SAME_SCAN = ("embedded", "interleaved", "")
# counters that have to be constant in a series of slices
SINGLE = ("kspace_encode_step_2", "contrast", "phase", "repetition", "set")
NOISE_SAMPLES = 10  # of noise, per coil, that a covariance is computed from
OVERSAMPLED = 1.25  # samples per line over encoded matrix: above, oversampling is not in the header
STRAY = 1 / 8  # fraction of lines that may be outside the encoded matrix
PARALLEL = 0.02  # tolerance of direction cosines, about one degree


class Encoding(NamedTuple):
    """First encoding of the XML header; x is the readout, y the phase encoding."""

    matrix: tuple[int, int]  # encoded (x, y)
    field_of_view: tuple[float, float] | None  # encoded (x, y), mm
    image_matrix: tuple[int, int]  # reconstructed (x, y)
    image_field_of_view: tuple[float, float] | None  # reconstructed (x, y), mm
    thickness: float | None  # mm
    centre: int | None  # counter of the line through the origin
    trajectory: str
    calibration: str


class Raw(NamedTuple):
    """All slices of a measurement.

    Attributes:
        kspace: complex64 ``(slices, coils, x, y)``, 0 where not measured.
        encoding: encoding of the header, with the readout as sampled.
        spacing: distance of slices in mm, from the positions of the readouts; None if unknown.
        notes: remarks on anything unusual.
        whitening: complex64 ``(coils, coils)`` that the coils were multiplied by, because the file
            has samples of their noise; None: as measured.
        trajectory: ``(lines, positions, 2)`` in the file's unit, with which k-space is ``(slices,
            coils, lines, positions)``; None: on a grid.
    """

    kspace: np.ndarray
    encoding: Encoding
    spacing: float | None
    notes: list[str]
    whitening: np.ndarray | None = None
    trajectory: np.ndarray | None = None


def find_groups(file: h5py.File) -> list[str]:
    """Names of the groups with ISMRMRD data, in the order of their numbers."""
    found = []
    for name, group in file.items():
        data = group.get("data") if isinstance(group, h5py.Group) else None
        if isinstance(data, h5py.Dataset) and {"head", "data"} <= set(data.dtype.names or ()):
            found.append(name)
    return sorted(found, key=lambda name: (int(re.search(r"\d*$", name)[0] or 0), name))


def parse_header(path: Path, text: bytes | str) -> Encoding:
    """Encoding in the XML header of an ISMRMRD or fastMRI file.

    Args:
        path: the file, for errors.
        text: the XML text.

    Raises:
        DataError: the text is not XML, or lacks the size of k-space.
    """
    with reading(path, "an ISMRMRD header in XML"):
        root = ElementTree.fromstring(text)

        def text_of(name: str) -> str | None:
            return root.findtext("/".join(ANY + n for n in f"encoding/{name}".split("/")))

        def number(name: str, kind: type) -> int | float | None:
            found = text_of(name)
            return None if found is None else kind(found)

        def pair(name: str, kind: type) -> tuple | None:
            values = tuple(number(f"{name}/{axis}", kind) for axis in "xy")
            return None if None in values else values

        matrix = pair("encodedSpace/matrixSize", int)
        if matrix is None:
            raise ValueError("no encodedSpace/matrixSize")
        return Encoding(
            matrix=matrix,
            field_of_view=pair("encodedSpace/fieldOfView_mm", float),
            image_matrix=pair("reconSpace/matrixSize", int) or matrix,
            image_field_of_view=pair("reconSpace/fieldOfView_mm", float),
            thickness=number("reconSpace/fieldOfView_mm/z", float),
            centre=number("encodingLimits/kspace_encoding_step_1/center", int),
            trajectory=text_of("trajectory") or "cartesian",
            calibration=text_of("parallelImaging/calibrationMode") or "",
        )


def read_ismrmrd(file: h5py.File, path: Path, given: np.ndarray | None = None) -> Raw:
    """All slices of the last measurement in a file that has imaging readouts.

    Repeated lines are averaged. The readout runs along the first image axis, as in fastMRI files.
    Slices are ordered by their positions. If there are enough noise readouts, the coils become
    virtual ones with white noise (`operators.prewhiten`), whose level is the geometric mean of the
    coils' levels: the noise scan's own level depends on its bandwidth.

    Args:
        file: the open file.
        path: its path, for errors.
        given: trajectory to use instead of that of the readouts, ``(lines, positions, 2)`` or
            another form of `datasets.trajectory.read_trajectory`; None: that of the readouts, where
            the header says that k-space is not Cartesian.

    Raises:
        DataError: the measurement is not slices of one image each, or not Cartesian and without a
            trajectory.
    """
    group, encoding, notes = _choose_group(file, path)
    along = encoding.trajectory.lower() != "cartesian" or given is not None
    every = group["data"][()]
    records = every[_is_imaging(every["head"], encoding)]
    head = records["head"]
    _check_counters(head, path)
    order, spacing, moved = _order_slices(head, path)
    trajectory, more = given, []
    if along:
        kspace, trajectory = _fill_lines(records, order, path, encoding, given)
        strays = []
    else:
        encoding, more = _as_sampled(head, encoding)
        kspace, strays = _fill_grid(records, encoding, order, path)
    with reading(path, "noise readouts that fit their coils"):
        whitening, about_noise = _whitening(every, coils=kspace.shape[1])
    if whitening is not None:
        kspace = np.einsum("dc,scxy->sdxy", whitening, kspace)
    remarks = notes + more + moved + strays + about_noise
    return Raw(kspace, encoding, spacing, remarks, whitening, trajectory)


def _whitening(records: np.ndarray, coils: int) -> tuple[np.ndarray | None, list[str]]:
    """Matrix that makes the noise of coils white, from the noise readouts; None without; a note."""
    head = records["head"]
    noise = records[_flag(head, NOISE) & (head["active_channels"] == coils)]
    if coils == 1 or not len(noise):
        return None, []
    samples = np.concatenate([_samples(record, coils) for record in noise], axis=1)  # (C, N)
    if samples.shape[1] < NOISE_SAMPLES * coils:
        return None, []
    try:
        matrix = whitening_matrix(noise_covariance(torch.from_numpy(samples))).numpy()
    except ValueError as error:
        return None, [f"noise readouts are not used: {error}"]
    level = np.exp(-np.log(matrix.diagonal().real).mean())  # geometric mean
    note = f"coils are whitened by {samples.shape[1]} samples of their noise"
    return (level * matrix).astype(np.complex64), [note]


def _samples(record: np.ndarray, coils: int) -> np.ndarray:
    """Samples of a readout without those to discard: complex64 ``(coils, n)``."""
    head = record["head"]
    values = np.asarray(record["data"], dtype=np.float32).view(np.complex64).reshape(coils, -1)
    return values[:, int(head["discard_pre"]) : values.shape[1] - int(head["discard_post"])]


def _choose_group(file: h5py.File, path: Path) -> tuple[h5py.Group, Encoding, list[str]]:
    """Last group with imaging readouts, its encoding, and a note if there are other groups."""
    names = find_groups(file)
    found: dict[str, Encoding] = {}
    faults = []
    for name in names:
        try:
            encoding = _header(file[name], path)
            head = file[name]["data"].fields("head")[()]
        except DataError as error:
            faults.append(error)
            continue
        if _is_imaging(head, encoding).any():
            found[name] = encoding
        else:
            count = f"{len(head)} of other kinds in '{name}'"
            faults.append(DataError(f"{path}: expected readouts of images, got {count}"))
    if not found:
        raise faults[-1]
    chosen = list(found)[-1]
    notes = []
    if len(names) > 1:
        notes.append(
            f"the file has {len(names)} measurements ({', '.join(names)}); read is '{chosen}', the "
            "last one with images"
        )
    return file[chosen], found[chosen], notes


def _header(group: h5py.Group, path: Path) -> Encoding:
    if "xml" not in group:
        raise DataError(f"{path}: expected the ISMRMRD header in '{group.name}/xml', got none")
    return parse_header(path, np.atleast_1d(group["xml"][()])[0])


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
    for name in ("read_dir", "phase_dir", "slice_dir"):
        if np.abs(head[name] - head[name][0]).max() > PARALLEL:
            raise DataError(
                f"{path}: expected parallel slices, got several orientations ('{name}'), as of a "
                "localizer; save one of them as 'kspace' (see docs/reconstruct.md)"
            )


def _centre(head: np.ndarray) -> np.ndarray:
    """Index of the sample at the origin in each line; in files, 0 means not specified."""
    samples = head["number_of_samples"].astype(int)
    return np.where(head["center_sample"] == 0, samples // 2, head["center_sample"].astype(int))


def _as_sampled(head: np.ndarray, encoding: Encoding) -> tuple[Encoding, list[str]]:
    """Encoding with the readout length of the lines, and a note if it differs from the header.

    Some headers do not include the oversampling of the readout in the encoded matrix. Additional
    samples then mean a larger field of view, not a higher resolution.
    """
    centre = _centre(head)
    stop = head["number_of_samples"].astype(int) - head["discard_post"]
    full = int(2 * max((centre - head["discard_pre"]).max(), (stop - centre).max()))
    width, height = encoding.matrix
    if full < OVERSAMPLED * width:
        return encoding, []
    view = encoding.field_of_view
    sampled = encoding._replace(
        matrix=(full, height),
        field_of_view=view and (view[0] * full / width, view[1]),
        image_field_of_view=encoding.image_field_of_view or view,
    )
    return sampled, [
        f"lines are {full} samples long, the encoded matrix is {width}: taken as oversampled, "
        "which the header does not count"
    ]


def _order_slices(head: np.ndarray, path: Path) -> tuple[dict[int, int], float | None, list[str]]:
    """Place in the stack by slice counter, from the readouts' positions; spacing in mm; notes."""
    counters, first = np.unique(head["idx"]["slice"], return_index=True)
    order = {int(counter): z for z, counter in enumerate(counters)}
    places = head["position"][first].astype(float)  # (S, 3) mm
    normal = head["slice_dir"][first[0]].astype(float)
    if len(places) < 2:
        return order, None, []
    if not normal.any():
        normal = places[-1] - places[0]
    if not normal.any():
        return order, None, []
    along = places @ normal / np.linalg.norm(normal)  # (S,)
    steps = np.abs(np.diff(np.sort(along)))
    if not steps.all():
        return order, None, []
    rank = np.argsort(along)
    spacing = float(np.median(steps))
    if list(rank) in (list(range(len(rank))), list(range(len(rank)))[::-1]):
        return order, spacing, []
    order = {int(counters[i]): z for z, i in enumerate(rank)}
    return order, spacing, ["slices are put in the order of their positions, not of their counters"]


def _fill_grid(
    records: np.ndarray, encoding: Encoding, order: dict[int, int], path: Path
) -> tuple[np.ndarray, list[str]]:
    head = records["head"]
    coils = int(head["active_channels"][0])
    width, height = encoding.matrix
    middle = height // 2 if encoding.centre is None else encoding.centre
    rows = height // 2 - middle + head["idx"]["kspace_encode_step_1"].astype(int)
    notes = _check_lines(rows, height, path)
    with reading(path, "readouts that fill some part of the header's matrix"):
        check_claim(path, len(order) * coils * width * height * np.dtype(np.complex64).itemsize)
    kspace = np.zeros((len(order), coils, width, height), dtype=np.complex64)
    count = np.zeros((len(order), 1, width, height), dtype=np.float32)
    with reading(path, "readouts that fit the encoded matrix of the header"):
        for record, y, centre in zip(records, rows, _centre(head), strict=True):
            line = record["head"]
            z, samples = order[int(line["idx"]["slice"])], int(line["number_of_samples"])
            values = np.asarray(record["data"], dtype=np.float32).view(np.complex64)
            values = values.reshape(coils, samples)  # (C, samples)
            used = slice(int(line["discard_pre"]), samples - int(line["discard_post"]))
            x = width // 2 - int(centre)  # where sample 0 lies
            first, last = max(used.start, -x), min(used.stop, width - x)
            if first >= last:
                raise ValueError(f"a line whose samples lie from {x} of {width}")
            if 0 <= y < height:
                kspace[z, :, x + first : x + last, y] += values[:, first:last]
                count[z, 0, x + first : x + last, y] += 1
    return kspace / np.maximum(count, 1), notes


def _fill_lines(
    records: np.ndarray,
    order: dict[int, int],
    path: Path,
    encoding: Encoding,
    given: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """K-space ``(slices, coils, lines, positions)`` as measured, and its trajectory."""
    head = records["head"]
    coils, places = int(head["active_channels"][0]), int(head["trajectory_dimensions"][0])
    if given is None and (places not in (2, 3) or (head["trajectory_dimensions"] != places).any()):
        raise DataError(
            f"{path}: expected a trajectory (kx, ky) with each readout, as the header says "
            f"'{encoding.trajectory}', got {sorted(set(head['trajectory_dimensions'].tolist()))} "
            "coordinates; give it with data.trajectory"
        )
    per_slice: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {z: [] for z in order.values()}
    with reading(path, "readouts that are as long as their headers say"):
        for record in records:
            line = record["head"]
            values = _samples(record, coils)  # (C, n)
            here = np.zeros((values.shape[1], 2))
            if given is None:
                here = np.asarray(record["traj"], dtype=np.float64).reshape(-1, places)
                stop = len(here) - int(line["discard_post"])
                here = here[int(line["discard_pre"]) : stop]
                if here[:, 2:].any():
                    raise DataError(
                        f"{path}: expected a trajectory in a plane, got a third coordinate that is "
                        "not 0; transform stacks of slices along it first"
                    )
            per_slice[order[int(line["idx"]["slice"])]].append((here[:, :2], values))
    lengths = {values.shape[1] for lines in per_slice.values() for _, values in lines}
    counts = {len(lines) for lines in per_slice.values()}
    if len(lengths) > 1 or len(counts) > 1:
        raise DataError(
            f"{path}: expected as many readouts of one length in each slice, got {sorted(counts)} "
            f"readouts of {sorted(lengths)} samples; save one of them as 'kspace'"
        )
    trajectories = [np.stack([here for here, _ in lines]) for lines in per_slice.values()]
    if any(np.abs(other - trajectories[0]).max() > 0 for other in trajectories[1:]):
        raise DataError(
            f"{path}: expected the same trajectory in each slice, got several; save one slice as "
            "'kspace' and 'trajectory'"
        )
    kspace = np.stack(
        [np.stack([values for _, values in lines], axis=1) for lines in per_slice.values()]
    )  # (S, C, L, N)
    return kspace, trajectories[0] if given is None else given


def _check_lines(rows: np.ndarray, height: int, path: Path) -> list[str]:
    """Note about lines outside the encoded matrix; a DataError if there are many."""
    lines = np.unique(rows)
    beyond = lines[(lines < 0) | (lines >= height)]
    if len(beyond) > STRAY * len(lines):
        raise DataError(
            f"{path}: expected lines within the encoded matrix of {height}, got {len(beyond)} of "
            f"{len(lines)} beyond it (lines {lines.min()} to {lines.max()}); correct encodedSpace "
            "or encodingLimits in the header"
        )
    if not len(beyond):
        return []
    return [f"{len(beyond)} lines beyond the encoded matrix of {height} are left out"]
