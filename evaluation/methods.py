"""The baseline or sampler that a config names, as one function of operator and measurement."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import Tensor

from evaluation import baselines
from evaluation.baselines import BASELINES, direct
from models.checkpoint import load_prior, resolve_prior
from operators import BatchGenerator, LinearOperator
from operators.batch import derive_seed
from samplers import (
    SAMPLERS,
    STUDY,
    STUDY_CT,
    NonFiniteError,
    Progress,
    posterior_moments,
)

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Reconstruction(NamedTuple):
    """Of a batch.

    Attributes:
        images: ``(B, *domain_shape)``; with several posterior samples their mean.
        calls: of the network, each for the whole batch.
        failures: what went wrong, by key; these images are not usable.
        std: ``(B, *domain_shape)`` standard deviation over posterior samples; None for one.
    """

    images: Tensor
    calls: int
    failures: dict[str, str]
    std: Tensor | None = None


Method = Callable[[LinearOperator, Tensor, tuple[str, ...]], Reconstruction]


def prior_file(config: ConfigDict) -> Path | None:
    """The checkpoint that `config.prior` means; None for a baseline, which needs none.

    Raises:
        ValueError: unknown name of a method (the known ones are listed), or no prior given.
        FileNotFoundError: no such prior.
    """
    name = config.sampler.name
    if name in BASELINES:
        return None
    if name not in SAMPLERS:
        known = ", ".join(sorted([*SAMPLERS, *BASELINES]))
        raise ValueError(f"unknown sampler '{name}'; known: {known}")
    if not config.prior:
        raise ValueError("no prior given; set --config.prior to a checkpoint or a run's folder")
    return resolve_prior(config.prior)


def weights_file(config: ConfigDict) -> Path | None:
    """What the result depends on beside config and data: the prior's file, or a baseline's.

    Raises: as `prior_file`.
    """
    if config.sampler.name in BASELINES and config.sampler.checkpoint:
        return resolve_prior(config.sampler.checkpoint)
    return prior_file(config)


def create_method(config: ConfigDict, device: str) -> Method:
    """The baseline or sampler of `config.sampler`, its keywords checked.

    Raises:
        ValueError: unknown name or keyword (the known ones are listed), or an unfit value.
        FileNotFoundError, CheckpointError: no such prior, or an unreadable one.
    """
    options = {k: v for k, v in config.sampler.items() if v is not None}
    name = options.pop("name")
    num_steps, num_samples = options.pop("num_steps"), options.pop("num_samples")
    if num_samples < 1:
        raise ValueError(f"expected sampler.num_samples of at least 1, got {num_samples}")
    path = prior_file(config)
    if path is None:
        if config.protocol == "study":
            options = baselines.STUDY.get(name, {}) | options
        check_options(BASELINES[name], options)
        return one_by_one(BASELINES[name], options)
    check_options(SAMPLERS[name], options)
    if config.protocol == "study":
        options = (STUDY_CT if config.operator.name == "ct" else STUDY)[name] | options
    takes_initial = "initial" in inspect.signature(SAMPLERS[name]).parameters
    # the predictor-corrector starts from the prior unless a level says otherwise
    cold = name == "predictor_corrector" and not {"start_level", "start_sigma"} & options.keys()
    if config.precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {config.precision!r}")
    score, sde = load_prior(
        path, device, autocast=PRECISIONS[config.precision], compiled=config.compile
    )

    def method(operator: LinearOperator, y: Tensor, keys: tuple[str, ...]) -> Reconstruction:
        calls = 0
        failures: dict[str, str] = {}

        def counted(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return score(x, sigma)

        start = {"initial": direct(operator, y)} if takes_initial and not cold else {}

        def draw(number: int) -> Tensor:
            seeds = [derive_seed(config.seed, "sampler", key, number) for key in keys]
            try:
                with Progress(operator, y, num_steps, leave=False) as progress:
                    return SAMPLERS[name](
                        counted,
                        sde,
                        operator,
                        y,
                        rng=BatchGenerator(seeds, keys),
                        num_steps=num_steps,
                        callback=progress,
                        **options,
                        **start,
                    )
            except NonFiniteError as error:  # the other slices of the batch are as good as ever
                for index, _, step, sigma in error.failures:
                    failures[keys[index]] = f"not finite at step {step}, sigma {sigma:.4g}"
                if error.images is None:
                    return torch.full_like(direct(operator, y), torch.nan)
                return error.images

        with torch.no_grad():  # not inference mode: dps takes gradients inside
            images, std = posterior_moments(draw, num_samples)
        return Reconstruction(images, calls, failures, std if num_samples > 1 else None)

    return method


def one_by_one(baseline: Callable, options: dict) -> Method:
    """A baseline on one slice after the other: the batch size then changes no bit of the result.

    (A product of a sparse matrix with several vectors sums in another order than with one.)
    """

    def method(operator: LinearOperator, y: Tensor, keys: tuple[str, ...]) -> Reconstruction:
        slices = [baseline(operator[b], y[b : b + 1], **options) for b in range(len(keys))]
        return Reconstruction(torch.cat(slices), 0, {})

    return method


def check_options(function: Callable, options: dict) -> None:
    """Raise a ValueError for a keyword that `function` does not have; lists the ones it has."""
    taken = {"rng", "num_steps", "callback", "initial", "after_step"}
    parameters = inspect.signature(function).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - taken
    unknown = options.keys() - known
    if unknown:
        raise ValueError(
            f"{function.__name__} has no {', '.join(f'sampler.{u}' for u in sorted(unknown))}; "
            f"it has: {', '.join(sorted(known)) or 'none'}; leave the others at None"
        )
