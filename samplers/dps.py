"""Diffusion posterior sampling (DPS): Chung et al., ICLR 2023."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, dot, expand, norm
from operators.solvers import power_method
from samplers.dds import START_SIGMA
from samplers.denoise import denoise, first_image
from samplers.levels import noise_levels
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # default number of noise levels
SPREAD = "samples spread more than the posterior"  # docs/samplers.md
NORM_STEPS = 20  # of the power method; a per cent or so is enough
# zeta at REFERENCE_STEPS (Chung et al. 2023, appendix D: 0.3 to 1 by task, 256 x 256), growing with
# the root of their distance: near the best of six with 20 and 50 steps, one validation slice each
STEP, REFERENCE_STEPS = 0.9, 1000


@torch.no_grad()
def dps(
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
    step: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Diffusion posterior sampling, DPS (Chung et al., ICLR 2023, algorithm 1), in terms of sigma.

    Each noise level has an ancestral step to the next level, and then a step along the gradient of
    the misfit, x -= step * grad_x |A E[x_0 | x] - y|. As the gradient goes through the network, a
    step takes a network call with its derivative, and several times the memory of the other
    samplers.

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
        step: zeta, length of the gradient step. The norm is not squared, so that its gradient is
            about a unit vector times A^H, and is one in which A has about norm 1 (`misfit_norm`),
            so that zeta does not depend on the operator's scale. None: `STEP` sqrt(1000 /
            num_steps).
        callback: called after each step with (step, sigma, E[x_0 | x]); of different levels the
            largest.

    Returns:
        ``(B, *domain_shape)`` images, E[x_0 | x] at the last level, complex if the operator's are.

    Raises:
        ValueError: levels outside the network's range, or too few steps.
        RuntimeError: called under `torch.inference_mode`; the score has to allow autograd.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("expected to run without torch.inference_mode: dps needs gradients")
    watch = Watch(rng, callback)
    distance = misfit_norm(operator, y)
    x = first_image(operator, y, initial)
    levels = noise_levels(
        score,
        sde,
        operator,
        y,
        x,
        num_steps=num_steps,
        start_sigma=start_sigma,
        end_sigma=end_sigma,
    )
    step = STEP * math.sqrt(REFERENCE_STEPS / num_steps) if step is None else step
    sigmas = levels.to(x.real)  # (num_steps, B)
    x = x + expand(sigmas[0], x) * rng.normal_like(x)
    ends = [*sigmas[1:], torch.zeros_like(sigmas[0])]
    for sigma, following, peak in zip(sigmas, ends, levels.amax(1).tolist(), strict=True):
        with torch.enable_grad():  # gradient of the misfit of the denoised image
            x = x.detach().requires_grad_()
            clean = denoise(score, x, sigma)  # E[x_0 | x]
            misfit = distance(operator.forward(clean) - y)  # (B,)
            (gradient,) = torch.autograd.grad(misfit.sum(), x)
        # a measurement that is met exactly has no direction to go
        gradient = torch.where(expand(misfit, x) > 0, gradient, 0.0)
        x, clean = x.detach(), clean.detach()
        # ancestral step to the next level, then the step along the gradient
        share = expand((following / sigma) ** 2, x)
        spread = expand(following, x) * torch.sqrt(1 - share)
        x = clean + share * (x - clean) + spread * rng.normal_like(x) - step * gradient
        watch(peak, clean)
    return watch.finish(clean)


def misfit_norm(operator: LinearOperator, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Norm of residuals in which A has about norm 1: ``(B, *range_shape)`` to ``(B,)``.

    With the operator's `gram_inverse` M it is sqrt(<r, M r>), in which components that A damps
    count as well (as in pseudoinverse-guided sampling, Song et al., ICLR 2023); without one it is
    |r| / |A|.

    Args:
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement, for precision and device.
    """
    zero = torch.zeros(1, dtype=y.real.dtype, device=y.device)
    filtered = operator.gram_inverse(zero)
    if filtered is not None:
        return lambda r: dot(r, filtered(r)).clamp(min=0).sqrt()
    scale = power_method(operator, num_iterations=NORM_STEPS, dtype=zero.dtype, device=y.device)
    return lambda r: norm(r) / scale
