"""Plug and play by half-quadratic splitting: denoise, fit the data, at falling noise levels."""

import math

from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator
from samplers.denoise import CG_STEPS, data_step, denoise, first_image
from samplers.stall import Stall
from samplers.start import noise_levels
from samplers.state import Callback, Watch
from sde import VESDE, Score

STRENGTH = 0.23  # lambda of DPIR


def pnp(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    initial: Tensor | None = None,
    start_sigma: float | None = None,
    end_sigma: float | None = None,
    strength: float = STRENGTH,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int = CG_STEPS,
    tolerance: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """x = data step from E[x_0 | x], the image being taken for one with noise of sigma.

    After Zhang et al. (DPIR), TPAMI 2022, with the score network as the denoiser. A point estimate:
    nothing is random, and the result is no sample of the posterior. One network call a step.

    Args: as `samplers.dds`, but

        rng: names the samples; no random number is drawn.
        start_sigma: first level; by default what the measurement says (`start.noise_levels`).
        tolerance: a sample is finished when its image and its misfit change by less than this,
            relatively, in `stall.PATIENCE` steps running; 0: goes to the last level.
        strength: lambda: the data step's penalty is lambda sigma_y^2 / sigma^2.

    Returns:
        ``(B, *domain_shape)`` images.

    Raises: as `samplers.dds`.
    """
    watch = Watch(rng, callback)
    x = first_image(operator, y, initial)
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
    noise_level = math.sqrt(strength) * sigma_y
    stall = Stall(operator, y, tolerance)
    for peak, sigma in zip(levels.amax(1).tolist(), levels.to(x.real), strict=True):
        clean = denoise(score, x, sigma)
        fitted = data_step(operator, y, clean, sigma, sigma_y=noise_level, cg_steps=cg_steps)
        x = stall.keep(x, fitted)
        watch(peak, x)
        if stall.finished():
            break
    return watch.finish(x)
