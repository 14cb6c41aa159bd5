"""Images of the prior along the chain of DDPM, Song's discrete VP-SDE."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from operators.batch import BatchGenerator
from samplers.denoise import denoise
from samplers.start import grey_start
from samplers.watch import Callback, Watch, level
from sde import VESDE, VPSDE, Score
from sde.vp import BETA_MAX, BETA_MIN, WIDTH


@torch.no_grad()
def ancestral_vp(
    score: Score,
    sde: VESDE,
    shape: Sequence[int],
    *,
    rng: BatchGenerator,
    num_steps: int,
    beta_min: float = BETA_MIN,
    beta_max: float = BETA_MAX,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """Sample images of the prior by DDPM's chain (Song et al., ICLR 2021, equation 4).

    In terms of y = sqrt(a_k) x, a_k = (1 - beta_1) ... (1 - beta_k), a step is
    y' = (y + beta_k score_y) / sqrt(1 - beta_k) + sqrt(beta_k) z; here the same of x and its levels
    (`VPSDE.ladder`), so that any prior goes: x' = x + (s^2 - s'^2) score(x, s) + sqrt((s^2 - s'^2)
    (1 - beta_k)) z. The last step goes to s' = 0 without noise. Levels that the prior does not
    know are left out; with the largest of the others noise is added to a grey image, as in
    `samplers.unconditional`.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``; where its attribute `joint` is True, images
            are complex.
        sde: its range of noise levels.
        shape: ``(H, W)`` of the images.
        rng: one generator an image; draws the start, then the noise of each step.
        num_steps: betas of the whole chain, from beta_min / N to beta_max / N; a network call for
            each level that the prior knows.
        beta_min: of the SDE, for images in [-1, 1].
        beta_max: of the SDE.
        device: of the network.
        callback: called after each step with (step, sigma, E[x_0 | x]).

    Returns:
        ``(B, 1, H, W)`` float32 or complex64, B the number of generators.

    Raises:
        ValueError: too few steps, unfit betas, or no level that the prior knows.
        NonFiniteError: some images became NaN or infinite; the others are in it.
    """
    ladder = VPSDE(beta_min, beta_max).ladder(num_steps).flip(0).tolist()
    levels = [s for s in ladder if sde.sigma_min <= s <= sde.sigma_max]
    if not levels:
        raise ValueError(
            f"expected levels of the chain between {sde.sigma_min:g} and {sde.sigma_max:g}, which "
            f"the prior knows, got {ladder[-1]:g} to {ladder[0]:g}; take more steps or other betas"
        )
    watch = Watch(rng, callback)
    known = VESDE(sde.sigma_min, levels[0]) if levels[0] > sde.sigma_min else sde
    x = grey_start(score, known, shape, rng, device)
    for sigma, following in pairwise([*levels, 0.0]):
        clean = denoise(score, x, level(x, sigma))
        watch(sigma, clean)
        if following:
            fresh = (1 + (WIDTH * following) ** 2) / (1 + (WIDTH * sigma) ** 2)  # 1 - beta
            spread = ((sigma**2 - following**2) * fresh) ** 0.5
            share = (following / sigma) ** 2
            x = clean + share * (x - clean) + spread * rng.normal_like(x)
    return watch.finish(clean)
