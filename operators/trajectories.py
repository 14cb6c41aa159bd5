"""Trajectories through k-space, in cycles per pixel."""

import math

import numpy as np
import torch
from torch import Tensor

GOLDEN = math.pi * (math.sqrt(5) - 1) / 2  # 111.246 degrees (Winkelmann et al., IEEE TMI 2007)
KINDS = ("radial", "golden", "spiral")
FINE = 50  # points of the curve for each position, along which its length is measured
FINE_TURN = 1000  # and at least so many for each turn


def radial(spokes: int, samples: int, *, golden: bool = False) -> Tensor:
    """Spokes through the centre of k-space, each from one end to the other.

    Args:
        spokes: number of spokes.
        samples: positions on each, evenly spaced from -1/2; for even numbers one is the centre.
        golden: whether successive spokes are the golden angle apart, instead of 180 degrees divided
            by their number: any of them that follow each other then cover k-space nearly evenly.

    Returns:
        float64 ``(spokes, samples, 2)``: row and column in cycles per pixel, from -1/2 to 1/2.
    """
    _check(spokes=spokes, samples=samples)
    step = GOLDEN if golden else math.pi / spokes
    angle = step * torch.arange(spokes, dtype=torch.float64)[:, None]
    radius = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    return torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=-1)


def spiral(interleaves: int, samples: int, *, turns: float, power: float = 1.0) -> Tensor:
    """Archimedean spirals from the centre of k-space outwards, turned against each other.

    Positions are equally far from each other along the curve, as of a gradient of constant
    strength.

    Args:
        interleaves: number of spirals, evenly turned.
        samples: positions on each; see `spiral_samples`.
        turns: turns of each.
        power: of the radius as a function of the angle: 1 for turns at equal distances, more for a
            centre that is covered more densely.

    Returns:
        float64 ``(interleaves, samples, 2)``: row and column in cycles per pixel.
    """
    _check(interleaves=interleaves, samples=samples)
    part, length = _along_spiral(turns, power, FINE * samples)
    steps = np.linspace(0, float(length[-1]), samples)
    share = torch.from_numpy(np.interp(steps, length.numpy(), part.numpy()))  # of the angle
    first = 2 * math.pi / interleaves * torch.arange(interleaves, dtype=torch.float64)[:, None]
    angle = first + 2 * math.pi * turns * share
    radius = share**power / 2
    return torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=-1)


def spiral_samples(side: int, *, turns: float, power: float = 1.0) -> int:
    """Positions of an interleave of `spiral` that are a grid cell or less apart (Nyquist).

    Args:
        side: pixels of the image's longer side.
        turns: turns of the interleave.
        power: of the radius as a function of the angle.
    """
    _, length = _along_spiral(turns, power, 1)
    return math.ceil(float(length[-1]) * side) + 1


def _along_spiral(turns: float, power: float, points: int) -> tuple[Tensor, Tensor]:
    """Fractions of the angle of points of a spiral, and its length up to there: float64 ``(n,)``.

    Lengths are in cycles per pixel, of at least `points` points.
    """
    if turns <= 0 or power <= 0:
        raise ValueError(f"expected turns and power above 0, got {turns} and {power}")
    count = max(points, math.ceil(FINE_TURN * turns))
    part = torch.linspace(0, 1, count, dtype=torch.float64) ** (1 / (1 + power))
    curve = torch.polar(part**power / 2, 2 * math.pi * turns * part)
    return part, torch.cat([part[:1], curve.diff().abs().cumsum(0)])


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"expected {name} of 1 or more, got {number}")
