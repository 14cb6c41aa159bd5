"""What cells of a grid cost: network calls, operations, hours, and a time limit that fits.

Calls are counted, by running the sampler of a cell on a tiny problem; operations are PyTorch's
count of the cell's network. Hours are the operations at a rate: that of cells which are finished,
or a given one.
"""

import ast
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from configs import load_config
from configs.base import ALL_SIZES, NESTED
from evaluation.baselines import BASELINES
from evaluation.results.folder import read_rows
from evaluation.run.keywords import enough_samples, shares, starts_warm
from evaluation.run.posterior_samples import counted
from evaluation.run.protocols import with_protocol
from evaluation.study.grids import QUICK_PRIOR, SHIPPED_PRIORS, GridCell
from models.flops import count_flops
from operators import BatchGenerator, ParallelBeamCT, SingleCoilMRI
from samplers import SAMPLERS
from sde import create_sde

CONFIG = "configs/evaluate.py"
TFLOPS = 100.0  # sustained, of a GPU: an assumption, as in docs/cluster.md
DERIVATIVE = ("dps",)  # samplers whose call is also differentiated: counted as three
SIDE = 8  # pixels of the problem on which calls are counted
MARGIN, EXTRA, STEP = 1.5, 0.5, 0.5  # of a time limit: factor, hours, and multiples it is of


class Cost(NamedTuple):
    """What a cell costs.

    Attributes:
        slices: number of slices; None if the data set decides.
        calls: network calls of a slice.
        tflop: TFLOP of a call, its derivative included.
    """

    slices: int | None
    calls: int
    tflop: float

    @property
    def total(self) -> float:
        """TFLOP of all slices; 0 where their number is not known."""
        return (self.slices or 0) * self.calls * self.tflop


def cost_of(cell: GridCell, overrides: Sequence[str] = ()) -> Cost:
    """Cost of a cell with further flags ``--config.FIELD=VALUE``; no calls for a baseline."""
    fields = {**cell.overrides, **values_of(overrides)}
    slices = int(fields.get("limit", 0)) or None
    name = str(fields["sampler.name"])
    if name in BASELINES:
        return Cost(slices, 0, 0.0)
    side = int(fields.get("data.image_size", 0)) or 256  # of embedded slices
    flops = _flops_of_prior(cell.prior, side, int(fields.get("depth", 0)) or None)
    of_operator = ("operator.name", "operator.num_views", "protocol")  # what a protocol asks for
    kept = {f: v for f, v in fields.items() if f.startswith("sampler.") or f in of_operator}
    calls = _count_calls(cell.prior, tuple(sorted(kept.items())))
    return Cost(slices, calls, (3 if name in DERIVATIVE else 1) * flops / 1e12)


def values_of(overrides: Iterable[str]) -> dict[str, object]:
    """Fields and values of flags ``--config.FIELD=VALUE``."""
    found = {}
    for text in overrides:
        field, _, value = text.removeprefix("--config.").partition("=")
        found[field] = value
        with suppress(ValueError, SyntaxError):
            found[field] = ast.literal_eval(value)
    return found


@functools.cache
def _flops_of_prior(prior: str, side: int, depth: int | None) -> float:
    """Operations of a call of a training run's network, of the largest depth if it has several."""
    return count_flops(load_config(config_of_prior(prior)), side, depth=depth)


def config_of_prior(prior: str) -> str:
    """Config that a prior of a grid is trained with, as NAME.py or NAME.py:SIZE.

    Raises:
        ValueError: no config is known for a prior of this name.
    """
    if prior == QUICK_PRIOR:
        return "configs/demo.py"
    if prior in SHIPPED_PRIORS:
        return f"configs/{prior}.py"
    for size in sorted([*ALL_SIZES, *NESTED], key=len, reverse=True):
        if prior.endswith(f"_{size}"):
            return f"configs/{prior.removesuffix(f'_{size}')}.py:{size}"
    raise ValueError(f"no config is known for the prior {prior}")


@functools.cache
def _count_calls(prior: str, fields: tuple[tuple[str, object], ...]) -> int:
    """Network calls of a slice with a prior and these fields of an evaluation's config."""
    config = load_config(CONFIG)
    config.update_from_flattened_dict(dict(fields))
    options = {k: v for k, v in config.sampler.items() if v is not None}
    name, num_steps = options.pop("name"), options.pop("num_steps")
    num_samples = enough_samples(options.pop("num_samples"), options.pop("mean_error", None))
    options.pop("calibrated", None)
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    def score(x: Tensor, sigma: Tensor) -> Tensor:  # of images whose pixels are standard normal
        return -x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    if config.operator.name.endswith("ct"):
        operator = ParallelBeamCT(SIDE, np.arange(0, 180, 30.0))
    else:
        operator = SingleCoilMRI(torch.eye(SIDE, dtype=torch.bool))
    y = operator.forward(torch.full((1, 1, SIDE, SIDE), 0.5))
    options = with_protocol(config, name, options)
    if starts_warm(name, options):
        options["initial"] = operator.direct(y)
    sde = create_sde(load_config(config_of_prior(prior)).sde).ve  # levels decide what is skipped

    def calls_of(**more: Tensor) -> int:
        """Network calls of one sample."""
        nonlocal calls
        calls = 0
        SAMPLERS[name](
            counted(score, count),
            sde,
            operator,
            y,
            rng=BatchGenerator([0]),
            num_steps=num_steps,
            **options,
            **more,
        )
        return calls

    first = calls_of()
    if num_samples == 1 or not shares(name):
        return first * num_samples
    options.pop("point_steps", None)
    return first + (num_samples - 1) * calls_of(initial=operator.direct(y))


def measured_rate(cells: Mapping[str, Cost]) -> tuple[float, int] | None:
    """TFLOP/s that the finished slices of cells were computed with; None if there are none.

    Args:
        cells: results folder -> cost.

    Returns:
        The rate, and the number of slices it was measured on.
    """
    work = seconds = 0.0
    slices = 0
    for folder, cost in cells.items():
        if not cost.calls or not Path(folder).is_dir():
            continue
        for row in read_rows(Path(folder)):
            work += float(row["nfe"]) * cost.tflop
            seconds += float(row["seconds"])
            slices += 1
    return (work / seconds, slices) if seconds else None


def time_limit(hours: float) -> str:
    """Time limit for SLURM, H:MM:SS: half as much again and half an hour, in half hours."""
    halves = math.ceil((MARGIN * hours + EXTRA) / STEP)
    return f"{halves // 2:02d}:{30 * (halves % 2):02d}:00"


class Rate(NamedTuple):
    """How fast a GPU is, and where that is from.

    Attributes:
        tflops: TFLOP/s.
        seconds_per_call: seconds of a network call for one slice, which goes first; or None.
        source: both in words.
    """

    tflops: float
    seconds_per_call: float | None
    source: str

    def hours(self, cost: Cost) -> float:
        """Hours of a cell on one GPU; 0 where its number of slices is not known."""
        if self.seconds_per_call is not None:
            return (cost.slices or 0) * cost.calls * self.seconds_per_call / 3600
        return cost.total / self.tflops / 3600


def choose_rate(
    costs: Mapping[str, Cost], tflops: float | None, seconds_per_call: float | None
) -> Rate:
    """The given rate; otherwise that of the slices which are finished; otherwise `TFLOPS`.

    Args:
        costs: results folder -> cost.
        tflops: TFLOP/s of a GPU, or None.
        seconds_per_call: seconds of a network call for one slice, or None.
    """
    if seconds_per_call is not None:
        return Rate(TFLOPS, seconds_per_call, f"{seconds_per_call:g} s a call, as given")
    if tflops is not None:
        return Rate(tflops, None, f"{tflops:g} TFLOP/s, as given")
    measured = measured_rate(costs)
    if measured:
        rate, slices = measured
        return Rate(rate, None, f"{rate:.3g} TFLOP/s, measured on {slices} finished slices")
    hint = "an assumption; --tflops and --seconds-per-call set it"
    return Rate(TFLOPS, None, f"{TFLOPS:g} TFLOP/s, {hint}")


def plan(cells: Mapping[str, GridCell], costs: Mapping[str, Cost], rate: Rate) -> list[str]:
    """Lines of text: network calls and hours of each method, and their sums.

    Args:
        cells: results folder -> cell.
        costs: results folder -> cost.
        rate: how fast a GPU is.
    """
    groups: dict[tuple[str, Cost], int] = {}
    for folder, cost in costs.items():
        method = cells[folder].method.partition("_lambda_")[0]
        groups[method, cost] = groups.get((method, cost), 0) + 1
    names = ("method", "cells", "slices", "calls", "TFLOP/call", "hours/cell")
    lines = ["{:30} {:>5} {:>6} {:>6} {:>10} {:>10}".format(*names)]
    for (method, cost), count in groups.items():
        slices = "all" if cost.slices is None else cost.slices
        hours = f"{rate.hours(cost):.2f}" if cost.slices and cost.calls else "not known"
        lines.append(
            f"{method:30} {count:5} {slices:>6} {cost.calls:6} {cost.tflop:10.3g} {hours:>10}"
        )
    calls = sum((cost.slices or 0) * cost.calls for cost in costs.values())
    if not calls:
        return [*lines, f"{len(costs)} cells; their hours are not known"]
    hours = sum(map(rate.hours, costs.values()))
    number = f"{calls / 1e6:.3g} million" if calls >= 1e5 else str(calls)
    sums = f"{len(costs)} cells, {number} network calls, {hours:.3g} GPU hours"
    return [*lines, sums, f"at {rate.source}"]
