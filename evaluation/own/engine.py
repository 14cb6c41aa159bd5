"""From inverse problems to images in the measurement's unit, of files and of arrays."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from configs.reconstruct import REAL
from evaluation.own.base import Input
from evaluation.own.holdout import HoldOut
from evaluation.run.methods import (
    check_noise,
    check_options,
    draw_samples,
    starts_warm,
    uses_noise,
)
from operators.inverse_problem import InverseProblem
from samplers import COILS_APART, NUM_STEPS, POINT_ESTIMATES, SAMPLERS, Posterior, spread
from sde import Prior

POINT, POSTERIOR = "pnp", "dds"  # the default for one image, and for several samples
# maps are given or estimated here
KNOWN = tuple(name for name in SAMPLERS if name not in COILS_APART)


Noisy = TypeVar("Noisy", InverseProblem, HoldOut)


class Sampling(NamedTuple):
    """How the posterior is sampled: all but the prior.

    Attributes:
        sampler: one of `KNOWN`.
        num_steps: of the sampler.
        num_samples: that mean and standard deviation are taken over.
        sigma_y: standard deviation of the measurement's noise in its unit (of real and imaginary
            part each); 0: no noise, None: estimated from the measurement.
        options: further keywords of the sampler.
    """

    sampler: str
    num_steps: int
    num_samples: int
    sigma_y: float | None
    options: dict

    @property
    def uses_noise(self) -> bool:
        """Whether the sampler takes the measurement's noise into account."""
        return uses_noise(self.sampler, self.options)


class Solution(NamedTuple):
    """Reconstructed images of a batch, in the unit (and with the phase) of the measurement.

    Attributes:
        image: ``(B, 1, H, W)``, the mean over samples.
        std: ``(B, 1, H, W)`` real, the standard deviation over samples; 0 for one.
        direct: ``(B, 1, H, W)``, the reconstruction without a prior.
        scale: ``(B,)`` what 1 was for the prior; 0: nothing was measured.
        sigma_y: ``(B,)`` noise of the measurement, given or estimated; where it differs (rays),
            the geometric mean.
        failures: what went wrong, by number in the batch; these images are not usable.
    """

    image: Tensor
    std: Tensor
    direct: Tensor
    scale: Tensor
    sigma_y: Tensor
    failures: dict[int, str]


def choose_sampling(
    sampler: str,
    *,
    num_steps: int | None,
    num_samples: int,
    sigma_y: float | None,
    options: Mapping,
) -> Sampling:
    """The sampler with its defaults filled in, everything checked.

    Args:
        sampler: its name; "": `POINT` for one sample, `POSTERIOR` for several.
        num_steps: None: as `samplers.NUM_STEPS` says.
        num_samples: 1 or more.
        sigma_y: as of `Sampling`.
        options: keywords of the sampler.

    Raises:
        ValueError: an unknown sampler or keyword, or several samples of a point estimate.
    """
    name = sampler or (POINT if num_samples == 1 else POSTERIOR)
    if name not in KNOWN:
        raise ValueError(f"unknown sampler '{name}'; known: {', '.join(KNOWN)}")
    given = dict(options) | ({} if sigma_y is None else {"sigma_y": sigma_y})
    check_options(SAMPLERS[name], given)
    check_noise(name, given)
    if num_samples < 1 or (num_samples > 1 and name in POINT_ESTIMATES):
        raise ValueError(
            f"expected sampler.num_samples of 1 for {name}, a point estimate, of 1 or more for "
            f"others, got {num_samples} for {name}; set sampler.name to {POSTERIOR}"
        )
    num_steps = NUM_STEPS[name] if num_steps is None else num_steps
    return Sampling(name, num_steps, num_samples, sigma_y, dict(options))


def check_prior(prior: Prior, opened: Input) -> None:
    """Raise a ValueError for real images and a prior of complex ones."""
    if getattr(prior[0], "joint", False) and not opened.is_complex:
        raise ValueError(
            f"expected a prior of real images for {opened.kind}, such as {REAL}, got one of "
            "complex images, which is for k-space"
        )


def solve(
    problem: InverseProblem, sampling: Sampling, prior: Prior, *, seed: int, keys: Sequence[str]
) -> Solution:
    """Sample the posterior of a batch and bring it back to the measurement's unit.

    Args:
        problem: on the device of the prior's network.
        sampling: how.
        prior: of images in about [0, 1].
        seed: with each slice's key it fixes the random numbers.
        keys: names of the slices.
    """
    if bool((problem.scale > 0).any()):
        moments, failures = sample(problem, sampling, prior, seed=seed, keys=keys)
    else:  # nothing was measured
        moments, failures = Posterior(problem.direct, problem.direct.abs()), {}
    there = problem.scale[:, None, None, None] > 0  # anything measured, (B, 1, 1, 1)
    return Solution(
        image=problem.restore(torch.where(there, moments.mean, 0.0)),
        std=problem.restore_std(torch.where(there, moments.std, 0.0)),
        direct=problem.restore(problem.direct),
        scale=problem.scale,
        sigma_y=problem.noise * problem.scale,
        failures={keys.index(key): reason for key, reason in failures.items()},
    )


def solve_slices(
    opened: Input,
    items: Sequence[int],
    sampling: Sampling,
    prior: Prior,
    *,
    seed: int,
    device: torch.device | str,
) -> Solution:
    """`solve` for the chosen slices `items` of an input, its images in the shape asked for."""
    problem = with_noise(opened.problem(items), sampling).to(device)
    keys = [opened.keys[item] for item in items]
    found = solve(problem, sampling, prior, seed=seed, keys=keys)
    image, std, direct = map(opened.finish, (found.image, found.std, found.direct))
    return found._replace(image=image, std=std, direct=direct)


def sample(
    problem: InverseProblem, sampling: Sampling, prior: Prior, *, seed: int, keys: Sequence[str]
) -> tuple[Posterior, dict[str, str]]:
    """Mean and standard deviation in the prior's unit, and the slices that failed, by key."""
    options = dict(sampling.options)
    if sampling.uses_noise:
        options["sigma_y"] = problem.noise
    return draw_samples(
        sampling.sampler,
        *prior,
        problem.operator,
        problem.y,
        num_steps=sampling.num_steps,
        num_samples=sampling.num_samples,
        seed=seed,
        keys=keys,
        initial=problem.direct if starts_warm(sampling.sampler, options) else None,
        options=options,
    )


def with_noise(known: Noisy, sampling: Sampling) -> Noisy:
    """A problem, or what is left out of one, with the noise that is given, if one is."""
    return known if sampling.sigma_y is None else known.with_noise(sampling.sigma_y)


def noise_origin(opened: Input, sampling: Sampling) -> str:
    """Where the noise level is from that the sampler is told."""
    if not sampling.uses_noise:
        return f"not used by {sampling.sampler}"
    if sampling.sigma_y is not None:
        return "given" if sampling.sigma_y else "none: sampler.sigma_y is 0"
    return "none: simulated without" if opened.kind == "images" else "estimated"


def describe(sampling: Sampling) -> str:
    """What the result is, and of samples what is known of their spread."""
    how = f"by {sampling.sampler}, {sampling.num_steps} steps"
    if sampling.sampler in POINT_ESTIMATES:
        return f"point estimate {how}"
    count = sampling.num_samples
    what = "sample" if count == 1 else f"mean of {count} samples"
    found = spread(sampling.sampler, sampling.options)
    return f"{what} {how}; {found}" if found else f"{what} of the posterior {how}"
