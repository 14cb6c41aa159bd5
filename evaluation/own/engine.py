"""Reconstruction of inverse problems in the unit of the measurement, for files and arrays."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from configs.reconstruct import REAL
from evaluation.own.base import ALONG, Input
from evaluation.own.holdout import HoldOut
from evaluation.run.calibrated import COMPLEX_MRI, CT, KINDS, calibrated_scale, calibrated_steps
from evaluation.run.keywords import (
    check_noise,
    check_options,
    enough_samples,
    starts_warm,
    uses_noise,
)
from evaluation.run.posterior_samples import OnCall, draw_samples
from evaluation.run.rehearsal import rehearse
from evaluation.show.undecided import IN_WORDS as UNDECIDED
from operators import SingleCoilMRI
from operators.inverse_problem import InverseProblem
from samplers import COILS_APART, NUM_STEPS, POINT_ESTIMATES, SAMPLERS, Posterior, spread
from samplers.posterior import magnitude, quantile_kind
from sde import Prior

POINT, POSTERIOR = "pnp", "warm_mmps"  # the default for one image, and for several samples
WITHOUT_PRODUCTS = "warm_dds"  # for several samples where those would be slow, see `posterior_for`
QUICK = ("mri", "ct")  # simulated operators
# maps are given or estimated here
KNOWN = tuple(name for name in SAMPLERS if name not in COILS_APART)


Noisy = TypeVar("Noisy", InverseProblem, HoldOut)


class Sampling(NamedTuple):
    """Choice of sampler and its keywords, without the prior.

    Attributes:
        sampler: name of the sampler, one of `KNOWN`.
        num_steps: number of its steps.
        num_samples: number of samples for mean, standard deviation and quantiles.
        sigma_y: standard deviation of the measurement noise in the unit of the measurement (for
            complex y that of the real and of the imaginary part each); 0: no noise; None: estimated
            from the measurement.
        options: further keywords of the sampler.
        noise_factor: by which an estimate of the noise is multiplied.
        mean_error: part of the standard deviation that the mean's Monte Carlo error may be, which
            `num_samples` is enough for; None: not given.
        calibrated: whether the spread of the samples is scaled, see `calibrate`.
        scale: factor of the samples' deviation from their mean.
    """

    sampler: str
    num_steps: int
    num_samples: int
    sigma_y: float | None
    options: dict
    noise_factor: float = 1.0
    mean_error: float | None = None
    calibrated: bool = False
    scale: float = 1.0

    @property
    def uses_noise(self) -> bool:
        """Whether the sampler takes the measurement's noise into account."""
        return uses_noise(self.sampler, self.options)


class Solution(NamedTuple):
    """Reconstructed images of a batch, in the unit (and with the phase) of the measurement.

    Attributes:
        image: ``(B, 1, H, W)`` mean over the samples.
        std: ``(B, 1, H, W)`` real, standard deviation over the samples; 0 for one sample.
        low: ``(B, 1, H, W)`` real, 5 % quantile of the magnitude (of real images of their values),
            see `samplers.posterior.prediction_quantile`; for one sample its own.
        high: 95 % quantile.
        direct: ``(B, 1, H, W)`` reconstruction without a prior.
        scale: ``(B,)`` intensity range, by which images are divided for the prior; 0: nothing was
            measured.
        sigma_y: ``(B,)`` standard deviation of the measurement noise, given or estimated; if it
            differs between rays, its geometric mean.
        failures: error message by number in the batch; these images are not usable.
    """

    image: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
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
    mean_error: float | None = None,
    calibrated: bool = False,
) -> Sampling:
    """Checked choice of a sampler, with defaults filled in.

    Args:
        sampler: name of the sampler; "" for `POINT` if there is one sample, else `POSTERIOR`.
        num_steps: number of steps; None for `samplers.NUM_STEPS`, or what `calibrated` was fitted
            for.
        num_samples: number of samples, 1 or more.
        sigma_y: standard deviation of the measurement noise; 0: no noise, None: estimated.
        options: keywords of the sampler.
        mean_error: with several samples, `num_samples` being the most: draw only as many as make
            the Monte Carlo error of their mean at most this part of the standard deviation; None:
            draw all.
        calibrated: whether the spread is to be scaled; `calibrate` does it.

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
    if num_steps is None:
        default = NUM_STEPS[name]
        num_steps = calibrated_steps(name, default) if calibrated else default
    num_samples = enough_samples(num_samples, mean_error)
    return Sampling(
        name,
        num_steps,
        num_samples,
        sigma_y,
        dict(options),
        mean_error=mean_error,
        calibrated=calibrated,
    )


def posterior_for(opened: Input, sampler: str, num_samples: int) -> str:
    """The sampler that is asked for, or the default for several samples of this input.

    `POSTERIOR` solves with the covariance of the data many times. That is quick for k-space and
    parallel beams; for fan beams and other operators, users' own among them, it takes far longer
    than `WITHOUT_PRODUCTS`, which is then the default (docs/calibration.md).

    Args:
        opened: the input.
        sampler: name that is asked for; "" for a default.
        num_samples: number of samples.
    """
    geometry, simulated = (opened.facts.get(name) for name in ("geometry", "simulated"))
    quick = opened.kind in ("k-space", ALONG) or geometry == "parallel" or simulated in QUICK
    return sampler or ("" if quick or num_samples == 1 else WITHOUT_PRODUCTS)


def calibrate(sampling: Sampling, prior: str, opened: Input) -> Sampling:
    """The choice with the scale that was fitted for it, if it is to be calibrated.

    Args:
        sampling: choice of the sampler.
        prior: name of the prior; "" for one that has none.
        opened: the input.

    Raises:
        ValueError: there is no scale for these, or one sample.
    """
    if not sampling.calibrated:
        return sampling
    simulated = KINDS.get(opened.facts.get("simulated", ""), "")
    kind = {"k-space": COMPLEX_MRI, "a sinogram": CT, "images": simulated}.get(opened.kind, "")
    scale = calibrated_scale(
        prior, sampling.sampler, sampling.options, sampling.num_steps, kind, sampling.num_samples
    )
    return sampling._replace(scale=scale)


def check_prior(
    prior: Prior,
    opened: Input,
    sampling: Sampling,
    choices: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Raise a ValueError for a prior of complex images on real ones, or invalid keywords with it.

    Args:
        prior: the prior.
        opened: the input.
        sampling: choice of the sampler, which `rehearse` tries.
        choices: values by keyword that the sampler is to be validated with; each is tried.
    """
    if getattr(prior[0], "joint", False) and not opened.is_complex:
        raise ValueError(
            f"expected a prior of real images for {opened.kind}, such as {REAL}, got one of "
            "complex images, which is for k-space"
        )
    given = {} if sampling.sigma_y is None else {"sigma_y": sampling.sigma_y}
    chosen = [{name: value} for name, values in (choices or {}).items() for value in values]
    for choice in chosen or [{}]:
        options = sampling.options | given | choice
        rehearse(
            sampling.sampler,
            prior[1],
            num_steps=sampling.num_steps,
            options=options,
            warm=starts_warm(sampling.sampler, options),
            ct=opened.kind == "a sinogram",
            is_complex=opened.is_complex,
            knows_error=opened.direct == SingleCoilMRI.direct_name,
        )


def solve(
    problem: InverseProblem,
    sampling: Sampling,
    prior: Prior,
    *,
    seed: int,
    keys: Sequence[str],
    size: int = 0,
    on_call: OnCall = lambda samples: None,
) -> Solution:
    """Reconstruction of a batch in the unit of the measurement.

    Args:
        problem: inverse problem, on the device of the prior's network.
        sampling: choice of the sampler.
        prior: prior of images in about [0, 1].
        seed: seed of the random numbers, together with each slice's key.
        keys: names of the slices.
        size: largest batch of the network, slices times samples; 0: that of the slices.
        on_call: called at each call of the network with the number of samples of each slice in it.
    """
    if bool((problem.scale > 0).any()):
        moments, failures = sample(
            problem, sampling, prior, seed=seed, keys=keys, size=size, on_call=on_call
        )
    else:  # nothing was measured
        nothing = magnitude(problem.restore(problem.direct))
        moments = Posterior(problem.direct, problem.direct.abs(), nothing, nothing)
        failures = {}
    there = problem.scale[:, None, None, None] > 0  # anything measured, (B, 1, 1, 1)
    image = problem.restore(torch.where(there, moments.mean, 0.0))
    return Solution(
        image=image,
        std=problem.restore_std(torch.where(there, moments.std, 0.0)),
        low=torch.where(there, moments.low, magnitude(image)),
        high=torch.where(there, moments.high, magnitude(image)),
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
    size: int = 0,
    on_call: OnCall = lambda samples: None,
) -> Solution:
    """Reconstruction of some slices of an input, in the shape that the result should have.

    Args:
        opened: the input.
        items: numbers of the slices among the chosen ones, from 0.
        sampling: choice of the sampler.
        prior: prior of images in about [0, 1].
        seed: seed of the random numbers, together with each slice's key.
        device: device of the prior's network.
        size: largest batch of the network, slices times samples; 0: that of the slices.
        on_call: called at each call of the network with the number of samples of each slice in it.
    """
    problem = with_noise(opened.problem(items), sampling).to(device)
    keys = [opened.keys[item] for item in items]
    found = solve(problem, sampling, prior, seed=seed, keys=keys, size=size, on_call=on_call)
    images = ("image", "std", "low", "high", "direct")
    return found._replace(**{name: opened.finish(getattr(found, name)) for name in images})


def sample(
    problem: InverseProblem,
    sampling: Sampling,
    prior: Prior,
    *,
    seed: int,
    keys: Sequence[str],
    size: int = 0,
    on_call: OnCall = lambda samples: None,
) -> tuple[Posterior, dict[str, str]]:
    """Moments of the samples of a batch in the unit of the prior, quantiles in the measurement's.

    Args:
        problem: inverse problem, on the device of the prior's network.
        sampling: choice of the sampler.
        prior: prior of images in about [0, 1].
        seed: seed of the random numbers, together with each slice's key.
        keys: names of the slices.
        size: largest batch of the network, slices times samples; 0: that of the slices.
        on_call: called at each call of the network with the number of samples of each slice in it.

    Returns:
        Moments and quantiles, and error messages of slices that failed by key.
    """
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
        together=size // len(keys),
        scale=sampling.scale,
        shown=lambda images: magnitude(problem.restore(images)),
        on_call=on_call,
    )


def with_noise(known: Noisy, sampling: Sampling) -> Noisy:
    """The problem (or hold-out) with the noise level that is given, or a part of the estimate."""
    if sampling.sigma_y is None:
        return known.scale_noise(sampling.noise_factor)
    return known.with_noise(sampling.sigma_y)


def noise_origin(opened: Input, sampling: Sampling) -> str:
    """Origin of the noise level that the sampler gets, in words such as "estimated"."""
    if not sampling.uses_noise:
        return f"not used by {sampling.sampler}"
    if sampling.sigma_y is not None:
        return "given" if sampling.sigma_y else "none: sampler.sigma_y is 0"
    if opened.kind == "images":
        return "none: simulated without"
    factor = sampling.noise_factor
    return "estimated" if factor == 1 else f"estimated, times {factor:g} by what was left out"


def describe(sampling: Sampling) -> str:
    """Description of the result in words, with what is known of the spread of its samples."""
    how = f"by {sampling.sampler}, {sampling.num_steps} steps"
    if sampling.sampler in POINT_ESTIMATES:
        return f"point estimate {how}"
    count = sampling.num_samples
    what = "sample" if count == 1 else f"mean of {count} samples"
    if sampling.mean_error is not None:
        what += f", enough for an error of the mean of {sampling.mean_error:g} std,"
    found = spread(sampling.sampler, sampling.options)
    if sampling.calibrated:
        scaled = f"deviations from the mean scaled by {sampling.scale:.2f}, fitted to other people"
        found = f"{found}; {scaled}" if found else scaled
    return f"{what} {how}; {found}" if found else f"{what} of the posterior {how}"


def describe_outputs(sampling: Sampling, opened: Input) -> dict[str, str]:
    """What each image of the result is, in words, by its name in the result's files.

    Args:
        sampling: choice of the sampler.
        opened: the input.
    """
    size = "magnitude" if opened.is_complex else "grey level"
    of_mean = "magnitude of the " if opened.is_complex else ""
    along = ", of the part in phase with the mean" if opened.is_complex else ""
    words = {"reconstruction": of_mean + describe(sampling)}
    count = sampling.num_samples
    if count > 1:
        limit = f"limit that the true {size} is below with a probability of"
        given = f"if it is like the {count} samples"
        if sampling.calibrated:
            given += f", their deviations scaled by {sampling.scale:.2f}"
            along += f", scaled by {sampling.scale:.2f}"
        words |= {
            "std": f"standard deviation of the {size} over {count} samples{along}; the Monte Carlo "
            f"error of the mean is {count**-0.5 / sampling.scale:.2g} of it",
            "quantile_05": f"{limit} 5 %, {given} ({quantile_kind(count)})",
            "quantile_95": f"{limit} 95 %, {given} ({quantile_kind(count)})",
            "undecided": f"not decided by the data, 0 to 1: {UNDECIDED}",
        }
    words |= {"direct": f"without a prior: {opened.direct}"}
    if opened.truth(0) is not None:
        words["truth"] = "what the measurement was simulated from"
    return words
