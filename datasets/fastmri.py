"""fastMRI knee, brain and prostate T2 data, from the public HDF5 files as downloaded.

A file is one volume with the arrays

- `reconstruction_rss` (slices, height, width) float32: the image; absent in the public test sets,
- `kspace` complex64: (slices, height, width) single-coil, (slices, coils, height, width)
  multi-coil, (averages, slices, coils, height, width) prostate,
- `mask` (width,), test sets only: which columns of k-space were measured,
- `ismrmrd_header`, an XML text with the sizes of the image and of the encoded k-space,

and attributes such as `acquisition`. Zbontar et al. 2018, "fastMRI: An open dataset and benchmarks
for accelerated MRI"; Tibrewala et al. 2024, "FastMRI Prostate".

`config.data.mode` selects the magnitude image (this file), or the complex image or all coils,
computed from `kspace` (`fastmri_kspace`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from datasets.bad_input import Skips
from datasets.discovery import find_files
from datasets.fastmri_kspace import KSPACE_KEY, FastMRIKspace, check_kspace
from datasets.fit import centre_crop
from datasets.hdf5 import open_hdf5, read_slices, volume_shape
from datasets.sample import DataError, Sample, make_sample
from datasets.slices import SliceDataset, check_normalize, choose_slices
from datasets.splits import (
    check_root,
    check_split,
    files_by_name,
    folder_of_split,
    known_people,
    read_split_list,
    seeded_split,
)

IMAGE_KEY = "reconstruction_rss"
NO_TARGET = (
    "the public test folders have no reconstruction, use split 'val', data.split_list, or "
    "data.mode complex or multicoil, which read k-space"
)
PD, PDFS = "CORPD_FBK", "CORPDFS_FBK"  # `acquisition` of the knee volumes without, with fat sat.
MODES = ("magnitude", "complex", "multicoil")

OTHER_CONTRAST = "file_prostate_AXDIFF"  # diffusion: not an image per slice


class FastMRI(SliceDataset):
    """Magnitude slices of fastMRI volumes, each scaled to [0, 1]; made by `open_fastmri`.

    Items are `Sample`. With `load_kspace` their extras hold ``"kspace"``, complex64
    ``(1, H', W')``: the k-space of the file, neither cropped nor scaled (single-coil files only).
    """

    def __init__(
        self,
        slices: Sequence[tuple[Path, int]],
        *,
        image_size: int | None = None,
        load_kspace: bool = False,
        normalize: str = "slice",
        upside_down: bool = False,
        skipped: Sequence[str] = (),
    ):
        super().__init__(slices, normalize=normalize, skipped=skipped)
        self.image_size = image_size
        self.load_kspace = load_kspace
        self.upside_down = upside_down

    def read(self, source: Path, indices: Sequence[int]) -> list[Sample]:
        """Samples of some slices of one file."""
        with open_hdf5(source) as file:
            images = read_slices(file[IMAGE_KEY], indices)  # (H, W) each
            extras = [{} for _ in indices]
            if self.load_kspace:
                for extra, kspace in zip(
                    extras, read_slices(file[KSPACE_KEY], indices), strict=True
                ):
                    kspace = torch.from_numpy(kspace.astype(np.complex64))
                    extra["kspace"] = kspace[None]  # (1, H', W')
            bounds = self.bounds(source)
        if self.image_size:
            images = [centre_crop(image, self.image_size) for image in images]
        if self.upside_down:
            images = [np.ascontiguousarray(image[::-1]) for image in images]
        keys = [f"{source.name}:{index}" for index in indices]
        return [
            make_sample(image, key, extra, bounds=bounds)
            for image, key, extra in zip(images, keys, extras, strict=True)
        ]

    def volume(self, source: Path) -> np.ndarray:
        """All images of a file as stored: ``(slices, H, W)``."""
        with open_hdf5(source) as file:
            return file[IMAGE_KEY][()]


def open_fastmri(
    root: str | Path,
    split: str,
    *,
    image_size: int | None = None,
    acquisition: str = "",
    slices: str = "all",
    mode: str = "magnitude",
    load_kspace: bool = False,
    normalize: str = "slice",
    upside_down: bool = False,
    split_seed: int = 0,
    split_list: str = "",
    skip_bad: bool = False,
    cache_dir: str = "",
) -> SliceDataset:
    """Data set of the fastMRI volumes of a split; every file that is used is checked.

    If two or more of the public folders ``{singlecoil,multicoil}_{train,val,test}``,
    ``training*``, ``validation*``, ``test*`` are somewhere below `root` (also after the archive's
    name, ``knee_singlecoil_train``), they are the splits. If there are both single- and multi-coil
    folders, whose images are the same, single-coil ones are used, or multi-coil ones for mode
    "multicoil". Otherwise all files are split by `split_seed`, with the files of a `patient_id`
    together.

    Args:
        root: folder of the data set.
        split: "train", "val" or "test".
        image_size: side of the central square to crop to; None or 0 keeps the size in the file.
        acquisition: only volumes with this `acquisition` attribute, such as `PD` or `PDFS`;
            "" for all.
        slices: slices of each volume, see `slices.choose_slices`.
        mode: "magnitude" (`FastMRI`), "complex" or "multicoil" (`FastMRIKspace`).
        load_kspace: magnitude only: whether to also read the k-space, see `FastMRI`.
        normalize: magnitude only: whether to scale over each "slice" or its "volume".
        upside_down: magnitude only: whether to reverse the rows, as the study of 2026 does.
        split_seed: chooses the files of a split if there are no folders for it.
        split_list: path of a text file of names, see `splits.read_split_list`, which may be in any
            of the folders.
        skip_bad: whether to skip files that cannot be used.
        cache_dir: folder of the coil maps, see `cache_folder.cache_folder`.

    Raises:
        DataError: nothing usable is found, or a file cannot be read as requested.
    """
    check_split(split)
    check_normalize(normalize)
    if mode not in MODES:
        raise DataError(f"unknown data.mode '{mode}'; known: {', '.join(MODES)}")
    if mode != "magnitude" and (load_kspace or normalize != "slice"):
        raise DataError(
            f"data.mode '{mode}' is scaled by each slice's peak and has its own k-space; set "
            "data.normalize to slice and data.load_kspace to False"
        )
    if upside_down and (mode != "magnitude" or load_kspace):
        raise DataError(
            "data.upside_down turns magnitude images only, and not their k-space; set data.mode to "
            "magnitude and data.load_kspace to False"
        )
    skips = Skips(skip_bad)
    paths = _split_paths(check_root(root), split, split_seed, split_list, mode, skips)

    def check(file: h5py.File, path: Path) -> int:
        if mode == "magnitude":
            return _check_images(file, path, image_size, load_kspace)
        return check_kspace(file, path, image_size, multicoil=mode == "multicoil")

    items = _choose(paths, acquisition, slices, check, skips, where=f"{root}, split '{split}'")
    if mode == "magnitude":
        return FastMRI(
            items,
            image_size=image_size,
            load_kspace=load_kspace,
            normalize=normalize,
            upside_down=upside_down,
            skipped=skips.reasons,
        )
    return FastMRIKspace(
        items,
        image_size=image_size,
        multicoil=mode == "multicoil",
        cache_dir=cache_dir,
        skipped=skips.reasons,
    )


def _choose(
    paths: Sequence[Path],
    acquisition: str,
    slices: str,
    check: Callable[[h5py.File, Path], int],
    skips: Skips,
    where: str,
) -> list[tuple[Path, int]]:
    """Chosen slices of the volumes of one acquisition that pass `check`."""
    found: dict[str, int] = {}
    items: list[tuple[Path, int]] = []
    for path in paths:
        with skips.guard(), open_hdf5(path) as file:
            name = _attribute(file, "acquisition")
            found[name] = found.get(name, 0) + 1
            if acquisition in ("", name):
                items += [(path, i) for i in choose_slices(slices, check(file, path), path)]
    if not items and skips.reasons:
        raise DataError(f"{where}: no volume was left, such as: {skips.reasons[0]}")
    if not items:
        raise DataError(
            f"{where}: no volume has acquisition '{acquisition}', got {found}; "
            "set data.acquisition to one of these, or to '' for all"
        )
    return items


def _split_paths(
    root: Path, split: str, seed: int, split_list: str, mode: str, skips: Skips
) -> list[Path]:
    files, folders = _find(root, "multicoil" if mode == "multicoil" else "singlecoil")
    if split_list or len(folders) < 2:
        named = files_by_name(files, skips)
        if split_list:
            return [named[name] for name in read_split_list(split_list, split, named, skips)]
        people = _people(named, root)
        chosen = seeded_split(sorted(named), split, seed, root, people=people)
        return [named[name] for name in chosen]
    paths = list(files_by_name(folders.get(split, ()), skips).values())
    if not paths:
        filled = sorted(name for name in folders if folders[name])
        raise DataError(
            f"{root}: expected a folder with .h5 files for split '{split}', got some for {filled}; "
            "use one of these, or name the files with data.split_list"
        )
    return paths


def _find(root: Path, preferred: str) -> tuple[list[Path], dict[str, list[Path]]]:
    """All usable files, and those of each split that has a folder."""
    by_folder: dict[tuple[str, str], list[Path]] = {}
    for name in find_files(root, (".h5",)):
        *folders, file = name.split("/")
        if not file.startswith(OTHER_CONTRAST):
            by_folder.setdefault(folder_of_split(folders), []).append(root / name)
    if not by_folder:
        raise DataError(
            f"{root}: expected .h5 files in it or in singlecoil_train, multicoil_val, ..., got "
            "none; set data.root to the folder of the unpacked archives"
        )
    by_split: dict[str, list[Path]] = {}
    for coils, split in sorted(by_folder, key=lambda key: key[0] != preferred):
        if split:
            by_split.setdefault(split, by_folder[coils, split])  # the preferred ones come first
    loose = [path for (_, split), paths in by_folder.items() if not split for path in paths]
    return loose + [path for paths in by_split.values() for path in paths], by_split


def _people(named: Mapping[str, Path], root: Path) -> dict[str, str]:
    """File name -> person, from the attribute `patient_id` of the files."""
    identities = {}
    for name, path in named.items():
        try:
            with open_hdf5(path) as file:
                identities[name] = _attribute(file, "patient_id")
        except DataError:  # reported when the split of the file is read
            identities[name] = ""
    return known_people(identities, root)


def _attribute(file: h5py.File, name: str) -> str:
    value = file.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_images(file: h5py.File, path: Path, image_size: int | None, load_kspace: bool) -> int:
    """Number of slices of a volume; a DataError if its images cannot be read as requested."""
    shape = volume_shape(file, path, IMAGE_KEY, NO_TARGET)
    if image_size and min(shape[1:]) < image_size:
        raise DataError(
            f"{path}: expected images of at least {image_size} x {image_size} to crop from, got "
            f"{shape[1]} x {shape[2]}; set data.image_size to at most {min(shape[1:])}"
        )
    if load_kspace:
        kspace = file.get(KSPACE_KEY)
        if kspace is None or kspace.ndim != 3 or len(kspace) != shape[0]:
            got = "none" if kspace is None else f"shape {kspace.shape}"
            raise DataError(
                f"{path}: expected single-coil '{KSPACE_KEY}' of {shape[0]} slices, got {got}; "
                "set data.load_kspace to False"
            )
    return shape[0]
