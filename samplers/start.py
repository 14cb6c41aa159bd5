"""Where samplers of the prior alone start."""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.batch import BatchGenerator
from sde import VESDE, Score

GREY = 0.5  # middle of the images' range [0, 1]


def grey_images(
    score: Score, shape: Sequence[int], batch: int, device: torch.device | str
) -> Tensor:
    """Grey images ``(batch, 1, H, W)`` of the kind that a score is of: float32 or complex64.

    Args:
        score: where its attribute `joint` is True, images are complex.
        shape: ``(H, W)``.
        batch: number of images.
        device: where they are.
    """
    dtype = torch.complex64 if getattr(score, "joint", False) else torch.float32
    return torch.full((batch, 1, *shape), GREY, dtype=dtype, device=device)


def grey_start(
    score: Score, sde: VESDE, shape: Sequence[int], rng: BatchGenerator, device: torch.device | str
) -> Tensor:
    """Grey images with noise of the largest level: ``(B, 1, H, W)``, B the number of generators.

    A prior whose largest level does not drown an image would take noise around zero for a black
    one.
    """
    grey = grey_images(score, shape, len(rng.generators), device)
    return grey + sde.sigma_max * rng.normal_like(grey)
