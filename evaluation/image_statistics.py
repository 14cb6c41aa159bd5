"""Image statistics of data sets: mean images and negative log histograms of gradients.

    python -m evaluation.image_statistics --out=results/image_statistics \
        "knee=configs/fastmri_knee.py" "CT=configs/ct.py,root=PATH" "natural=configs/celeba.py"

writes `image_statistics.png`, `.pdf` and a CSV file per data set (the study's figure 1, in wider
bins, with exponents and kurtosis). Images are streamed, so that memory does not depend on their
number.
"""

import argparse
import copy
import csv
import io
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset

from configs import ConfigError, clear_errors, load_config, quiet_pipe
from configs.progress import progress_bar
from configs.ranges import check_numbers
from datasets import collate
from datasets.files import write_atomically
from datasets.prepare import prepare_dataset
from datasets.system import cores
from evaluation.show.gradient_shape import shape_of
from evaluation.show.style import STYLE, WIDTH, plain, prior_colors, save

# gradients from -0.351 to 0.351 per pixel, of images in [0, 1]; a bin a grey level of 8-bit images,
# with the level in its middle: narrower bins would be empty in turns
BINS = 179
RANGE = BINS / 2 / 255
BEYOND = RANGE * (1 + 1 / BINS)  # half a bin outside the range
BATCH = 16  # number of images that are read together
FIELD = re.compile(r",(?=[a-z_]+=)")  # comma before a field; paths may contain commas
LEGEND_PART = 0.09  # of the height of a plot that a line of its legend takes
REMAP = 32  # number of batches after which the disk cache's file is mapped anew

T = TypeVar("T")
U = TypeVar("U")


class Statistics(NamedTuple):
    """Mean image and gradient histograms of a data set.

    Attributes:
        count: number of images.
        mean: ``(H, W)`` mean image.
        horizontal: ``(179,)`` histogram of x[i, j + 1] - x[i, j].
        vertical: ``(179,)`` histogram of x[i + 1, j] - x[i, j].
    """

    count: int
    mean: np.ndarray
    horizontal: np.ndarray
    vertical: np.ndarray


def image_statistics(batches: Iterable[Tensor], *, threads: int | None = None) -> Statistics:
    """Mean image and gradient histograms of a stream of images.

    Gradients are differences in the precision of the images; they are counted exactly as
    `numpy.histogram` does in float64. Those outside the range of the bins are not counted.

    Args:
        batches: ``(B, 1, H, W)`` images in [0, 1] of one size, float32, or complex ones, whose
            magnitude is taken.
        threads: number of threads that count while the next batch is read; None for the number of
            cores.

    Raises:
        ValueError: no images, images of different sizes, NaN or infinite values.
    """
    count, total = 0, None
    counts = np.zeros((2, BINS), dtype=np.int64)
    for images, image_sum, histograms in _in_order(_sums, batches, threads or cores()):
        if total is None:
            total = np.zeros_like(image_sum)
        if image_sum.shape != total.shape:
            raise ValueError(
                f"expected images of one size, got {image_sum.shape} after {total.shape}; "
                "set image_size"
            )
        count += images
        total += image_sum
        counts += histograms
    if total is None:
        raise ValueError("expected at least one image, got none")
    return Statistics(count, total / count, *counts)


def _in_order(work: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """Results of `work` on each item in threads, in the order of the items."""
    waiting: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:  # bounds the memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _sums(batch: Tensor) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of images, their sum ``(H, W)``, and both gradient histograms ``(2, 179)``."""
    images = (batch.abs() if batch.is_complex() else batch)[:, 0].numpy()  # (B, H, W)
    total = images.sum(0, dtype=np.float64)
    if not np.isfinite(total).all():
        raise ValueError("expected finite images, got NaN or infinite values in one of them")
    counts = np.zeros((2, BINS), dtype=np.int64)
    for image in images:  # one image at a time fits the cache of a core
        counts[0] += count_gradients(np.diff(image, axis=1))
        counts[1] += count_gradients(np.diff(image, axis=0))
    return len(images), total, counts


def count_gradients(gradient: np.ndarray) -> np.ndarray:
    """Histogram of gradients ``(179,)``, equal to that of `numpy.histogram`, but faster.

    NumPy also compares each number with the edges of its bin, because of rounding. In float64 this
    is not needed, as no float32 number is closer than 5e-11 to an edge.

    Args:
        gradient: finite float32 numbers of any shape.
    """
    inside = np.clip(gradient.ravel(), -BEYOND, BEYOND)
    place = np.multiply(inside, BINS / (2 * RANGE), dtype=np.float64)
    place += BINS / 2 + 1  # bin k holds the places from k + 1 to k + 2
    return np.bincount(place.astype(np.intp), minlength=BINS + 2)[1:-1]


def bin_centres() -> np.ndarray:
    """Gradient at the middle of each bin: ``(179,)``."""
    edges = np.linspace(-RANGE, RANGE, BINS + 1)
    return (edges[1:] + edges[:-1]) / 2


def negative_log(counts: np.ndarray) -> np.ndarray:
    """Negative log of a histogram without its end bins, shifted to a minimum of 0: ``(177,)``.

    Empty bins are NaN.
    """
    inner = counts[1:-1]
    values = -np.log(np.where(inner > 0, inner, np.nan))
    return values - np.nanmin(values)


def stream(dataset: Dataset, label: str) -> Iterator[Tensor]:
    """The images of a data set in batches ``(B, 1, H, W)``, with a progress bar."""
    with progress_bar(len(dataset), "image", label=label) as progress:
        for number, first in enumerate(range(0, len(dataset), BATCH)):
            items = range(first, min(first + BATCH, len(dataset)))
            if not hasattr(dataset, "images"):
                images = collate([dataset[i] for i in items]).image
            else:
                # the disk cache returns a whole batch; a copy maps the file anew, so that pages
                # read before no longer count as memory of this process
                if number % REMAP == 0:
                    mapped = copy.copy(dataset)
                images = mapped.images(list(items))
            yield images
            progress.update(len(items))


def check_labels(specs: Sequence[str]) -> None:
    """Raise a ConfigError if two data sets have the same label or the same name of the CSV file."""
    names = Counter(file_name(spec.partition("=")[0]) for spec in specs)
    twice = [name for name, number in names.items() if number > 1]
    if twice:
        raise ConfigError(
            f"expected a label of its own for each data set, got {', '.join(twice)} more than once"
        )


def file_name(label: str) -> str:
    """Name of the CSV file of a label."""
    return f"{label.replace('/', '_')}.csv"


def open_data(spec: str, split: str) -> tuple[str, Dataset]:
    """Label and data set of an argument ``LABEL=CONFIG.py[,FIELD=VALUE...]``.

    Args:
        spec: the argument; fields are those of ``config.data``. A value may contain commas, unless
            a word and ``=`` follow.
        split: "train", "val" or "test".

    Raises:
        ConfigError: another form, or an unknown field.
        DataError: the data are missing or damaged.
    """
    label, _, rest = spec.partition("=")
    path, *changes = FIELD.split(rest)
    if not label or not path:
        raise ConfigError(f"expected LABEL=CONFIG.py[,FIELD=VALUE...], got {spec!r}")
    config = load_config(path)
    for change in changes:
        field, _, value = change.partition("=")
        if field not in config.data:
            raise ConfigError(f"unknown field {field!r}; known: {', '.join(config.data)}")
        kind = type(config.data[field])
        config.data[field] = value == "True" if kind is bool else kind(value)
    check_numbers(config.data, "data.")
    whole = {**config.data, "crop": 0, "rotate": False}
    return label, prepare_dataset(whole, split, same_size=True)


def write_csv(path: Path, statistics: Statistics) -> None:
    """Write the histograms as CSV: gradient, counts, and shifted negative logs of the counts."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        ["gradient", "horizontal", "vertical", "horizontal_neg_log", "vertical_neg_log"]
    )
    rows = zip(
        bin_centres()[1:-1],
        statistics.horizontal[1:-1],
        statistics.vertical[1:-1],
        negative_log(statistics.horizontal),
        negative_log(statistics.vertical),
        strict=True,
    )
    writer.writerows(
        [f"{g:.6f}", int(h), int(v), f"{nh:.5f}", f"{nv:.5f}"] for g, h, v, nh, nv in rows
    )
    write_atomically(path, text.getvalue())


@rc_context(STYLE)
def draw(results: dict[str, Statistics]) -> Figure:
    """Figure with the mean images above, on one scale, and the two histograms below.

    Panels have letters; the legends have the exponent and the kurtosis of `shape_of`.

    Args:
        results: label -> statistics.
    """
    columns, colors = max(len(results), 2), prior_colors(list(results))
    figure = Figure(figsize=(WIDTH, WIDTH / max(columns, 3) + 2.6), layout="constrained")
    images, plots = figure.subfigures(2, 1, height_ratios=(WIDTH / max(columns, 3) + 0.2, 2.4))
    letters = iter(ascii_lowercase)
    shown = np.atleast_1d(images.subplots(1, len(results)))
    brightest = max(float(statistics.mean.max()) for statistics in results.values())
    for axis, (label, statistics) in zip(shown, results.items(), strict=True):
        drawn = axis.imshow(statistics.mean, cmap="gray", vmin=0, vmax=brightest)
        axis.set_title(f"({next(letters)}) {plain(label)}: mean of {statistics.count}", loc="left")
        axis.set_axis_off()
    images.colorbar(
        drawn, ax=list(shown), fraction=0.02, pad=0.01, label="mean of images in [0, 1]"
    )
    pair = plots.subplots(1, 2, sharey=True)
    for axis, direction in zip(pair, ("horizontal", "vertical"), strict=True):
        for label, statistics in results.items():
            counts = getattr(statistics, direction)
            exponent, kurtosis = shape_of(bin_centres(), counts)
            text = f"{plain(label)}: exponent {exponent:.2f}, kurtosis {kurtosis:.0f}"
            look = {"color": colors[label], "linewidth": 0.8}
            axis.plot(bin_centres()[1:-1], negative_log(counts), label=text, **look)
        axis.set_title(f"({next(letters)}) {direction} gradient", loc="left")
        axis.set_xlabel("gradient of images in [0, 1], a pixel")
        axis.grid(axis="both")
        axis.margins(y=0.05 + LEGEND_PART * len(results))
        axis.set_ylim(bottom=-0.5)
        axis.legend(loc="upper center", frameon=False)
    pair[0].set_ylabel(r"$-$log histogram, shifted to 0")
    figure.align_labels()
    return figure


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.image_statistics")
    parser.add_argument("data", nargs="+", help="LABEL=CONFIG.py[,FIELD=VALUE...]")
    parser.add_argument("--out", type=Path, default=Path("results/image_statistics"))
    parser.add_argument("--split", default="train")
    arguments = parser.parse_args(argv)
    with clear_errors():
        check_labels(arguments.data)
        opened = dict(open_data(spec, arguments.split) for spec in arguments.data)
        results = {label: image_statistics(stream(data, label)) for label, data in opened.items()}
        for label, statistics in results.items():
            write_csv(arguments.out / file_name(label), statistics)
            for direction in ("horizontal", "vertical"):
                exponent, kurtosis = shape_of(bin_centres(), getattr(statistics, direction))
                print(f"{label}, {direction}: exponent {exponent:.2f}, kurtosis {kurtosis:.1f}")
        paths = save(draw(results), arguments.out, "image_statistics")
    for path in paths:
        print(f"figure: {path}")


if __name__ == "__main__":
    with quiet_pipe():
        main()
