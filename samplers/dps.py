"""Diffusion posterior sampling: the likelihood's gradient through the network."""

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

NUM_STEPS = 50  # noise levels where none are asked for
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
    """One ancestral step to the next level, then x -= step * grad_x |A E[x_0 | x] - y|.

    After Chung et al., ICLR 2023 (algorithm 1), in sigma space. A network call and its derivative
    a step, several times the memory of the others; needs a score that autograd can go through
    (not under `torch.inference_mode`).

    Args: as `samplers.dds`, but

        step: zeta, length of the gradient step; the norm is not squared, so that its gradient is
            about a unit vector times A^H. The norm is one in which A has about norm 1
            (`misfit_norm`): zeta then means the same whatever the operator's scale. None: `STEP`
            sqrt(1000 / num_steps).

    Returns:
        ``(B, *domain_shape)``: E[x_0 | x] at the last level.

    Raises: as `samplers.dds`; RuntimeError under `torch.inference_mode`.
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
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = denoise(score, x, sigma)
            misfit = distance(operator.forward(clean) - y)  # (B,)
            (gradient,) = torch.autograd.grad(misfit.sum(), x)
        # a measurement that is met exactly has no direction to go
        gradient = torch.where(expand(misfit, x) > 0, gradient, 0.0)
        x, clean = x.detach(), clean.detach()
        share = expand((following / sigma) ** 2, x)
        spread = expand(following, x) * torch.sqrt(1 - share)
        x = clean + share * (x - clean) + spread * rng.normal_like(x) - step * gradient
        watch(peak, clean)
    return watch.finish(clean)


def misfit_norm(operator: LinearOperator, y: Tensor) -> Callable[[Tensor], Tensor]:
    """A norm of residuals ``(B, *range_shape)`` to ``(B,)`` in which A has about norm 1.

    With the operator's `gram_inverse` M it is sqrt(<r, M r>), so that what A damps counts as well
    (as in pseudoinverse-guided sampling, Song et al., ICLR 2023); else |r| / |A|.
    """
    zero = torch.zeros(1, dtype=y.real.dtype, device=y.device)
    filtered = operator.gram_inverse(zero)
    if filtered is not None:
        return lambda r: dot(r, filtered(r)).clamp(min=0).sqrt()
    scale = power_method(operator, num_iterations=NORM_STEPS, dtype=zero.dtype, device=y.device)
    return lambda r: norm(r) / scale
