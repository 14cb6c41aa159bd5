"""Random scales, crops, flips, rotations and empty backgrounds of training images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.sample import DataError

# of the outline of an empty background, for an image whose sides go from -1 to 1
CURVATURES = (0.2, 1.7)
EDGES = (1.0, 3.0)  # its width in pixels


def augment(
    image: Tensor,
    generator: torch.Generator,
    *,
    crop: int | None = None,
    shrink: float = 1.0,
    flip: bool = False,
    rotate: bool = False,
    background: float = 0.0,
) -> Tensor:
    """A random variant of one image; random numbers come from `generator` only.

    Args:
        image: ``(1, H, W)``; not changed.
        generator: a CPU generator.
        crop: side of the random square to cut out; None keeps the image's size.
        shrink: smallest factor that the image is scaled by before the crop (anti-aliased); the
            factor is uniform in [shrink, 1], but never makes the image smaller than the crop.
        flip: flip left-right and, independently, up-down, with probability 1/2 each.
        rotate: rotate by 0, 90, 180 or 270 degrees; needs a square image or `crop`.
        background: probability of an empty background beyond a curved edge, see `cut_out`.

    Returns:
        ``(1, crop, crop)``, or ``(1, H, W)`` without `crop`.

    Raises:
        DataError: the image is smaller than `crop`, or `rotate` of an image that is not square.
        ValueError: `shrink` without `crop` or not in (0, 1], or a `background` outside [0, 1].
    """
    if not 0 <= background <= 1:
        raise ValueError(f"expected data.background in [0, 1], got {background}")
    if not 0 < shrink <= 1 or (shrink < 1 and not crop):
        raise ValueError(
            f"expected data.shrink in (0, 1], below 1 with data.crop only, got shrink={shrink}, "
            f"crop={crop}"
        )
    height, width = image.shape[-2:]
    if crop:
        if min(height, width) < crop:
            raise DataError(
                f"expected images of at least {crop} x {crop} to crop from, got {height} x "
                f"{width}; set a smaller crop, or a larger data.image_size"
            )
        # cutting before scaling costs the crop's size, not the image's
        factor = _uniform(max(shrink, crop / min(height, width)), 1.0, generator)
        side = min(math.ceil(crop / factor), height, width)
        top, left = _below(height - side + 1, generator), _below(width - side + 1, generator)
        image = image[:, top : top + side, left : left + side]
        if side != crop:
            image = _scale(image, crop)
    elif rotate and height != width:
        raise DataError(
            f"expected a square image to rotate by 90 degrees, got {height} x {width}; "
            "set a crop or data.image_size"
        )
    if flip:
        axes = [axis for axis in (-1, -2) if _below(2, generator)]
        image = image.flip(axes)
    if rotate:
        image = image.rot90(_below(4, generator), dims=(-2, -1))
    if background and _uniform(0, 1, generator) < background:
        image = image * cut_out(image.shape[-2:], generator)
    return image.contiguous()


def cut_out(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A mask of 1 on one side of a random parabola and 0 on the other: ``(H, W)`` float32.

    Medical images show a body on nothing, which photographs lack: a convex or straight outline, as
    sharp as a pixel or three, with nothing beyond it.

    Args:
        shape: H and W.
        generator: a CPU generator.
    """
    height, width = shape
    angle = _uniform(0, 2 * math.pi, generator)
    offset = _uniform(-0.5, 0.5, generator)  # of the vertex from the centre, in half sides
    curvature = _uniform(*CURVATURES, generator)
    softness = _uniform(*EDGES, generator)  # pixels
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    along = x * math.cos(angle) + y * math.sin(angle)  # (H, W)
    across = y * math.cos(angle) - x * math.sin(angle)
    inside = along - offset - 0.5 * curvature * across**2
    return torch.sigmoid(inside * max(height, width) / softness)


def _scale(image: Tensor, side: int) -> Tensor:
    """``(1, S, S)`` to ``(1, side, side)``, low-pass filtered before it is sampled."""
    return F.interpolate(
        image[None], size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )[0].clamp(0, 1)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A uniform random number in ``[low, high)``; `high` without a draw where they are equal."""
    if low >= high:
        return high
    return low + (high - low) * float(torch.rand((), generator=generator))


def _below(bound: int, generator: torch.Generator) -> int:
    """A uniform random integer in ``[0, bound)``."""
    return int(torch.randint(bound, (), generator=generator))
