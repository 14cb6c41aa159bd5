"""Decoupled annealing posterior sampling: clean image by the ODE, data, and all noise anew."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.denoise import aimed_at, data_step, first_image, schedule
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # noise levels where none are asked for
SPREAD = "samples spread more than the posterior"  # docs/calibration.md
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
    order: int = 1,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Decoupled annealing posterior sampling, DAPS (Zhang et al., CVPR 2025, algorithm 1).

    At each noise level x0 ~ p(y | x0) N(x0; x_ode, sigma^2), then x = x0 + sigma' z.

    x_ode is where the probability-flow ODE leads from x, and sigma^2 stands for the covariance of
    the clean image given x. What the paper's Langevin steps for x0 approximate is drawn exactly, by
    perturb and solve. Calls: `num_steps` times `inner_steps`.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the noise of the start, then each step's two for x0,
            and z.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`.
        initial: ``(B, *domain_shape)`` images to which the first noise is added; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first level; None: `START_SIGMA`, or sigma_max if that is lower.
        end_sigma: last noise level; None: sigma_min.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        inner_steps: steps of the ODE, 1 or more.
        order: of the ODE's solver, 1 (Euler, the paper's) or 2 (Heun, two calls a step but the
            last, `denoise.aimed_at`).
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.
        callback: called after each step with (step, sigma, x0); of different levels the largest.

    Returns:
        ``(B, *domain_shape)``: the last x0.

    Raises:
        ValueError: levels that the network does not know, or fewer than two,
            no `inner_steps`, or an unknown `order`.
        NonFiniteError: some images became NaN or infinite; the others are in it.
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
        clean = probability_flow(score, sde, x, level, num_steps=inner_steps, order=order)
        moved = clean + expand(sigma, x) * rng.normal_like(x)
        disturbed = y + expand(noise, y) * rng.normal_like(y) * measured
        x0 = data_step(operator, disturbed, moved, sigma, sigma_y=noise, cg_steps=cg_steps)
        watch(peak, x0)
    return watch.finish(x0)


def probability_flow(
    score: Score, sde: VESDE, x: Tensor, sigma: Tensor, *, num_steps: int, order: int = 1
) -> Tensor:
    """Where dx / dsigma = -sigma s(x, sigma) leads from x to sigma 0, by Euler's or Heun's method.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        x: ``(B, *domain_shape)``.
        sigma: ``(B,)`` float64, on the CPU.
        num_steps: of the solver; geometric levels, the last step is to 0.
        order: 1 for Euler, 2 for Heun.
    """
    last = sigma.clamp(max=sde.sigma_min)  # a start at the smallest level is one step
    fractions = torch.arange(num_steps, dtype=torch.float64)[:, None] / num_steps
    sigmas = (sigma * (last / sigma) ** fractions).to(x.real)  # (num_steps, B)
    for level, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        clean = aimed_at(score, x, level, following, order=order)
        if following is not None:
            x = clean + expand(following / level, x) * (x - clean)
    return clean
