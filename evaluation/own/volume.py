"""Slices of a user's file reconstructed together, as a volume, slab by slab.

A volume's scale, noise levels and weight are found once, from a few slices of it, and slabs are cut
by the number of slices alone: batch size and the number of processes change no number.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.own.base import Input
from evaluation.own.engine import POINT, Sampling, Solution, solve_slices, with_noise
from evaluation.run.methods import OnCall
from operators.inverse_problem import InverseProblem
from samplers import NonFiniteError, volume
from samplers.levels import START_FACTOR, first_level, last_level
from samplers.posterior import magnitude
from sde import Prior

AUTO, NONE, FULL = "auto", 0.0, 2 / 3
SLAB, HALO = 48, 8  # slices of a slab, and further ones on either side that are thrown away
PAIRS = 4  # of neighbouring slices that are looked at
CALLS = 20  # of the network for each of their slices, to see how alike they are
# steps from slice to slice over steps from pixel to pixel: up to the first the full weight, from
# the second on none (docs/volumes.md)
ALIKE, UNLIKE = 1.0, 2.5


class Slab(NamedTuple):
    """Slices `first` to `last` (exclusive) of a volume, kept from those of `begin` to `end`."""

    first: int
    last: int
    begin: int
    end: int

    @property
    def kept(self) -> range:
        """Numbers of the slices that are kept."""
        return range(self.first, self.last)


def read_weight(value: str | float) -> float | None:
    """Weight of a volume from "auto" or a number in [0, 1]; None for "auto".

    Raises:
        ValueError: anything else.
    """
    if value == AUTO:
        return None
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight <= 1:
        raise ValueError(
            f"expected volume.weight as auto or a number from 0 (slice by slice) to 1, got "
            f"{value!r}; 0.667 sees the three directions alike"
        )
    return weight


def check_volume(weight: float | None, opened: Input, sampling: Sampling) -> None:
    """Raise a ValueError if slices are to be reconstructed together but cannot.

    Args:
        weight: of the volume, see `read_weight`.
        opened: the input.
        sampling: choice of the sampler.
    """
    if weight == NONE:
        return
    reason = ""
    if sampling.sampler != POINT:
        reason = f"only {POINT} does so, the sampler is {sampling.sampler}"
    elif len(opened.keys) < volume.LEAST_SLICES:
        reason = f"it takes {volume.LEAST_SLICES} slices or more, got {len(opened.keys)}"
    elif opened.largest_batch is not None:
        reason = "the operator is another one for each slice"
    elif sampling.options.get("tolerance"):
        reason = "sampler.tolerance is for single slices"
    if reason:
        raise ValueError(
            f"volume.weight reconstructs slices together: {reason}; leave it at 0 for slice by "
            "slice"
        )


def slabs(count: int, *, slab: int = SLAB, halo: int = HALO) -> list[Slab]:
    """Slabs of nearly equal size of a volume of `count` slices, in their order.

    Args:
        count: number of slices.
        slab: largest number of slices that a slab keeps.
        halo: further slices on either side, where there are so many.
    """
    parts = max(1, -(-count // slab))
    cuts = [round(part * count / parts) for part in range(parts + 1)]
    return [
        Slab(first, last, max(0, first - halo), min(count, last + halo))
        for first, last in itertools.pairwise(cuts)
    ]


def look_at_volume(
    opened: Input,
    weight: float | None,
    sampling: Sampling,
    prior: Prior,
    *,
    seed: int,
    device: torch.device | str,
    size: int,
) -> dict:
    """What all slabs of a volume have to agree on, from up to eight slices spread over it.

    The weight by default follows from how alike neighbours are: in reconstructions slice by slice
    (20 network calls a slice), the mean step from slice to slice over that from pixel to pixel. It
    is `FULL` up to a ratio of `ALIKE`, and falls linearly to 0 at `UNLIKE`. How noisy the
    measurement is need not enter it: it is in the noise levels.

    Args:
        opened: the input.
        weight: of the volume; None to find it.
        sampling: choice of the sampler, `pnp`.
        prior: prior of images in about [0, 1].
        seed: seed of the slices' keys.
        device: device of the prior's network.
        size: largest number of slices in a call of the network.

    Returns:
        A dict for a JSON file: `weight`; `ratio`, None if the weight was given; `scale` and
        `offset` of images in the unit of the measurement; `start_sigma` and `end_sigma`.
    """
    items = probes(len(opened.keys))
    ratio = None
    if weight is None:
        quick = sampling._replace(num_steps=CALLS)
        images = [
            solve_slices(opened, part, quick, prior, seed=seed, device=device, size=size).image
            for part in batches(items, size)
        ]
        ratio = unlikeness(torch.cat([magnitude(image) for image in images]))
        weight = weight_of(ratio)
    scales, offsets = [], []
    for item in items:
        problem = opened.problem([item])
        scales.append(float(problem.scale[0]))
        offsets.append(float(problem.offset[0]))
    found = {"scale": max(scales), "offset": min(offsets)}
    levels = [
        _levels(_common(opened, [item], found, sampling, device), sampling, prior) for item in items
    ]
    starts, ends = zip(*levels, strict=True)
    return {
        "weight": weight,
        "ratio": ratio,
        **found,
        "start_sigma": max(starts),
        "end_sigma": float(np.median(ends)),
        "slices": [opened.keys[item] for item in items],
    }


def probes(count: int) -> list[int]:
    """Numbers of up to `PAIRS` pairs of neighbouring slices out of `count`, spread evenly."""
    pairs = min(PAIRS, count // 2)
    firsts = [round((part + 0.5) * count / pairs) - 1 for part in range(pairs)]
    return [item for first in firsts for item in (first, first + 1)]


def batches(items: Sequence[int], size: int) -> list[list[int]]:
    """`items` in lists of at most `size`."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def unlikeness(pairs: Tensor) -> float:
    """Mean step from slice to slice over mean step from pixel to pixel.

    Args:
        pairs: real ``(2 n, 1, H, W)``, n pairs of neighbouring slices.
    """
    through = (pairs[1::2] - pairs[::2]).abs().mean()
    within = (pairs.diff(dim=-1).abs().mean() + pairs.diff(dim=-2).abs().mean()) / 2
    return float(through / within) if within > 0 else float("inf")


def weight_of(ratio: float) -> float:
    """Weight of a volume whose neighbours differ by `ratio`, see `unlikeness`."""
    return FULL * min(1.0, max(0.0, (UNLIKE - ratio) / (UNLIKE - ALIKE)))


def _levels(problem: InverseProblem, sampling: Sampling, prior: Prior) -> tuple[float, float]:
    """First and last noise level of a slice."""
    score, sde = prior
    known = sampling.options.get("start_sigma"), sampling.options.get("end_sigma")
    operator, y = problem.operator, problem.y
    end = last_level(sde, operator, y, problem.noise) if known[1] is None else known[1]
    if known[0] is not None:
        return known[0], float(end)
    with torch.no_grad():
        start = first_level(
            score, sde, operator, y, problem.direct, factor=START_FACTOR, end_sigma=end
        )
    return float(start), float(end)


def _common(
    opened: Input, items: Sequence[int], found: dict, sampling: Sampling, device: torch.device | str
) -> InverseProblem:
    """The problem of some slices, whose images are on the volume's scale."""
    problem = with_noise(opened.problem(items), sampling)
    scale, offset = found["scale"], found["offset"]
    return on_scale(problem, scale, offset).to(device)


def on_scale(problem: InverseProblem, scale: float, offset: float) -> InverseProblem:
    """The problem of the images (image - offset) / scale, on one scale for all samples.

    Args:
        problem: inverse problem whose samples have scales of their own.
        scale: intensity range in the unit of the image.
        offset: minimum intensity in the unit of the image.
    """
    factor = torch.where(problem.scale > 0, problem.scale, 1.0) / scale
    shift = (problem.offset - offset) / scale  # (B,)

    def spread(values: Tensor, like: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (like.ndim - 1)).to(like.real.dtype)

    constant = torch.zeros_like(problem.direct) + spread(shift, problem.direct)
    y = problem.y * spread(factor, problem.y)
    direct = problem.direct * spread(factor, problem.direct)
    if bool((shift != 0).any()):
        y, direct = y + problem.operator.forward(constant), direct + constant
    return problem._replace(
        y=y,
        direct=direct,
        scale=torch.full_like(problem.scale, scale),
        offset=torch.full_like(problem.offset, offset),
        noise=problem.noise * factor,
    )


def solve_slab(
    opened: Input,
    slab: Slab,
    found: dict,
    sampling: Sampling,
    prior: Prior,
    *,
    device: torch.device | str,
    size: int,
    on_call: OnCall = lambda samples: None,
) -> Solution:
    """Reconstruction of a slab, in the shape that the result should have.

    Args:
        opened: the input.
        slab: slices of it.
        found: what `look_at_volume` returns.
        sampling: choice of the sampler, `pnp`.
        prior: prior of images in about [0, 1].
        device: device of the prior's network.
        size: largest number of slices, or of as many pixels, in a call of the network.
        on_call: called after each step with the number of samples of each slice in it, 1.
    """
    items = range(slab.begin, slab.end)
    problem = _common(opened, items, found, sampling, device)
    options = {"sigma_y": problem.noise} | sampling.options
    options.pop("tolerance", None)
    options |= {name: found[name] for name in ("weight", "start_sigma", "end_sigma")}
    failures: dict[int, str] = {}
    try:
        image = volume.pnp_volume(
            *prior,
            problem.operator,
            problem.y,
            num_steps=sampling.num_steps,
            size=size,
            initial=problem.direct,
            callback=lambda *_: on_call(1),
            **options,
        )
    except NonFiniteError as error:
        image = torch.full_like(problem.direct, torch.nan)
        failures = dict.fromkeys(range(len(slab.kept)), str(error))
    image, direct = (problem.restore(x) for x in (image, problem.direct))
    seen = (problem.y != 0).flatten(1).any(1)  # (N,) anything measured
    image = torch.where(seen[:, None, None, None], image, 0.0)
    size_of = magnitude(image)
    solution = Solution(
        image=image,
        std=torch.zeros_like(size_of),
        low=size_of,
        high=size_of,
        direct=direct,
        scale=problem.scale,
        sigma_y=problem.noise * problem.scale,
        failures=failures,
    )
    kept = slice(slab.first - slab.begin, slab.last - slab.begin)
    tensors = {
        name: value[kept] for name, value in solution._asdict().items() if name != "failures"
    }
    for name in ("image", "std", "low", "high", "direct"):
        tensors[name] = opened.finish(tensors[name])
    return Solution(**tensors, failures=failures)


def describe_volume(found: dict) -> str:
    """Result of `look_at_volume` as a line of text."""
    if found["weight"] == NONE:
        what = "slice by slice"
    else:
        what = f"together, {100 * found['weight']:.0f} % of the steps across the slices"
    if found["ratio"] is None:
        return f"volume: {what}"
    return (
        f"volume: {what}, as slices differ {found['ratio']:.2f} times as much from slice to slice "
        "as from pixel to pixel"
    )
