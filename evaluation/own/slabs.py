"""Slabs of a volume: slices of a user's file that are reconstructed together."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from evaluation.own.base import Input
from evaluation.own.engine import Sampling, Solution, with_noise
from evaluation.run.posterior_samples import OnCall
from operators.batch import expand
from operators.inverse_problem import InverseProblem
from samplers import NonFiniteError
from samplers.posterior import magnitude
from samplers.volume import pnp_volume
from sde import Prior

SLAB, HALO = 48, 8  # slices of a slab, and further ones on either side that are thrown away


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


def common_problem(
    opened: Input, items: Sequence[int], found: dict, sampling: Sampling, device: torch.device | str
) -> InverseProblem:
    """The problem of some slices, whose images are on the volume's scale.

    Args:
        opened: the input.
        items: numbers of the slices among the chosen ones, from 0.
        found: `scale` and `offset` of the volume, see `evaluation.own.volume.look_at_volume`.
        sampling: choice of the sampler.
        device: device of the prior's network.
    """
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

    constant = torch.zeros_like(problem.direct) + expand(shift, problem.direct)
    y = problem.y * expand(factor, problem.y)
    direct = problem.direct * expand(factor, problem.direct)
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
        found: what `evaluation.own.volume.look_at_volume` returns.
        sampling: choice of the sampler, `pnp`.
        prior: prior of images in about [0, 1].
        device: device of the prior's network.
        size: largest number of slices, or of as many pixels, in a call of the network.
        on_call: called after each step with the number of samples of each slice in it, 1.
    """
    items = range(slab.begin, slab.end)
    problem = common_problem(opened, items, found, sampling, device)
    options = {"sigma_y": problem.noise} | sampling.options
    options.pop("tolerance", None)
    options |= {name: found[name] for name in ("weight", "start_sigma", "end_sigma")}
    failures: dict[int, str] = {}
    try:
        image = pnp_volume(
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
