"""Trajectories through k-space, in cycles per pixel."""

import math

import torch
from torch import Tensor

GOLDEN = math.pi * (math.sqrt(5) - 1) / 2  # 111.246 degrees (Winkelmann et al., IEEE TMI 2007)
KINDS = ("radial", "golden", "spiral")


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

    Args:
        interleaves: number of spirals, evenly turned.
        samples: positions on each.
        turns: turns of each.
        power: of the radius as a function of the angle: 1 for turns at equal distances, more for a
            centre that is covered more densely.

    Returns:
        float64 ``(interleaves, samples, 2)``: row and column in cycles per pixel.
    """
    _check(interleaves=interleaves, samples=samples)
    if turns <= 0 or power <= 0:
        raise ValueError(f"expected turns and power above 0, got {turns} and {power}")
    # positions at nearly equal distances along the curve: the angle grows with the root of time
    time = torch.linspace(0, 1, samples, dtype=torch.float64) ** (1 / (1 + power))
    first = 2 * math.pi / interleaves * torch.arange(interleaves, dtype=torch.float64)[:, None]
    angle = first + 2 * math.pi * turns * time
    radius = time**power / 2
    return torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=-1)


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"expected {name} of 1 or more, got {number}")
