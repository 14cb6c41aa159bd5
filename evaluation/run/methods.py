"""The baseline or sampler of a config, as a function of operator and measurement."""

import functools
import inspect
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import Tensor

from configs import is_out_of_memory
from evaluation.baselines import BASELINES, direct
from evaluation.run.batching import choose_size
from evaluation.run.calibrated import CT, KINDS, calibrated_scale
from evaluation.run.protocols import has_one_seed, is_averaged, with_protocol
from evaluation.run.rehearsal import rehearse
from models.checkpoint import Opened, keyword_files, load_prior, resolve_prior, shipped_priors
from operators import BatchGenerator, LinearOperator
from operators.batch import derive_seed
from operators.inverse_problem import InverseProblem
from samplers import (
    FROM_POINT,
    POINT_ESTIMATES,
    SAMPLERS,
    NonFiniteError,
    Posterior,
    Progress,
    posterior_moments,
)
from samplers.posterior import magnitude
from samplers.warm_dds import point_estimate
from samplers.watch import empty_images
from sde import VESDE, Score

ROUNDING = 1e-9  # so that a mean_error of 0.1 takes 100 samples, not 101
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
OnCall = Callable[[int], object]
log = logging.getLogger(__name__)


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

    Args:
        config: evaluation config, see configs/evaluate.py.

    Raises:
        ValueError: there is one sample, or no factor was fitted.
    """
    options = {k: v for k, v in config.sampler.items() if v is not None}
    if not options.pop("calibrated", False):
        return 1.0
    name, num_steps = options.pop("name"), options.pop("num_steps")
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
    if path is None:
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
    rehearse(
        name,
        sde,
        num_steps=num_steps,
        options=options,
        warm=starts_warm(name, options),
        ct=KINDS.get(config.operator.name) == CT,
        is_complex=getattr(score, "joint", False),
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


def counted(score: Score, on_call: Callable[[], None]) -> Score:
    """`score` with a call of ``on_call()`` before each of its calls."""

    @functools.wraps(score)  # also copies its attributes
    def call(x: Tensor, sigma: Tensor) -> Tensor:
        on_call()
        return score(x, sigma)

    return call


def enough_samples(most: int, mean_error: float | None) -> int:
    """Number of samples after which their mean is known well enough.

    Samples of a measurement are independent, so that the Monte Carlo error of their mean is
    std / sqrt(n) at every pixel, and the part of the standard deviation that it is is known before
    any of them is drawn. At least two are drawn of several.

    Args:
        most: largest number of samples.
        mean_error: part of the standard deviation that the mean's error may be; None for `most`.

    Raises:
        ValueError: `mean_error` is not between 0 and 1, or there is one sample.
    """
    if mean_error is None:
        return most
    if not 0 < mean_error < 1:
        raise ValueError(f"expected sampler.mean_error between 0 and 1, got {mean_error}")
    if most == 1:
        raise ValueError(
            "expected sampler.num_samples above 1 beside sampler.mean_error, the largest number of "
            "samples to draw; or leave mean_error at None"
        )
    return min(most, max(2, math.ceil(mean_error**-2 * (1 - ROUNDING))))


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
    if "order" in parameters:
        calls *= options.get("order", parameters["order"].default)
    shared = options.get("point_steps", parameters["point_steps"].default) if shares(name) else 0
    return max(num_steps * calls, 1) * num_samples + shared


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
    one_seed: bool = False,
    together: int = 1,
    scale: float = 1.0,
    shown: Callable[[Tensor], Tensor] | None = None,
    on_call: OnCall = lambda samples: None,
) -> tuple[Posterior, dict[str, str]]:
    """Moments and quantiles of posterior samples of a batch, with a progress bar.

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
        one_seed: see `sample_source`.
        together: see `sample_source`.
        scale: factor by which samples are taken to differ from their mean.
        shown: images -> the real images that quantiles are of; None for magnitudes.
        on_call: see `sample_source`.

    Returns:
        The moments, and error messages by key; the images of these slices are not usable.
    """
    draw, failures = sample_source(
        name,
        score,
        sde,
        operator,
        y,
        num_steps=num_steps,
        num_samples=num_samples,
        seed=seed,
        keys=keys,
        initial=initial,
        options=options,
        one_seed=one_seed,
        together=together,
        on_call=on_call,
    )
    with torch.no_grad():  # not inference mode: dps takes gradients inside
        return posterior_moments(draw, num_samples, scale=scale, shown=shown), failures


def sample_source(
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
    one_seed: bool = False,
    together: int = 1,
    on_call: OnCall = lambda samples: None,
) -> tuple[Callable[[int], Tensor], dict[str, str]]:
    """Posterior samples of a batch, one after the other, with a progress bar.

    Random numbers are seeded by `seed`, the key of the slice and the number of the sample: the
    first samples of a longer run are those of a shorter one, however many are drawn together.

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
        one_seed: whether the seed is that of the run for every slice, whose noise is then the same.
        together: number of samples of each slice in one batch of the network, at most; halved when
            memory runs out.
        on_call: called at each call of the network with the number of samples of each slice in it.

    Returns:
        A function that gives sample 0, 1, ... ``(B, *domain_shape)``, asked for in this order; and
        a dict that gets error messages by key, of slices whose images are not usable.
    """
    failures: dict[str, str] = {}
    given = dict(options) if initial is None else {**options, "initial": initial}

    def draw(numbers: Sequence[int]) -> Tensor:
        times = len(numbers)
        if shares(name) and "initial" not in given:
            once = counted(score, lambda: on_call(1))
            given["initial"] = _shared_image(once, sde, operator, y, options)
            given.pop("point_steps", None)
        all_keys = [*keys] * times
        seeds = [
            seed + n if one_seed else derive_seed(seed, "sampler", key, n)
            for n in numbers
            for key in keys
        ]
        repeated, data = operator.repeat(times), repeat(y, times)
        try:
            with Progress(repeated, data, num_steps, leave=False) as progress:
                return SAMPLERS[name](
                    counted(score, lambda: on_call(times)),
                    sde,
                    repeated,
                    data,
                    rng=BatchGenerator(seeds, all_keys),
                    num_steps=num_steps,
                    callback=progress,
                    **{keyword: repeat(value, times) for keyword, value in given.items()},
                )
        except NonFiniteError as error:  # the other slices of the batch are valid
            for index, _, step, sigma in error.failures:
                failures[all_keys[index]] = f"not finite at step {step}, sigma {sigma:.4g}"
            nothing = torch.full_like(empty_images(repeated, data), torch.nan)
            return nothing if error.images is None else error.images

    return in_groups(draw, num_samples, together), failures


def _shared_image(
    score: Score, sde: VESDE, operator: LinearOperator, y: Tensor, options: dict
) -> Tensor:
    """`point_estimate`; of slices in which it fails not finite, which their samples then report."""
    keywords = ("point_steps", "sigma_y", "cg_steps")
    used = {name: options[name] for name in keywords if name in options}
    try:
        return point_estimate(score, sde, operator, y, **used)
    except NonFiniteError as error:
        nothing = torch.full_like(empty_images(operator, y), torch.nan)
        return nothing if error.images is None else error.images


def repeat(value: object, times: int) -> object:
    """A tensor ``(B, ...)`` repeated to ``(times B, ...)``; anything else, or times 1, as it is."""
    if not isinstance(value, Tensor) or times == 1:
        return value
    return value.repeat(times, *[1] * (value.ndim - 1))


def in_groups(
    draw: Callable[[Sequence[int]], Tensor], num_samples: int, together: int
) -> Callable[[int], Tensor]:
    """Function that gives sample 0, 1, ..., asked for in this order, drawn several at a time.

    Args:
        draw: numbers of samples -> images ``(n B, ...)``, sample after sample.
        num_samples: number of samples in all.
        together: largest number of samples at a time, at least 1 being drawn; halved when memory
            runs out.
    """
    size, ready = max(together, 1), deque()

    def next_sample(number: int) -> Tensor:
        nonlocal size
        while not ready:
            numbers = range(number, min(number + size, num_samples))
            try:
                ready.extend(draw(numbers).chunk(len(numbers)))
            except (MemoryError, RuntimeError) as error:
                if len(numbers) == 1 or not is_out_of_memory(error):
                    raise
                size = len(numbers) // 2
                log.warning("out of memory with %d samples at once; on with %d", len(numbers), size)
        return ready.popleft()

    return next_sample


def starts_warm(name: str, options: dict) -> bool:
    """Whether a sampler with the keywords `options` starts from the direct reconstruction."""
    # the predictor-corrector starts from the prior unless a start level is given
    cold = name == "predictor_corrector" and not {"start_level", "start_sigma"} & options.keys()
    return takes(name, "initial") and not cold and not shares(name)


def shares(name: str) -> bool:
    """Whether samples of a measurement share a first image, which `sample_source` makes once."""
    return name in FROM_POINT


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


def check_options(function: Callable, options: dict) -> None:
    """Raise a ValueError, which lists the known keywords, if `function` lacks one of `options`."""
    taken = {"rng", "num_steps", "device", "callback", "initial", "after_step"}
    parameters = inspect.signature(function).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - taken
    unknown = options.keys() - known
    if unknown:
        raise ValueError(
            f"{function.__name__} has no {', '.join(f'sampler.{u}' for u in sorted(unknown))}; "
            f"it has: {', '.join(sorted(known)) or 'none'}; leave the others at None"
        )
