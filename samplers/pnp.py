"""Plug and play by half-quadratic splitting: denoise, fit the data, at falling noise levels."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator
from samplers.denoise import data_step, denoise_turned, first_image
from samplers.levels import last_level, noise_levels
from samplers.stopping import StoppingCriterion
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # noise levels where none are asked for
SPREAD = "nothing is random"  # docs/samplers.md
POINT_ESTIMATE = True  # nothing is random: every sample is the same image
STRENGTH = 0.23  # lambda of DPIR
MOMENTUM = 0.5, 0.8  # first, last; chosen on validation slices (docs/samplers.md)


@torch.no_grad()
def pnp(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator | None = None,
    num_steps: int,
    initial: Tensor | None = None,
    start_sigma: float | None = None,
    end_sigma: float | None = None,
    momentum: float | tuple[float, float] = MOMENTUM,
    turns: bool | None = None,
    strength: float = STRENGTH,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
    tolerance: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """x' = data step from E[x_0 | x], x being taken for an image with noise of sigma; x = x' + m d.

    d is the change of x' over the last step, m the momentum. After Zhang et al. (DPIR), TPAMI 2022,
    with the score network as the denoiser, extrapolated as in Nesterov's method (Kamilov et al.,
    IEEE Signal Process. Lett. 2017). A point estimate: nothing is random, and the result is no
    sample of the posterior. One network call a step.

    Args: as `samplers.dds`, but

        rng: names the samples in errors; no random number is drawn, and None will do.
        start_sigma: first level; by default what the measurement says (`levels.noise_levels`).
        end_sigma: last level; None: what the measurement's noise is in an image
            (`levels.last_level`): below it a denoiser takes structures away. The last data step
            counts the denoised image as one of sigma_min whatever the level is, so that the
            measured noise does not come back.
        momentum: m, from 0 (none) to below 1; of two numbers the first is the first step's, and it
            goes linearly to the second, of the last.
        turns: show the network the image in each of the square's eight positions in turn, step by
            step ("periodical geometric self-ensemble" in DPIR, section 4.2): its errors differ
            between them. Only for a prior to which all are alike; None: where the score's attribute
            `symmetric` says so, as `models.checkpoint.load_prior` sets it.
        tolerance: a sample is finished when its image and its misfit change by less than this,
            relatively, in `stopping.PATIENCE` steps running; 0: goes to the last level.
        strength: lambda: the data step's penalty is lambda sigma_y^2 / sigma^2.

    Returns:
        ``(B, *domain_shape)`` images.

    Raises: as `samplers.dds`; ValueError, too, for a momentum outside [0, 1).
    """
    first, last = momentum if isinstance(momentum, tuple) else (momentum, momentum)
    if not (0 <= first < 1 and 0 <= last < 1):
        raise ValueError(f"expected momentum in [0, 1), got {momentum}")
    turns = getattr(score, "symmetric", False) if turns is None else turns
    watch = Watch(rng, callback)
    x = first_image(operator, y, initial)
    if end_sigma is None:
        end_sigma = last_level(sde, operator, y, sigma_y)
    levels = noise_levels(
        score,
        sde,
        operator,
        y,
        x,
        num_steps=num_steps,
        start_sigma=start_sigma,
        end_sigma=end_sigma,
        cg_steps=cg_steps,
    )
    fits = levels.clone()  # of the data steps
    fits[-1] = sde.sigma_min
    noise_level = math.sqrt(strength) * sigma_y
    stopping = StoppingCriterion(operator, y, tolerance)
    image = x
    for step, (peak, sigma, fit) in enumerate(
        zip(levels.amax(1).tolist(), levels.to(x.real), fits.to(x.real), strict=True)
    ):
        clean = denoise_turned(score, x, sigma, turn=step if turns else 0)
        fitted = data_step(operator, y, clean, fit, sigma_y=noise_level, cg_steps=cg_steps)
        before, image = image, stopping.keep(image, fitted)
        # the first image is no step of the iteration: nothing to extrapolate from
        m = first + (last - first) * step / (len(levels) - 1)
        x = image + m * (image - before) if step else image
        watch(peak, image)
        if stopping.finished():
            break
    return watch.finish(image)
