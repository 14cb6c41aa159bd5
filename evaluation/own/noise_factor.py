"""The noise of k-space that is measured point by point, by how well it predicts left-out points."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from evaluation.own.base import Input
from evaluation.own.engine import POINT, Sampling, choose_sampling, sample
from evaluation.own.validation import digits, leave_out
from sde import Prior

WAYS = ("estimated", "held_out")
PART = 0.1  # of the measurement, left out
CALLS = 20  # of the network, for each slice and factor
LEAST_GAIN = 0.01  # relative; what is less is chance
FACTORS = (1.0, 0.71, 0.5, 0.35, 0.25)  # of the estimate, which is never too small


def check_noise_way(way: str) -> None:
    """Raise a ValueError for a name that is none of `WAYS`; "" is for the default."""
    if way and way not in WAYS:
        raise ValueError(f"expected noise_level as one of {', '.join(WAYS)}, or '', got {way!r}")


def noise_by_held_out(way: str, opened: Input, sampling: Sampling) -> bool:
    """Whether the noise level is to be found by leaving points of k-space out.

    Args:
        way: one of `WAYS`; "": "held_out" for k-space that is measured point by point, "estimated"
            else, or where the level is given.
        opened: the input.
        sampling: choice of the sampler.

    Raises:
        ValueError: "held_out" where it has no effect.
    """
    idle = ""
    if sampling.sigma_y is not None:
        idle = "sigma_y is given"
    elif not sampling.uses_noise:
        idle = f"{sampling.sampler} does not use it"
    elif opened.kind != "k-space":
        idle = f"it is for k-space, the input is {opened.kind}"
    if way == "held_out" and idle:
        raise ValueError(f"noise_level=held_out has no effect: {idle}")
    if idle or way:
        return not idle and way == "held_out"
    return opened.by_points


def find_noise_factor(
    opened: Input, prior: Prior, *, seed: int, device: torch.device | str
) -> dict:
    """The part of the estimated noise with which the reconstruction predicts left-out points best.

    Where points are measured one by one, no place of k-space or of the readout may be without
    image, and the estimate (`operators.noise`) is too large by what is left of the image. So `pnp`
    reconstructs a few slices from nine tenths of the points with less and less noise, as long as
    that predicts the last tenth at least 1 % better.

    Args:
        opened: input of measured k-space.
        prior: prior of images in about [0, 1].
        seed: seed of the part.
        device: device of the prior's network.

    Returns:
        A dict for a JSON file: `part`; what was `left_out` of which `slices`; mean squared `errors`
        of prediction over energy with the tried `factors`; and the best `factor`.

    Raises:
        ValueError: nothing can be left out.
    """
    point = choose_sampling(POINT, num_steps=CALLS, num_samples=1, sigma_y=None, options={})
    held, keys = leave_out(opened, PART, point, seed=seed, device=device)
    errors: list[float] = []
    best = 0
    for factor in FACTORS:
        found = []
        for h, key in zip(held, keys, strict=True):
            problem = h.problem.scale_noise(factor)
            moments, failures = sample(problem, point, prior, seed=seed, keys=[key])
            found.append(math.inf if failures else h.error(moments.mean))
        errors.append(float(np.mean(found)))
        if len(errors) > 1 and not errors[-1] < (1 - LEAST_GAIN) * errors[best]:
            break
        best = len(errors) - 1
    return {
        "part": PART,
        "left_out": held[0].what,
        "slices": keys,
        "factors": list(FACTORS[: len(errors)]),
        "errors": [digits(error) for error in errors],
        "factor": FACTORS[best],
    }


def describe_noise_factor(found: Mapping) -> str:
    """Result of `find_noise_factor` as a line of text."""
    head = f"noise, by {found['left_out']} that were left out: "
    tried = zip(found["factors"], found["errors"], strict=True)
    errors = ", ".join(f"{f:g}: {'failed' if e is None else f'{e:.3g}'}" for f, e in tried)
    return f"{head}{found['factor']:g} times the estimate (error with {errors})"
