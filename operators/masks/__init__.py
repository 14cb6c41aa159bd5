"""Cartesian sampling masks, one file each: bool (H, W), True where k-space is measured.

The origin of k-space is at ``(H // 2, W // 2)``, as in `operators.fourier`; phase-encoding lines
are columns. A new mask is one file and one line in `MASKS`.
"""

import torch
from torch import Tensor

from operators.masks.equispaced1d import equispaced1d
from operators.masks.gaussian1d import gaussian1d
from operators.masks.gaussian2d import gaussian2d
from operators.masks.outer import outer
from operators.masks.poisson import poisson
from operators.masks.radial import radial, radial_golden
from operators.masks.random1d import random1d
from operators.masks.regular import regular
from operators.masks.uniform1d import uniform1d
from operators.masks.uniform2d import uniform2d

MASKS = {
    "gaussian1d": gaussian1d,
    "uniform1d": uniform1d,
    "random1d": random1d,
    "equispaced1d": equispaced1d,
    "regular": regular,
    "gaussian2d": gaussian2d,
    "uniform2d": uniform2d,
    "poisson": poisson,
    "radial": radial,
    "radial_golden": radial_golden,
    "outer": outer,
}

__all__ = ["MASKS", "effective_acceleration", "make_mask"]


def make_mask(
    name: str,
    shape: tuple[int, int],
    *,
    seed: int,
    acceleration: float | None = None,
    center_fraction: float | None = None,
    num_spokes: int | None = None,
    study: bool = False,
) -> Tensor:
    """Sampling mask by name. Equal arguments give equal masks; global random state is not used.

    Args:
        name: a key of `MASKS`.
        shape: (H, W), each even or odd.
        seed: seed of the draw; not used by regular, radial, radial_golden and outer.
        acceleration: positions (1-D masks: lines) divided by measured ones, the centre included;
            at least 1. With `study` it is nominal (see `effective_acceleration`). Required except
            for outer, and for the radial masks if `num_spokes` is given.
        center_fraction: part of each axis (1-D masks: of W) around the origin that is fully
            measured, or, for outer, left out. Required by outer and by the 1-D masks except
            regular.
        num_spokes: number of spokes, instead of `acceleration`; radial and radial_golden only.
        study: whether to draw as the original study's code does: with replacement, so that fewer
            positions are measured than requested. By default their number is exact.

    Returns:
        bool ``(H, W)`` on the CPU.

    Raises:
        ValueError: an unknown name, or an argument that this mask cannot have.
    """
    if name not in MASKS:
        raise ValueError(f"expected a mask among {', '.join(MASKS)}; got {name!r}")
    spokes = {} if num_spokes is None else {"num_spokes": num_spokes}
    if spokes and MASKS[name] not in (radial, radial_golden):
        raise ValueError(f"expected num_spokes for radial masks only, got {num_spokes} for {name}")
    return MASKS[name](
        shape,
        seed=seed,
        acceleration=acceleration,
        center_fraction=center_fraction,
        study=study,
        **spokes,
    )


def effective_acceleration(mask: Tensor) -> float:
    """Number of positions divided by measured ones.

    Args:
        mask: ``(H, W)`` or ``(B, 1, H, W)``, nonzero where measured.

    Raises:
        ValueError: nothing is measured.
    """
    mask = torch.as_tensor(mask) != 0
    measured = int(mask.sum())
    if measured == 0:
        raise ValueError("expected a mask with at least one measured position, got an empty one")
    return mask.numel() / measured
