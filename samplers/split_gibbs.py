"""Split Gibbs sampling: the likelihood by perturb and solve, the prior by a short diffusion."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.denoise import data_step, denoise, first_image, schedule
from samplers.moment_matching import bridge
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # coupling levels where none are asked for
SPREAD = "samples spread less than the posterior"  # docs/calibration.md
START_SIGMA = 10.0  # at most, of the coupling
END_SIGMA = 0.05  # at least, of the coupling: a chain moves by about this in a step
INNER_STEPS = 6  # network calls of the prior step


@torch.no_grad()
def split_gibbs(
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
    """Split Gibbs sampling: PnP-DM (Wu et al.) and DPnP (Xu & Chi), both NeurIPS 2024.

    z ~ p(y | z) N(z; x, rho^2), then x ~ p(x) N(z; x, rho^2), with rho falling.

    The first exactly, z = data step from x + rho z' with y + sigma_y z''; the second is what a
    diffusion model does: it takes z for an image with noise of level rho, and goes back from there
    in `inner_steps` ancestral steps. x is then of the posterior for data with noise of sigma_y^2 +
    rho^2 A A^H. Calls: `num_steps` times `inner_steps`.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws each step's z', z'', then the noise of the prior step.
        num_steps: number of geometric couplings rho from `start_sigma` to `end_sigma`.
        initial: ``(B, *domain_shape)`` images to start from; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first coupling; None: `START_SIGMA`, or sigma_max if that is lower.
        end_sigma: last coupling; None: `END_SIGMA`, or 2 sigma_min if that is higher.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        inner_steps: levels from rho to sigma_min, 2 or more.
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.
        callback: called after each step with (step, sigma, x); of different levels the largest.

    Returns:
        ``(B, *domain_shape)``: the last x.

    Raises:
        ValueError: levels that the network does not know, or fewer than two,
            or fewer than two `inner_steps`.
        NonFiniteError: some images became NaN or infinite; the others are in it.
    """
    if inner_steps < 2:
        raise ValueError(f"expected inner_steps of 2 or more, got {inner_steps}")
    watch = Watch(rng, callback)
    x = first_image(operator, y, initial)
    start = min(START_SIGMA, sde.sigma_max) if start_sigma is None else start_sigma
    end = max(END_SIGMA, 2 * sde.sigma_min) if end_sigma is None else end_sigma
    couplings = schedule(sde, num_steps, start, end, len(x))
    noise = torch.as_tensor(sigma_y).to(x.real).expand(len(x))  # (B,)
    measured = operator.measured().to(y.device)
    for coupling, peak in zip(couplings, couplings.amax(1).tolist(), strict=True):
        rho = coupling.to(x.real)  # (B,)
        moved = x + expand(rho, x) * rng.normal_like(x)
        disturbed = y + expand(noise, y) * rng.normal_like(y) * measured
        z = data_step(operator, disturbed, moved, rho, sigma_y=noise, cg_steps=cg_steps)
        x = reverse_diffusion(score, sde, z, coupling, rng=rng, num_steps=inner_steps)
        watch(peak, x)
    return watch.finish(x)


def reverse_diffusion(
    score: Score,
    sde: VESDE,
    x: Tensor,
    sigma: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
) -> Tensor:
    """A sample of the clean images of which x is one with noise of level sigma.

    By ancestral steps, `moment_matching.bridge` of E[x_0 | x].

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels; the last is the smallest.
        x: ``(B, *domain_shape)``.
        sigma: ``(B,)`` float64, on the CPU, above the smallest.
        rng: draws each step's noise.
        num_steps: network calls, 2 or more.
    """
    sigmas = schedule(sde, num_steps, sigma, None, len(x)).to(x.real)  # (num_steps, B)
    for level, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        clean = denoise(score, x, level)
        if following is None:
            return clean
        x = bridge(x, clean, level, following, rng)
    raise AssertionError("unreachable: schedule has two levels or more")
