"""Decomposed diffusion sampling (DDS): Chung, Lee & Ye, ICLR 2024."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.denoise import aimed_at, data_step, direction, first_image
from samplers.levels import noise_levels
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # default number of noise levels
SPREAD = "samples spread less than the posterior"  # docs/samplers.md
START_SIGMA = 1.0  # images in [0, 1] are all but lost in it
OLD_NOISE = ("network", "data")


@torch.no_grad()
def dds(
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
    eta: float = 1.0,
    ancestral: bool = False,
    order: int = 1,
    old_noise: str | None = None,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Decomposed diffusion sampling, DDS (Chung, Lee & Ye, ICLR 2024), in terms of sigma.

    Each noise level has a denoising step, x0 = E[x_0 | x]; a data step from x0 to x0'; and new
    noise, x = x0' + sigma' (sqrt(1 - eta^2) e + eta z), where sigma' is the next level, z is white
    and e = (x - x0) / sigma is the noise that the network has seen.

    For noisy data and eta < 1 that e forgets what the data step has just changed: samples then
    agree with each other and with the noise of the measurement, whatever `sigma_y` is
    (docs/samplers.md). Where `sigma_y` is above 0, e is therefore (x - x0') / sigma, as in
    `samplers.diffpir`.

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
        eta: fraction of new noise, from 0 to 1; 1 is best if data steps change the image much.
        ancestral: whether each step has as much new noise as the exact step back, eta^2 = 1 -
            (sigma' / sigma)^2 instead of `eta`.
        old_noise: whether e is computed from x0, ``"network"`` (as in the paper), or from x0',
            ``"data"``; None: "data" for samples with a `sigma_y` above 0. Has no effect if eta is
            1.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        order: 1 takes E[x_0 | x] for x0, as in the paper; 2 the image that Heun's step of the
            probability flow goes towards (`denoise.aimed_at`), with two network calls a step but
            the last. Without data and with `eta` 0 that is Heun's method, and 1 Euler's.
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.
        callback: called after each step with (step, sigma, x0'); of different levels the largest.

    Returns:
        ``(B, *domain_shape)`` images, x0' of the last level, complex if the operator's are.

    Raises:
        ValueError: levels outside the network's range, too few steps, an `eta` outside [0, 1] or
            beside `ancestral`, or an unknown `order` or `old_noise`.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"expected eta in [0, 1], got {eta}")
    if ancestral and eta != 1:
        raise ValueError(f"expected eta or ancestral, got both: eta={eta}; leave eta out")
    if old_noise not in (None, *OLD_NOISE):
        raise ValueError(f"expected old_noise to be one of {OLD_NOISE} or None, got {old_noise!r}")
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
    from_data = torch.as_tensor(sigma_y).to(fitted.real) > 0  # () or (B,)
    if old_noise is not None:
        from_data = torch.full_like(from_data, old_noise == "data")
    from_data = expand(from_data, fitted)
    for sigma, following, peak in zip(
        sigmas, [*sigmas[1:], None], levels.amax(1).tolist(), strict=True
    ):
        clean = aimed_at(score, x, sigma, following, order=order)  # x0
        fitted = data_step(operator, y, clean, sigma, sigma_y=sigma_y, cg_steps=cg_steps)  # x0'
        watch(peak, fitted)
        if following is not None:  # noise of the next level, partly the old one
            old = direction(x, torch.where(from_data, fitted, clean), sigma)
            ratio = expand(following / sigma, x)
            part = ratio if ancestral else math.sqrt(1 - eta**2)
            new = torch.sqrt(1 - ratio**2) if ancestral else eta
            x = fitted + expand(following, x) * (part * old + new * rng.normal_like(x))
    return watch.finish(fitted)
