"""Images of the prior alone, without a measurement."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators import Unmeasured
from operators.batch import BatchGenerator
from samplers.ancestral_vp import ancestral_vp
from samplers.dds import dds
from samplers.predictor_corrector import SNR, predictor_corrector
from samplers.probability_flow import probability_flow
from samplers.start import grey_images
from samplers.watch import Callback
from sde import VESDE, Score


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

    Song's chain of the discrete VE-SDE (NCSN++) on `VESDE.ladder`:
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
    grey = grey_images(score, shape, len(rng.generators), device)
    nothing, y = _nothing(grey)
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


@torch.no_grad()
def unconditional_pc(
    score: Score,
    sde: VESDE,
    shape: Sequence[int],
    *,
    rng: BatchGenerator,
    num_steps: int,
    snr: float = SNR,
    corrector_steps: int = 1,
    predictor: str = "reverse_diffusion",
    corrector: str = "langevin",
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """Sample images of the prior by Song's predictors and correctors (ICLR 2021, appendix G).

    `samplers.predictor_corrector` without data, from a grey image with noise of the largest level.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``; where its attribute `joint` is True, images
            are complex.
        sde: its range of noise levels.
        shape: ``(H, W)`` of the images.
        rng: one generator an image; draws the start, then per step the corrector's noise and the
            predictor's.
        num_steps: noise levels, with 1 + `corrector_steps` network calls each.
        snr: of the corrector's step.
        corrector_steps: Langevin steps per level.
        predictor: a key of `samplers.predictor_corrector.PREDICTORS`.
        corrector: "langevin" or "none".
        device: of the network.
        callback: called after each step with (step, sigma, x).

    Returns:
        ``(B, 1, H, W)`` float32 or complex64, B the number of generators.

    Raises:
        ValueError: an unknown name, or fewer than two levels.
        NonFiniteError: some images became NaN or infinite; the others are in it.
    """
    grey = grey_images(score, shape, len(rng.generators), device)
    nothing, y = _nothing(grey)
    return predictor_corrector(
        score,
        sde,
        nothing,
        y,
        rng=rng,
        num_steps=num_steps,
        snr=snr,
        corrector_steps=corrector_steps,
        predictor=predictor,
        corrector=corrector,
        initial=grey,
        start_level=num_steps,
        callback=callback,
    )


def _nothing(images: Tensor) -> tuple[Unmeasured, Tensor]:
    """The operator without measurements of such images, and its empty measurement."""
    operator = Unmeasured(tuple(images.shape[1:]), real=not images.is_complex())
    return operator, operator.nothing(len(images), images.device)


# samplers of the prior alone: ``sampler(score, sde, shape, *, rng, num_steps, ..., device)``
UNCONDITIONAL = {
    "ancestral": unconditional,
    "ancestral_vp": ancestral_vp,
    "predictor_corrector": unconditional_pc,
    "probability_flow": probability_flow,
}
