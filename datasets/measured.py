"""Files of a user's own measurement: k-space or sinograms, read slice by slice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from datasets.bad_input import reading
from datasets.hdf5 import get_array, open_hdf5, read_array
from datasets.ismrmrd import Encoding, Raw, find_groups, parse_header, read_ismrmrd
from datasets.sample import DataError

HDF5, NUMPY = (".h5", ".hdf5", ".mrd"), (".npy", ".npz")
MAGIC = {"hdf5": b"\x89HDF\r\n\x1a\n", "npy": b"\x93NUMPY", "npz": b"PK\x03\x04"}
KSPACE, SINOGRAM = "kspace", "sinogram"
EXTRAS = ("mask", "sens_maps", "angles")  # further arrays that a file may hold
GATHERED = 4  # ratio of the concentration of energy along k-space axes to that along coils
FIRST_AXES = ("", "slices", "coils")
LAYOUT = (
    "complex k-space (H, W), (coils, H, W), (slices, H, W) or (slices, coils, H, W), or a real "
    "sinogram (views, bins) or (slices, views, bins)"
)
VENDOR = (
    "raw data of a scanner (.dat, .7, .raw, ...) become ISMRMRD by the vendor's converter, e.g. "
    "siemens_to_ismrmrd"
)


@dataclass(frozen=True)
class Measured:
    """Measurement in its own unit, whose slices are read on demand.

    Attributes:
        path: the file.
        kind: `KSPACE` or `SINOGRAM`.
        shape: (slices, coils, H, W), or (slices, views, bins).
        read_slice: index -> ``(coils, H, W)`` complex64 or ``(views, bins)`` float32, as stored.
        extras: the arrays named in `EXTRAS` that the file holds.
        image_shape: rows and columns of the image by the file; None for the whole image.
        voxel_size: row, column and slice spacing in mm; None if unknown.
        notes: remarks on anything unusual.
        whitening: ``(coils, coils)`` that the measured coils were multiplied by, and maps of theirs
            have to be; None: they are as measured.
    """

    path: Path
    kind: str
    shape: tuple[int, ...]
    read_slice: Callable[[int], np.ndarray]
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    image_shape: tuple[int, int] | None = None
    voxel_size: tuple[float, float, float] | None = None
    notes: list[str] = field(default_factory=list)
    whitening: np.ndarray | None = None

    def read(self, index: int) -> np.ndarray:
        """Slice number `index`, from 0: ``(coils, H, W)`` or ``(views, bins)``.

        Raises:
            DataError: the slice cannot be read, or has NaN or infinite values.
        """
        values = self.read_slice(index)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise DataError(
                f"{self.path.name}:{index}: expected finite values, got {bad} NaN or infinite of "
                f"{values.size}; repair the file, or leave the slice out with data.slices"
            )
        return values


def open_measured(path: Path, *, first_axis: str = "") -> Measured:
    """Open a file of k-space or sinograms.

    - HDF5: ``kspace`` or ``sinogram``, optionally with any of `EXTRAS` and fastMRI's
      ``ismrmrd_header``; or an ISMRMRD file.
    - npz: the same names (or one array of any name); npy: one array.

    The format is recognised by the content, otherwise by the suffix. Arrays with another name are
    k-space if they are complex, sinograms if they are real. K-space is centred, with its origin at
    ``(H // 2, W // 2)``; a last axis of coils is moved before rows and columns.

    Args:
        path: the file.
        first_axis: meaning of the first axis of three-dimensional k-space, "slices" or "coils"; ""
            for slices in HDF5, as in fastMRI's single-coil files, and coils in npy and npz.

    Raises:
        DataError: another kind of file, or arrays of another shape.
    """
    if first_axis not in FIRST_AXES:
        raise DataError(f"expected data.first_axis in {FIRST_AXES}, got '{first_axis}'")
    kind = _format(path)
    if kind == "hdf5":
        with open_hdf5(path) as file:
            if KSPACE not in file and SINOGRAM not in file and find_groups(file):
                return _raw(read_ismrmrd(file, path), path)
            return _open_hdf5(file, path, first_axis or "slices")
    if kind:
        return _open_numpy(path, first_axis or "coils", zipped=kind == "npz")
    raise DataError(
        f"{path}: unknown kind of file; expected {', '.join((*HDF5, *NUMPY))} for measurements "
        f"({LAYOUT}), or NIfTI or DICOM for images; {VENDOR}"
    )


def _format(path: Path) -> str:
    """Format "hdf5", "npy" or "npz", by a file's first bytes, then by its suffix; "" if unknown."""
    with reading(path, "a file that can be read"), path.open("rb") as file:
        first = file.read(max(map(len, MAGIC.values())))
    for kind, magic in MAGIC.items():
        if first.startswith(magic):
            return kind
    suffix = path.suffix.lower()
    return "hdf5" if suffix in HDF5 else suffix.removeprefix(".") if suffix in NUMPY else ""


def _open_hdf5(file: h5py.File, path: Path, first_axis: str) -> Measured:
    if KSPACE in file and SINOGRAM in file:
        raise DataError(f"{path}: expected '{KSPACE}' or '{SINOGRAM}', got both; keep one of them")
    kind = SINOGRAM if SINOGRAM in file else KSPACE
    data = get_array(
        file, path, kind, f"put the measurement into '{KSPACE}' or '{SINOGRAM}'; {VENDOR}"
    )
    layout = _layout(path, kind, data, first_axis)
    extras = {name: read_array(file, path, name) for name in EXTRAS if name in file}
    image_shape = voxel_size = None
    if "ismrmrd_header" in file:
        try:
            encoding = parse_header(path, file["ismrmrd_header"][()])
            image_shape, voxel_size = encoding.image_matrix, _voxel_size(encoding)
        except DataError:
            layout.notes.append(
                "'ismrmrd_header' is empty or unreadable: the image is as large as k-space, unless "
                "data.image_size says otherwise, and its voxels' size is unknown"
            )
    for name in ("reconstruction_rss", "reconstruction_esc"):
        if name in file:
            image_shape = tuple(file[name].shape[-2:])

    def read(index: int) -> np.ndarray:
        with open_hdf5(path) as again:
            return layout.read(again[kind], index)

    return Measured(
        path, kind, layout.shape, read, extras, image_shape, voxel_size, notes=layout.notes
    )


def _open_numpy(path: Path, first_axis: str, *, zipped: bool) -> Measured:
    extras, name = {}, ""
    with reading(path, "an intact NumPy file of numbers"):
        if zipped:
            with np.load(path, allow_pickle=False) as file:
                others = [key for key in file.files if key not in EXTRAS]
                named = [key for key in (KSPACE, SINOGRAM) if key in others] or others
                if len(named) != 1:
                    raise DataError(
                        f"{path}: expected one measurement, got the arrays {named}; keep one of "
                        f"them, as '{KSPACE}' or '{SINOGRAM}'"
                    )
                extras = {key: file[key] for key in EXTRAS if key in file.files}
                name, data = named[0], file[named[0]]
        else:
            data = np.load(path, mmap_mode="r", allow_pickle=False)
    by_type = KSPACE if data.dtype.kind == "c" else SINOGRAM
    kind = name if name in (KSPACE, SINOGRAM) else by_type
    layout = _layout(path, kind, data, first_axis)
    return Measured(
        path, kind, layout.shape, partial(layout.read, data), extras, notes=layout.notes
    )


def measured_array(kind: str, data: np.ndarray, extras: dict[str, np.ndarray]) -> Measured:
    """Measurement of an array in memory.

    Args:
        kind: `KSPACE` or `SINOGRAM`; also the name of the measurement.
        data: array with one of the shapes of `open_measured`; k-space with three axes is
            (coils, H, W).
        extras: the arrays named in `EXTRAS` that exist.

    Raises:
        DataError: another shape or dtype.
    """
    layout = _layout(Path(kind), kind, data, "coils")
    read = partial(layout.read, data)
    return Measured(Path(kind), kind, layout.shape, read, extras, notes=layout.notes)


class _Layout(NamedTuple):
    """Layout of an array: its full shape, a function (array, index) -> slice, and notes."""

    shape: tuple[int, ...]
    read: Callable[[np.ndarray, int], np.ndarray]
    notes: list[str]


def _layout(path: Path, kind: str, data: h5py.Dataset | np.ndarray, first_axis: str) -> _Layout:
    shape, ranks = tuple(data.shape), (2, 3, 4) if kind == KSPACE else (2, 3)
    if data.dtype.kind not in ("c" if kind == KSPACE else "fiu"):
        remedy = ""
        if kind == KSPACE and 2 in shape:
            remedy = (
                f"; join real and imaginary part (axis {shape.index(2)}): "
                "kspace = real + 1j * imaginary"
            )
        raise DataError(
            f"{path}: expected {LAYOUT}, got {kind} {data.dtype} of shape {shape}{remedy}"
        )
    if len(shape) not in ranks or 0 in shape:
        raise DataError(f"{path}: expected {LAYOUT}, got {kind} {data.dtype} of shape {shape}")
    number = np.complex64 if kind == KSPACE else np.float32
    rank = 3 if kind == KSPACE else 2  # of a slice
    notes: list[str] = []
    last = kind == KSPACE and len(shape) > 2 and coils_are_last(data)
    if last:
        notes.append(
            f"k-space has the shape {shape}, and its last axis does not look like one of k-space: "
            f"taken as {shape[-1]} coils"
        )
        shape = (*shape[:-3], shape[-1], *shape[-3:-1])
    elif kind == KSPACE and (len(shape) == 2 or (len(shape) == 3 and first_axis == "slices")):
        shape = (*shape[:-2], 1, *shape[-2:])  # (slices, 1, H, W) or (1, H, W)
    several = len(shape) > rank
    full = shape if several else (1, *shape)

    def read(array: np.ndarray, index: int) -> np.ndarray:
        part = np.asarray(array[index] if several else array[()])
        part = np.moveaxis(part, -1, 0) if last else part
        return part.astype(number).reshape(full[1:])

    return _Layout(full, read, notes)


def coils_are_last(data: h5py.Dataset | np.ndarray) -> bool:
    """Whether k-space ``(..., A, B, D)`` is (H, W, coils), judged from the middle slice.

    Energy is concentrated around the origin along the axes of k-space, and spread over coils. The
    test requires D to be less than A and B.
    """
    if not data.shape[-1] < min(data.shape[-3:-1]):
        return False
    part = np.asarray(data[len(data) // 2] if len(data.shape) > 3 else data[()])
    energy = np.square(np.abs(np.nan_to_num(part).astype(np.complex128)))  # (A, B, D)
    gathered = []
    for axis in range(3):
        profile = energy.sum(axis=tuple(i for i in range(3) if i != axis))
        gathered.append(profile.max() / profile.mean() if profile.any() else 1.0)
    first, _, last = gathered
    return bool(first > GATHERED * last)


def _raw(raw: Raw, path: Path) -> Measured:
    """Measurement of an ISMRMRD file, with the image's field of view at the measured resolution."""
    encoding, image_shape = raw.encoding, None
    if encoding.field_of_view and encoding.image_field_of_view:
        image_shape = tuple(
            min(n, round(n * wanted / encoded))
            for n, encoded, wanted in zip(
                encoding.matrix, encoding.field_of_view, encoding.image_field_of_view, strict=True
            )
        )
    return Measured(
        path,
        KSPACE,
        raw.kspace.shape,
        lambda index: raw.kspace[index],
        image_shape=image_shape,
        voxel_size=_voxel_size(encoding, raw.spacing),
        notes=raw.notes,
        whitening=raw.whitening,
    )


def _voxel_size(
    encoding: Encoding, spacing: float | None = None
) -> tuple[float, float, float] | None:
    """Row, column and slice spacing in mm; without a spacing, slices are taken to be adjacent."""
    between = spacing or encoding.thickness
    if not encoding.field_of_view or not between:
        return None
    rows, columns = (f / n for f, n in zip(encoding.field_of_view, encoding.matrix, strict=True))
    return rows, columns, between
