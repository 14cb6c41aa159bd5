"""The last noise level of `pnp`, by how well it predicts views or lines that are left out."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from evaluation.own.base import Input
from evaluation.own.engine import POINT, Sampling
from evaluation.own.holdout import HoldOut
from evaluation.own.validation import digits, leave_out
from samplers import SAMPLERS, NonFiniteError
from samplers.levels import last_level
from sde import Prior

WAYS = ("noise", "held_out")
PART = 0.1  # of the measurement, left out
CALLS = 20  # of the network, for each slice
LEAST_VIEWS = 10  # with fewer of them the parts say little
LEAST_GAIN = 0.01  # relative; what is less is chance
SPACING = math.sqrt(2)  # from one candidate to the next
LARGEST = 32.0  # candidate, times sigma_min


def check_way(way: str) -> None:
    """Raise a ValueError for a name that is none of `WAYS`; "" is for the default."""
    if way and way not in WAYS:
        raise ValueError(f"expected last_level as one of {', '.join(WAYS)}, or '', got {way!r}")


def by_held_out(way: str, opened: Input, sampling: Sampling, choices: Mapping) -> bool:
    """Whether the last level is to be found by leaving a part of the measurement out.

    Only of `pnp`, and not where the level is given, or chosen among given values.

    Args:
        way: one of `WAYS`; "": "held_out" for sinograms of `LEAST_VIEWS` views or more, "noise"
            else, or where the noise is said to be 0.
        opened: the input.
        sampling: choice of the sampler.
        choices: values to choose from, by keyword, see `validation.validate`.

    Raises:
        ValueError: "held_out" where it has no effect.
    """
    idle = ""
    if sampling.sampler != POINT:
        idle = f"it is for {POINT}, the sampler is {sampling.sampler}"
    elif "end_sigma" in sampling.options or "end_sigma" in choices:
        idle = "end_sigma is given"
    elif opened.kind not in ("k-space", "k-space along a trajectory", "a sinogram"):
        idle = f"nothing can be left out of {opened.kind}"
    if way == "held_out" and idle:
        raise ValueError(f"last_level=held_out has no effect: {idle}")
    if idle or way:
        return not idle and way == "held_out"
    views = opened.facts["views"] if opened.kind == "a sinogram" else 0
    return sampling.sigma_y != 0 and views >= LEAST_VIEWS


def find_last_level(
    opened: Input,
    sampling: Sampling,
    prior: Prior,
    *,
    seed: int,
    device: torch.device | str,
) -> dict:
    """The noise level at which the reconstruction from a part predicts the rest best.

    Noise says how far an image can be denoised (`samplers.levels.last_level`), but not what the
    model of the measurement gets wrong: beam hardening, scatter, motion. What denoising takes away
    below the right level is error, which the rest of the data do not share. So one run of `pnp` on
    nine tenths of a few slices goes down to the smallest level, and at each level its image
    predicts the last tenth (cross-validation; of an iteration: early stopping).

    Args:
        opened: input of measured k-space or sinograms.
        sampling: choice of the sampler, `pnp`.
        prior: prior of images in about [0, 1].
        seed: seed of the part.
        device: device of the prior's network.

    Returns:
        A dict for a JSON file: `part`; what was `left_out` of which `slices`; mean squared `errors`
        of prediction over energy at `levels`; `at_noise`, that at the noise's level; and
        `end_sigma`, the level with the least error, or None where that is not at least 1 % less.

    Raises:
        ValueError: nothing can be left out.
    """
    held, keys = leave_out(opened, PART, sampling, seed=seed, device=device)
    sde = prior[1]
    top = min(LARGEST * sde.sigma_min, sde.sigma_max / 4)
    count = 1 + max(0, math.floor(math.log(top / sde.sigma_min) / math.log(SPACING) + 1e-9))
    levels = sde.sigma_min * SPACING ** np.arange(count)
    found, at_noise = [], []
    for h in held:
        noise_level = float(last_level(sde, h.problem.operator, h.problem.y, h.problem.noise))
        errors = _errors_by_level(h, sampling, prior, np.append(levels, noise_level))
        found.append(errors[:-1])
        at_noise.append(errors[-1])
    errors, now = np.mean(found, axis=0), float(np.mean(at_noise))
    best = int(errors.argmin())  # inf where a run failed
    better = errors[best] < (1 - LEAST_GAIN) * now
    return {
        "part": PART,
        "left_out": held[0].what,
        "slices": keys,
        "levels": [digits(level) for level in levels],
        "errors": [digits(error) for error in errors],
        "at_noise": digits(now),
        "end_sigma": digits(levels[best]) if better else None,
    }


def _errors_by_level(
    held: HoldOut, sampling: Sampling, prior: Prior, levels: np.ndarray
) -> np.ndarray:
    """Errors of prediction at `levels`, from one run; infinite if it becomes NaN or infinite."""
    score, sde = prior
    problem, seen = held.problem, []

    def look(step: int, sigma: float, x: Tensor) -> None:
        seen.append((math.log(sigma), held.error(x)))

    options = dict(sampling.options)
    if sampling.uses_noise:
        options["sigma_y"] = problem.noise
    try:
        SAMPLERS[sampling.sampler](
            score,
            sde,
            problem.operator,
            problem.y,
            num_steps=CALLS,
            initial=problem.direct,
            end_sigma=sde.sigma_min,
            callback=look,
            **options,
        )
    except NonFiniteError:
        return np.full(len(levels), math.inf)
    sigmas, errors = zip(*reversed(seen), strict=True)  # increasing
    return np.interp(np.log(levels), sigmas, errors)


def with_last_level(sampling: Sampling, found: Mapping) -> Sampling:
    """The choice of the sampler with the level of `find_last_level`, if it found one."""
    if found["end_sigma"] is None:
        return sampling
    return sampling._replace(options=sampling.options | {"end_sigma": found["end_sigma"]})


def describe_last_level(found: Mapping) -> str:
    """Result of `find_last_level` as a line of text."""
    head = f"last level, by {found['left_out']} that were left out: "
    if found["end_sigma"] is None:
        error = found["at_noise"]
        reason = "a run became NaN or infinite" if error is None else f"error {error:.3g}"
        return f"{head}that of the noise ({reason})"
    least = min(error for error in found["errors"] if error is not None)
    return (
        f"{head}{found['end_sigma']:.3g} (error {least:.3g}; at that of the noise "
        f"{found['at_noise']:.3g})"
    )
