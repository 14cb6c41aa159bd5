"""Log-densities of images along the probability flow: Song et al., ICLR 2021, section 4.3."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from operators.batch import BatchGenerator, dot
from samplers.denoise import aimed_at, denoise
from samplers.start import GREY
from samplers.watch import level
from sde import VESDE, Score

# what photographs in [0, 1] are like in the large: variance of a coefficient of the orthonormal
# Fourier transform at f cycles a pixel is SLOPE / f^2 (Field, J. Opt. Soc. Am. A 4 (1987)), which
# makes a standard deviation of about 0.25 of 256 x 256 pixels; that of their mean grey
SLOPE, MEAN_STD = 0.002, 0.25


class LogDensity(NamedTuple):
    """Log-densities of a batch of images.

    Attributes:
        nats: ``(B, P)`` float64, log p(x) by each of P probes; their mean is unbiased but for
            the solver's error.
        solver_error: ``(B,)`` float64, size of the correction of the solver's error, in nats.
        calls: network calls for each image; a derivative counts as one, too.
    """

    nats: Tensor
    solver_error: Tensor
    calls: int


def log_density(
    score: Score,
    sde: VESDE,
    x: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    probes: int = 1,
) -> LogDensity:
    """Log-density of images under a prior, at its smallest noise level.

    The flow dx / dsigma = -sigma score(x, sigma) takes x from sigma_min to sigma_max, where p is a
    Gaussian, `end_log_density`: the model is what the flow makes of that. With n dimensions and
    D(x, sigma) = E[x_0 | x] (Song et al. 2021, equation 39, with the flow's divergence written
    out),

        log p(x) = log p_end(x_end) + integral of (n - tr dD/dx) d log sigma.

    The first part of the integral is exact; v^T dD/dx v stands for the trace, with one v of random
    signs for a whole path (Hutchinson's estimator, Skilling's). The path is Heun's on geometric
    levels, the integral the trapezoidal rule on them, both of order 2. A second run with half as
    many steps and the same probes differs by three times the error, which is corrected (Richardson)
    and given as an estimate, mostly too high, of what remains.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, differentiable.
        sde: its range of noise levels.
        x: ``(B, 1, H, W)`` images in about [0, 1], real or complex.
        rng: one generator an image; draws the probes.
        num_steps: steps, even.
        probes: number of probes P; two or more give a standard error.

    Returns:
        `LogDensity` in nats, where pixels have the unit of [0, 1]; `bits_per_dim` makes bits per
        dimension of it.

    Raises:
        ValueError: an odd number of steps or one below 2, or no probes.
    """
    if num_steps < 2 or num_steps % 2:
        raise ValueError(f"expected num_steps even and at least 2, got {num_steps}")
    if probes < 1:
        raise ValueError(f"expected probes of at least 1, got {probes}")
    # float64 along the path: networks cast to their own precision, and back
    x = x.to(torch.complex128 if x.is_complex() else torch.float64)
    signs = [_signs(rng, x) for _ in range(probes)]
    fine, coarse = (_integrate(score, sde, x, signs, n) for n in (num_steps, num_steps // 2))
    correction = (fine - coarse) / 3  # (B, P)
    # at each level one, and a derivative for each probe; Heun's second in each step
    calls = sum((n + 1) * (1 + probes) + n for n in (num_steps, num_steps // 2))
    return LogDensity(fine + correction, correction.mean(1).abs(), calls)


def bits_per_dim(nats: Tensor, x: Tensor, levels: int = 256) -> Tensor:
    """Bits per dimension of log-densities: -log2 p / n of pixels in units of 1 / `levels`.

    For images k of `levels` grey levels shown as x = (k + u) / levels with uniform u in [0, 1), the
    mean over u is an upper bound of the bits in which the model codes k (Theis et al., ICLR 2016,
    section 3.1).

    Args:
        nats: ``(B, ...)`` log-densities of x.
        x: ``(B, 1, H, W)`` the images; complex ones have two dimensions a pixel.
        levels: grey levels between 0 and 1.
    """
    return -nats / (dimensions(x) * math.log(2)) + math.log2(levels)


def dimensions(x: Tensor) -> int:
    """Number of dimensions of each image of a batch."""
    return x[0].numel() * (2 if x.is_complex() else 1)


def end_log_density(x: Tensor, sigma: float) -> Tensor:
    """Log-density of photographs with noise of a large level, taken for Gaussian: ``(B,)`` float64.

    Stationary with the power spectrum of photographs and the noise's: variance sigma^2 + SLOPE /
    f^2, and the mean sigma^2 / n + MEAN_STD^2 around a middle grey. Parts of complex images are
    taken for independent, of mean 0 and a variance that the phase of such a grey makes. For large
    sigma it becomes Song's N(0, sigma^2); at sigma 1, where many priors end, N(0, sigma^2) would
    count the brightness of every pixel as a surprise of its own.

    Args:
        x: ``(B, 1, H, W)``, real or complex.
        sigma: standard deviation of the noise.
    """
    if x.is_complex():
        mean, variance = 0.0, (GREY**2 + MEAN_STD**2) / 2
        return sum(_stationary(part, sigma, mean, variance) for part in (x.real, x.imag))
    return _stationary(x, sigma, GREY, MEAN_STD**2)


def _stationary(x: Tensor, sigma: float, mean: float, mean_variance: float) -> Tensor:
    height, width = x.shape[-2:]
    fy = torch.fft.fftfreq(height, dtype=torch.float64, device=x.device)[:, None]
    fx = torch.fft.fftfreq(width, dtype=torch.float64, device=x.device)
    square = fy**2 + fx**2  # (H, W)
    variance = SLOPE / square.clamp(min=torch.finfo(torch.float64).tiny)
    variance[0, 0] = mean_variance * height * width
    variance = variance + sigma**2
    power = torch.fft.fft2(x.double() - mean, norm="ortho").abs().square()  # (B, 1, H, W)
    return -0.5 * (power / variance + torch.log(2 * math.pi * variance)).flatten(1).sum(1)  # (B,)


def _signs(rng: BatchGenerator, x: Tensor) -> Tensor:
    """Independent random signs like x, in both parts of a complex one."""
    uniform = rng.uniform_like(x)
    if x.is_complex():
        return torch.complex(
            *(torch.where(u < 0.5, -1.0, 1.0).to(u) for u in (uniform.real, uniform.imag))
        )
    return torch.where(uniform < 0.5, -1.0, 1.0).to(x)


@torch.no_grad()
def _integrate(score: Score, sde: VESDE, x: Tensor, signs: list[Tensor], num_steps: int) -> Tensor:
    """Log-density by each probe: ``(B, P)`` float64."""
    ends = math.log(sde.sigma_min), math.log(sde.sigma_max)
    sigmas = torch.linspace(*ends, num_steps + 1, dtype=torch.float64).exp()
    sigmas = sigmas.clamp(sde.sigma_min, sde.sigma_max).tolist()  # against rounding
    clean, first = _traces(score, x, sigmas[0], signs)
    traces = [first]
    for sigma, following in pairwise(sigmas):
        ends_of_step = level(x, sigma), level(x, following)
        target = aimed_at(score, x, *ends_of_step, order=2, clean=clean)
        x = target + following / sigma * (x - target)
        clean, at_end = _traces(score, x, following, signs)
        traces.append(at_end)
    found = torch.stack(traces)  # (num_steps + 1, B, P)
    spread = ends[1] - ends[0]
    trace = torch.trapezoid(found, dx=spread / num_steps, dim=0)  # (B, P)
    return end_log_density(x, sde.sigma_max)[:, None] + dimensions(x) * spread - trace


def _traces(score: Score, x: Tensor, sigma: float, signs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """D, and v^T dD/dx v for each probe v: ``(B, P)`` float64."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        clean = denoise(score, x, level(x, sigma))
        found = []
        for i, v in enumerate(signs):
            keep = i + 1 < len(signs)
            (product,) = torch.autograd.grad(clean, x, v, retain_graph=keep)
            found.append(dot(v, product).detach())
    return clean.detach(), torch.stack(found, dim=1).double()
