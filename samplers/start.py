"""How far a first image is from the truth: the noise level that a sampler should start at."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import dot, norm
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
    end_sigma: float | Tensor | None,
    cg_steps: int | None = None,
) -> Tensor:
    """`denoise.schedule` for each sample, so long that the network is called `num_steps` times.

    Args: as `error_level`, but

        first: ``(B, *domain_shape)`` first images.
        num_steps: calls of the network; where the start is looked for with one, it counts.
        start_sigma: first level; None: `START_FACTOR` times what `error_level` finds.
        end_sigma: last level, for all samples or for each ``(B,)``; sigma_min where not given.

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
    end_sigma: float | Tensor | None,
    cg_steps: int | None = None,
) -> Tensor:
    """`factor` times `error_level`, within what the network knows and above the last level.

    Args: as `error_level`, but

        factor: artefacts are not white: a denoiser that takes them for noise needs a higher level.
        end_sigma: the last level, of all or each ``(B,)``; sigma_min where not given.

    Returns:
        ``(B,)`` float64, on the CPU.
    """
    error = error_level(score, sde, operator, y, initial, cg_steps=cg_steps)
    last = torch.as_tensor(sde.sigma_min if end_sigma is None else end_sigma).cpu().double()
    return torch.maximum(factor * error.cpu().double(), LEAST_RANGE * last).clamp(max=sde.sigma_max)


def last_level(sde: VESDE, operator: LinearOperator, y: Tensor, sigma_y: float | Tensor) -> Tensor:
    """The noise that a measurement's noise is in an image, as a last level: ``(B,)`` float64.

    Args:
        sde: its range of noise levels, in which the result is.
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        sigma_y: standard deviation of its noise, of all samples or of each ``(B,)``.

    Returns:
        On the CPU; sigma_min where there is no noise, and at most so much that `automatic_start`
        still finds room for a first level.
    """
    noise = torch.as_tensor(sigma_y).cpu().double().expand(len(y))
    if noise.any():
        noise = noise * noise_gain(operator, y).cpu().double()
    return noise.clamp(sde.sigma_min, max(sde.sigma_min, sde.sigma_max / (2 * LEAST_RANGE)))


def noise_gain(operator: LinearOperator, y: Tensor) -> Tensor:
    """Standard deviation that white noise of standard deviation 1 in `y` has in an image: ``(B,)``.

    That of A^H n, n such noise, scaled so that its measurement is as near to n as can be. For MRI
    of one coil it is the root of the measured part of k-space. For CT it is a third to a half of
    what filtered back-projection makes of the noise, which is mostly at frequencies that the data
    hardly know. One draw, the same for all samples.

    Args:
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement; only its shape, precision and device matter.
    """
    count = 1 if operator.batch_size is None else len(y)
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(y.shape[1:], generator=generator)
    if operator.range_complex:
        white = torch.complex(white, torch.randn(y.shape[1:], generator=generator))
    white = white.to(y).expand(count, *y.shape[1:])
    image = operator.adjoint(white)
    seen = operator.forward(image)
    size = dot(seen, seen)  # (B or 1,)
    fit = torch.where(size > 0, dot(seen, white) / torch.where(size > 0, size, 1.0), 0.0)
    parts = 2 if operator.domain_complex else 1
    gain = fit.abs() * norm(image) / math.sqrt(parts * image[0].numel())
    return gain.expand(len(y))
