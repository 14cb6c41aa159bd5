"""Hold-out: a part of a measurement is left out and predicted, a check without a true image."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from operators import Whitened
from operators.base import LinearOperator
from operators.batch import dot, expand
from operators.inverse_problem import InverseProblem

LEAST_LINES = 10  # with fewer lines, pieces of them are left out
PIECE = 4.0  # grid cells


class NothingLeftOutError(ValueError):
    """A measurement of which no part can be left out."""


class HoldOut(NamedTuple):
    """Inverse problem of a slice without a part of its measurement, and that part.

    Attributes:
        problem: inverse problem of the remaining measurement, a batch of one.
        operator: operator of the part that is left out, for images of `problem`.
        y: ``(1, *range_shape)`` the part that is left out, in the unit of `problem`.
        count: number of real numbers in it; a complex sample is two.
        what: kind of the part: "lines", "points", "positions" or "views".
    """

    problem: InverseProblem
    operator: LinearOperator
    y: Tensor
    count: int
    what: str

    def error(self, x: Tensor) -> float:
        """Prediction error: energy of y - A x divided by that of y.

        Args:
            x: ``(1, 1, H, W)`` reconstruction of the remaining measurement.
        """
        missed = self.operator.forward(x) - self.y
        return float(dot(missed, missed) / dot(self.y, self.y))

    def noise(self) -> float:
        """Expected `error` of the true image: energy of the noise divided by that of y.

        The noise of y is assumed to be that of the measurement of `problem`.
        """
        return float(self.count * self.problem.noise.square() / dot(self.y, self.y))

    def with_noise(self, sigma_y: float) -> "HoldOut":
        """A copy with white noise of a known level, see `InverseProblem.with_noise`.

        Args:
            sigma_y: standard deviation in the unit of the measurement.
        """
        operator, y = self.operator.without_weights(self.y)
        return self._replace(problem=self.problem.with_noise(sigma_y), operator=operator, y=y)

    def scale_noise(self, factor: float) -> "HoldOut":
        """A copy with `factor` times the noise level."""
        return self._replace(problem=self.problem.scale_noise(factor))

    def to(self, device: torch.device | str) -> "HoldOut":
        """A copy whose tensors are on `device`."""
        moved = self.problem.to(device), self.operator.to(device), self.y.to(device)
        return HoldOut(*moved, self.count, self.what)


def hold_out(
    problem: InverseProblem,
    operator: LinearOperator,
    measured: Tensor,
    count: int,
    what: str,
    *,
    noise: Tensor | None = None,
) -> HoldOut:
    """Hold-out of a measurement, in the unit of the inverse problem of the rest.

    Args:
        problem: inverse problem of the remaining measurement, a batch of one.
        operator: operator of the part that is left out.
        measured: ``(1, *range_shape)`` the part that is left out, in the unit of the measurement.
        count: number of real numbers in it.
        what: kind of the part: "lines", "points", "positions" or "views".
        noise: ``(1, *range_shape)`` standard deviation of each number of `measured`, in its unit,
            by which the error is weighted; None if it is that of `problem`.
    """
    scale = torch.where(problem.scale > 0, problem.scale, 1.0)
    y = measured / expand(scale, measured)
    if noise is not None and problem.noise > 0:
        weights = expand(problem.noise * scale, noise) / noise
        operator, y = Whitened(operator, weights), weights * y
    return HoldOut(problem, operator, y, count, what)


def choose_positions(
    mask: Tensor,
    part: float,
    centre: tuple[int, int],
    width: int,
    generator: torch.Generator,
) -> tuple[Tensor, str]:
    """Measured positions of k-space to leave out, none of them near the centre.

    If whole columns (or else rows) were measured, whole columns (rows) are left out: neighbours in
    a line are alike, and scans measure whole lines.

    Args:
        mask: bool ``(H, W)``, True where measured.
        part: fraction of the measured lines or points to leave out; at least one of them is.
        centre: row and column of the peak of k-space.
        width: side of the square around it that is kept, for coil maps, phase and scale.
        generator: a CPU generator.

    Returns:
        The positions, bool ``(H, W)``, and "lines" or "points".

    Raises:
        NothingLeftOutError: no measured position, or line, lies outside the centre.
    """
    rows, columns = (torch.arange(n) - c for n, c in zip(mask.shape, centre, strict=True))
    near = rows.abs()[:, None] < width / 2, columns.abs()[None] < width / 2
    for axis, what in ((0, "lines"), (1, "lines"), (None, "points")):
        if axis is None:
            there, far = mask, ~(near[0] & near[1])
        else:
            there = mask.any(axis, keepdim=True)
            if not (mask == there).all():
                continue
            far = ~near[1 - axis]
        candidates = (there & far).nonzero()
        if not len(candidates):
            break
        count = min(max(1, round(part * int(there.sum()))), len(candidates))
        chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
        held = torch.zeros_like(there)
        held[tuple(chosen.T)] = True
        return held & mask, what
    raise NothingLeftOutError(
        f"expected measured k-space outside its central {width} x {width} to leave some out, got "
        "none: nothing can be validated or chosen by prediction"
    )


def choose_along(
    cells: Tensor, part: float, width: int, generator: torch.Generator
) -> tuple[Tensor, str]:
    """Positions of a trajectory to leave out, none of them near the centre of k-space.

    Whole lines beyond the centre are left out if there are many of them, otherwise pieces that are
    `PIECE` grid cells long, as neighbours along a line are alike.

    Args:
        cells: ``(L, N, 2)`` trajectory in grid cells.
        part: fraction of the lines or positions to leave out; at least one line or piece is.
        width: diameter of the disc that is kept, for coil maps, phase and scale.
        generator: a CPU generator.

    Returns:
        The positions, bool ``(L, N)``, and "lines" or "positions".

    Raises:
        NothingLeftOutError: no position lies outside the centre.
    """
    far = cells.norm(dim=-1) >= width / 2  # (L, N)
    lines, count = far.shape
    if lines >= LEAST_LINES:
        length, what = count, "lines"
    else:
        step = float(cells.diff(dim=1).norm(dim=-1).median()) if count > 1 else PIECE
        length, what = min(count, max(1, math.ceil(PIECE / max(step, 1e-6)))), "positions"
    piece = torch.arange(count) // length
    numbers = piece + (int(piece[-1]) + 1) * torch.arange(lines)[:, None]  # (L, N)
    candidates = numbers[far].unique()
    if not len(candidates):
        raise NothingLeftOutError(
            f"expected measured k-space outside its central {width} cells to leave some out, got "
            "none: nothing can be validated or chosen by prediction"
        )
    most = min(max(1, round(part * int(numbers.max() + 1))), max(1, len(candidates) - 1))
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:most]]
    return far & torch.isin(numbers, chosen), what


def choose_views(
    count: int, part: float, generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """Views to leave out, at least one, and views to keep.

    Args:
        count: number of views.
        part: fraction to leave out.
        generator: a CPU generator.

    Returns:
        Numbers of the views to leave out, and of those to keep, both sorted.

    Raises:
        ValueError: fewer than two views.
    """
    if count < 2:
        raise ValueError(f"expected two views or more to leave some out, got {count}")
    held = min(max(1, round(part * count)), count - 1)
    order = torch.randperm(count, generator=generator).tolist()
    return sorted(order[:held]), sorted(order[held:])
