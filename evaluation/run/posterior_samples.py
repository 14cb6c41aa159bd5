"""Samples of a batch by a sampler, seeded slice by slice, as many at a time as memory holds."""

import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from configs import is_out_of_memory
from evaluation.run.keywords import shares
from operators import BatchGenerator, LinearOperator
from operators.batch import derive_seed
from samplers import SAMPLERS, NonFiniteError, Posterior, Progress, posterior_moments
from samplers.warm_start import point_estimate
from samplers.watch import empty_images
from sde import VESDE, Score

OnCall = Callable[[int], object]
log = logging.getLogger(__name__)


def draw_samples(
    *problem: object,
    num_samples: int,
    scale: float = 1.0,
    shown: Callable[[Tensor], Tensor] | None = None,
    **how: object,
) -> tuple[Posterior, dict[str, str]]:
    """Moments and quantiles of posterior samples of a batch, with a progress bar.

    Args:
        problem: name of the sampler, score, SDE, operator and measurement, as `sample_source` takes
            them.
        num_samples: number of posterior samples per slice.
        scale: factor by which samples are taken to differ from their mean.
        shown: images -> the real images that quantiles are of; None for magnitudes.
        how: further keywords of `sample_source`.

    Returns:
        The moments, and error messages by key; the images of these slices are not usable.
    """
    draw, failures = sample_source(*problem, num_samples=num_samples, **how)
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


def counted(score: Score, on_call: Callable[[], None]) -> Score:
    """`score` with a call of ``on_call()`` before each of its calls."""

    @functools.wraps(score)  # also copies its attributes
    def call(x: Tensor, sigma: Tensor) -> Tensor:
        on_call()
        return score(x, sigma)

    return call


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
