"""The disk cache: every image of a data set, decoded and resized, in one memory-mapped file."""

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

VERSION = 2  # of the files' layout and of how images are made; raise it when either changes


class DiskCache(Dataset):
    """A data set whose images lie in one .npy file; made by `open_cache`.

    An image is compared with its checksum when it is first read. If it is damaged it is read from
    the source, and the cache is mended.

    Args:
        path: of the array ``(N, 1, H, W)``, float32 or complex64.
        index: what `_build` stores beside it: `rows`, `keys`, `scales` and `checksums` of the
            items, `skipped`.
        dataset: the source.
    """

    in_memory = True  # for a loader: workers would only copy

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
        """The files of the whole data set."""
        return self.dataset.files

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"array": None}  # pickled for a worker: not the images

    def images(self, items: Sequence[int]) -> Tensor:
        """The images of some items, ``(B, 1, H, W)``, a copy."""
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
        """The image of an item from its source; in the cache, too, where that can be."""
        row = int(self.rows[i])
        image = np.ascontiguousarray(self.dataset[row].image.numpy())
        log.warning("%s: %s was damaged; it is read again", self.path, self.keys[i])
        with suppress(OSError), _open(self.path) as file:  # perhaps a cache of somebody else
            start = self.path.stat().st_size - self.array.nbytes
            os.pwrite(file, image.data.cast("B"), start + row * image.nbytes)
        return image

    def __getitem__(self, i: int) -> Sample:
        return Sample(self.images([i])[0], tuple(self.scales[i]), self.keys[i], {})


def open_cache(
    dataset: Dataset,
    *,
    settings: Mapping[str, Any],
    cache_dir: str = "",
    root: str | Path | None = None,
    skip_bad: bool = False,
    processes: int | None = None,
) -> DiskCache:
    """The cache of `dataset`, built if it is not there or if a source has changed.

    One process builds, others wait for it. The array is written to a temporary file, flushed,
    and renamed; the index is written last, and without it the array is not read.

    Args:
        dataset: has `keys`, `files` and `skipped`; its images have one shape and no extras.
        settings: JSON-able, what the images depend on beside the files.
        cache_dir: see `cache_folder.cache_folder`.
        root: the data's folder; None: they have none.
        skip_bad: leave out images that cannot be read, instead of an error.
        processes: that build; None: as many as there are cores, up to 8.

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
    except Exception:  # damaged files raise anything: they are made again
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
    """An image that says which shape and type all have."""
    for i in range(len(dataset)):
        (sample,) = read_items(dataset, [i])
        if isinstance(sample, DataError) and not skips.allowed:
            raise sample
        if isinstance(sample, Sample):
            if sample.extras:
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
    """Write some images to their places; (row, key, scale, checksum) of each, and errors."""
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
        # now rather than in the flush at the end, which nothing else would go on beside
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
    """A temporary .npy file and where its numbers start; complete at the end, it becomes `path`.

    Its room is reserved first, so that a full disk is known before any work.
    """
    with writing_cache(path), replacing(path) as file:
        header = {"shape": shape, "fortran_order": False, "descr": dtype.str}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        reserve(file.descriptor, offset, int(np.prod(shape)) * dtype.itemsize)
        yield Path(file.name), offset


def _remove_others(folder: Path, stem: str) -> None:
    """Remove what earlier states of the sources left; whoever has it open keeps it."""
    for path in folder.iterdir():
        if path.name != "lock" and path.stem != stem:
            path.unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check that it exists") from error
    # however data.root was typed
    return path.resolve().as_posix(), status.st_size, status.st_mtime_ns


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
