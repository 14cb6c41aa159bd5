"""DiffPIR: Zhu et al., CVPR workshops 2023, diffusion models for plug-and-play restoration."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.dds import START_SIGMA
from samplers.denoise import aimed_at, data_step, direction, first_image
from samplers.levels import noise_levels
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # default number of noise levels
SPREAD = "samples spread a little less than the posterior"  # docs/samplers.md
ZETA = 0.3  # part of new noise (Zhu et al. 2023, table 5: 0.1 to 1 by task)
STRENGTH = 1.0  # lambda of the data step


@torch.no_grad()
def diffpir(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    initial: Tensor | None = None,
    start_sigma: float | None = START_SIGMA,
    end_sigma: float | None = None,
    zeta: float = ZETA,
    strength: float = STRENGTH,
    order: int = 1,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DiffPIR (Zhu et al., CVPR workshops 2023, algorithm 1), in terms of sigma.

    Each noise level has a denoising step, x0 = E[x_0 | x]; a proximal data step from x0 to x0'; and
    noise, x = x0' + sigma' (sqrt(1 - zeta) e + sqrt(zeta) z), where sigma' is the next level, z is
    white and e = (x - x0') / sigma. Unlike in `samplers.dds`, what the data step changed counts as
    noise.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the noise of the start, then that of each step.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`, with one
            network call each.
        initial: ``(B, *domain_shape)`` images to which the first noise is added; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first noise level, at most sigma_max; None: a level for each sample, estimated
            from the measurement (`levels.noise_levels`; without `LinearOperator.direct_error`, as
            for CT, this takes one of the `num_steps` network calls).
        end_sigma: last noise level; None: sigma_min.
        zeta: fraction of the variance of the noise that is new in each step, from 0 to 1.
        strength: lambda; the penalty of the data step is lambda sigma_y^2 / sigma^2.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        order: 1 takes E[x_0 | x] for x0, as in the paper; 2 the image that Heun's step of the
            probability flow goes towards (`denoise.aimed_at`), with two network calls a step but
            the last. Without data and with `zeta` 0 that is Heun's method, and 1 Euler's.
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.
        callback: called after each step with (step, sigma, x0'); of different levels the largest.

    Returns:
        ``(B, *domain_shape)`` images, x0' of the last level, complex if the operator's are.

    Raises:
        ValueError: levels outside the network's range, too few steps, a `zeta` outside [0, 1], or
            an unknown `order`.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
    """
    if not 0 <= zeta <= 1:
        raise ValueError(f"expected zeta in [0, 1], got {zeta}")
    watch = Watch(rng, callback)
    fitted = first_image(operator, y, initial)
    levels = noise_levels(
        score,
        sde,
        operator,
        y,
        fitted,
        num_steps=num_steps,
        start_sigma=start_sigma,
        end_sigma=end_sigma,
        cg_steps=cg_steps,
    )
    sigmas = levels.to(fitted.real)  # (num_steps, B)
    x = fitted + expand(sigmas[0], fitted) * rng.normal_like(fitted)
    noise_level = math.sqrt(strength) * sigma_y
    for sigma, following, peak in zip(
        sigmas, [*sigmas[1:], None], levels.amax(1).tolist(), strict=True
    ):
        clean = aimed_at(score, x, sigma, following, order=order)  # x0
        fitted = data_step(operator, y, clean, sigma, sigma_y=noise_level, cg_steps=cg_steps)
        watch(peak, fitted)  # x0'
        if following is not None:  # noise of the next level, partly the old one
            old = math.sqrt(1 - zeta) * direction(x, fitted, sigma)
            x = fitted + expand(following, x) * (old + math.sqrt(zeta) * rng.normal_like(x))
    return watch.finish(fitted)
