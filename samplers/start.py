"""How far a first image is from the truth: the noise level that a sampler should start at."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import norm
from operators.mri import SingleCoilMRI
from operators.multicoil import MultiCoilMRI
from operators.noise import RINGS, rings
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
    least = 2 + looks(operator)
    if num_steps < least:
        look = "; the first finds start_sigma, which may be given instead" if least > 2 else ""
        raise ValueError(f"expected num_steps of at least {least}, got {num_steps}{look}")
    start = automatic_start(
        score, sde, operator, y, first, factor=START_FACTOR, end_sigma=end_sigma, cg_steps=cg_steps
    )
    return schedule(sde, num_steps - looks(operator), start, end_sigma, len(first))


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

    MRI: the energy of what was not measured, see `unmeasured_level`. Else what denoising and a
    data step change in `initial`, which costs one network call.

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
    parts = 2 if initial.is_complex() else 1
    if not looks(operator):
        return unmeasured_level(operator.mask, y) / math.sqrt(parts)
    sigma = torch.full_like(initial[:, 0, 0, 0].real, min(LOOK_SIGMA, sde.sigma_max))  # (B,)
    better = data_step(
        operator, y, denoise(score, initial, sigma), sigma, sigma_y=0.0, cg_steps=cg_steps
    )
    return norm(better - initial) / math.sqrt(parts * initial[0].numel())


def looks(operator: LinearOperator) -> int:
    """How often `error_level` calls the network: 0 where k-space is measured, else 1."""
    return 0 if isinstance(operator, SingleCoilMRI | MultiCoilMRI) else 1


def unmeasured_level(mask: Tensor, kspace: Tensor) -> Tensor:
    """Root mean square of what zero-filling misses: ``(B,)``.

    The energy density of k-space, averaged over the measured positions of a ring, is taken for that
    of the ring's other positions. A ring without any has that of the next one inside.

    Args:
        mask: ``(1 or B, 1, H, W)`` bool, True where measured.
        kspace: ``(B, C, H, W)`` centred, orthonormal, zero where not measured.
    """
    height, width = mask.shape[-2:]
    ring = rings(height, width).to(kspace.device)  # (H W,)
    measured = mask.flatten(1).to(kspace.real.dtype).expand(len(kspace), -1)  # (B, H W)
    energy = kspace.abs().square().sum(1).flatten(1) * measured  # (B, H W)

    def total(values: Tensor) -> Tensor:
        sums = values.new_zeros(len(values), RINGS)
        return sums.index_add_(1, ring, values)  # (B, RINGS)

    count, energies = total(measured), total(energy)
    density = fill_forward(energies / count.clamp(min=1), count > 0)
    missing = (density * total(1 - measured)).sum(1)  # (B,)
    return torch.sqrt(missing / (height * width))


def fill_forward(values: Tensor, known: Tensor) -> Tensor:
    """Each unknown value of ``(B, N)`` becomes the last known one before it; 0 without one."""
    position = torch.where(known, torch.arange(values.shape[1], device=values.device), 0)
    last = position.cummax(1).values  # (B, N)
    return torch.where(known, values, 0).gather(1, last)


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
