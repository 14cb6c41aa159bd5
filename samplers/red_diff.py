"""Regularisation by denoising diffusion: one image is fitted to data and to all noise levels."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from operators.solvers import power_method
from samplers.denoise import denoise, first_image, schedule
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 200  # noise levels where none are asked for
SPREAD = "samples are one fitted image: they hardly spread"  # docs/calibration.md
START_SIGMA = 1.0  # at most
WEIGHT, LEARNING_RATE = 0.25, 0.02  # lambda, the paper's; an image in [0, 1] moves so much
BETAS, EPSILON = (0.9, 0.99), 1e-8  # of Adam, the paper's
NORM_STEPS = 20  # of the power method; a per cent or so is enough


@torch.no_grad()
def red_diff(
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
    strength: float = WEIGHT,
    step: float = LEARNING_RATE,
    callback: Callback | None = None,
) -> Tensor:
    """Variational fit by denoising, RED-diff (Mardani et al., ICLR 2024, algorithm 1).

    Adam on |A x - y|^2 / (2 |A|^2) + lambda sigma <e, x>, e = (x - E[x0 | x + sigma z]) / sigma.

    e, which counts as a constant, is the noise that the network sees beyond z. The weight lambda
    sigma is the one that the paper found best, here in sigma space; the learning rate falls
    linearly to 0. A variational fit of one point, not a sample of the posterior. A network call a
    step.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws each step's z.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`, with one
            network call each.
        initial: ``(B, *domain_shape)`` images to start from; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first level; None: `START_SIGMA`, or sigma_max if that is lower.
        end_sigma: last noise level; None: sigma_min.
        strength: lambda.
        step: learning rate, in units of the image.
        callback: called after each step with (step, sigma, x); of different levels the largest.

    Returns:
        ``(B, *domain_shape)`` images.

    Raises:
        ValueError: levels that the network does not know, or fewer than two.
        NonFiniteError: some images became NaN or infinite; the others are in it.
    """
    watch = Watch(rng, callback)
    x = first_image(operator, y, initial)
    start = min(START_SIGMA, sde.sigma_max) if start_sigma is None else start_sigma
    levels = schedule(sde, num_steps, start, end_sigma, len(x))
    scale = power_method(operator, num_iterations=NORM_STEPS, dtype=y.real.dtype, device=y.device)
    scale = torch.where(scale > 0, scale, 1.0) ** 2
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    pairs = zip(levels.to(x.real), levels.amax(1).tolist(), strict=True)
    for count, (sigma, peak) in enumerate(pairs, start=1):
        clean = denoise(score, x + expand(sigma, x) * rng.normal_like(x), sigma)
        misfit = operator.adjoint(operator.forward(x) - y) / expand(scale, x)
        gradient = misfit + strength * (x - clean)
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * _square(gradient)
        mean, square = first / (1 - BETAS[0] ** count), second / (1 - BETAS[1] ** count)
        rate = step * (1 - (count - 1) / num_steps)
        x = x - rate * _ratio(mean, square)
        watch(peak, x)
    return watch.finish(x)


def _square(x: Tensor) -> Tensor:
    """Squares, of complex numbers those of real and imaginary part."""
    return torch.complex(x.real**2, x.imag**2) if x.is_complex() else x**2


def _ratio(mean: Tensor, square: Tensor) -> Tensor:
    """mean / (sqrt(square) + epsilon), of complex numbers part by part."""
    if not mean.is_complex():
        return mean / (square.sqrt() + EPSILON)
    return torch.complex(_ratio(mean.real, square.real), _ratio(mean.imag, square.imag))
