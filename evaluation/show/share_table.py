"""Shares of a grid's cells in which one prior is better than another, with intervals by person."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.results.cells import METRICS, CellResults, label
from evaluation.show.comparison_table import texts_of_difference
from evaluation.show.intervals import Comparison, Interval, compare, mean_interval
from evaluation.show.markup import Column, Text, latex, markdown, write_csv

ALL = "all"
HEADER = ("data", "sampler", "metric", "cells", "better", "clearly_better", "clearly_worse")
CSV_HEADER = (*HEADER, "slices", "people", "difference", "ci_low", "ci_high")


class Pair(NamedTuple):
    """The two cells of one data set, measurement, size and sampler; `first` and `second` prior."""

    first: CellResults
    second: CellResults


class Share(NamedTuple):
    """A line of the table.

    Attributes:
        cells: number of pairs of cells.
        better: in how many of them the first prior has the better mean.
        clearly: in how many the 95 % interval of the difference by person is on that side of 0.
        against: in how many it is on the other side.
        slices: number of slices.
        people: number of people (or volumes) that they are of.
        difference: mean over cells and slices of first - second, with its interval by person.
    """

    cells: int
    better: int
    clearly: int
    against: int
    slices: int
    people: int
    difference: Interval


def share_table(
    cells: Sequence[CellResults], first: str, second: str, style: str, *, metrics: Sequence[str]
) -> str:
    """Table of the share of cells in which a prior is better than another of the same size.

    A line is a data set and a sampler, or all samplers. Cells of a data set have slices of the same
    people, so that shares have no interval of their own; the mean difference over the cells has,
    with people as units.

    Args:
        cells: cells of a grid.
        first: a prior, such as "natural".
        second: another, such as "knee".
        style: "markdown", "latex" or "csv".
        metrics: columns of the results.

    Raises:
        ValueError: no cell of the first prior has one of the second beside it.
    """
    lines = list(_lines(pairs_of(cells, first, second), metrics))
    if not lines:
        known = ", ".join(sorted({cell.method.prior for cell in cells} - {""}))
        raise ValueError(
            f"no measurement has {first} and {second} at one size with one sampler; "
            f"priors there are: {known or 'none'}"
        )
    if style == "csv":
        return write_csv([CSV_HEADER, *([*names, *s[:6], *s.difference] for names, s in lines)])
    titles = (f"{label(first)} better", "clearly", "clearly worse", "slices", "people")
    columns = [Column(name, number=False) for name in ("Data", "Sampler", "Metric")]
    columns += [Column(title) for title in (*titles, "difference", "95 % interval")]
    rows = [[Text(text) for text in _texts(names, share)] for names, share in lines]
    return markdown(columns, rows) if style == "markdown" else latex(columns, rows, blocks=True)


def pairs_of(cells: Sequence[CellResults], first: str, second: str) -> list[Pair]:
    """Pairs of cells with finished slices that differ in the prior alone."""
    found = {
        (c.folder.parent, c.method._replace(prior=""), c.method.prior): c for c in cells if c.rows
    }
    return [
        Pair(cell, found[place, rest, second])
        for (place, rest, prior), cell in found.items()
        if prior == first and (place, rest, second) in found
    ]


def share_of(pairs: Sequence[Pair], metric: str) -> Share:
    """Share of one metric over pairs of cells of one data set."""
    sign = 1 if METRICS[metric].better is max else -1
    values = [[cell.values(metric) for cell in pair] for pair in pairs]
    unit = pairs[0].first.unit
    found: list[Comparison] = [compare(*both, unit=unit) for both in values]
    ends = [sorted((sign * c.difference.low, sign * c.difference.high)) for c in found]
    by_slice: dict[str, list[float]] = {}
    for ours, theirs in values:
        for key in ours.keys() & theirs.keys():
            by_slice.setdefault(key, []).append(ours[key] - theirs[key])
    means = {key: float(np.mean(own)) for key, own in by_slice.items()}
    return Share(
        cells=len(pairs),
        better=sum(sign * c.difference.mean > 0 for c in found),
        clearly=sum(low > 0 for low, _ in ends),
        against=sum(high < 0 for _, high in ends),
        slices=len(means),
        people=len({unit(key) for key in means}),
        difference=mean_interval(means, unit=unit),
    )


def _lines(
    pairs: Sequence[Pair], metrics: Sequence[str]
) -> Iterator[tuple[tuple[str, str, str], Share]]:
    for data in dict.fromkeys(pair.first.data for pair in pairs):
        here = [pair for pair in pairs if pair.first.data == data]
        names = list(dict.fromkeys(pair.first.method.sampler for pair in here))
        for sampler in [*names, ALL] if len(names) > 1 else names:
            chosen = [pair for pair in here if sampler in (ALL, pair.first.method.sampler)]
            for metric in metrics:
                yield (data, sampler, metric), share_of(chosen, metric)


def _texts(names: tuple[str, str, str], share: Share) -> list[str]:
    data, sampler, metric = names
    return [
        *(label(data), label(sampler), METRICS[metric].title),
        f"{share.better} of {share.cells} ({share.better / share.cells:.0%})",
        *map(str, (share.clearly, share.against, share.slices, share.people)),
        *texts_of_difference(share.difference, METRICS[metric]),
    ]
