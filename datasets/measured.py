"""One file of a user's own measurement: k-space or sinograms, read slice by slice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from datasets.bad_input import reading
from datasets.hdf5 import get_array, open_hdf5, read_array
from datasets.ismrmrd import Encoding, find_group, parse_header, read_ismrmrd
from datasets.sample import DataError

HDF5, NUMPY = (".h5", ".hdf5", ".mrd"), (".npy", ".npz")
KSPACE, SINOGRAM = "kspace", "sinogram"
EXTRAS = ("mask", "sens_maps", "angles")  # further arrays that a file may hold
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
    """A measurement in its own unit.

    Attributes:
        path: the file.
        kind: `KSPACE` or `SINOGRAM`.
        shape: (slices, coils, H, W), or (slices, views, bins).
        read_slice: index -> ``(coils, H, W)`` complex64 or ``(views, bins)`` float32, as stored.
        extras: those of `EXTRAS` that the file holds.
        image_shape: rows and columns of the image that the file asks for; None: all.
        voxel_size: row, column and slice spacing in mm; None: unknown.
    """

    path: Path
    kind: str
    shape: tuple[int, ...]
    read_slice: Callable[[int], np.ndarray]
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    image_shape: tuple[int, int] | None = None
    voxel_size: tuple[float, float, float] | None = None

    def read(self, index: int) -> np.ndarray:
        """A slice, `index` from 0.

        Raises:
            DataError: it cannot be read, or has NaN or infinite values.
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
    """Look at a file of k-space or sinograms.

    - HDF5: ``kspace`` or ``sinogram``, beside it any of `EXTRAS` and fastMRI's
      ``ismrmrd_header``; or an ISMRMRD file.
    - npz: the same names (or one array of any name); npy: the array alone.

    Complex arrays are k-space, centred (origin at ``(H // 2, W // 2)``); real ones sinograms.

    Args:
        path: the file.
        first_axis: of three-dimensional k-space: "slices" or "coils"; "": slices in HDF5, as in
            fastMRI's single-coil files, coils in npy and npz.

    Raises:
        DataError: another kind of file, or arrays of another shape.
    """
    if first_axis not in FIRST_AXES:
        raise DataError(f"expected data.first_axis in {FIRST_AXES}, got '{first_axis}'")
    suffix = path.suffix.lower()
    if suffix in HDF5:
        with open_hdf5(path) as file:
            if KSPACE not in file and SINOGRAM not in file and find_group(file):
                return _raw(*read_ismrmrd(file, path), path)
            return _open_hdf5(file, path, first_axis or "slices")
    if suffix in NUMPY:
        return _open_numpy(path, first_axis or "coils")
    raise DataError(
        f"{path}: unknown kind of file; expected {', '.join((*HDF5, *NUMPY))} for measurements "
        f"({LAYOUT}), or NIfTI or DICOM for images; {VENDOR}"
    )


def _open_hdf5(file: h5py.File, path: Path, first_axis: str) -> Measured:
    kind = SINOGRAM if SINOGRAM in file else KSPACE
    data = get_array(
        file, path, kind, f"put the measurement into '{KSPACE}' or '{SINOGRAM}'; {VENDOR}"
    )
    shape, reshape = _layout(path, kind, data.shape, data.dtype, first_axis)
    extras = {name: read_array(file, path, name) for name in EXTRAS if name in file}
    image_shape = voxel_size = None
    if "ismrmrd_header" in file:
        encoding = parse_header(path, file["ismrmrd_header"][()])
        image_shape = encoding.image_matrix
        voxel_size = _voxel_size(encoding)
    for name in ("reconstruction_rss", "reconstruction_esc"):
        if name in file:
            image_shape = tuple(file[name].shape[-2:])

    def read(index: int) -> np.ndarray:
        with open_hdf5(path) as again:
            return reshape(again[kind], index)

    return Measured(path, kind, shape, read, extras, image_shape, voxel_size)


def _open_numpy(path: Path, first_axis: str) -> Measured:
    extras = {}
    with reading(path, "an intact NumPy file of numbers"):
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                others = [name for name in file.files if name not in EXTRAS]
                named = [name for name in (KSPACE, SINOGRAM) if name in others] or others
                if len(named) != 1:
                    raise ValueError(f"the arrays {named}; keep one of them, as '{KSPACE}'")
                extras = {name: file[name] for name in EXTRAS if name in file.files}
                data = file[named[0]]
        else:
            data = np.load(path, mmap_mode="r", allow_pickle=False)
    kind = KSPACE if data.dtype.kind == "c" else SINOGRAM
    shape, reshape = _layout(path, kind, data.shape, data.dtype, first_axis)
    return Measured(path, kind, shape, partial(reshape, data), extras)


def _layout(
    path: Path, kind: str, shape: tuple[int, ...], dtype: np.dtype, first_axis: str
) -> tuple[tuple[int, ...], Callable[[np.ndarray, int], np.ndarray]]:
    """The full shape, and (array, index) -> slice."""
    wanted = "c" if kind == KSPACE else "fiu"
    ranks = (2, 3, 4) if kind == KSPACE else (2, 3)
    if dtype.kind not in wanted or len(shape) not in ranks or 0 in shape:
        raise DataError(f"{path}: expected {LAYOUT}, got {kind} {dtype} of shape {shape}")
    number = np.complex64 if kind == KSPACE else np.float32
    rank = 3 if kind == KSPACE else 2  # of a slice
    if kind == KSPACE and (len(shape) == 2 or (len(shape) == 3 and first_axis == "slices")):
        shape = (*shape[:-2], 1, *shape[-2:])  # (slices, 1, H, W) or (1, H, W)
    several = len(shape) > rank
    full = shape if several else (1, *shape)

    def read(data: np.ndarray, index: int) -> np.ndarray:
        part = data[index] if several else data[()]
        return np.asarray(part).astype(number).reshape(full[1:])

    return full, read


def _raw(kspace: np.ndarray, encoding: Encoding, path: Path) -> Measured:
    """An ISMRMRD file; the image is cropped to its field of view at the measured resolution."""
    image_shape = None
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
        kspace.shape,
        lambda index: kspace[index],
        image_shape=image_shape,
        voxel_size=_voxel_size(encoding),
    )


def _voxel_size(encoding: Encoding) -> tuple[float, float, float] | None:
    if not encoding.field_of_view or not encoding.thickness:
        return None
    rows, columns = (f / n for f, n in zip(encoding.field_of_view, encoding.matrix, strict=True))
    return rows, columns, encoding.thickness
