"""Arrays of MATLAB files: versions 4 to 7 by SciPy, 7.3 (HDF5) by h5py."""

from pathlib import Path

import h5py
import numpy as np

from datasets.bad_input import reading
from datasets.compressed import check_claim
from datasets.hdf5 import open_hdf5

SUFFIX = ".mat"
MAGIC = b"MATLAB "  # of versions 5 to 7.3; 7.3 is HDF5 behind it
PARTS = {"real", "imag"}
DEPTH = 4  # of structs in structs

Arrays = dict[str, "np.ndarray | str | Arrays"]


def read_mat(path: Path) -> Arrays:
    """Variables of a MATLAB file by name: arrays, texts, and structs as dicts of the same.

    Arrays have MATLAB's order of axes. Cells, tables, objects, sparse arrays and arrays of structs
    are left out.

    Raises:
        DataError: the file is truncated or corrupt.
    """
    with reading(path, "a MATLAB file that can be read"), path.open("rb") as file:
        new = file.read(len(MAGIC) + 3).startswith(MAGIC + b"7.3")
    if new:
        with open_hdf5(path) as file:
            return _group(path, file, DEPTH)
    from scipy.io import loadmat

    with reading(path, "an intact MATLAB file"):
        found = loadmat(path, simplify_cells=True)
    return _plain({name: value for name, value in found.items() if not name.startswith("__")})


def flatten_names(arrays: Arrays, prefix: str = "") -> list[str]:
    """Names of all arrays with their shapes, such as "scan.kspace (8, 64, 64)", for errors."""
    names = []
    for name, value in arrays.items():
        if isinstance(value, dict):
            names += flatten_names(value, f"{prefix}{name}.")
        elif isinstance(value, np.ndarray):
            names.append(f"{prefix}{name} {value.shape}")
    return names


def _plain(values: dict) -> Arrays:
    found: Arrays = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found[name] = _plain(value)
        elif isinstance(value, str):
            found[name] = value
        else:
            array = np.asarray(value)
            if array.dtype.kind in "biufc":
                found[name] = array
    return found


def _group(path: Path, group: h5py.Group, depth: int) -> Arrays:
    found: Arrays = {}
    for name, item in group.items():
        if name.startswith("#"):  # MATLAB's own: cells and references
            continue
        if isinstance(item, h5py.Group):
            if depth:
                found[name] = _group(path, item, depth - 1)
            continue
        if item.attrs.get("MATLAB_empty"):
            continue
        kind = item.attrs.get("MATLAB_class", b"")
        fields = set(item.dtype.names or ())
        if fields != PARTS and item.dtype.kind not in "biuf":
            continue
        check_claim(path, item.nbytes)
        array = item[()]
        if kind == b"char":
            found[name] = "".join(map(chr, array.ravel()))
        elif fields:
            found[name] = (array["real"] + 1j * array["imag"]).T
        else:
            found[name] = np.asarray(array).T
    return found
