"""Decoupled annealing posterior sampling: clean image by the ODE, data, and all noise anew."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.denoise import data_step, denoise, first_image, schedule
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # noise levels where none are asked for
SPREAD = "samples spread less than the posterior"  # docs/calibration.md
START_SIGMA = 10.0  # at most
INNER_STEPS = 5  # network calls of the ODE, the paper's


@torch.no_grad()
def daps(
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
    sigma_y: float | Tensor = 0.0,
    inner_steps: int = INNER_STEPS,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """x0 ~ p(y | x0) N(x0; x_ode, sigma^2); x = x0 + sigma' z.

    x_ode is where the probability-flow ODE leads from x, and sigma^2 stands for the covariance of
    the clean image given x. After Zhang et al., CVPR 2025 (algorithm 1); what their Langevin steps
    for x0 approximate is drawn exactly, by perturb and solve. Calls: `num_steps` times
    `inner_steps`.

    Args: as `samplers.dds`, but

        rng: draws the start's noise, then each step's two for x0, and z.
        start_sigma: first level; None: `START_SIGMA`, or the network's largest if that is lower.
        inner_steps: Euler steps of the ODE, 1 or more.

    Returns:
        ``(B, *domain_shape)``: the last x0.

    Raises: as `samplers.dds`; ValueError, too, for fewer `inner_steps`.
    """
    if inner_steps < 1:
        raise ValueError(f"expected inner_steps of 1 or more, got {inner_steps}")
    watch = Watch(rng, callback)
    x0 = first_image(operator, y, initial)
    start = min(START_SIGMA, sde.sigma_max) if start_sigma is None else start_sigma
    levels = schedule(sde, num_steps, start, end_sigma, len(x0))
    noise = torch.as_tensor(sigma_y).to(x0.real).expand(len(x0))  # (B,)
    measured = operator.measured().to(y.device)
    for level, peak in zip(levels, levels.amax(1).tolist(), strict=True):
        sigma = level.to(x0.real)  # (B,)
        x = x0 + expand(sigma, x0) * rng.normal_like(x0)
        clean = probability_flow(score, sde, x, level, num_steps=inner_steps)
        moved = clean + expand(sigma, x) * rng.normal_like(x)
        disturbed = y + expand(noise, y) * rng.normal_like(y) * measured
        x0 = data_step(operator, disturbed, moved, sigma, sigma_y=noise, cg_steps=cg_steps)
        watch(peak, x0)
    return watch.finish(x0)


def probability_flow(
    score: Score, sde: VESDE, x: Tensor, sigma: Tensor, *, num_steps: int
) -> Tensor:
    """Where dx / dsigma = -sigma s(x, sigma) leads from x to sigma 0, by Euler's method.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        x: ``(B, *domain_shape)``.
        sigma: ``(B,)`` float64, on the CPU.
        num_steps: network calls; geometric levels, the last step is to 0.
    """
    last = sigma.clamp(max=sde.sigma_min)  # a start at the smallest level is one step
    fractions = torch.arange(num_steps, dtype=torch.float64)[:, None] / num_steps
    sigmas = (sigma * (last / sigma) ** fractions).to(x.real)  # (num_steps, B)
    for level, following in zip(sigmas, [*sigmas[1:], torch.zeros_like(sigmas[0])], strict=True):
        clean = denoise(score, x, level)
        x = clean + expand(following / level, x) * (x - clean)
    return x
