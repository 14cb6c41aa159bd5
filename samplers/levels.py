"""Noise levels of samplers: the first by the error of the initial image, the last by its noise."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import dot, norm
from samplers.denoise import data_step, denoise, schedule
from sde import VESDE, Score

START_FACTOR = 4.0  # first level over the first image's estimated error
LEAST_RANGE = 2.0  # first level over last
# levels that the study's code skips: edition -> number of levels -> skipped ones; none for others
SKIPPED = {
    2024: {500: 281, 1000: 551, 2000: 1112},
    2026: {250: 140, 500: 280, 1000: 555, 2000: 1111},
}
PROBE_SIGMA = (
    0.3  # of the denoiser that tells artefacts from image; the result hardly depends on it
)


def noise_levels(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    initial: Tensor,
    *,
    num_steps: int,
    start_sigma: float | None,
    end_sigma: float | Tensor | None,
    cg_steps: int | None = None,
) -> Tensor:
    """Geometric noise levels of each sample, so many that the network is called `num_steps` times.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        initial: ``(B, *domain_shape)`` images to start from.
        num_steps: number of network calls, including the one that finds the first level of an
            operator without `LinearOperator.direct_error`.
        start_sigma: first level of all samples; None: `START_FACTOR` times `error_level`.
        end_sigma: last level, of all samples or of each ``(B,)``; None: sigma_min.
        cg_steps: iterations of the data step of `error_level`.

    Returns:
        ``(num_steps, B)`` float64, on the CPU, falling; one level less if the first one took a
        network call.

    Raises:
        ValueError: levels outside the network's range, or too few steps.
    """
    if start_sigma is not None:
        return schedule(sde, num_steps, start_sigma, end_sigma, len(initial))
    needs_call = operator.direct_error(y) is None  # of the network, to find the first level
    least = 3 if needs_call else 2
    if num_steps < least:
        hint = "; the first finds start_sigma, which may be given instead" if needs_call else ""
        raise ValueError(f"expected num_steps of at least {least}, got {num_steps}{hint}")
    first = first_level(
        score,
        sde,
        operator,
        y,
        initial,
        factor=START_FACTOR,
        end_sigma=end_sigma,
        cg_steps=cg_steps,
    )
    return schedule(sde, num_steps - needs_call, first, end_sigma, len(initial))


def study_levels(sde: VESDE, num_steps: int, edition: int) -> list[float]:
    """The levels of `VESDE.ladder`, falling, without those that the study's code skips.

    Args:
        sde: its ladder.
        num_steps: number of levels of the whole ladder.
        edition: of the study, a key of `SKIPPED`.

    Raises:
        ValueError: an unknown edition.
    """
    if edition not in SKIPPED:
        raise ValueError(f"expected study_skips out of {list(SKIPPED)} or None, got {edition}")
    return sde.ladder(num_steps).flip(0).tolist()[SKIPPED[edition].get(num_steps, 0) :]


def error_level(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    initial: Tensor,
    *,
    cg_steps: int | None = None,
) -> Tensor:
    """Root mean square error of the initial image of each sample, estimated from `y` alone.

    The operator's own estimate if it has one (`LinearOperator.direct_error`: for MRI the energy of
    what was not measured). Otherwise the change of `initial` by denoising and a data step, at the
    cost of one network call.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        initial: ``(B, *domain_shape)`` initial images.
        cg_steps: iterations of the data step; None: `denoise.data_step` chooses.

    Returns:
        ``(B,)`` real, in units of the image; for complex images the error of the real and of the
        imaginary part each.
    """
    known = operator.direct_error(y)
    if known is not None:
        return known
    sigma = torch.full_like(initial[:, 0, 0, 0].real, min(PROBE_SIGMA, sde.sigma_max))  # (B,)
    better = data_step(
        operator, y, denoise(score, initial, sigma), sigma, sigma_y=0.0, cg_steps=cg_steps
    )
    parts = 2 if initial.is_complex() else 1
    return norm(better - initial) / math.sqrt(parts * initial[0].numel())


def first_level(
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
    """First noise level of each sample: `factor` times `error_level`, within valid limits.

    It is at most sigma_max and at least `LEAST_RANGE` times the last level.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        initial: ``(B, *domain_shape)`` initial images.
        factor: above 1, because artefacts are not white: to take them for noise, a denoiser needs a
            higher level than their root mean square.
        end_sigma: last level, of all samples or of each ``(B,)``; None: sigma_min.
        cg_steps: iterations of the data step of `error_level`.

    Returns:
        ``(B,)`` float64, on the CPU.
    """
    error = error_level(score, sde, operator, y, initial, cg_steps=cg_steps)
    last = torch.as_tensor(sde.sigma_min if end_sigma is None else end_sigma).cpu().double()
    return torch.maximum(factor * error.cpu().double(), LEAST_RANGE * last).clamp(max=sde.sigma_max)


def last_level(sde: VESDE, operator: LinearOperator, y: Tensor, sigma_y: float | Tensor) -> Tensor:
    """Last noise level of each sample: the noise that the measurement's noise causes in an image.

    Args:
        sde: range of noise levels of the network.
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        sigma_y: standard deviation of its noise, of all samples or of each ``(B,)``.

    Returns:
        ``(B,)`` float64, on the CPU; sigma_min where there is no noise, and at most as high as
        leaves room for a first level above it (`first_level`).
    """
    noise = torch.as_tensor(sigma_y).cpu().double().expand(len(y))
    if noise.any():
        noise = noise * noise_gain(operator, y).cpu().double()
    return noise.clamp(sde.sigma_min, max(sde.sigma_min, sde.sigma_max / (2 * LEAST_RANGE)))


def noise_gain(operator: LinearOperator, y: Tensor) -> Tensor:
    """Standard deviation in an image of white noise that has standard deviation 1 in `y`: ``(B,)``.

    It is that of A^H n for white noise n, scaled so that its measurement is as near to n as
    possible. For single-coil MRI it is the square root of the measured fraction of k-space. For CT
    it is a third to a half of the noise after filtered back-projection, most of which is at
    frequencies that the data hardly determine. It is computed from one draw, the same for all
    samples.

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
