"""The baseline or sampler of a config, as a function of operator and measurement."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import Tensor

from evaluation.baselines import BASELINES, direct
from evaluation.baselines.direct import check_direct
from evaluation.run.batching import choose_size
from evaluation.run.calibrated import CT, KINDS, calibrated_scale
from evaluation.run.keywords import (
    check_noise,
    check_num_samples,
    check_options,
    enough_samples,
    starts_warm,
    uses_noise,
)
from evaluation.run.posterior_samples import OnCall, draw_samples
from evaluation.run.protocols import has_one_seed, is_averaged, with_protocol
from evaluation.run.rehearsal import rehearse
from models.checkpoint import Opened, keyword_files, load_prior, resolve_prior, shipped_priors
from operators import LinearOperator
from operators.create import operator_class
from operators.inverse_problem import InverseProblem
from samplers import SAMPLERS, Posterior
from samplers.posterior import magnitude
from sde import Score

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Reconstruction(NamedTuple):
    """Reconstructed images of a batch.

    Attributes:
        images: ``(B, *domain_shape)``; the mean if there are several posterior samples.
        calls: number of network calls for each slice.
        failures: error messages by key; the images of these slices are not usable.
        spread: moments of the posterior samples, and quantiles of the images that the problem
            restores; None for one sample.
    """

    images: Tensor
    calls: int
    failures: dict[str, str]
    spread: Posterior | None = None


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


def spread_scale(config: ConfigDict) -> float:
    """Factor of the samples' deviation from their mean: fitted with ``sampler.calibrated``, else 1.

    Baselines have no samples, and 1.

    Args:
        config: evaluation config, see configs/evaluate.py.

    Raises:
        ValueError: there is one sample, or no factor was fitted.
    """
    options = {k: v for k, v in config.sampler.items() if v is not None}
    name = options.pop("name")
    if not options.pop("calibrated", False) or name in BASELINES:
        return 1.0
    num_steps = options.pop("num_steps")
    num_samples = enough_samples(options.pop("num_samples"), options.pop("mean_error", None))
    kind = KINDS.get(config.operator.name, "")
    return calibrated_scale(config.prior, name, options, num_steps, kind, num_samples)


def create_reconstructor(
    config: ConfigDict,
    device: str,
    on_call: OnCall = lambda samples: None,
    opened: Opened | None = None,
) -> Reconstructor:
    """Reconstruction function of the baseline or sampler in `config.sampler`.

    Args:
        config: an evaluation config.
        device: device of the networks.
        on_call: called at each call of the network with the number of samples of each slice that it
            is for, or by a baseline after each slice with 1.
        opened: the prior of `config.prior`, if its file was read already.

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
    num_samples = enough_samples(num_samples, options.pop("mean_error", None))
    size = choose_size(config.batch_size, device)
    options.pop("calibrated", None)
    path = prior_file(config)
    measured = operator_class(config.operator.name)
    if path is None:
        check_direct(name, measured)
        options = with_protocol(config, name, options)
        check_options(BASELINES[name], options)
        return one_by_one(BASELINES[name], options, on_call)
    check_options(SAMPLERS[name], options)
    check_noise(name, options)
    scale = spread_scale(config)
    options = with_protocol(config, name, options)
    if config.precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {config.precision!r}")
    score, sde = load_prior(
        opened or path,
        device,
        format=config.get("prior_format", ""),
        autocast=PRECISIONS[config.precision],
        compiled=config.compile,
        depth=config.get("depth"),
        averaged=is_averaged(config),
    )
    ct, is_complex = KINDS.get(config.operator.name) == CT, getattr(score, "joint", False)
    if ct and is_complex:
        raise _expects_real(config.operator.name)
    rehearse(
        name,
        sde,
        num_steps=num_steps,
        options=options,
        warm=starts_warm(name, options),
        ct=ct,
        is_complex=is_complex,
        knows_error=measured.direct_error is not LinearOperator.direct_error,
    )

    def method(problem: InverseProblem, keys: tuple[str, ...]) -> Reconstruction:
        operator, y = problem.operator, problem.y
        check_kind(score, operator)
        calls = 0

        def count(samples: int) -> None:
            nonlocal calls
            calls += samples
            on_call(samples)

        moments, failures = draw_samples(
            name,
            score,
            sde,
            operator,
            y,
            num_steps=num_steps,
            num_samples=num_samples,
            seed=config.seed,
            one_seed=has_one_seed(config),
            keys=keys,
            initial=direct(operator, y) if starts_warm(name, options) else None,
            options=options | noise_options(name, options, problem),
            together=size // len(keys),
            scale=scale,
            shown=lambda images: magnitude(problem.restore(images)),
            on_call=count,
        )
        return Reconstruction(moments.mean, calls, failures, moments if num_samples > 1 else None)

    return method


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
        raise _expects_real(type(operator).__name__)


def _expects_real(what: str) -> ValueError:
    return ValueError(
        f"expected a prior of real images for {what}, got one of complex images; set config.prior "
        "to another, or operator.name to multicoil_mri"
    )


def one_by_one(baseline: Callable, options: dict, on_call: OnCall) -> Reconstructor:
    """Reconstruction function that applies a baseline to one slice at a time.

    The result then does not depend on the batch size, not even in rounding: the product of a sparse
    matrix with several vectors sums in another order than with one.
    """

    def method(problem: InverseProblem, keys: tuple[str, ...]) -> Reconstruction:
        operator, y = problem.operator, problem.y
        slices = []
        for b in range(len(keys)):
            slices.append(baseline(operator[b], y[b : b + 1], **options))
            on_call(1)
        return Reconstruction(torch.cat(slices), 0, {})

    return method
