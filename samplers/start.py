"""How far a first image is from the truth: the noise level that a sampler should start at."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import norm
from samplers.denoise import data_step, denoise, schedule
from sde import VESDE, Score

START_FACTOR = 4.0  # first level over the first image's estimated error
LEAST_RANGE = 2.0  # first level over last
LOOK_SIGMA = 0.3  # of the denoiser that tells artefacts from image; the result hardly depends on it


def noise_levels(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    first: Tensor,
    *,
    num_steps: int,
    start_sigma: float | None,
    end_sigma: float | None,
    cg_steps: int | None = None,
) -> Tensor:
    """`denoise.schedule` for each sample, so long that the network is called `num_steps` times.

    Args: as `error_level`, but

        first: ``(B, *domain_shape)`` first images.
        num_steps: calls of the network; where the start is looked for with one, it counts.
        start_sigma: first level; None: `START_FACTOR` times what `error_level` finds.
        end_sigma: last level; sigma_min where not given.

    Returns:
        ``(num_steps, B)`` float64, on the CPU; a level less where the start was looked for.
    """
    if start_sigma is not None:
        return schedule(sde, num_steps, start_sigma, end_sigma, len(first))
    looks = operator.direct_error(y) is None  # then the network is called to find the start
    least = 3 if looks else 2
    if num_steps < least:
        look = "; the first finds start_sigma, which may be given instead" if looks else ""
        raise ValueError(f"expected num_steps of at least {least}, got {num_steps}{look}")
    start = automatic_start(
        score, sde, operator, y, first, factor=START_FACTOR, end_sigma=end_sigma, cg_steps=cg_steps
    )
    return schedule(sde, num_steps - looks, start, end_sigma, len(first))


def error_level(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    initial: Tensor,
    *,
    cg_steps: int | None = None,
) -> Tensor:
    """An estimate of the root mean square error of `initial`, for each sample, from `y` alone.

    What the operator says (`LinearOperator.direct_error`: for MRI the energy of what was not
    measured). Else what denoising and a data step change in `initial`, at one network call.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        initial: ``(B, *domain_shape)`` first images.
        cg_steps: iterations of the data step; None: `denoise.data_step` chooses.

    Returns:
        ``(B,)`` real, in units of the image; of complex images the error of each part.
    """
    known = operator.direct_error(y)
    if known is not None:
        return known
    sigma = torch.full_like(initial[:, 0, 0, 0].real, min(LOOK_SIGMA, sde.sigma_max))  # (B,)
    better = data_step(
        operator, y, denoise(score, initial, sigma), sigma, sigma_y=0.0, cg_steps=cg_steps
    )
    parts = 2 if initial.is_complex() else 1
    return norm(better - initial) / math.sqrt(parts * initial[0].numel())


def automatic_start(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    initial: Tensor,
    *,
    factor: float,
    end_sigma: float | None,
    cg_steps: int | None = None,
) -> Tensor:
    """`factor` times `error_level`, within what the network knows and above the last level.

    Args: as `error_level`, but

        factor: artefacts are not white: a denoiser that takes them for noise needs a higher level.
        end_sigma: the last level; sigma_min where not given.

    Returns:
        ``(B,)`` float64, on the CPU.
    """
    error = error_level(score, sde, operator, y, initial, cg_steps=cg_steps)
    least = LEAST_RANGE * (sde.sigma_min if end_sigma is None else end_sigma)
    return (factor * error.cpu().double()).clamp(min=least).clamp(max=sde.sigma_max)
