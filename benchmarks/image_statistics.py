"""Speed and memory of the image statistics: ``nice python -m benchmarks.image_statistics``.

It uses a disk cache of 30 000 synthetic images of 320 x 320 (12.3 GB) in a temporary folder on the
current disk (``--folder`` chooses another, ``--images`` fewer), and measures images per second of
`evaluation.image_statistics` from the disk (the file's pages are dropped first) and from the page
cache, compared with a plain loop over the same cache with `numpy.histogram` per image, before and
after in the same run; and the peak memory of the process, including mapped pages.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.utils.data import Dataset

from datasets.cache import DiskCache, open_cache
from datasets.sample import Sample
from datasets.system import cores
from evaluation.image_statistics import BINS, RANGE, Statistics, image_statistics, stream

SIZE, KINDS, PLAIN = 320, 32, 600
GOAL, MEMORY = 500, 1000  # images/s and MB


class Synthetic(Dataset):
    """Data set of smooth and textured images in [0, 1], shifted so that no two are equal."""

    def __init__(self, count: int):
        rng = np.random.default_rng(0)
        self.keys = [f"image:{i}" for i in range(count)]
        self.files: list[Path] = []
        self.skipped: list[str] = []
        self.kinds = [
            self._image(rng, width, noise)
            for width, noise in zip(
                rng.uniform(1, 8, KINDS), rng.uniform(0, 0.05, KINDS), strict=True
            )
        ]

    @staticmethod
    def _image(rng: np.random.Generator, width: float, noise: float) -> np.ndarray:
        image = gaussian_filter(rng.random((SIZE, SIZE)), width)
        image = (image - image.min()) / np.ptp(image) + noise * rng.standard_normal(image.shape)
        return np.clip(image, 0, 1).astype(np.float32)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> Sample:
        image = np.roll(self.kinds[i % KINDS], (i // KINDS % SIZE, i // KINDS // SIZE), (0, 1))
        return Sample(torch.from_numpy(image)[None], (0.0, 1.0), self.keys[i], {})


def plain(images: Iterator[np.ndarray]) -> Statistics:
    """Statistics by a plain loop over images with NumPy's histograms."""
    count, total = 0, np.zeros((SIZE, SIZE))
    counts = np.zeros((2, BINS), dtype=np.int64)
    for image in images:
        count += 1
        total += image
        for row, axis in enumerate((1, 0)):
            counts[row] += np.histogram(np.diff(image, axis=axis), BINS, (-RANGE, RANGE))[0]
    return Statistics(count, total / count, *counts)


class Speed(NamedTuple):
    """Images per second, and CPU time per image in ms, which other programs affect less."""

    rate: float
    cpu: float

    @staticmethod
    def of(count: int, work: Callable[[], object]) -> "Speed":
        """Speed of some work on `count` images."""
        start, cpu = time.perf_counter(), time.process_time()
        work()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return Speed(count / seconds, 1000 * cpu / count)


def measure_plain(cached: DiskCache) -> Speed:
    """Speed of the plain loop on the first images."""
    items = range(min(PLAIN, len(cached)))
    return Speed.of(len(items), lambda: plain(cached[i].image[0].numpy() for i in items))


def measure(cached: DiskCache) -> Speed:
    """Speed of the streamed statistics of all images."""
    return Speed.of(len(cached), lambda: image_statistics(stream(cached, "statistics")))


def drop_pages(path: Path) -> None:
    """Drop a file from the page cache, so that the next read comes from the disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_memory() -> float:
    """Peak memory of this process in MB, including mapped pages (Linux)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the image statistics.")
    parser.add_argument("--folder", type=Path, default=Path(), help="disk to test (default: .)")
    parser.add_argument("--images", type=int, default=30_000, help="(default: %(default)s)")
    arguments = parser.parse_args()
    needed = arguments.images * SIZE * SIZE * 4
    free = shutil.disk_usage(arguments.folder).free
    if needed > free:
        parser.error(f"expected {needed / 1e9:.1f} GB of free disk, got {free / 1e9:.1f} GB")
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix=".bench-") as name:
        settings = {"name": "synthetic", "count": arguments.images}
        cached = open_cache(Synthetic(arguments.images), settings=settings, cache_dir=name)
        before = peak_memory()
        drop_pages(cached.path)
        from_disk = measure(cached)
        memory = peak_memory()  # before the plain loop, which maps what it reads
        plains = [measure_plain(cached)]
        from_memory = measure(cached)
        plains.append(measure_plain(cached))
    print(f"{arguments.images} images, {needed / 1e9:.1f} GB; cores: {cores()}")
    found = {
        f"from the disk (at least {GOAL} images/s)": from_disk,
        f"from the page cache (at least {GOAL} images/s)": from_memory,
        "plain loop, before": plains[0],
        "plain loop, after": plains[1],
    }
    for label, speed in found.items():
        print(f"{label}: {speed.rate:.0f} images/s, {speed.cpu:.2f} CPU ms an image")
    ratio = from_memory.rate / max(speed.rate for speed in plains)
    print(f"page cache / plain loop: {ratio:.1f}")
    print(
        f"peak memory: {memory:.0f} MB (at most {MEMORY}); {before:.0f} MB before the first image"
    )


if __name__ == "__main__":
    main()
