"""The baseline or sampler of a config, as a function of operator and measurement."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import Tensor

from evaluation import baselines
from evaluation.baselines import BASELINES, direct
from models.checkpoint import keyword_files, load_prior, resolve_prior, shipped_priors
from operators import BatchGenerator, LinearOperator
from operators.batch import derive_seed
from operators.inverse_problem import InverseProblem
from samplers import (
    POINT_ESTIMATES,
    SAMPLERS,
    STUDY,
    STUDY_CT,
    NonFiniteError,
    Posterior,
    Progress,
    posterior_moments,
)
from samplers.watch import empty_images
from sde import VESDE, Score

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Reconstruction(NamedTuple):
    """Reconstructed images of a batch.

    Attributes:
        images: ``(B, *domain_shape)``; the mean if there are several posterior samples.
        calls: number of network calls, each for the whole batch.
        failures: error messages by key; the images of these slices are not usable.
        std: ``(B, *domain_shape)`` standard deviation over posterior samples; None for one sample.
    """

    images: Tensor
    calls: int
    failures: dict[str, str]
    std: Tensor | None = None


Reconstructor = Callable[[InverseProblem, tuple[str, ...]], Reconstruction]


def prior_file(config: ConfigDict) -> Path | None:
    """Checkpoint file of `config.prior`; None for a baseline, which needs no prior.

    Raises:
        ValueError: `config.sampler.name` is unknown (the known ones are listed), or a sampler has
            no prior.
        FileNotFoundError: there is no such prior.
    """
    name = config.sampler.name
    if name in BASELINES:
        return None
    if name not in SAMPLERS:
        known = ", ".join(sorted([*SAMPLERS, *BASELINES]))
        raise ValueError(f"unknown sampler '{name}'; known: {known}")
    if not config.prior:
        raise ValueError(
            "no prior given; set --config.prior to a shipped one "
            f"({', '.join(shipped_priors())}), a checkpoint or a run's folder"
        )
    return resolve_prior(config.prior, config.get("prior_format", ""))


def weights_file(config: ConfigDict) -> Path | None:
    """File of the weights that a result depends on: the prior's, a baseline's, or None.

    Raises:
        ValueError: `config.sampler.name` is unknown (the known ones are listed), or a sampler has
            no prior.
        FileNotFoundError: there is no such file.
    """
    if config.sampler.name in BASELINES and config.sampler.checkpoint:
        return resolve_prior(config.sampler.checkpoint)
    return prior_file(config)


def prior_keyword_files(config: ConfigDict) -> list[Path]:
    """Files beside the prior that say what its weights are (`models.checkpoint.keyword_files`)."""
    if config.sampler.name in BASELINES:
        return []
    return keyword_files(config.prior, config.get("prior_format", ""))


def create_reconstructor(
    config: ConfigDict, device: str, on_call: Callable[[], None] = lambda: None
) -> Reconstructor:
    """Reconstruction function of the baseline or sampler in `config.sampler`.

    Args:
        config: an evaluation config.
        device: device of the networks.
        on_call: called at each call of the network, or by a baseline after each slice.

    Returns:
        A function ``(problem, keys) -> Reconstruction``. A sampler that uses the noise level gets
        that of the problem, unless `sampler.sigma_y` is given, in the unit of the images.

    Raises:
        ValueError: an unknown name or keyword (the known ones are listed), or an invalid value.
        FileNotFoundError: there is no such prior.
        CheckpointError: the prior is unreadable.
    """
    options = {k: v for k, v in config.sampler.items() if v is not None}
    name = options.pop("name")
    num_steps, num_samples = options.pop("num_steps"), options.pop("num_samples")
    check_num_samples(name, num_samples)
    path = prior_file(config)
    if path is None:
        if config.protocol == "study":
            options = baselines.STUDY.get(name, {}) | options
        check_options(BASELINES[name], options)
        return one_by_one(BASELINES[name], options, on_call)
    check_options(SAMPLERS[name], options)
    check_noise(name, options)
    if config.protocol == "study":
        options = (STUDY_CT if config.operator.name == "ct" else STUDY)[name] | options
    if config.precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {config.precision!r}")
    score, sde = load_prior(
        path,
        device,
        format=config.get("prior_format", ""),
        autocast=PRECISIONS[config.precision],
        compiled=config.compile,
    )

    def method(problem: InverseProblem, keys: tuple[str, ...]) -> Reconstruction:
        operator, y = problem.operator, problem.y
        check_kind(score, operator)
        calls = 0

        def count() -> None:
            nonlocal calls
            calls += 1
            on_call()

        moments, failures = draw_samples(
            name,
            counted(score, count),
            sde,
            operator,
            y,
            num_steps=num_steps,
            num_samples=num_samples,
            seed=config.seed,
            keys=keys,
            initial=direct(operator, y) if starts_warm(name, options) else None,
            options=options | noise_options(name, options, problem),
        )
        std = moments.std if num_samples > 1 else None
        return Reconstruction(moments.mean, calls, failures, std)

    return method


def counted(score: Score, on_call: Callable[[], None]) -> Score:
    """`score` with a call of ``on_call()`` before each of its calls."""

    @functools.wraps(score)  # also copies its attributes
    def call(x: Tensor, sigma: Tensor) -> Tensor:
        on_call()
        return score(x, sigma)

    return call


def expected_calls(name: str, num_steps: int, num_samples: int, options: dict) -> int:
    """Approximate number of network calls per slice, for a progress bar; 0 for a baseline."""
    if name in BASELINES:
        return 0
    parameters = inspect.signature(SAMPLERS[name]).parameters
    repeated = {"corrector_steps": 1, "inner_steps": 0}  # in addition to so many predictor steps
    calls = 1
    for keyword, beside in repeated.items():
        if keyword in parameters:
            calls = options.get(keyword, parameters[keyword].default) + beside
    return max(num_steps * calls, 1) * num_samples


def draw_samples(
    name: str,
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    num_steps: int,
    num_samples: int,
    seed: int,
    keys: Sequence[str],
    initial: Tensor | None,
    options: dict,
) -> tuple[Posterior, dict[str, str]]:
    """Mean and standard deviation over posterior samples of a batch, with a progress bar.

    Random numbers are seeded by `seed`, the key of the slice and the number of the sample.

    Args:
        name: a key of `SAMPLERS`.
        score: score of the prior, on the device of `y`.
        sde: SDE of the prior.
        operator: measurement operator.
        y: ``(B, *range_shape)`` measurement.
        num_steps: number of steps of the sampler.
        num_samples: number of posterior samples per slice.
        seed: seed of the whole run.
        keys: keys of the slices.
        initial: ``(B, *domain_shape)`` images to start from; None for the sampler's own start.
        options: further keywords of the sampler.

    Returns:
        The moments, and error messages by key; the images of these slices are not usable.
    """
    failures: dict[str, str] = {}
    start = {} if initial is None else {"initial": initial}

    def draw(number: int) -> Tensor:
        seeds = [derive_seed(seed, "sampler", key, number) for key in keys]
        try:
            with Progress(operator, y, num_steps, leave=False) as progress:
                return SAMPLERS[name](
                    score,
                    sde,
                    operator,
                    y,
                    rng=BatchGenerator(seeds, keys),
                    num_steps=num_steps,
                    callback=progress,
                    **options,
                    **start,
                )
        except NonFiniteError as error:  # the other slices of the batch are valid
            for index, _, step, sigma in error.failures:
                failures[keys[index]] = f"not finite at step {step}, sigma {sigma:.4g}"
            nothing = torch.full_like(empty_images(operator, y), torch.nan)
            return nothing if error.images is None else error.images

    with torch.no_grad():  # not inference mode: dps takes gradients inside
        return posterior_moments(draw, num_samples), failures


def starts_warm(name: str, options: dict) -> bool:
    """Whether a sampler with the keywords `options` starts from the direct reconstruction."""
    # the predictor-corrector starts from the prior unless a start level is given
    cold = name == "predictor_corrector" and not {"start_level", "start_sigma"} & options.keys()
    return takes(name, "initial") and not cold


def uses_noise(name: str, options: dict) -> bool:
    """Whether a sampler with the keywords `options` uses the noise level of the measurement."""
    ignored = name == "annealed_langevin" and options.get("likelihood") != "gaussian"
    return takes(name, "sigma_y") and not ignored


def noise_options(name: str, options: dict, problem: InverseProblem) -> dict:
    """The noise level of a problem as a keyword of a sampler, if it uses one and there is noise.

    A given `sigma_y` is in the unit of the images, which `problem.scale` may differ from.
    """
    if "sigma_y" in options:
        same = bool((problem.scale == 1).all())
        return {} if same else {"sigma_y": options["sigma_y"] / problem.scale}
    if uses_noise(name, options) and bool(problem.noise.any()):
        return {"sigma_y": problem.noise}
    return {}


def check_kind(score: Score, operator: LinearOperator) -> None:
    """Raise a ValueError for a prior of complex images and an operator of real ones."""
    if getattr(score, "joint", False) and not operator.domain_complex:
        raise ValueError(
            f"expected a prior of real images for {type(operator).__name__}, got one of complex "
            "images; set config.prior to another, or operator.name to multicoil_mri"
        )


def check_num_samples(name: str, num_samples: int) -> None:
    """Raise a ValueError for fewer than one sample, or for several of a deterministic method."""
    if num_samples < 1:
        raise ValueError(f"expected sampler.num_samples of at least 1, got {num_samples}")
    if num_samples > 1 and (name in POINT_ESTIMATES or name in BASELINES):
        random = ", ".join(sorted(SAMPLERS.keys() - set(POINT_ESTIMATES)))
        raise ValueError(
            f"expected sampler.num_samples of 1 for {name}, a point estimate, got {num_samples}; "
            f"samples differ with {random}"
        )


def check_noise(name: str, options: dict) -> None:
    """Raise a ValueError for a noise level that is negative, not finite, or not used."""
    if "sigma_y" not in options:
        return
    if not 0 <= options["sigma_y"] < math.inf:
        raise ValueError(f"expected sampler.sigma_y of 0 or more, got {options['sigma_y']}")
    if not uses_noise(name, options):
        raise ValueError(f"{name} uses sampler.sigma_y with sampler.likelihood=gaussian only")


def takes(name: str, keyword: str) -> bool:
    """Whether the sampler `name` has the keyword `keyword`."""
    return keyword in inspect.signature(SAMPLERS[name]).parameters


def one_by_one(baseline: Callable, options: dict, on_call: Callable[[], None]) -> Reconstructor:
    """Reconstruction function that applies a baseline to one slice at a time.

    The result then does not depend on the batch size, not even in rounding: the product of a sparse
    matrix with several vectors sums in another order than with one.
    """

    def method(problem: InverseProblem, keys: tuple[str, ...]) -> Reconstruction:
        operator, y = problem.operator, problem.y
        slices = []
        for b in range(len(keys)):
            slices.append(baseline(operator[b], y[b : b + 1], **options))
            on_call()
        return Reconstruction(torch.cat(slices), 0, {})

    return method


def check_options(function: Callable, options: dict) -> None:
    """Raise a ValueError, which lists the known keywords, if `function` lacks one of `options`."""
    taken = {"rng", "num_steps", "callback", "initial", "after_step"}
    parameters = inspect.signature(function).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - taken
    unknown = options.keys() - known
    if unknown:
        raise ValueError(
            f"{function.__name__} has no {', '.join(f'sampler.{u}' for u in sorted(unknown))}; "
            f"it has: {', '.join(sorted(known)) or 'none'}; leave the others at None"
        )
