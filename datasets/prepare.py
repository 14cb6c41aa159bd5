"""Preparation of a data set for use: all items are checked, and optionally cached."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from datasets import create_dataset, dataset_options
from datasets.augment import check_shape
from datasets.bad_input import Skips
from datasets.cache import open_cache
from datasets.parallel import fetch, map_items, read_items
from datasets.sample import DataError, Sample

log = logging.getLogger(__name__)

CACHES = ("none", "memory", "disk")
NOT_SETTINGS = ("cache_dir",)  # options that do not change the images


class Selection(Dataset):
    """Some items of a data set."""

    def __init__(self, dataset: Dataset, items: Sequence[int], skipped: Sequence[str] = ()):
        self.dataset = dataset
        self.items = list(items)
        self.skipped = [*getattr(dataset, "skipped", ()), *skipped]
        self.extras_at_source = getattr(dataset, "extras_at_source", False)

    @property
    def keys(self) -> list[str]:
        """Keys of the items."""
        keys = self.dataset.keys
        return [keys[i] for i in self.items]

    @property
    def files(self) -> list[Path]:
        """Files of the whole data set."""
        return self.dataset.files

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Sample:
        return self.dataset[self.items[i]]

    def __getitems__(self, items: Sequence[int]) -> list[Sample]:
        return fetch(self.dataset, [self.items[i] for i in items])


class MemoryCache(Dataset):
    """Data set whose samples are all in memory, where forked workers share them."""

    in_memory = True  # loader processes would only copy images

    def __init__(
        self, samples: Sequence[Sample], skipped: Sequence[str] = (), files: Sequence[Path] = ()
    ):
        self.samples = list(samples)
        self.files = list(files)
        self.skipped = list(skipped)
        self.keys = [sample.key for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Sample:
        return self.samples[i]


def prepare_dataset(
    data: Mapping[str, Any],
    split: str,
    *,
    limit: int = 0,
    order: Callable[[Dataset], Sequence[int]] | None = None,
    same_size: bool = False,
    processes: int | None = None,
) -> Dataset:
    """Data set described by ``config.data``, with all items checked and optionally cached.

    All items are read once, in parallel, before any other work: into the cache, or only to check
    that they are usable.

    Args:
        data: the fields of `create_dataset`, and

            - cache: "none" (read the files at each use), "memory", or "disk" (decoded images in
              one memory-mapped file, kept for later runs)
            - cache_dir: see `cache_folder.cache_folder`
            - skip_bad: whether to skip bad items, logged and counted, instead of raising an error
            - crop, rotate: augmentation for which images have to be large enough or square
        split: "train", "val" or "test".
        limit: number of items, from the first; 0 for all.
        order: (data set) -> its items in another order, of which `limit` takes the first; None for
            the order of the files.
        same_size: whether all images have to have one size, to form batches.
        processes: number of processes that read; None for the number of cores, up to 8.

    Raises:
        DataError: an unknown or unusable value in `data`, missing or unusable data, or an item
            that cannot be used.
    """
    kind, skip_bad = data.get("cache") or "none", bool(data.get("skip_bad"))
    if kind not in CACHES:
        raise DataError(f"unknown data.cache '{kind}'; known: {', '.join(CACHES)}")
    dataset = create_dataset(data, split)
    people, is_stack = getattr(dataset, "people", {}), getattr(dataset, "is_stack", False)
    items = range(len(dataset)) if order is None else list(order(dataset))
    if limit or order is not None:
        dataset = Selection(dataset, items[: limit or None])
    if kind == "disk":
        options = {k: v for k, v in dataset_options(data).items() if k not in NOT_SETTINGS}
        root = Path(options.get("root", "")).expanduser().resolve()
        prepared = open_cache(
            dataset,
            settings={
                **options,
                "root": str(root),
                "name": data["name"],
                "split": split,
                "limit": limit,
                **({} if order is None else {"order": list(items[: limit or None])}),
            },
            cache_dir=data.get("cache_dir") or "",
            root=root if "root" in options else None,
            skip_bad=skip_bad,
            processes=processes,
        )
        _check(prepared[0], data.get("crop") or 0, bool(data.get("rotate")))  # all are of one size
    else:
        look = Look(kind == "memory", data.get("crop") or 0, bool(data.get("rotate")))
        prepared = _read_all(dataset, Skips(skip_bad), processes, look, same_size=same_size)
    prepared.people, prepared.is_stack = people, is_stack
    if prepared.skipped:
        log.warning(
            "split '%s': left out %d, kept %d images", split, len(prepared.skipped), len(prepared)
        )
    return prepared


class Look(NamedTuple):
    """Treatment of each image: whether to keep it, and the augmentation to check it for."""

    keep: bool
    crop: int
    rotate: bool


def _read_all(
    dataset: Dataset, skips: Skips, processes: int | None, look: Look, *, same_size: bool
) -> Dataset:
    read = partial(_read_plain, dataset, look)
    found: dict[int, Sample | None] = {}
    sizes: dict[tuple[int, ...], int] = {}  # size -> first image of that size
    for results in map_items(read, len(dataset), label="reading images", processes=processes):
        for i, size, sample in results:
            if isinstance(sample, DataError):
                skips.add(sample)
                continue
            found[i] = sample
            sizes[size] = min(i, sizes.get(size, i))
    if not found:
        raise DataError(f"every image was left out, such as: {skips.reasons[0]}")
    if same_size and len(sizes) > 1:
        _refuse_sizes(dataset, sizes)
    if not look.keep:
        return Selection(dataset, sorted(found), skips.reasons) if skips.reasons else dataset
    skipped = [*getattr(dataset, "skipped", ()), *skips.reasons]
    samples = [_to_tensors(found[i]) for i in sorted(found)]
    return MemoryCache(samples, skipped, getattr(dataset, "files", ()))


def _refuse_sizes(dataset: Dataset, sizes: dict[tuple[int, ...], int]) -> None:
    (first, i), (other, j) = sorted(sizes.items(), key=lambda item: item[1])[:2]
    raise DataError(
        f"{dataset.keys[j]}: expected images of one size in a batch, got {other} beside {first} of "
        f"{dataset.keys[i]}; set data.image_size or data.crop, or use batch size 1"
    )


def _read_plain(
    dataset: Dataset, look: Look, items: Sequence[int]
) -> list[tuple[int, tuple[int, ...], Sample | DataError | None]]:
    """Index, size and sample, with arrays, as sending a tensor takes a file handle."""
    results = []
    for i, sample in zip(items, read_items(dataset, items), strict=True):
        try:
            if isinstance(sample, DataError):
                raise sample
            _check(sample, look.crop, look.rotate)
        except DataError as error:
            results.append((i, (), error))
            continue
        extras = {name: value.numpy() for name, value in sample.extras.items()}
        plain = sample._replace(image=sample.image.numpy(), extras=extras)
        results.append((i, tuple(sample.image.shape[-2:]), plain if look.keep else None))
    return results


def _check(sample: Sample, crop: int, rotate: bool) -> None:
    """Raise a DataError with the image's key if it is too small to crop or not square."""
    try:
        check_shape(tuple(sample.image.shape[-2:]), crop=crop, rotate=rotate)
    except DataError as error:
        raise DataError(f"{sample.key}: {error}") from None


def _to_tensors(sample: Sample) -> Sample:
    extras = {name: torch.from_numpy(value) for name, value in sample.extras.items()}
    return sample._replace(image=torch.from_numpy(sample.image), extras=extras)
