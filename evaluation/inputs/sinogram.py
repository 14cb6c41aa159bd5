"""Measured sinograms of parallel and fan beams."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from datasets.measured import Measured
from datasets.sample import DataError
from datasets.slices import choose_slices
from evaluation.inputs.base import Input, check_fields, choose_shape, load_array
from operators import FanBeamCT, ParallelBeamCT
from operators.ct import few_view_angles
from operators.noise import ORDER
from operators.problem import Problem, ct_problem

UNEVEN = 0.1  # relative spread of the views' sums from which parallel-beam data look wrong


@dataclass
class SinogramInput(Input):
    """Slices of measured line integrals; lengths in pixels inside, in the user's unit outside."""

    measured: Measured | None = None
    operator: ParallelBeamCT | FanBeamCT | None = None
    pixel_size: float = 1.0

    def problem(self, items: Sequence[int]) -> Problem:
        """All slices share one geometry."""
        views = [torch.from_numpy(self.measured.read(self.numbers[item])) for item in items]
        return ct_problem(self.operator, torch.stack(views)[:, None])

    def finish(self, images: Tensor) -> Tensor:
        """From attenuation a pixel to attenuation a unit of length."""
        return images / self.pixel_size


def open_sinogram(measured: Measured, config: ConfigDict) -> SinogramInput:
    """The chosen slices, checked, and their geometry; errors as `open_input`."""
    check_fields(config, "a sinogram")
    numbers = choose_slices(config.data.slices, measured.shape[0], measured.path)
    operator, size = _ct_operator(measured, config)
    opened = SinogramInput(
        kind="a sinogram",
        numbers=numbers,
        keys=[f"{measured.path.name}:{number}" for number in numbers],
        unit="attenuation per unit of operator.pixel_size",
        direct="FBP",
        sources=(measured.path,),
        others=(Path(config.data.angles),) if config.data.angles else (),
        measured=measured,
        operator=operator,
        pixel_size=config.operator.pixel_size,
    )
    angles = operator.angles_deg
    if len(angles) > 10 and np.abs(angles).max() <= 2 * np.pi:
        opened.notes.append(
            f"angles are {angles.min():g} to {angles.max():g} degrees: are they radians?"
        )
    empty = 0
    for number in numbers:
        sums = measured.read(number).sum(1)  # (views,)
        empty += not measured.read(number).any()
        spread = sums.std() / abs(sums.mean()) if sums.mean() else 0.0
        if config.operator.geometry == "parallel" and spread > UNEVEN and not opened.notes:
            opened.notes.append(
                f"slice {number}: the views' sums spread by {100 * spread:.0f} %, where those of "
                "a parallel beam are equal: is the array (views, bins)? Is the object inside?"
            )
    if empty == len(numbers):
        raise DataError(f"{measured.path}: the sinogram is 0 in every chosen slice")
    opened.facts |= {
        "geometry": config.operator.geometry,
        "views": len(angles),
        "bins": operator.num_bins,
        "angles_deg": [float(angles.min()), float(angles.max())],
        "image_shape": list(size),
    }
    return opened


def _ct_operator(
    measured: Measured, config: ConfigDict
) -> tuple[ParallelBeamCT | FanBeamCT, tuple[int, int]]:
    o = config.operator
    _, views, bins = measured.shape
    if bins <= ORDER:
        raise DataError(
            f"{measured.path}: expected at least {ORDER + 1} bins, got {bins}; sinograms are "
            "(views, bins)"
        )
    for name in ("pixel_size", "bin_spacing"):
        if not o[name] > 0:
            raise ValueError(f"expected a positive operator.{name}, got {o[name]}")
    angles = measured.extras.get("angles")
    if config.data.angles:
        angles = load_array(config.data.angles, "data.angles")
    if angles is None:
        angles = few_view_angles(views, o.end_angle or (360.0 if o.geometry == "fan" else 180.0))
    angles = np.asarray(angles, dtype=np.float64).reshape(-1)
    if len(angles) != views:
        raise DataError(
            f"{measured.path}: expected an angle for each of {views} views, got {len(angles)}; "
            "sinograms are (views, bins)"
        )
    spacing = o.bin_spacing / o.pixel_size
    if o.geometry == "parallel":
        size = choose_shape(config.data.image_size, None, (round(bins * spacing),) * 2)
        return ParallelBeamCT(size, angles, num_bins=bins, bin_spacing=spacing), size
    if o.geometry != "fan":
        raise ValueError(f"expected operator.geometry parallel or fan, got {o.geometry!r}")
    if o.source_distance is None or o.detector_distance is None:
        raise ValueError("expected operator.source_distance and detector_distance for a fan beam")
    source, detector = o.source_distance / o.pixel_size, o.detector_distance / o.pixel_size
    half_angle = math.atan(bins * spacing / 2 / (source + detector))
    seen = round(2 * source * math.sin(half_angle))  # diameter of what every view sees
    size = choose_shape(config.data.image_size, None, (seen, seen))
    operator = FanBeamCT(
        size,
        angles,
        source_distance=source,
        detector_distance=detector,
        num_bins=bins,
        bin_spacing=spacing,
    )
    return operator, size
