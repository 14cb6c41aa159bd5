"""Disk cache: all images of a data set, decoded and resized, in one memory-mapped file."""

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.bad_input import Skips
from datasets.cache_folder import cache_folder, make_folder, writing_cache
from datasets.files import locked, replacing, write_atomically
from datasets.parallel import map_items, read_items
from datasets.sample import DataError, Sample
from datasets.system import WRITE_BACK, advise, reserve

log = logging.getLogger(__name__)

VERSION = 2  # raise it when the layout of the files or the processing of images changes


class DiskCache(Dataset):
    """Data set whose images are in one .npy file; made by `open_cache`.

    The checksum of an image is verified when it is first read. A damaged image is read from the
    source again, and the cache is repaired.

    Args:
        path: .npy file of the array ``(N, 1, H, W)``, float32 or complex64.
        index: index that `_build` stores with it: `rows`, `keys`, `scales` and `checksums` of the
            items, and `skipped`.
        dataset: the source; if it has `extras_at_source`, items have its extras, read from it at
            each use.
    """

    in_memory = True  # loader processes would only copy images

    def __init__(self, path: Path, index: Mapping[str, Any], dataset: Dataset):
        self.path = path
        self.dataset = dataset
        self.checksums: list[int] = index["checksums"]
        self.checked = np.zeros(len(self.checksums), dtype=bool)
        self.rows = np.asarray(index["rows"], dtype=np.int64)
        self.keys: list[str] = index["keys"]
        self.scales: list[list[float]] = index["scales"]
        self.skipped: list[str] = index["skipped"]
        self.array: np.ndarray | None = _map(path)

    @property
    def files(self) -> list[Path]:
        """Files of the whole data set."""
        return self.dataset.files

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"array": None}  # do not pickle the images for a worker

    def images(self, items: Sequence[int]) -> Tensor:
        """Copy of the images of some items: ``(B, 1, H, W)``."""
        if self.array is None:
            self.array = _map(self.path)
        images = self.array.take(self.rows[items], axis=0)
        for b, i in enumerate(items):
            if not self.checked[i]:
                if zlib.crc32(images[b]) != self.checksums[i]:
                    images[b] = self._mend(i)
                self.checked[i] = True
        return torch.from_numpy(images)

    def _mend(self, i: int) -> np.ndarray:
        """Image of an item, read from its source and, if possible, written back to the cache."""
        row = int(self.rows[i])
        image = np.ascontiguousarray(self.dataset[row].image.numpy())
        log.warning("%s: %s was damaged; it is read again", self.path, self.keys[i])
        with suppress(OSError), _open(self.path) as file:  # the cache may not be writable
            start = self.path.stat().st_size - self.array.nbytes
            os.pwrite(file, image.data.cast("B"), start + row * image.nbytes)
        return image

    def __getitem__(self, i: int) -> Sample:
        extras = {}
        if getattr(self.dataset, "extras_at_source", False):
            extras = self.dataset[int(self.rows[i])].extras
        return Sample(self.images([i])[0], tuple(self.scales[i]), self.keys[i], extras)


def open_cache(
    dataset: Dataset,
    *,
    settings: Mapping[str, Any],
    cache_dir: str = "",
    root: str | Path | None = None,
    skip_bad: bool = False,
    processes: int | None = None,
) -> DiskCache:
    """Disk cache of `dataset`, built if it is missing or a source has changed.

    One process builds it while others wait. The array is written to a temporary file, flushed and
    renamed; the index is written last, and an array without index is ignored.

    Args:
        dataset: data set with `keys`, `files` and `skipped`, whose images have one shape and no
            extras, or `extras_at_source`.
        settings: JSON-able settings that the images depend on in addition to the files.
        cache_dir: see `cache_folder.cache_folder`.
        root: folder of the data; None if there is none.
        skip_bad: whether to skip unreadable images instead of raising an error.
        processes: number of processes that build; None for the number of cores, up to 8.

    Raises:
        DataError: an image cannot be used, shapes differ, or the cache cannot be written.
    """
    name = _digest(VERSION, json.dumps(dict(settings), sort_keys=True, default=str), skip_bad)
    folder = cache_folder(cache_dir, root) / "images" / name
    stem = _digest(dataset.keys, [_stamp(path) for path in dataset.files])
    cached = _load(folder / stem, dataset)
    if cached is None:
        make_folder(folder)
        with writing_cache(folder), locked(folder / "lock", waiting="builds the cache"):
            cached = _load(folder / stem, dataset)  # another process may have built it meanwhile
            if cached is None:
                _build(dataset, folder / stem, Skips(skip_bad), processes)
                _remove_others(folder, stem)
                cached = _load(folder / stem, dataset)
    if cached is None:
        raise DataError(f"{folder}: the cache vanished while it was opened; start again")
    return cached


def _load(stem: Path, dataset: Dataset) -> DiskCache | None:
    """A complete cache, or None."""
    try:
        index = json.loads(stem.with_suffix(".json").read_bytes())
        if index.pop("sha256") != _checksum(index):
            return None
        cached = DiskCache(stem.with_suffix(".npy"), index, dataset)
        array = cached.array
        same = list(array.shape) == index["shape"] and array.dtype.str == index["dtype"]
        return cached if same and array.flags.c_contiguous else None
    except Exception:  # damaged files raise anything; the cache is then rebuilt
        return None


def _map(path: Path) -> np.ndarray:
    return np.lib.format.open_memmap(path, mode="r").view(np.ndarray)


def _checksum(index: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _build(dataset: Dataset, stem: Path, skips: Skips, processes: int | None) -> None:
    first, count = _first_image(dataset, skips), len(dataset)
    path = stem.with_suffix(".npy")
    rows: list[tuple[int, str, tuple[float, float], int]] = []
    with _new_array(path, (count, *first.shape), first.dtype) as (temporary, offset):
        write = partial(_write_items, dataset, temporary, offset, first.shape, first.dtype)
        for written, failures in map_items(
            write, count, label="building the cache", processes=processes
        ):
            rows += written
            for error in failures:
                skips.add(error)
    if not rows:
        raise DataError(f"{stem}: every image was left out, such as: {skips.reasons[0]}")
    rows.sort()
    index = {
        "shape": [count, *first.shape],
        "dtype": first.dtype.str,
        "rows": [row for row, *_ in rows],
        "keys": [key for _, key, *_ in rows],
        "scales": [scale for _, _, scale, _ in rows],
        "checksums": [checksum for *_, checksum in rows],
        "skipped": [*getattr(dataset, "skipped", ()), *skips.reasons],
    }
    text = json.dumps(index | {"sha256": _checksum(index)})
    write_atomically(stem.with_suffix(".json"), text)


def _first_image(dataset: Dataset, skips: Skips) -> np.ndarray:
    """First readable image, which gives shape and dtype of all."""
    for i in range(len(dataset)):
        (sample,) = read_items(dataset, [i])
        if isinstance(sample, DataError) and not skips.allowed:
            raise sample
        if isinstance(sample, Sample):
            if sample.extras and not getattr(dataset, "extras_at_source", False):
                raise DataError(
                    f"{sample.key}: the disk cache holds images alone, not "
                    f"{', '.join(sample.extras)}; set data.cache to none or memory"
                )
            return sample.image.numpy()
    raise DataError(f"none of the {len(dataset)} images can be read; see the warnings above")


def _write_items(
    dataset: Dataset,
    path: Path,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    items: Sequence[int],
) -> tuple[list[tuple[int, str, tuple[float, float], int]], list[DataError]]:
    """Write some images to their rows; returns (row, key, scale, checksum) of each, and errors."""
    written, failures = [], []
    size = int(np.prod(shape)) * dtype.itemsize
    samples = read_items(dataset, items)
    with writing_cache(path), _open(path) as file:
        for row, sample in zip(items, samples, strict=True):
            if isinstance(sample, DataError):
                failures.append(sample)
                continue
            image = np.ascontiguousarray(sample.image.numpy())
            if image.shape != shape or image.dtype != dtype:
                raise DataError(
                    f"{sample.key}: expected an image of {shape} {dtype} as the first one, got "
                    f"{image.shape} {image.dtype}; set data.image_size, or data.cache to none"
                )
            os.pwrite(file, image.data.cast("B"), offset + row * size)
            written.append((row, sample.key, sample.scale, zlib.crc32(image)))
        # start writing to disk now, in parallel to the work, rather than in the final flush
        advise(file, offset + items[0] * size, len(items) * size, WRITE_BACK)
    return written, failures


@contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _new_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[tuple[Path, int]]:
    """Context with a temporary .npy file and the offset of its data; it becomes `path` at the end.

    Disk space is reserved first, so that a full disk is noticed before any work.
    """
    with writing_cache(path), replacing(path) as file:
        header = {"shape": shape, "fortran_order": False, "descr": dtype.str}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        reserve(file.descriptor, offset, int(np.prod(shape)) * dtype.itemsize)
        yield Path(file.name), offset


def _remove_others(folder: Path, stem: str) -> None:
    """Remove caches of earlier states of the sources; processes that have them open keep them."""
    for path in folder.iterdir():
        if path.name != "lock" and path.stem != stem:
            path.unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check that it exists") from error
    # resolved, as data.root may be relative or a link
    return path.resolve().as_posix(), status.st_size, status.st_mtime_ns


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
