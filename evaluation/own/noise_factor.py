"""The noise of k-space by how well parts of it that were left out are predicted with it."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from evaluation.own.base import Input
from evaluation.own.engine import POINT, Sampling, choose_sampling, sample
from evaluation.own.holdout import NothingLeftOutError
from evaluation.own.validation import digits, leave_out
from sde import Prior

WAYS = ("estimated", "held_out")
PART = 0.1  # of the measurement, left out
CALLS = 20  # of the network, for each slice and factor
LEAST_GAIN = 0.01  # relative; what is less is chance
# Likewise for more noise than the estimate, which also takes away what the data decide; that is
# worse and nothing that is left out shows it.
LEAST_GAIN_UP = 0.03
# of the estimate: down for what of the image is taken for noise, up for what of the measurement
# the operator does not explain
DOWN, UP = (0.71, 0.5, 0.35, 0.25), (1.41, 2.0, 2.83, 4.0, 5.66, 8.0)
KINDS = ("k-space", "k-space along a trajectory")


def check_noise_way(way: str) -> None:
    """Raise a ValueError for a name that is none of `WAYS`; "" is for the default."""
    if way and way not in WAYS:
        raise ValueError(f"expected noise_level as one of {', '.join(WAYS)}, or '', got {way!r}")


def noise_by_held_out(way: str, opened: Input, sampling: Sampling) -> bool:
    """Whether the noise level is to be found by leaving a part of k-space out.

    Args:
        way: one of `WAYS`; "": "held_out" for k-space that is measured point by point or along a
            trajectory, "estimated" else, or where the level is given.
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
    elif opened.kind not in KINDS:
        idle = f"it is for k-space, the input is {opened.kind}"
    if way == "held_out" and idle:
        raise ValueError(f"noise_level=held_out has no effect: {idle}")
    if idle or way:
        return not idle and way == "held_out"
    return opened.doubtful_noise


def find_noise_factor(
    opened: Input, prior: Prior, *, way: str, seed: int, device: torch.device | str
) -> dict:
    """The factor of the estimated noise with which the reconstruction predicts left-out parts best.

    Where points are measured one by one, no place of k-space or of the readout may be without
    image, and the estimate (`operators.noise`) is too large by what is left of the image. What the
    operator gets wrong (coil maps from few data, off-resonance, motion) is noise to the image as
    well, and then the estimate is too small. So `pnp` reconstructs a few slices from nine tenths of
    the data with less and less noise as long as that predicts the last tenth at least 1 % better,
    or else with more and more as long as it does so by 3 %.

    Args:
        opened: input of measured k-space.
        prior: prior of images in about [0, 1].
        way: "held_out", or "" where that is the default: then the factor is 1 if nothing can be
            left out.
        seed: seed of the part.
        device: device of the prior's network.

    Returns:
        A dict for a JSON file: `part`; what was `left_out` of which `slices`, None and none if
        nothing was; mean squared `errors` of prediction over energy with the tried `factors`; and
        the best `factor`.

    Raises:
        NothingLeftOutError: nothing can be left out, and `way` is "held_out".
    """
    point = choose_sampling(POINT, num_steps=CALLS, num_samples=1, sigma_y=None, options={})
    try:
        held, keys = leave_out(opened, PART, point, seed=seed, device=device)
    except NothingLeftOutError:
        if way:
            raise
        return _result(None, [], {}, 1.0)

    def error(factor: float) -> float:
        found = []
        for h, key in zip(held, keys, strict=True):
            problem = h.problem.scale_noise(factor)
            moments, failures = sample(problem, point, prior, seed=seed, keys=[key])
            found.append(math.inf if failures else h.error(moments.mean))
        return float(np.mean(found))

    errors, best = {1.0: error(1.0)}, 1.0
    for factors, gain in ((DOWN, LEAST_GAIN), (UP, LEAST_GAIN_UP)):
        for factor in factors if best == 1 else ():
            errors[factor] = error(factor)
            if not errors[factor] < (1 - gain) * errors[best]:
                break
            best = factor
    return _result(held[0].what, keys, errors, best)


def _result(what: str | None, keys: list[str], errors: Mapping[float, float], best: float) -> dict:
    """What `find_noise_factor` returns."""
    return {
        "part": PART,
        "left_out": what,
        "slices": keys,
        "factors": list(errors),
        "errors": [digits(error) for error in errors.values()],
        "factor": best,
    }


def describe_noise_factor(found: Mapping) -> str:
    """Result of `find_noise_factor` as a line of text."""
    if found["left_out"] is None:
        return "noise: the estimate, as there is nothing that could be left out to check it"
    head = f"noise, by {found['left_out']} that were left out: "
    tried = sorted(zip(found["factors"], found["errors"], strict=True))
    errors = ", ".join(f"{f:g}: {'failed' if e is None else f'{e:.3g}'}" for f, e in tried)
    return f"{head}{found['factor']:g} times the estimate (error with {errors})"
