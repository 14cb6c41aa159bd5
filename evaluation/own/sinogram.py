"""Measured sinograms of parallel and fan beams."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from configs.reconstruct import get_config
from datasets.measured import Measured
from datasets.sample import DataError
from datasets.slices import choose_slices
from evaluation.own.base import (
    Input,
    centre,
    check_fields,
    check_without_effect,
    choose_shape,
    load_array,
)
from evaluation.own.holdout import HoldOut, choose_views, hold_out
from operators import FanBeamCT, ParallelBeamCT
from operators.batch import derive_seed
from operators.ct import few_view_angles
from operators.fan_beam import check_detector
from operators.inverse_problem import InverseProblem, scaled_problem
from operators.noise import ORDER
from operators.sinogram import (
    find_fan_shift,
    find_shift,
    find_unit_fault,
    is_cut_off,
    is_full_turn,
    needed_factor,
)

UNEVEN = 0.1  # relative spread of the views' sums from which parallel-beam data look wrong
LARGEST_RADIANS = 2 * math.pi
BEYOND = 1.5  # sides of the grid over the field of view, where the object is larger than that


@dataclass
class SinogramInput(Input):
    """Slices of measured line integrals; lengths are in pixels inside, in the user's unit outside.

    Attributes:
        measured: the file.
        operator: operator of images that are large enough for everything that the rays meet.
        image_shape: rows and columns of the result, which is the centre of those images.
        pixel_size: pixel size in the user's unit.
    """

    measured: Measured | None = None
    operator: ParallelBeamCT | FanBeamCT | None = None
    image_shape: tuple[int, int] = (0, 0)
    pixel_size: float = 1.0

    def problem(self, items: Sequence[int]) -> InverseProblem:
        """Inverse problem of a batch of slices, which share one geometry.

        Args:
            items: numbers of the slices among the chosen ones, from 0.
        """
        views = [torch.from_numpy(self.measured.read(self.numbers[item])) for item in items]
        return scaled_problem(self.operator, torch.stack(views)[:, None])

    def holdout(self, item: int, part: float, seed: int) -> HoldOut:
        """Sinogram without some views, which are to be predicted.

        Whole views are left out, as neighbouring bins of a view are nearly equal.

        Args:
            item: number of the slice among the chosen ones, from 0.
            part: fraction of the views that is left out.
            seed: seed of the choice, together with the slice's key.

        Raises:
            ValueError: fewer than two views.
        """
        sinogram = torch.from_numpy(self.measured.read(self.numbers[item]))[None, None]
        generator = torch.Generator().manual_seed(derive_seed(seed, "holdout", self.keys[item]))
        held, kept = choose_views(sinogram.shape[2], part, generator)
        noise = self.operator.noise(sinogram)  # (1, 1, V, R)
        rest = self.operator.of_views(kept)
        problem = scaled_problem(rest, sinogram[:, :, kept], noise=noise[:, :, kept])
        left_out = sinogram[:, :, held]
        operator = self.operator.of_views(held)
        return hold_out(
            problem, operator, left_out, left_out.numel(), "views", noise=noise[:, :, held]
        )

    def first_operator(self) -> ParallelBeamCT | FanBeamCT:
        """Operator of all slices."""
        return self.operator

    def finish(self, images: Tensor) -> Tensor:
        """Central part of reconstructed images, in attenuation per unit of length.

        Args:
            images: ``(B, 1, H, W)`` in attenuation per pixel.
        """
        return centre(images, self.image_shape) / self.pixel_size


def open_sinogram(measured: Measured, config: ConfigDict) -> SinogramInput:
    """Input of measured sinograms: the chosen slices and their geometry, checked.

    Args:
        measured: the file.
        config: config with the fields of configs/reconstruct.py.

    Raises:
        DataError, ValueError: unfit data, or a field that sinograms do not have.
    """
    check_fields(config, "a sinogram")
    config = _with_geometry(config, measured)
    if config.operator.geometry == "parallel":
        idle = [f"operator.{name}" for name in ("source_distance", "detector_distance", "detector")]
        reason = "the beam is parallel; set operator.geometry=fan"
        check_without_effect(config, idle, reason)
    numbers = choose_slices(config.data.slices, measured.shape[0], measured.path)
    geometry = _Geometry(measured, config)
    opened = SinogramInput(
        kind="a sinogram",
        numbers=numbers,
        keys=[f"{measured.path.name}:{number}" for number in numbers],
        unit="attenuation per unit of operator.pixel_size",
        direct="FBP",
        sources=(measured.path,),
        others=(Path(config.data.angles),) if config.data.angles else (),
        measured=measured,
        image_shape=geometry.asked,
        pixel_size=config.operator.pixel_size,
    )
    total, opened.notes = _look_at(opened, config, geometry.angles)
    shift = config.operator.centre_offset
    shift = _find_shift(opened, geometry, total) if shift is None else shift
    opened.operator = _large_enough(opened, geometry, total, shift)
    opened.notes = [*measured.notes, *opened.notes]
    opened.facts |= {
        "geometry": config.operator.geometry,
        "views": len(geometry.angles),
        "bins": opened.operator.num_bins,
        "angles_deg": [float(geometry.angles.min()), float(geometry.angles.max())],
        "centre_offset": round(shift, 4),
        "image_shape": list(geometry.asked),
        "grid": list(opened.operator.size),
    }
    return opened


def _with_geometry(config: ConfigDict, measured: Measured) -> ConfigDict:
    """A copy of the config in which what it leaves open of the geometry is that of the file."""
    filled, neutral = config.copy_and_resolve_references(), get_config().operator
    other = config.operator.geometry not in (neutral.geometry, measured.geometry.get("geometry"))
    for name, value in ({} if other else measured.geometry).items():
        if config.operator[name] == neutral[name]:
            filled.operator[name] = value
    return filled


def _look_at(
    opened: SinogramInput, config: ConfigDict, angles: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Sum of the chosen slices ``(views, bins)``, and notes; a DataError if all are 0."""
    notes = []
    if len(angles) > 1 and np.abs(angles).max() <= LARGEST_RADIANS:
        notes.append(f"angles are {angles.min():g} to {angles.max():g} degrees: are they radians?")
    measured, empty = opened.measured, 0
    total = np.zeros(measured.shape[1:])
    for number in opened.numbers:
        sinogram = measured.read(number)
        total += sinogram
        sums = sinogram.sum(1)  # (views,)
        empty += not sinogram.any()
        spread = sums.std() / abs(sums.mean()) if sums.mean() else 0.0
        if config.operator.geometry == "parallel" and spread > UNEVEN and not notes:
            notes.append(
                f"slice {number}: the views' sums spread by {100 * spread:.0f} %, where those of "
                "a parallel beam are equal: is the array (views, bins)? Is the object inside?"
            )
    if empty == len(opened.numbers):
        raise DataError(f"{measured.path}: the sinogram is 0 in every chosen slice")
    fault = find_unit_fault(total / len(opened.numbers))
    if fault:
        raise DataError(f"{measured.path}: expected line integrals, -log(I / I0), got {fault}")
    return total, notes


def _find_shift(opened: SinogramInput, geometry: "_Geometry", total: np.ndarray) -> float:
    """Bins from the detector's middle to the centre of rotation, where it is clear; else 0."""
    if opened.notes or is_cut_off(total):
        return 0.0
    if geometry.name == "fan" and not geometry.is_full_turn:
        found = find_fan_shift(total, lambda shift: geometry.operator(geometry.asked, shift))
    else:
        found = find_shift(total, geometry.angles, full_turn=geometry.is_full_turn)
    if found is None or not found.is_clear:
        return 0.0
    opened.notes.append(
        f"centre of rotation: {found.bins:+.2f} bins from the detector's middle (+-"
        f"{found.error:.2f}), found in the sinogram and used; operator.centre_offset says another"
    )
    return found.bins


def _large_enough(
    opened: SinogramInput, geometry: "_Geometry", total: np.ndarray, shift: float
) -> ParallelBeamCT | FanBeamCT:
    """Operator of images that contain everything that the rays meet, not only the requested part.

    Objects outside the images would appear as artefacts inside. The sides exceed the requested ones
    by even numbers, so that these are the centre to the pixel.
    """
    asked = geometry.operator(geometry.asked, shift)
    factor = needed_factor(total, asked.reach())
    if is_cut_off(total):
        factor = max(factor, BEYOND * max(geometry.seen) / max(geometry.asked))
    grid = tuple(side + 2 * math.ceil((factor - 1) * side / 2) for side in geometry.asked)
    if factor <= 1 + 1 / min(geometry.asked):
        return asked
    opened.notes.append(
        f"the rays meet more than {geometry.asked[0]} x {geometry.asked[1]} pixels: reconstructed "
        f"on {grid[0]} x {grid[1]}, of which the result is the centre"
    )
    return geometry.operator(grid, shift)


class _Geometry:
    """Geometry described by file and config, checked; lengths are in pixels.

    Attributes:
        name: "parallel" or "fan".
        angles: ``(views,)`` in degrees.
        seen: rows and columns that every view of the detector covers.
        asked: rows and columns of the result.
    """

    def __init__(self, measured: Measured, config: ConfigDict):
        o = config.operator
        bins = measured.shape[-1]
        if bins <= ORDER:
            parts = "; of k-space real and imaginary part? Join them: real + 1j * imaginary"
            raise DataError(
                f"{measured.path}: expected at least {ORDER + 1} bins, got {bins}; sinograms are "
                "(views, bins)" + (parts if bins == 2 else "")
            )
        for name in ("pixel_size", "bin_spacing"):
            if not o[name] > 0:
                raise ValueError(f"expected a positive operator.{name}, got {o[name]}")
        if o.geometry not in ("parallel", "fan"):
            raise ValueError(f"expected operator.geometry parallel or fan, got {o.geometry!r}")
        self.name, self.bins, self.angles = o.geometry, bins, _angles(measured, config)
        self.spacing = o.bin_spacing / o.pixel_size
        side = round(bins * self.spacing)
        if o.geometry == "fan":
            if o.source_distance is None or o.detector_distance is None:
                raise ValueError(
                    "expected operator.source_distance and detector_distance for a fan beam"
                )
            self.source = o.source_distance / o.pixel_size
            self.distance = o.detector_distance / o.pixel_size
            self.kind = check_detector(o.detector or "flat")
            half_angle = bins * self.spacing / 2 / (self.source + self.distance)
            half_angle = half_angle if self.kind == "curved" else math.atan(half_angle)
            side = round(2 * self.source * math.sin(half_angle))  # of the circle all views see
        self.seen = (side, side)
        self.asked = choose_shape(config.data.image_size, None, self.seen)

    @property
    def is_full_turn(self) -> bool:
        """Whether the views cover 360 degrees evenly; some may be repeated."""
        return is_full_turn(self.angles)

    def operator(self, size: tuple[int, int], shift: float) -> ParallelBeamCT | FanBeamCT:
        """Operator of this geometry.

        Args:
            size: rows and columns of the images.
            shift: bins from the middle of the detector to the centre of rotation.
        """
        if self.name == "parallel":
            return ParallelBeamCT(
                size,
                self.angles,
                num_bins=self.bins,
                bin_spacing=self.spacing,
                centre_offset=shift,
            )
        return FanBeamCT(
            size,
            self.angles,
            source_distance=self.source,
            detector_distance=self.distance,
            num_bins=self.bins,
            bin_spacing=self.spacing,
            centre_offset=shift,
            detector=self.kind,
        )


def _angles(measured: Measured, config: ConfigDict) -> np.ndarray:
    """Angles of the views in degrees, ``(views,)``: given, or equally spaced."""
    views = measured.shape[1]
    angles = measured.extras.get("angles")
    if config.data.angles:
        angles = load_array(config.data.angles, "data.angles")
    if angles is not None:
        reason = "the angle of each view is given; set it without angles"
        check_without_effect(config, ["operator.end_angle"], reason)
    else:
        whole = 360.0 if config.operator.geometry == "fan" else 180.0
        angles = few_view_angles(views, config.operator.end_angle or whole)
    angles = np.asarray(angles, dtype=np.float64).reshape(-1)
    if len(angles) != views:
        raise DataError(
            f"{measured.path}: expected an angle for each of {views} views, got {len(angles)}; "
            "sinograms are (views, bins)"
        )
    return angles
