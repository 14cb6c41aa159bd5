"""Plug and play on volumes: the two-dimensional prior sees slices along all three axes."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator
from samplers.denoise import denoise_turned, first_image, schedule
from samplers.pnp import STRENGTH, splitting
from samplers.watch import Callback
from sde import VESDE, Score

LEAST_SLICES = 8  # the side of the images across the slices
# images (N, S, H, W) of slices as images across them, (H, S, N, W) and (W, S, N, H), and back
ACROSS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "rows": ((2, 1, 0, 3), (2, 1, 0, 3)),
    "columns": ((3, 1, 0, 2), (2, 1, 3, 0)),
}


@torch.no_grad()
def pnp_volume(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    weight: float,
    start_sigma: float,
    end_sigma: float,
    num_steps: int,
    size: int = 0,
    rng: BatchGenerator | None = None,
    initial: Tensor | None = None,
    momentum: float | tuple[float, float] | None = None,
    turns: bool | None = None,
    strength: float = STRENGTH,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """`pnp` of a volume whose slices are reconstructed together.

    Each slice keeps its own data step, but in a part of the steps the network denoises the images
    across the slices, in turn those that cut the rows and those that cut the columns (coronal and
    sagittal ones of axial slices; of a series in time x-t and y-t images). One prior of images in
    all three directions is the idea of Lee et al. (ICCV 2023), who train a second network for it;
    priors of photographs know no direction. A step costs as many pixels of the network as one of
    `pnp`.

    **The slices of the batch are one volume and depend on each other**, in contrast to all other
    samplers: the batch has to hold neighbours, in their order and on one scale of intensities.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, of images of any sides.
        sde: its range of noise levels.
        operator: measurement model A of each slice.
        y: ``(N, *range_shape)`` measurement of N neighbouring slices, at least `LEAST_SLICES`.
        weight: part of the steps, from 0 to 1, in which the network sees images across the slices;
            0 is `pnp` with common levels, 2/3 treats the three directions alike.
        start_sigma: first noise level, of all slices.
        end_sigma: last noise level, of all slices.
        num_steps: number of geometric levels, with one network call for each pixel of the volume
            each.
        size: largest number of slices, or of as many pixels, in a call of the network; 0: all. It
            changes a network's last digits only.
        rng: as in `pnp`, like all that follow.
        initial: ``(N, *domain_shape)`` images to start from.
        momentum: extrapolation of the image's last change.
        turns: whether to show the network each image in the eight orientations of the square.
        strength: lambda.
        sigma_y: standard deviation of the measurement noise, of all slices or of each ``(N,)``.
        cg_steps: largest number of iterations of a data step.
        callback: called after each step with (step, sigma, x').

    Returns:
        ``(N, *domain_shape)`` images.

    Raises:
        ValueError: too few slices, a weight outside [0, 1], or as `pnp`.
        NonFiniteError: some slices became NaN or infinite; its neighbours are not usable, either.
    """
    if len(y) < LEAST_SLICES:
        raise ValueError(f"expected at least {LEAST_SLICES} slices of a volume, got {len(y)}")
    planes = planes_of_steps(weight, num_steps)
    turns = getattr(score, "symmetric", False) if turns is None else turns

    def denoiser(x: Tensor, sigma: Tensor, step: int) -> Tensor:
        turn = planes[:step].count(planes[step]) if turns else 0
        return denoise_plane(score, x, sigma, planes[step], turn=turn, size=size)

    return splitting(
        denoiser,
        sde,
        operator,
        y,
        first_image(operator, y, initial),
        schedule(sde, num_steps, start_sigma, end_sigma, len(y)),
        rng=rng,
        momentum=momentum,
        strength=strength,
        sigma_y=sigma_y,
        cg_steps=cg_steps,
        callback=callback,
    )


def planes_of_steps(weight: float, num_steps: int) -> list[str]:
    """What the network sees in each step: "slices", or "rows" and "columns" in turn.

    Args:
        weight: part of the steps that are across the slices, which are spread evenly.
        num_steps: number of steps.

    Raises:
        ValueError: a weight outside [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"expected a weight of the volume from 0 to 1, got {weight}")
    done = [math.floor(weight * step + 1e-9) for step in range(num_steps + 1)]
    names = list(ACROSS)
    return [
        names[before % 2] if after > before else "slices"
        for before, after in itertools.pairwise(done)
    ]


def denoise_plane(
    score: Score, x: Tensor, sigma: Tensor, plane: str, *, turn: int, size: int = 0
) -> Tensor:
    """Denoised volume, by a network that sees images of one plane through it.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        x: ``(N, S, H, W)`` noisy slices.
        sigma: ``(N,)`` noise levels, all the same.
        plane: "slices", or a key of `ACROSS`.
        turn: number of the orientation, see `denoise.denoise_turned`.
        size: largest number of slices, or of as many pixels, in a call of the network; 0: all.
    """
    there, back = ACROSS.get(plane, ((0, 1, 2, 3), (0, 1, 2, 3)))
    images = x.permute(*there)
    most = len(images)
    if size:
        most = max(1, size * x[0].numel() // images[0].numel())
    clean = [
        denoise_turned(score, part.contiguous(), sigma[:1].expand(len(part)), turn=turn)
        for part in images.split(most)
    ]
    return torch.cat(clean).permute(*back).contiguous()
