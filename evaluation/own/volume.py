"""What the slabs of a volume have to agree on: its weight, intensity scale and noise levels.

They are found once, from a few slices, and slabs are cut by the number of slices alone: batch size
and the number of processes change no number.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.own.base import Input
from evaluation.own.engine import POINT, Sampling, solve_slices
from evaluation.own.slabs import common_problem
from operators.inverse_problem import InverseProblem
from samplers.levels import START_FACTOR, first_level, last_level
from samplers.posterior import magnitude
from samplers.volume import LEAST_SLICES
from sde import Prior

AUTO, NONE, FULL = "auto", 0.0, 0.4
PAIRS = 4  # of neighbouring slices that are looked at
CALLS = 20  # of the network for each of their slices, to see how alike they are
# steps from slice to slice over steps from pixel to pixel: up to the first the full weight, from
# the second on none (docs/volumes.md)
ALIKE, UNLIKE = 1.5, 2.5


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
    reason = _obstacle(opened, sampling)
    if weight != NONE and reason:
        raise ValueError(
            f"volume.weight reconstructs slices together: {reason}; leave it at 0 for slice by "
            "slice"
        )


def can_be_volume(opened: Input, sampling: Sampling) -> bool:
    """Whether the slices could be reconstructed together, were they neighbours."""
    return not _obstacle(opened, sampling)


def _obstacle(opened: Input, sampling: Sampling) -> str:
    """Why slices cannot be reconstructed together; empty if they can."""
    if sampling.sampler != POINT:
        return f"only {POINT} does so, the sampler is {sampling.sampler}"
    if len(opened.keys) < LEAST_SLICES:
        return f"it takes {LEAST_SLICES} slices or more, got {len(opened.keys)}"
    if opened.largest_batch is not None:
        return "the operator is another one for each slice"
    return "sampler.tolerance is for single slices" if sampling.options.get("tolerance") else ""


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
        _levels(common_problem(opened, [item], found, sampling, device), sampling, prior)
        for item in items
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
