"""Files of a user's own measurement: k-space or sinograms, in any of the formats that are read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from datasets import bart, matlab, tomography, twix
from datasets.array_layout import GATHERED, KSPACE, LAYOUT, SINOGRAM, gathered
from datasets.bad_input import reading
from datasets.hdf5 import get_array, open_hdf5, read_array
from datasets.ismrmrd import Encoding, Raw, find_groups, parse_header, read_ismrmrd
from datasets.measured import (
    ALONG,
    EXTRAS,
    Measured,
    Request,
    assemble,
    of_arrays,
    read_shape,
)
from datasets.sample import DataError
from datasets.trajectory import read_trajectory

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
IGNORED = ("density", "dcf", "image_shape")  # of a file's arrays: computed here or read apart
# arrays that are read -> names that others give them
OTHER_NAMES = {
    ALONG: ("traj", "ktraj", "coord", "coords"),
    "mask": ("masks", "sampling_mask"),
    "sens_maps": ("maps", "smaps", "csm", "sens", "sensitivities", "coil_maps"),
    "angles": ("angle", "theta", "thetas"),
}
FIRST_AXES = ("", "slices", "coils", "views")
VENDOR = (
    "raw data of other scanners or older versions (.dat, .7, .raw, ...) become ISMRMRD by the "
    "vendor's converter, e.g. siemens_to_ismrmrd"
)


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
    how = Request(path, first_axis, trajectory, matrix)
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


def _open_hdf5(how: Request) -> Measured:
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
        notes += _misnamed(how, list(file))
        if "image_shape" in file:
            image_shape = read_shape(path, read_array(file, path, "image_shape"))

        @contextmanager
        def again() -> Iterator[h5py.Dataset]:
            with open_hdf5(path) as opened:
                yield opened[kind]

        return assemble(
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


def _open_numpy(how: Request, *, zipped: bool) -> Measured:
    path = how.path
    with reading(path, "an intact NumPy file of numbers"):
        if zipped:
            with np.load(path, allow_pickle=False) as file:
                name, notes = _choose(path, file.files), _misnamed(how, file.files)
                known = [key for key in (*EXTRAS, ALONG, "image_shape") if key in file.files]
                extras, data = {key: file[key] for key in known}, file[name]
        else:
            name, extras, notes = "", {}, []
            data = np.load(path, mmap_mode="r", allow_pickle=False)
    return of_arrays(how, name, data, extras, notes=notes)


def _open_mat(how: Request) -> Measured:
    path = how.path
    arrays = matlab.read_mat(path)
    scan = tomography.find_helsinki(arrays)
    if scan is not None:
        sinogram, angles, geometry, note = tomography.read_helsinki(path, scan)
        return of_arrays(how, SINOGRAM, sinogram, {"angles": angles}, geometry, [note])
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
    return of_arrays(how, name, data, extras, notes=[*notes, *_misnamed(how, list(plain))])


def _from_matlab(data: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """K-space (H, W, coils, slices), as is common in MATLAB, with slices and coils in front."""
    if data.dtype.kind != "c" or data.ndim != 4:
        return data, []
    rows, columns, coils, slices = (gathered(data, axis) for axis in range(4))
    if min(rows, columns) <= GATHERED * max(coils, slices):
        return data, []
    note = f"k-space of shape {data.shape} is taken as (H, W, coils, slices), as energy lies in it"
    return np.ascontiguousarray(data.transpose(3, 2, 0, 1)), [note]


def _open_bart(how: Request) -> Measured:
    path, array = how.path, bart.read_cfl(how.path)
    along = how.trajectory is not None
    data = bart.kspace_from_bart(path, array, along=along)
    part = data[len(data) // 2]
    if not part.imag.any() and min(part.shape[1:]) > 1 and not along:
        raise DataError(
            f"{path}: expected complex k-space, got real numbers: an image, a trajectory or a mask?"
        )
    return of_arrays(how, KSPACE, data, {})


def _open_tiff(how: Request) -> Measured:
    import tifffile  # of scikit-image

    with reading(how.path, "an intact TIFF file of one stack"), tifffile.TiffFile(how.path) as file:
        size = how.path.stat().st_size
        for page in file.pages:  # what is missing would be read as zeros
            ends = [a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=size) > size:
                raise ValueError(f"{size} bytes where {max(ends)} are needed")
        data = file.asarray()
    return of_arrays(how, SINOGRAM, data, {})


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


def _misnamed(how: Request, names: Sequence[str]) -> list[str]:
    """Notes on arrays that are not read, but are known ones by their names elsewhere.

    Raises:
        DataError: a trajectory, without which k-space would be taken as Cartesian.
    """
    notes, trajectory_given = [], how.trajectory is not None
    for known, others in OTHER_NAMES.items():
        found = [name for name in names if name.lower() in others]
        if not found or known in names or (known == ALONG and trajectory_given):
            continue
        if known == ALONG and KSPACE in names:
            raise DataError(
                f"{how.path}: expected a trajectory under the name '{ALONG}', got '{found[0]}'; "
                "rename it, or give it with data.trajectory"
            )
        notes.append(f"the file's '{found[0]}' is not read: is it '{known}'? Then call it so")
    return notes


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
