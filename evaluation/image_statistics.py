"""Image statistics of data sets: mean images and negative log histograms of gradients.

    python -m evaluation.image_statistics --out=results/image_statistics \
        "knee=configs/fastmri_knee.py" "CT=configs/ct.py,root=PATH" "natural=configs/celeba.py"

writes `image_statistics.png`, `.pdf` and one CSV a data set (the study's figure 1). Images are
streamed: memory does not depend on their number.
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
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset

from configs import ConfigError, clear_errors, load_config, quiet_pipe
from configs.numbers import check_numbers
from configs.progress import progress_bar
from datasets import collate
from datasets.files import write_atomically
from datasets.prepare import prepare_dataset
from datasets.system import cores
from evaluation.show.style import STYLE, WIDTH, plain, prior_colors, save

BINS = 501
RANGE = 0.35  # gradients in [-0.35, 0.35], of images in [0, 1], a pixel
BEYOND = RANGE * (1 + 1 / BINS)  # half a bin outside
BATCH = 16  # images that are read together
FIELD = re.compile(r",(?=[a-z_]+=)")  # before a field: paths may have commas of their own
REMAP = 32  # batches after which the disk cache's file is mapped anew

T = TypeVar("T")
U = TypeVar("U")


class Statistics(NamedTuple):
    """Of the images of a data set.

    Attributes:
        count: number of images.
        mean: ``(H, W)`` mean image.
        horizontal: ``(501,)`` counts of x[i, j + 1] - x[i, j] in the bins.
        vertical: ``(501,)`` counts of x[i + 1, j] - x[i, j].
    """

    count: int
    mean: np.ndarray
    horizontal: np.ndarray
    vertical: np.ndarray


def image_statistics(batches: Iterable[Tensor], *, threads: int | None = None) -> Statistics:
    """Mean image and gradient histograms of batches ``(B, 1, H, W)``, in [0, 1], one size.

    Gradients are differences in the images' own precision; they are counted exactly as
    `numpy.histogram` counts them in float64. Those beyond the range are not counted.

    Args:
        batches: float32 images, or complex ones, whose magnitude is taken.
        threads: that count while the next batch is read; None: as many as there are cores.

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
    """`work` on each item in threads; results in the items' order, so that sums are the same."""
    waiting: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:  # bounds the memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _sums(batch: Tensor) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of images, their sum ``(H, W)``, and the counts of both gradients ``(2, 501)``."""
    images = (batch.abs() if batch.is_complex() else batch)[:, 0].numpy()  # (B, H, W)
    total = images.sum(0, dtype=np.float64)
    if not np.isfinite(total).all():
        raise ValueError("expected finite images, got NaN or infinite values in one of them")
    counts = np.zeros((2, BINS), dtype=np.int64)
    for image in images:  # one at a time stays in a core's own cache
        counts[0] += count_gradients(np.diff(image, axis=1))
        counts[1] += count_gradients(np.diff(image, axis=0))
    return len(images), total, counts


def count_gradients(gradient: np.ndarray) -> np.ndarray:
    """How many lie in each bin, ``(501,)``: what `numpy.histogram` gives, faster.

    NumPy also compares each number with its bin's edges, in case of rounding. The float64
    arithmetic here does without: no float32 number is nearer to an edge than 1e-11.

    Args:
        gradient: finite, float32, any shape.
    """
    inside = np.clip(gradient.ravel(), -BEYOND, BEYOND)
    place = np.multiply(inside, BINS / (2 * RANGE), dtype=np.float64)
    place += BINS / 2 + 1  # bin k holds the places from k + 1 to k + 2
    return np.bincount(place.astype(np.intp), minlength=BINS + 2)[1:-1]


def bin_centres() -> np.ndarray:
    """Gradient at the middle of each bin: ``(501,)``."""
    edges = np.linspace(-RANGE, RANGE, BINS + 1)
    return (edges[1:] + edges[:-1]) / 2


def negative_log(counts: np.ndarray) -> np.ndarray:
    """-log of a histogram, its smallest value shifted to 0, the end bins dropped: ``(499,)``.

    Empty bins are NaN: nothing is known there.
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
                # the disk cache gives a batch at once; a copy of it maps the file anew, and the
                # pages that the one before has read no longer count as this process's memory
                if number % REMAP == 0:
                    mapped = copy.copy(dataset)
                images = mapped.images(list(items))
            yield images
            progress.update(len(items))


def check_labels(specs: Sequence[str]) -> None:
    """Raise a ConfigError for labels of several data sets that are the same, as files' names, too.

    Before any of them is read.
    """
    names = Counter(file_name(spec.partition("=")[0]) for spec in specs)
    twice = [name for name, number in names.items() if number > 1]
    if twice:
        raise ConfigError(
            f"expected a label of its own for each data set, got {', '.join(twice)} more than once"
        )


def file_name(label: str) -> str:
    """The name of a label's CSV file."""
    return f"{label.replace('/', '_')}.csv"


def open_data(spec: str, split: str) -> tuple[str, Dataset]:
    """The label and data set of ``LABEL=CONFIG.py[,FIELD=VALUE...]``; fields are config.data's.

    Values may have commas, but not followed by a word and ``=``.

    Raises:
        ConfigError: another form, or an unknown field; DataError: as the data set.
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
    """Columns gradient, horizontal, vertical (counts), and their shifted negative logs."""
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
    """Mean images above, the two histograms below."""
    columns, colors = max(len(results), 2), prior_colors(list(results))
    figure = Figure(figsize=(WIDTH, WIDTH / max(columns, 3) + 2.6), layout="constrained")
    images, plots = figure.subfigures(2, 1, height_ratios=(WIDTH / max(columns, 3) + 0.2, 2.4))
    for axis, (label, statistics) in zip(
        np.atleast_1d(images.subplots(1, len(results))), results.items(), strict=True
    ):
        axis.imshow(statistics.mean, cmap="gray")
        axis.set_title(f"{plain(label)}: mean of {statistics.count}")
        axis.set_axis_off()
    pair = plots.subplots(1, 2, sharey=True)
    for axis, direction in zip(pair, ("horizontal", "vertical"), strict=True):
        for label, statistics in results.items():
            values = negative_log(getattr(statistics, direction))
            look = {"color": colors[label], "linewidth": 0.8}
            axis.plot(bin_centres()[1:-1], values, label=plain(label), **look)
        axis.set_title(f"{direction} gradient")
        axis.set_xlabel("gradient of images in [0, 1], a pixel")
        axis.grid(axis="both")
    pair[0].set_ylabel(r"$-$log histogram, shifted to 0")
    figure.align_labels()
    plots.legend(
        *pair[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(6, len(results)),
        frameon=False,
    )
    return figure


def main(argv: list[str] | None = None) -> None:
    """Command line."""
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
        paths = save(draw(results), arguments.out, "image_statistics")
    for path in paths:
        print(f"figure: {path}")


if __name__ == "__main__":
    with quiet_pipe():
        main()
