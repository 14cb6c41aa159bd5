"""Preconditioned unadjusted Langevin: the exact likelihood at every level, in its own metric."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.denoise import data_step, first_image, schedule
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 100  # noise levels where none are asked for
SPREAD = "samples spread a little more than the posterior"  # docs/calibration.md
STEP, INNER_STEPS = 0.5, 3  # of the preconditioned gradient, whose slope is at most 1; a level


@torch.no_grad()
def pula(
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
    sigma_y: float | Tensor = 0.0,
    step: float = STEP,
    inner_steps: int = INNER_STEPS,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Preconditioned unadjusted Langevin algorithm (Blumenthal et al., arXiv 2512.05791).

    At each noise level, `inner_steps` times x += gamma M (s(x) + A^H (y - A x) / sigma_y^2) +
    sqrt(2 gamma) M^(1/2) z.

    M = (A^H A / sigma_y^2 + 1 / sigma^2)^-1, so that one gamma suits every level, operator and
    noise; the noise M^(1/2) z is by perturb and solve, M (A^H z' / sigma_y + z / sigma). M v is
    `denoise.data_step` of a residual, which is defined without noise, too: measured parts are then
    kept on the data. At a high level the density is that of noisy images given the data as if they
    were clean, which is the posterior's only as sigma goes to 0. Calls: `num_steps` times
    `inner_steps`.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the noise of the start, then each step's z, z'.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`.
        initial: ``(B, *domain_shape)`` images to which the first noise is added; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first level; None: sigma_max.
        end_sigma: last noise level; None: sigma_min.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        step: gamma, above 0 and below 2; the variance is too large by about a quarter of it where
            the posterior is as narrow as M.
        inner_steps: steps at each level, 1 or more.
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.
        callback: called after each step with (step, sigma, x); of different levels the largest.

    Returns:
        ``(B, *domain_shape)``: the last x; noise of sigma_min is in it.

    Raises:
        ValueError: levels that the network does not know, or fewer than two,
            or a `step` or `inner_steps` out of range.
        NonFiniteError: some images became NaN or infinite; the others are in it.
    """
    if not 0 < step < 2 or inner_steps < 1:
        raise ValueError(
            "expected a step above 0 and below 2 and inner_steps of 1 or more, got "
            f"{step} and {inner_steps}"
        )
    watch = Watch(rng, callback)
    x = first_image(operator, y, initial)
    start = sde.sigma_max if start_sigma is None else start_sigma
    levels = schedule(sde, num_steps, start, end_sigma, len(x))
    noise = torch.as_tensor(sigma_y).to(x.real).expand(len(x))  # (B,)
    measured = operator.measured().to(y.device)
    root = math.sqrt(2 * step)
    sigmas = levels.to(x.real)  # (num_steps, B)
    x = x + expand(sigmas[0], x) * rng.normal_like(x)
    for sigma, peak in zip(sigmas, levels.amax(1).tolist(), strict=True):
        for _ in range(inner_steps):
            gradient = expand(sigma**2, x) * score(x, sigma)
            image = step * gradient + root * expand(sigma, x) * rng.normal_like(x)
            residual = step * (y - operator.forward(x))
            residual = residual + root * expand(noise, y) * rng.normal_like(y) * measured
            x = x + data_step(operator, residual, image, sigma, sigma_y=noise, cg_steps=cg_steps)
        watch(peak, x)
    return watch.finish(x)
