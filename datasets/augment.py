"""Random scales, crops, flips, rotations, contrasts and backgrounds of training images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.sample import DataError

# range of curvatures of the outline of an empty background, for image coordinates from -1 to 1
CURVATURES = (0.2, 1.7)
EDGES = (1.0, 3.0)  # range of widths of the outline in pixels
TWO_TISSUES = 0.5  # probability that bright parts of an image have another phase than the others
BRIGHT = (0.2, 0.8)  # range of the intensity, of the maximum, from which a part is bright
MIXED = 0.02  # of the maximum: width of the intensities of pixels that hold both
LEAST_PEAK = 1e-3  # images with a lower maximum are not scaled up by shading


def augment(
    image: Tensor,
    generator: torch.Generator,
    *,
    crop: int | None = None,
    shrink: float = 1.0,
    flip: bool = False,
    rotate: bool = False,
    gamma: float = 0.0,
    invert: float = 0.0,
    shading: float = 0.0,
    background: float = 0.0,
    phase: float = 0.0,
) -> Tensor:
    """Random variant of one image; all random numbers come from `generator`.

    Args:
        image: ``(1, H, W)``; not changed in place.
        generator: a CPU generator.
        crop: side in pixels of the random square to cut out; None keeps the size of the image.
        shrink: smallest factor by which the image is scaled before the crop (anti-aliased); the
            factor is uniform in [shrink, 1], but never makes the image smaller than the crop.
        flip: whether to flip left-right and, independently, up-down with probability 1/2 each.
        rotate: whether to rotate by 0, 90, 180 or 270 degrees; needs a square image or `crop`.
        gamma: intensities are raised to a random power in [exp(-gamma), exp(gamma)], uniform in
            its logarithm.
        invert: probability of inverted intensities, 1 - image.
        shading: largest log amplitude of a smooth field that multiplies the image, see `shade`.
        background: probability of an empty background outside a curved outline, see `cut_out`.
        phase: largest amplitude in radians of a smooth random phase, see `turn_phase`; 0 for none.

    Returns:
        ``(1, crop, crop)``, or ``(1, H, W)`` without `crop`; with `phase` two channels, the real
        and the imaginary part.

    Raises:
        DataError: the image is smaller than `crop`, or not square for `rotate`.
        ValueError: `shrink` without `crop` or not in (0, 1], a probability outside [0, 1], or
            `gamma`, `shading` or `phase` below 0.
    """
    for name, value, most in (
        ("gamma", gamma, math.inf),
        ("invert", invert, 1),
        ("shading", shading, math.inf),
        ("background", background, 1),
        ("phase", phase, math.inf),
    ):
        if not 0 <= value <= most:
            raise ValueError(f"expected data.{name} in [0, {most}], got {value}")
    if not 0 < shrink <= 1 or (shrink < 1 and not crop):
        raise ValueError(
            f"expected data.shrink in (0, 1], below 1 with data.crop only, got shrink={shrink}, "
            f"crop={crop}"
        )
    height, width = image.shape[-2:]
    check_shape((height, width), crop=crop, rotate=rotate)
    if crop:
        # cutting before scaling is cheaper, as only the crop is scaled
        factor = _uniform(max(shrink, crop / min(height, width)), 1.0, generator)
        side = min(math.ceil(crop / factor), height, width)
        top, left = _below(height - side + 1, generator), _below(width - side + 1, generator)
        image = image[:, top : top + side, left : left + side]
        if side != crop:
            image = _scale(image, crop)
    if flip:
        axes = [axis for axis in (-1, -2) if _below(2, generator)]
        image = image.flip(axes)
    if rotate:
        image = image.rot90(_below(4, generator), dims=(-2, -1))
    if gamma:
        image = image.clamp(0, 1) ** math.exp(_uniform(-gamma, gamma, generator))
    if invert and _uniform(0, 1, generator) < invert:
        image = 1 - image
    if shading:
        image = shade(image, shading, generator)
    if background and _uniform(0, 1, generator) < background:
        image = image * cut_out(image.shape[-2:], generator)
    if phase:
        image = turn_phase(image, phase, generator)
    return image.contiguous()


def shade(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """`image` multiplied by a smooth random field and rescaled to a maximum of 1, unless empty.

    The field imitates shading by coils and X-ray spectra. It is exp(a f), where f is that of
    `waves`, and a is uniform in [0, strength].

    Args:
        image: ``(1, H, W)``, 0 or more.
        strength: largest a.
        generator: a CPU generator.
    """
    field = waves(image.shape[-2:], generator)
    shaded = image * torch.exp(_uniform(0, strength, generator) * field)
    return shaded / shaded.max().clamp(min=LEAST_PEAK)


def turn_phase(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """`image` times exp(i (a f + c)), as real and imaginary part: ``(2, H, W)``.

    The phase imitates that of MR images: f is the smooth field of `waves`, a is uniform in
    [0, strength] and c in [-pi, pi]. With a probability of `TWO_TISSUES` bright parts are turned
    by a further angle, uniform in [-pi, pi], as fat is against water; where both meet in a pixel
    they are added, which may leave less than `image`.

    Args:
        image: ``(1, H, W)``, the magnitude.
        strength: largest a, in radians.
        generator: a CPU generator.
    """
    field = waves(image.shape[-2:], generator)
    amplitude, constant = _uniform(0, strength, generator), _uniform(-math.pi, math.pi, generator)
    phase = amplitude * field + constant  # (H, W)
    parts = [(image, phase)]
    if _uniform(0, 1, generator) < TWO_TISSUES:
        level, angle = _uniform(*BRIGHT, generator), _uniform(-math.pi, math.pi, generator)
        peak = image.max().clamp(min=LEAST_PEAK)
        bright = image * torch.sigmoid((image / peak - level) / MIXED)  # (1, H, W)
        parts = [(image - bright, phase), (bright, phase + angle)]
    real = sum(size * phase.cos() for size, phase in parts)
    imaginary = sum(size * phase.sin() for size, phase in parts)
    return torch.cat([real, imaginary])


def waves(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Sum of two random waves with at most one period per side, in [-1, 1]: ``(H, W)``."""
    height, width = shape
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    field = torch.zeros(height, width)
    for _ in range(2):
        rows, columns, phase = (2 * math.pi * _uniform(-0.5, 0.5, generator) for _ in range(3))
        field = field + 0.5 * torch.cos(2 * (rows * y + columns * x + phase))  # (H, W)
    return field


def cut_out(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Smooth mask that is 1 on one side of a random parabola and 0 on the other.

    It gives photographs an empty background as in medical images of a body: a convex or nearly
    straight outline, one to three pixels wide.

    Args:
        shape: (H, W).
        generator: a CPU generator.

    Returns:
        float32 ``(H, W)``.
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


def check_shape(shape: tuple[int, int], *, crop: int | None, rotate: bool) -> None:
    """Raise a DataError if an image of shape ``(H, W)`` is too small to crop or not square."""
    height, width = shape
    if crop and min(shape) < crop:
        raise DataError(
            f"expected images of at least {crop} x {crop} to crop from, got {height} x {width}; "
            "set a smaller data.crop, or take the image out"
        )
    if rotate and not crop and height != width:
        raise DataError(
            f"expected a square image to rotate by 90 degrees, got {height} x {width}; "
            "set a crop or data.image_size"
        )


def _scale(image: Tensor, side: int) -> Tensor:
    """Anti-aliased resizing of ``(1, S, S)`` to ``(1, side, side)``."""
    return F.interpolate(
        image[None], size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )[0].clamp(0, 1)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Uniform random number in ``[low, high)``; `high`, without a draw, if the range is empty."""
    if low >= high:
        return high
    return low + (high - low) * float(torch.rand((), generator=generator))


def _below(bound: int, generator: torch.Generator) -> int:
    """Uniform random integer in ``[0, bound)``."""
    return int(torch.randint(bound, (), generator=generator))
