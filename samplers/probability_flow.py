"""Images of the prior along the probability flow: Karras et al., NeurIPS 2022, EDM."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.batch import BatchGenerator
from samplers.denoise import aimed_at
from samplers.start import grey_start
from samplers.watch import Callback, Watch, level
from sde import VESDE, Score

RHO = 7.0  # how much denser levels are near the smallest (Karras et al. 2022, table 1)
MOST_CHURN = math.sqrt(2) - 1  # no step adds more noise than there is (algorithm 2)


def edm_levels(sde: VESDE, num_steps: int, rho: float = RHO) -> Tensor:
    """Noise levels of Karras et al. 2022, equation 5, falling: ``(num_steps,)``, float64.

    Equally spaced in sigma^(1 / rho) from sigma_max to sigma_min; the 0 at their end is left out.

    Args:
        sde: the range.
        num_steps: number of levels.
        rho: 1 spaces the levels equally; the larger, the nearer to geometric levels.

    Raises:
        ValueError: fewer than two levels, or a `rho` that is not positive.
    """
    if num_steps < 2:
        raise ValueError(f"expected num_steps of at least 2, got {num_steps}")
    if not rho > 0:
        raise ValueError(f"expected rho above 0, got {rho}")
    ends = sde.sigma_max ** (1 / rho), sde.sigma_min ** (1 / rho)
    levels = torch.linspace(*ends, num_steps, dtype=torch.float64) ** rho
    return levels.clamp(sde.sigma_min, sde.sigma_max)  # (num_steps,), against rounding


@torch.no_grad()
def probability_flow(
    score: Score,
    sde: VESDE,
    shape: Sequence[int],
    *,
    rng: BatchGenerator,
    num_steps: int,
    rho: float = RHO,
    order: int = 2,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """Sample images of the prior by EDM's algorithms 1 and 2 (Karras et al., NeurIPS 2022).

    Heun's method for dx / dsigma = -sigma score(x, sigma), from noise of the largest level around a
    grey image (as in `samplers.unconditional`) to 0; the last step is Euler's. With `s_churn` each
    step first adds noise: from sigma to sigma (1 + gamma), gamma = min(s_churn / num_steps, sqrt 2
    - 1), but not above sigma_max, which the network does not know. What remains in an image of what
    the steps do wrong is forgotten by that.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``; where its attribute `joint` is True, images
            are complex.
        sde: its range of noise levels.
        shape: ``(H, W)`` of the images.
        rng: one generator an image; draws the start, then the noise of each step that adds some.
        num_steps: levels, with two network calls each but for the last.
        rho: of the levels (`edm_levels`).
        order: 2 for Heun's method, 1 for Euler's with one call a level.
        s_churn: amount of new noise; 0 makes the image a function of the start alone.
        s_tmin: lowest level at which noise is added.
        s_tmax: highest.
        s_noise: standard deviation of the added noise, about 1.
        device: of the network.
        callback: called after each step with (step, sigma, the image that the step goes towards).

    Returns:
        ``(B, 1, H, W)`` float32 or complex64, B the number of generators.

    Raises:
        ValueError: fewer than two levels, or an unfit `rho` or `order`.
        NonFiniteError: some images became NaN or infinite; the others are in it.
    """
    sigmas = edm_levels(sde, num_steps, rho).tolist()
    watch = Watch(rng, callback)
    x = grey_start(score, sde, shape, rng, device)
    for sigma, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        churn = min(s_churn / num_steps, MOST_CHURN) if s_tmin <= sigma <= s_tmax else 0.0
        raised = min(sigma * (1 + churn), sde.sigma_max)
        if raised > sigma:
            x = x + math.sqrt(raised**2 - sigma**2) * s_noise * rng.normal_like(x)
        ahead = None if following is None else level(x, following)
        target = aimed_at(score, x, level(x, raised), ahead, order=order)
        if following is not None:
            x = target + following / raised * (x - target)
        watch(sigma, target)
    return watch.finish(target)
