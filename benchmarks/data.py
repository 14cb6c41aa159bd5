"""Speed and memory of the disk cache and the training loader: ``python -m benchmarks.data``.

It uses synthetic fastMRI knee volumes in the public layout (without k-space, which is not read) in
a temporary folder on the current disk (``--folder`` chooses another), and measures

- the time to build the cache relative to reading the files, with as many processes, best of
  interleaved repetitions. "Reading alone" is h5py reading each slice; "through the data set" also
  scales it. Both with a cold page cache (the files' pages are dropped first) and a warm one;
- images per second of the loader of `train.py`, batch size 4, shuffled, from the cache;
- memory of the process over 20 epochs.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch

from datasets import create_dataset
from datasets.cache import DiskCache
from datasets.parallel import fetch, map_items
from datasets.prepare import prepare_dataset
from datasets.slices import SliceDataset
from datasets.stream import TrainingStream, batches

SIZE, SLICES, BATCH, EPOCHS, PROCESSES = 320, 36, 4, 20, 2


def write_volumes(folder: Path, volumes: int) -> None:
    """Write files of SLICES slices each, in train and val, in fastMRI's layout."""
    rng = np.random.default_rng(0)
    for i in range(volumes + 1):
        split = "train" if i < volumes else "val"
        path = folder / f"singlecoil_{split}" / f"file{1000000 + i}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        images = rng.random((SLICES, SIZE, SIZE), dtype=np.float32) * 1e-4
        with h5py.File(path, "w") as file:
            file.create_dataset("reconstruction_rss", data=images)
            file.attrs["acquisition"] = "CORPD_FBK"
            file.flush()
        with path.open("rb") as file:
            os.fsync(file.fileno())


def read_files(dataset: SliceDataset, items: range) -> None:
    """Read these slices with h5py, and do nothing else."""
    by_path: dict[Path, list[int]] = {}
    for i in items:
        by_path.setdefault(dataset.slices[i][0], []).append(dataset.slices[i][1])
    for path, indices in by_path.items():
        with h5py.File(path, "r") as file:
            file["reconstruction_rss"][indices[0] : indices[-1] + 1]


def read_samples(dataset: SliceDataset, items: range) -> None:
    fetch(dataset, items)


def all_items(work: Callable[[range], None], count: int) -> None:
    for _ in map_items(work, count, label="", processes=PROCESSES):
        pass


def drop_pages(paths: list[Path]) -> None:
    """Drop files from the page cache, so that the next read comes from the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def build_against_reading(fields: dict, cold: bool, repeats: int) -> None:
    dataset = create_dataset(fields, "train")
    cache = Path(fields["cache_dir"])

    def build() -> None:
        prepare_dataset({**fields, "cache": "disk"}, "train", processes=PROCESSES)

    sides = {
        "reading the files alone": partial(all_items, partial(read_files, dataset), len(dataset)),
        "reading through the data set": partial(
            all_items, partial(read_samples, dataset), len(dataset)
        ),
        "building the cache": build,
    }
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(repeats):
        for name, run in sides.items():
            shutil.rmtree(cache, ignore_errors=True)
            os.sync()  # writes of the previous side must not slow down the next
            if cold:
                drop_pages(dataset.files)
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    built, state = best.pop("building the cache"), "cold" if cold else "warm"
    for name, seconds in best.items():
        print(
            f"{state} page cache: building the cache / {name}: {built:.2f} s / {seconds:.2f} s = "
            f"{built / seconds:.2f} (at most 1.5)"
        )


def training_stream(cached: DiskCache) -> TrainingStream:
    return TrainingStream(cached, seed=0, shuffle=True, crop=0, flip=False, rotate=False)


def loader_speed(cached: DiskCache, workers: int, epochs: int) -> None:
    steps = epochs * len(cached) // BATCH
    best = 0.0
    for _ in range(3):
        loader = batches(
            training_stream(cached), start=0, stop=steps, batch_size=BATCH, num_workers=workers
        )
        next(loader)  # workers have started
        start = time.perf_counter()
        images = sum(len(batch) for _, batch in loader)
        best = max(best, images / (time.perf_counter() - start))
    print(f"loader, batch {BATCH}, {SIZE} x {SIZE}: {best:.0f} images/s (at least 1500)")


def memory(cached: DiskCache) -> None:
    steps = len(cached) // BATCH
    stream, used = training_stream(cached), []
    for epoch in range(EPOCHS):
        for _ in batches(
            stream, start=epoch * steps, stop=(epoch + 1) * steps, batch_size=BATCH, num_workers=2
        ):
            pass
        used.append((resident("VmRSS"), resident("RssAnon")))
    for kind, values in zip(
        ("all, with the mapped cache", "the process's own"), zip(*used, strict=True), strict=True
    ):
        print(
            f"memory ({kind}) after epochs 1, 2, {EPOCHS}: {values[0]:.0f}, {values[1]:.0f}, "
            f"{values[-1]:.0f} MB (flat)"
        )


def resident(field: str) -> float:
    """A field of /proc/self/status in MB (Linux)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the disk cache.")
    parser.add_argument("--folder", type=Path, default=Path(), help="disk to test (default: .)")
    parser.add_argument("--volumes", type=int, default=48, help="of 36 slices (default 48)")
    parser.add_argument("--repeats", type=int, default=3, help="of the building (default 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(PROCESSES)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix=".bench-") as name:
        root, cache = Path(name, "data"), Path(name, "cache")
        write_volumes(root, arguments.volumes)
        fields = {"name": "fastmri", "root": str(root), "cache_dir": str(cache)}
        for cold in (True, False):
            build_against_reading(fields, cold, arguments.repeats)
        cached = prepare_dataset({**fields, "cache": "disk"}, "train")
        print(f"{len(cached)} images, {PROCESSES} processes or cores")
        loader_speed(cached, workers=2, epochs=4)
        memory(cached)


if __name__ == "__main__":
    main()
