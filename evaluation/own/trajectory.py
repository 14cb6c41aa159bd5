"""Measured k-space along a trajectory, of one or of several coils."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ml_collections import ConfigDict
from torch import Tensor

from datasets.coil_maps import CALIB_WIDTH, LEAST_WIDTH
from datasets.measured import Measured
from datasets.sample import DataError
from datasets.slices import choose_slices
from evaluation.own.base import Input, check_fields, choose_shape, read_maps
from evaluation.own.holdout import HoldOut, choose_along, hold_out
from evaluation.own.kspace import check_maps
from evaluation.run.coil_maps import estimate_maps
from operators import NonCartesianMRI
from operators.batch import derive_seed
from operators.inverse_problem import InverseProblem, trajectory_problem

KIND = "k-space along a trajectory"
ROUND = 10  # suggested numbers of pixels are multiples of it


@dataclass
class TrajectoryInput(Input):
    """Slices of k-space that was measured along one trajectory.

    Attributes:
        measured: the file.
        operator: of the trajectory; its maps are of no meaning.
        sens_maps: coil maps that are given, ``(S, C, H, W)`` or ``(1, C, H, W)``; None to estimate
            them.
    """

    measured: Measured | None = None
    operator: NonCartesianMRI | None = None
    sens_maps: Tensor | None = None

    @property
    def doubtful_noise(self) -> bool:
        """True: maps from a gridded centre, and off-resonance, explain less than on the grid."""
        return True

    def problem(self, items: Sequence[int]) -> InverseProblem:
        """Inverse problem of a batch of slices.

        Args:
            items: numbers of the slices among the chosen ones, from 0.
        """
        kspace = torch.stack([self._read(item) for item in items])  # (B, C, L, N)
        maps = torch.stack([self._maps(kspace[b], item) for b, item in enumerate(items)])
        return trajectory_problem(self.operator, kspace, maps, estimated_maps=self._estimates_maps)

    def holdout(self, item: int, part: float, seed: int) -> HoldOut:
        """K-space without some lines or pieces of them outside its centre, to be predicted.

        Args:
            item: number of the slice among the chosen ones, from 0.
            part: fraction of the lines, or of the positions of a few long lines, that is left out.
            seed: seed of the choice, together with the slice's key.

        Raises:
            ValueError: nothing was measured outside the centre.
        """
        kspace = self._read(item)  # (C, L, N)
        generator = torch.Generator().manual_seed(derive_seed(seed, "holdout", self.keys[item]))
        shape = torch.tensor(self.operator.domain_shape[1:])
        cells = self.operator.trajectory * shape
        held, what = choose_along(cells, part, CALIB_WIDTH, generator)  # (L, N)
        noise = self.operator.noise(kspace[None])
        rest, left_out = (self._of_positions(where) for where in (~held, held))
        kept = kspace[:, ~held][None, :, None]  # (1, C, 1, M)
        maps = self._given_maps(item)
        if maps is None:
            maps = self._estimate(rest.calibration(kept)[0], item)
        problem = trajectory_problem(
            rest, kept, maps[None], noise=noise, estimated_maps=self._estimates_maps
        )
        operator = left_out.with_maps(problem.operator.sens_maps)
        y = kspace[:, held][None, :, None]
        return hold_out(problem, operator, y, 2 * y.numel(), what)

    def first_operator(self) -> NonCartesianMRI:
        """Operator of the trajectory, without coil maps."""
        return self.operator

    @property
    def _estimates_maps(self) -> bool:
        return self.sens_maps is None and self.facts["coils"] > 1

    def _read(self, item: int) -> Tensor:
        return torch.from_numpy(self.measured.read(self.numbers[item]))  # (C, L, N)

    def _of_positions(self, where: Tensor) -> NonCartesianMRI:
        """Operator of some positions ``(L, N)`` of the trajectory, as one line."""
        return NonCartesianMRI(self.operator.trajectory[where][None], self.operator.sens_maps)

    def _given_maps(self, item: int) -> Tensor | None:
        """Coil maps ``(C, H, W)`` that need no estimate."""
        if self.sens_maps is not None:
            return self.sens_maps[self.numbers[item] if len(self.sens_maps) > 1 else 0]
        if self.facts["coils"] == 1:
            return torch.ones(1, *self.operator.domain_shape[1:], dtype=torch.complex64)
        return None

    def _maps(self, kspace: Tensor, item: int) -> Tensor:
        given = self._given_maps(item)
        if given is not None:
            return given
        return self._estimate(self.operator.calibration(kspace[None])[0], item)

    def _estimate(self, centre: Tensor, item: int) -> Tensor:
        """ESPIRiT maps ``(C, H, W)`` from the gridded centre of k-space."""
        try:
            return estimate_maps(centre)
        except ValueError as error:
            raise DataError(f"{self.keys[item]}: {error}; give maps with data.sens_maps") from None


def open_trajectory(measured: Measured, config: ConfigDict) -> TrajectoryInput:
    """Input of k-space along a trajectory: the chosen slices, checked.

    Args:
        measured: the file, with a trajectory.
        config: config with the fields of configs/reconstruct.py.

    Raises:
        DataError, ValueError: unfit data, an unknown size of the image, or a field that k-space
            along a trajectory does not have.
    """
    check_fields(config, KIND)
    slices, coils, lines, count = measured.shape
    numbers = choose_slices(config.data.slices, slices, measured.path)
    trajectory = torch.from_numpy(measured.trajectory)
    maps = measured.extras.get("sens_maps")
    if config.data.sens_maps:
        maps = read_maps(config.data.sens_maps)
    shape = _image_shape(config.data.image_size, measured, maps)
    opened = TrajectoryInput(
        kind=KIND,
        numbers=numbers,
        keys=[f"{measured.path.name}:{number}" for number in numbers],
        unit="of the k-space (centred orthonormal inverse DFT)",
        direct="gridded",
        sources=(measured.path,),
        others=tuple(Path(p) for p in (config.data.trajectory, config.data.sens_maps) if p),
        notes=list(measured.notes),
        voxel_size=measured.voxel_size,
        is_complex=True,
        measured=measured,
        operator=NonCartesianMRI(trajectory, torch.ones(1, *shape, dtype=torch.complex64)),
    )
    if maps is not None:
        opened.sens_maps = check_maps(maps, (slices, coils, *shape))
        if measured.whitening is not None:  # given maps are of the measured coils
            mix = torch.from_numpy(measured.whitening)
            opened.sens_maps = torch.einsum("dc,schw->sdhw", mix, opened.sens_maps)
    width = opened.operator.calibration_width
    if maps is None and coils > 1 and width < LEAST_WIDTH:
        raise DataError(
            f"{measured.path}: expected positions in the central {LEAST_WIDTH} x {LEAST_WIDTH} "
            f"cells of k-space, for coil maps, got them in {width} x {width}; give maps with "
            "data.sens_maps"
        )
    opened.facts |= {
        "coils": coils,
        "lines": lines,
        "positions": count,
        "image_shape": list(shape),
        "effective_acceleration": round(opened.operator.acceleration, 3),
        "calibration_width": width,
        "coil_maps": "given" if maps is not None else "none" if coils == 1 else "ESPIRiT, gridded",
    }
    _look_at(opened)
    return opened


def _image_shape(text: str, measured: Measured, maps) -> tuple[int, int]:
    """Rows and columns of the image: asked for, of the file, or of the maps."""
    of_maps = None if maps is None else tuple(maps.shape[-2:])
    known = of_maps or measured.image_shape
    if not text and known is None:
        steps = torch.from_numpy(measured.trajectory).diff(dim=1).norm(dim=-1)
        step, hint = float(steps.median()), ""
        if step > 0:
            size = math.ceil(1 / step / ROUND) * ROUND
            hint = f"; steps along a line of {step:.3g} allow one of up to {size} pixels"
        raise ValueError(
            f"{measured.path}: expected data.image_size, rows and columns in pixels, as positions "
            f"in cycles per pixel do not tell the field of view{hint}"
        )
    return choose_shape(text, None, known) if text else known


def _look_at(opened: TrajectoryInput) -> None:
    """Check that something was measured, and that the peak lies at the origin."""
    radius = opened.operator.trajectory.norm(dim=-1)  # (L, N)
    near = radius <= radius.flatten().kthvalue(max(1, radius.numel() // 50)).values
    far = radius >= radius.median()
    empty, flat = 0, 0
    for item in range(len(opened.numbers)):
        energy = opened._read(item).abs().square().sum(0)  # (L, N)
        if not energy.any():
            empty += 1
        elif energy[near].mean() < energy[far].mean():
            flat += 1
    if empty == len(opened.numbers):
        raise DataError(f"{opened.measured.path}: k-space is 0 in every chosen slice")
    if flat == len(opened.numbers):
        opened.notes.append(
            "k-space is not larger around the origin of the trajectory than far from it: are lines "
            "and positions in the trajectory's order?"
        )
