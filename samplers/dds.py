"""Decomposed diffusion sampling: denoise, fit the data, add new noise."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.denoise import data_step, denoise, direction, first_image
from samplers.levels import noise_levels
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # noise levels where none are asked for
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
    old_noise: str | None = None,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """x0 = E[x_0 | x]; x0' = data step from x0; x = x0' + sigma' (sqrt(1 - eta^2) e + eta z).

    e = (x - x0) / sigma is the noise that the network saw, z is new. After Chung, Lee & Ye, ICLR
    2024, and their code, in sigma space; a sample-like image, the last step's x0'. One network call
    a step.

    With noisy data and eta < 1 that e forgets what the data step has just decided: samples agree
    with each other and with the noise of the measurement, whatever `sigma_y` is (docs/samplers.md).
    Where `sigma_y` is above 0, e = (x - x0') / sigma therefore, as in `diffpir`.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator a sample; draws the start's noise, then each step's.
        num_steps: geometric noise levels from `start_sigma` to `end_sigma`, a network call each.
        initial: images to add the first noise to; D^-1 A^H y where not given.
        start_sigma: first level, at most sigma_max; None: each sample's own, from the measurement
            (`levels.noise_levels`; for CT this takes one of the `num_steps` calls).
        end_sigma: last level; sigma_min where not given.
        eta: part of new noise, 0 to 1; 1 is best where data steps change much.
        old_noise: e is measured from x0, ``"network"``, the paper's, or from x0', ``"data"``; None:
            for each sample by its `sigma_y`. Without effect at eta = 1.
        sigma_y: standard deviation of the measurement noise (of real and imaginary part each), of
            all samples or of each ``(B,)``.
        cg_steps: iterations of the data step; None: `denoise.data_step` chooses.
        callback: called after each step with (step, sigma, x0').

    Returns:
        ``(B, *domain_shape)`` images.

    Raises:
        ValueError: levels outside the network's range, an eta outside [0, 1], or an unknown
            `old_noise`.
        NonFiniteError: some samples became NaN or infinite; the others are in it.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"expected eta in [0, 1], got {eta}")
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
        clean = denoise(score, x, sigma)
        fitted = data_step(operator, y, clean, sigma, sigma_y=sigma_y, cg_steps=cg_steps)
        watch(peak, fitted)
        if following is not None:
            old = direction(x, torch.where(from_data, fitted, clean), sigma)
            part = math.sqrt(1 - eta**2)
            x = fitted + expand(following, x) * (part * old + eta * rng.normal_like(x))
    return watch.finish(fitted)
