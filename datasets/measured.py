"""Files of a user's own measurement: k-space or sinograms, read slice by slice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from datasets import bart, matlab, tomography, twix
from datasets.bad_input import reading
from datasets.hdf5 import get_array, open_hdf5, read_array
from datasets.ismrmrd import Encoding, Raw, find_groups, parse_header, read_ismrmrd
from datasets.sample import DataError
from datasets.trajectory import Trajectory, kspace_layout, read_trajectory

HDF5, NUMPY, TIFF = (".h5", ".hdf5", ".mrd"), (".npy", ".npz"), (".tif", ".tiff")
MAGIC = {
    "hdf5": (b"\x89HDF\r\n\x1a\n",),
    "npy": (b"\x93NUMPY",),
    "npz": (b"PK\x03\x04",),
    "mat": (matlab.MAGIC,),
    "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
BY_SUFFIX = {
    **dict.fromkeys(HDF5, "hdf5"),
    **{suffix: suffix[1:] for suffix in NUMPY},
    **dict.fromkeys(TIFF, "tiff"),
    matlab.SUFFIX: "mat",
}
KSPACE, SINOGRAM = "kspace", "sinogram"
EXTRAS = ("mask", "sens_maps", "angles")  # further arrays that a file may hold
ALONG = "trajectory"  # likewise, of k-space that is along one
IGNORED = ("density", "dcf", "image_shape")  # likewise, computed here or read apart
GATHERED = 4  # ratio of the concentration of energy along k-space axes to that along coils
FIRST_AXES = ("", "slices", "coils", "views")
LAYOUT = (
    "complex k-space (H, W), (coils, H, W), (slices, H, W) or (slices, coils, H, W), or a real "
    "sinogram (views, bins) or (slices, views, bins)"
)
VENDOR = (
    "raw data of other scanners or older versions (.dat, .7, .raw, ...) become ISMRMRD by the "
    "vendor's converter, e.g. siemens_to_ismrmrd"
)


@dataclass(frozen=True)
class Measured:
    """Measurement in its own unit, whose slices are read on demand.

    Attributes:
        path: the file.
        kind: `KSPACE` or `SINOGRAM`.
        shape: (slices, coils, H, W), or (slices, coils, lines, positions) with a `trajectory`, or
            (slices, views, bins).
        read_slice: index -> ``(coils, H, W)`` complex64 or ``(views, bins)`` float32, as stored.
        extras: the arrays named in `EXTRAS` that the file holds.
        image_shape: rows and columns of the image by the file; None for the whole image.
        voxel_size: row, column and slice spacing in mm; None if unknown.
        notes: remarks on anything unusual.
        whitening: ``(coils, coils)`` that the measured coils were multiplied by, and maps of theirs
            have to be; None: they are as measured.
        trajectory: float64 ``(lines, positions, 2)`` along rows and columns of the image, in cycles
            per pixel from -1/2 to 1/2; None: k-space is on the grid.
        geometry: of a sinogram what the file says: fields of ``config.operator`` (lengths in mm).
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
    trajectory: np.ndarray | None = None
    geometry: dict[str, float | str] = field(default_factory=dict)

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


def open_measurement(
    path: str | Path,
    *,
    trajectory: np.ndarray | None = None,
    matrix: tuple[int, int] | None = None,
    first_axis: str = "",
) -> Measured:
    """Open a file of k-space or sinograms.

    - HDF5: ``kspace`` or ``sinogram``, optionally with any of `EXTRAS`, ``trajectory`` and
      fastMRI's ``ismrmrd_header``; or an ISMRMRD file; or one of LoDoPaB's observations.
    - npz and MATLAB (all versions): the same names, or one array of any name; in MATLAB files also
      in a struct, or a struct of the University of Helsinki's CT data. npy: one array.
    - BART: ``.cfl`` with its ``.hdr``.
    - twix: ``.dat`` of Siemens scanners, by twixtools.
    - TIFF: a sinogram a page.

    The format is recognised by the content, otherwise by the suffix. Arrays with another name are
    k-space if they are complex, sinograms if they are real. K-space is centred, with its origin at
    ``(H // 2, W // 2)``; a last axis of coils is moved before rows and columns.

    With a ``trajectory`` (`datasets.trajectory.read_trajectory`), k-space is ``(lines,
    positions)``, or its transpose, with axes of coils, or slices and coils, in front.

    Args:
        path: the file.
        trajectory: of k-space, in place of the file's; None: the file's, if it has one.
        matrix: rows and columns of the field of view in pixels, where positions of the trajectory
            are in cycles per field of view; None: by the file, or by the extent of the trajectory.
        first_axis: meaning of the first axis of three-dimensional arrays: of k-space "slices" or
            "coils", of sinograms "slices" or "views" (radiographs: views, slices, bins); "" for
            slices of sinograms and in HDF5, as in fastMRI's single-coil files, and coils in others.

    Returns:
        The measurement, whose slices are read on demand.

    Raises:
        DataError: another kind of file, a damaged one, no array that fits (with the names of those
            that are there), or arrays of another shape.
    """
    path = Path(path)
    if first_axis not in FIRST_AXES:
        raise DataError(f"expected data.first_axis in {FIRST_AXES}, got '{first_axis}'")
    how = _How(path, first_axis, trajectory, matrix)
    kind = _format(path)
    if kind == "hdf5":
        return _open_hdf5(how)
    if kind in ("npy", "npz"):
        return _open_numpy(how, zipped=kind == "npz")
    if kind == "mat":
        return _open_mat(how)
    if kind == "bart":
        return _open_bart(how)
    if kind == "tiff":
        return _open_tiff(how)
    if kind == "twix":
        if trajectory is not None:
            raise DataError(
                f"{path}: twix files are read as Cartesian; save its lines as 'kspace' and the "
                "trajectory as 'trajectory' (npz, HDF5)"
            )
        found = twix.read_twix(path)
        kspace = found.kspace
        return Measured(path, KSPACE, kspace.shape, kspace.__getitem__, notes=found.notes)
    raise DataError(
        f"{path}: unknown kind of file; expected {', '.join((*BY_SUFFIX, *bart.SUFFIXES))}, "
        f"{twix.SUFFIX} for measurements ({LAYOUT}), or NIfTI or DICOM for images; {VENDOR}"
    )


class _How(NamedTuple):
    """What `open_measurement` was asked for."""

    path: Path
    first_axis: str
    trajectory: np.ndarray | None
    matrix: tuple[int, int] | None


def _format(path: Path) -> str:
    """Format by a file's first bytes, then by its suffix; "" if unknown."""
    suffix = path.suffix.lower()
    if suffix in bart.SUFFIXES:  # without any mark
        return "bart"
    with reading(path, "a file that can be read"), path.open("rb") as file:
        first = file.read(8)
    for kind, marks in MAGIC.items():
        if first.startswith(marks):
            return kind
    if suffix == twix.SUFFIX and twix.looks_like_twix(path):
        return "twix"
    return BY_SUFFIX.get(suffix, "")


def _open_hdf5(how: _How) -> Measured:
    path = how.path
    with open_hdf5(path) as file:
        named = KSPACE in file or SINOGRAM in file
        if not named and find_groups(file):
            return _raw(read_ismrmrd(file, path, how.trajectory), path, how.matrix)
        if not named and tomography.is_lodopab(file):
            return _open_lodopab(path, file)
        if KSPACE in file and SINOGRAM in file:
            raise DataError(
                f"{path}: expected '{KSPACE}' or '{SINOGRAM}', got both; keep one of them"
            )
        kind = SINOGRAM if SINOGRAM in file else KSPACE
        data = get_array(
            file, path, kind, f"put the measurement into '{KSPACE}' or '{SINOGRAM}'; {VENDOR}"
        )
        extras = {name: read_array(file, path, name) for name in (*EXTRAS, ALONG) if name in file}
        image_shape = voxel_size = None
        notes = []
        if "ismrmrd_header" in file:
            try:
                encoding = parse_header(path, file["ismrmrd_header"][()])
                image_shape, voxel_size = encoding.image_matrix, _voxel_size(encoding)
            except DataError:
                notes.append(
                    "'ismrmrd_header' is empty or unreadable: the image is as large as k-space, "
                    "unless data.image_size says otherwise, and its voxels' size is unknown"
                )
        for name in ("reconstruction_rss", "reconstruction_esc"):
            if name in file:
                image_shape = tuple(file[name].shape[-2:])
        if "image_shape" in file:
            image_shape = _shape_of(path, read_array(file, path, "image_shape"))

        @contextmanager
        def again() -> Iterator[h5py.Dataset]:
            with open_hdf5(path) as opened:
                yield opened[kind]

        return _assemble(
            how, kind, data, extras, again, "slices", image_shape, voxel_size, notes=notes
        )


def _open_lodopab(path: Path, file: h5py.File) -> Measured:
    data = get_array(file, path, "data", "copy or download it again")

    def read(index: int) -> np.ndarray:
        with open_hdf5(path) as again:
            return np.asarray(again["data"][index], dtype=np.float32)

    angles, geometry, note = tomography.lodopab_geometry(data.shape)
    extras = {"angles": angles}
    return Measured(path, SINOGRAM, data.shape, read, extras, notes=[note], geometry=geometry)


def _open_numpy(how: _How, *, zipped: bool) -> Measured:
    path = how.path
    with reading(path, "an intact NumPy file of numbers"):
        if zipped:
            with np.load(path, allow_pickle=False) as file:
                name = _choose(path, file.files)
                known = [key for key in (*EXTRAS, ALONG, "image_shape") if key in file.files]
                extras, data = {key: file[key] for key in known}, file[name]
        else:
            name, extras = "", {}
            data = np.load(path, mmap_mode="r", allow_pickle=False)
    return _of_arrays(how, name, data, extras)


def _open_mat(how: _How) -> Measured:
    path = how.path
    arrays = matlab.read_mat(path)
    scan = tomography.find_helsinki(arrays)
    if scan is not None:
        sinogram, angles, geometry, note = tomography.read_helsinki(path, scan)
        return _of_arrays(how, SINOGRAM, sinogram, {"angles": angles}, geometry, [note])
    # a single struct stands for its fields
    if len(arrays) == 1 and isinstance(found := next(iter(arrays.values())), dict):
        arrays = found
    plain = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
    name = _choose(path, list(plain), matlab.flatten_names(arrays))
    extras = {key: plain[key] for key in (*EXTRAS, ALONG, "image_shape") if key in plain}
    if "angles" in extras:
        extras["angles"] = extras["angles"].ravel()
    data, notes = plain[name], []
    if ALONG not in extras and how.trajectory is None:
        data, notes = _from_matlab(data)
    return _of_arrays(how, name, data, extras, notes=notes)


def _from_matlab(data: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """K-space (H, W, coils, slices), as is common in MATLAB, with slices and coils in front."""
    if data.dtype.kind != "c" or data.ndim != 4:
        return data, []
    rows, columns, coils, slices = (_gathered(data, axis) for axis in range(4))
    if min(rows, columns) <= GATHERED * max(coils, slices):
        return data, []
    note = f"k-space of shape {data.shape} is taken as (H, W, coils, slices), as energy lies in it"
    return np.ascontiguousarray(data.transpose(3, 2, 0, 1)), [note]


def _open_bart(how: _How) -> Measured:
    path, array = how.path, bart.read_cfl(how.path)
    along = how.trajectory is not None
    data = bart.kspace_from_bart(path, array, along=along)
    part = data[len(data) // 2]
    if not part.imag.any() and min(part.shape[1:]) > 1 and not along:
        raise DataError(
            f"{path}: expected complex k-space, got real numbers: an image, a trajectory or a mask?"
        )
    return _of_arrays(how, KSPACE, data, {})


def _open_tiff(how: _How) -> Measured:
    import tifffile  # of scikit-image

    with reading(how.path, "an intact TIFF file of one stack"), tifffile.TiffFile(how.path) as file:
        size = how.path.stat().st_size
        for page in file.pages:  # what is missing would be read as zeros
            ends = [a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=size) > size:
                raise ValueError(f"{size} bytes where {max(ends)} are needed")
        data = file.asarray()
    return _of_arrays(how, SINOGRAM, data, {})


def _choose(path: Path, names: Sequence[str], shown: Sequence[str] = ()) -> str:
    """Name of the one measurement among the arrays of a file."""
    others = [name for name in names if name not in (*EXTRAS, ALONG, *IGNORED)]
    named = [name for name in (KSPACE, SINOGRAM) if name in others] or others
    if len(named) != 1:
        there = "nothing" if not (shown or names) else f"the arrays {list(shown or names)}"
        raise DataError(
            f"{path}: expected one measurement, got {there}; keep one of "
            f"them, as '{KSPACE}' or '{SINOGRAM}'"
        )
    return named[0]


def _of_arrays(
    how: _How,
    name: str,
    data: np.ndarray,
    extras: Mapping[str, np.ndarray],
    geometry: Mapping | None = None,
    notes: Sequence[str] = (),
) -> Measured:
    """Measurement of arrays in memory, or of a mapped file."""
    by_type = KSPACE if data.dtype.kind == "c" else SINOGRAM
    kind = name if name in (KSPACE, SINOGRAM) else by_type
    extras = dict(extras)
    shape = extras.pop("image_shape", None)
    shape = None if shape is None else _shape_of(how.path, shape)
    return _assemble(
        how,
        kind,
        data,
        extras,
        lambda: nullcontext(data),
        "coils",
        shape,
        geometry=geometry,
        notes=notes,
    )


def _assemble(
    how: _How,
    kind: str,
    data: h5py.Dataset | np.ndarray,
    extras: dict[str, np.ndarray],
    again: Callable,
    first_axis: str,
    image_shape: tuple[int, int] | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    *,
    geometry: Mapping | None = None,
    notes: Sequence[str] = (),
) -> Measured:
    """Measurement of an array, whose slices are read from what the context ``again()`` gives."""
    path, trajectory = how.path, extras.pop(ALONG, None)
    first_axis = how.first_axis or first_axis
    if how.trajectory is not None:
        trajectory = how.trajectory
    if kind == KSPACE and trajectory is not None:
        found = read_trajectory(path, trajectory, how.matrix or image_shape)
        layout = _along(path, data, found, "coils" if how.first_axis != "slices" else "slices")
        image_shape = image_shape or found.image_shape
    elif trajectory is not None:
        raise DataError(f"{path}: expected a trajectory with k-space, got it with a sinogram")
    else:
        found, layout = None, _layout(path, kind, data, first_axis)

    def read(index: int) -> np.ndarray:
        with again() as array:
            return layout.read(array, index)

    return Measured(
        path,
        kind,
        layout.shape,
        read,
        extras,
        image_shape,
        voxel_size,
        notes=[*notes, *layout.notes],
        trajectory=None if found is None else found.positions,
        geometry=dict(geometry or {}),
    )


def _shape_of(path: Path, values: np.ndarray) -> tuple[int, int]:
    numbers = [int(value) for value in np.ravel(values)]
    if len(numbers) != 2 or min(numbers) < 1:
        raise DataError(f"{path}: expected 'image_shape' as rows and columns, got {numbers}")
    return numbers[0], numbers[1]


def measured_array(
    kind: str,
    data: np.ndarray,
    extras: dict[str, np.ndarray],
    *,
    trajectory: np.ndarray | None = None,
    matrix: tuple[int, int] | None = None,
) -> Measured:
    """Measurement of an array in memory.

    Args:
        kind: `KSPACE` or `SINOGRAM`; also the name of the measurement.
        data: array with one of the shapes of `open_measurement`; k-space with three axes is
            (coils, H, W).
        extras: the arrays named in `EXTRAS` that exist.
        trajectory: of k-space, see `open_measurement`.
        matrix: likewise.

    Raises:
        DataError: another shape or dtype.
    """
    return _of_arrays(_How(Path(kind), "", trajectory, matrix), kind, data, extras)


class _Layout(NamedTuple):
    """Layout of an array: its full shape, a function (array, index) -> slice, and notes."""

    shape: tuple[int, ...]
    read: Callable[[np.ndarray, int], np.ndarray]
    notes: list[str]


def _along(
    path: Path, data: h5py.Dataset | np.ndarray, trajectory: Trajectory, first_axis: str
) -> _Layout:
    """Layout of k-space along a trajectory, (slices, coils, lines, positions)."""
    if data.dtype.kind != "c":
        raise DataError(
            f"{path}: expected complex k-space along the trajectory, got {data.dtype} of shape "
            f"{tuple(data.shape)}"
        )
    lines, count = trajectory.positions.shape[:2]
    stored = (count, lines) if trajectory.swapped else (lines, count)
    if lines == 1 and tuple(data.shape[-2:]) not in (stored, stored[::-1]):
        stored = (count,)
    elif lines == 1:
        stored = tuple(data.shape[-2:])
    slices, coils = kspace_layout(path, tuple(data.shape), stored, first_axis)
    several = data.ndim - len(stored) == 2 or (data.ndim > len(stored) and slices > 1)

    def read(array: np.ndarray, index: int) -> np.ndarray:
        part = np.asarray(array[index] if several else array[()])
        part = part.reshape(coils, *stored)
        part = part.swapaxes(-1, -2) if trajectory.swapped else part
        return part.astype(np.complex64).reshape(coils, lines, count)

    return _Layout((slices, coils, lines, count), read, list(trajectory.notes))


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
    views_first = kind == SINOGRAM and several and first_axis == "views"
    if views_first:
        shape = (shape[1], shape[0], shape[2])
    full = shape if several else (1, *shape)

    def read(array: np.ndarray, index: int) -> np.ndarray:
        where = (slice(None), index) if views_first else index
        part = np.asarray(array[where] if several else array[()])
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
    first, _, last = (_gathered(part, axis) for axis in range(3))
    return bool(first > GATHERED * last)


def _gathered(array: np.ndarray, axis: int) -> float:
    """How far energy is concentrated along an axis: its largest over its mean."""
    energy = np.square(np.abs(np.nan_to_num(array).astype(np.complex128)))
    profile = energy.sum(axis=tuple(i for i in range(array.ndim) if i != axis))
    return float(profile.max() / profile.mean()) if profile.any() else 1.0


def _raw(raw: Raw, path: Path, matrix: tuple[int, int] | None) -> Measured:
    """Measurement of an ISMRMRD file, with the image's field of view at the measured resolution."""
    encoding, image_shape = raw.encoding, None
    if encoding.field_of_view and encoding.image_field_of_view:
        image_shape = tuple(
            min(n, round(n * wanted / encoded))
            for n, encoded, wanted in zip(
                encoding.matrix, encoding.field_of_view, encoding.image_field_of_view, strict=True
            )
        )
    found = None
    if raw.trajectory is not None:
        found = read_trajectory(path, raw.trajectory, matrix or encoding.matrix)
        image_shape = image_shape or matrix or encoding.matrix
    return Measured(
        path,
        KSPACE,
        raw.kspace.shape,
        lambda index: raw.kspace[index],
        image_shape=image_shape,
        voxel_size=_voxel_size(encoding, raw.spacing),
        notes=raw.notes if found is None else [*raw.notes, *found.notes],
        whitening=raw.whitening,
        trajectory=None if found is None else found.positions,
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
