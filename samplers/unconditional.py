"""Images of the prior alone, without a measurement."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators import Unmeasured
from operators.batch import BatchGenerator
from samplers.dds import dds
from samplers.watch import Callback
from sde import VESDE, Score

GREY = 0.5  # middle of the images' range [0, 1]


@torch.no_grad()
def unconditional(
    score: Score,
    sde: VESDE,
    shape: Sequence[int],
    *,
    rng: BatchGenerator,
    num_steps: int,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """Sample images of the prior by ancestral sampling, from noise of the largest level.

    x' = x + (s^2 - s'^2) score(x, s) + s' sqrt(1 - s'^2 / s^2) z for falling levels s, s' (Song et
    al., ICLR 2021, equation 47), which is `dds` without data, its `eta` that of geometric levels.
    It needs fewer levels than the predictor-corrector, whose steps leave too much noise where there
    are few. The noise is added to a grey image: a prior whose largest level does not drown an image
    would take noise around zero for a black one. What is larger than that level's noise, such as
    an image's mean, is therefore not drawn at random.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``; where its attribute `joint` is True, images
            are complex.
        sde: its range of noise levels.
        shape: ``(H, W)`` of the images.
        rng: one generator an image.
        num_steps: geometric noise levels from largest to smallest, a network call each.
        device: of the network.
        callback: called after each step with (step, sigma, E[x_0 | x]).

    Returns:
        ``(B, 1, H, W)`` float32 or complex64, B the number of generators.

    Raises:
        ValueError: fewer than two levels.
        NonFiniteError: some images became NaN or infinite; the others are in it.
    """
    nothing = Unmeasured((1, *shape), real=not getattr(score, "joint", False))
    y = nothing.nothing(len(rng.generators), device)
    grey = torch.full((len(y), 1, *shape), GREY, dtype=y.dtype, device=device)
    ratio = (sde.sigma_min / sde.sigma_max) ** (1 / max(num_steps - 1, 1))  # of two levels
    return dds(
        score,
        sde,
        nothing,
        y,
        rng=rng,
        num_steps=num_steps,
        initial=grey,
        start_sigma=sde.sigma_max,
        eta=math.sqrt(1 - ratio**2),
        callback=callback,
    )
