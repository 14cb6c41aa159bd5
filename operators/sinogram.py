"""Checks of a sinogram before reconstruction: unit, truncation, size and centre of rotation."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.ndimage import map_coordinates, minimum_filter1d, uniform_filter1d
from scipy.optimize import minimize_scalar

from operators.fan_beam import FanBeamCT
from operators.noise import sinogram_noise
from operators.ramp import angular_weights
from operators.redundancy import is_measured_twice, opposite_views

SMOOTH = 5  # number of neighbouring bins averaged to detect weak attenuation
# below 0.03 of the largest value, or 5 standard deviations of the averaged noise, a ray is air
FAINT, CLEAR = 0.03, 5.0
GROUPS = 8  # number of groups of neighbouring views that are averaged against noise
SURE = 1e-6  # significance level of a shift
UNEVEN_STEP = 0.01  # relative difference of a step between views that still counts as even
LEAST_SHIFT = 0.25  # bins; smaller shifts are not corrected
EDGE = 2  # number of bins at each end of the detector
VIEWS_CUT = 0.05  # fraction of views that may be truncated
STEADY = 0.05  # relative spread of the ends of the detector that still counts as constant
LARGEST_SHIFT = 1 / 4  # of the detector's bins, where a fan beam's is searched
LEAST_COMPARED = 100  # rays measured from both ends
COMPARED = 100  # views, and bins of each, that are compared with their other ends
BRIGHTER = 1.02  # factor above the ends that intensities hardly ever reach


class Shift(NamedTuple):
    """Offset of the projected centre of rotation from the middle of the detector.

    Attributes:
        bins: estimated offset in bins.
        error: its standard error in bins.
        is_clear: whether it is significant and large enough to need a correction.
    """

    bins: float
    error: float
    is_clear: bool


def is_seen(sinogram: NDArray) -> NDArray[np.bool_]:
    """Rays that the object attenuates clearly more than noise: bool ``(views, bins)``.

    Args:
        sinogram: ``(views, bins)`` line integrals.
    """
    average = _along_bins(sinogram, uniform_filter1d)
    return average > _least_signal(sinogram, SMOOTH)


def is_cut_off(sinogram: NDArray) -> bool:
    """Whether the object extends beyond the detector in more than a few views (truncation).

    Args:
        sinogram: ``(views, bins)`` line integrals.
    """
    ends = np.stack([sinogram[:, :EDGE].mean(1), sinogram[:, -EDGE:].mean(1)])  # (2, views)
    views = (ends > _least_signal(sinogram, EDGE)).any(0)
    return bool(views.sum() > max(1, VIEWS_CUT * len(views)))


def _least_signal(sinogram: NDArray, count: int) -> float:
    """Threshold above which the average of `count` neighbouring bins is more than air."""
    values = torch.from_numpy(np.ascontiguousarray(sinogram, np.float64))
    noise = float(sinogram_noise(values[None, None]))
    return max(FAINT * float(values.max()), CLEAR * noise / math.sqrt(count))


def needed_factor(sinogram: NDArray, reach: NDArray) -> float:
    """Factor by which an image has to be enlarged so that every attenuated ray crosses it.

    Args:
        sinogram: ``(views, bins)`` line integrals.
        reach: ``(views, bins)``, the `reach` of the image's operator.

    Returns:
        The factor, at most 1 if the image is large enough.
    """
    # an average above the threshold means that at least one of its rays meets the object
    return float((_along_bins(reach, minimum_filter1d) * is_seen(sinogram)).max())


def _along_bins(sinogram: NDArray, filter1d: Callable) -> NDArray[np.float64]:
    return filter1d(sinogram.astype(np.float64), SMOOTH, axis=1, mode="nearest")


def is_full_turn(angles_deg: ArrayLike) -> bool:
    """Whether views are evenly over 360 degrees; some, such as the first, may be there twice.

    Args:
        angles_deg: ``(views,)`` angles in degrees, in any order.
    """
    angles = np.unique(np.round(np.mod(np.asarray(angles_deg), 360.0), 3) % 360)
    steps = np.diff(angles, append=angles[0] + 360)
    return len(angles) > 1 and bool(np.abs(steps * len(angles) / 360 - 1).max() < UNEVEN_STEP)


def find_shift(sinogram: NDArray, angles_deg: ArrayLike, *, full_turn: bool) -> Shift | None:
    """Offset of the projected axis of rotation from the middle of the detector.

    The centre of gravity of a parallel view is the projected one of the object, x cos + y sin,
    plus the offset. In the mean over a full turn, of a parallel or fan beam, each line is seen
    from both ends, so that the mean is symmetric about the axis.

    Args:
        sinogram: ``(views, bins)`` line integrals of an object that no view truncates.
        angles_deg: ``(views,)`` angles in degrees.
        full_turn: whether the views cover a full turn evenly.

    Returns:
        The shift; None if there are too few views, or a view whose sum is not positive.

    Source: Helgason-Ludwig conditions of orders 0 and 1, F. Natterer, The Mathematics of
    Computerized Tomography (1986), theorem 4.2.
    """
    angles, bins = np.deg2rad(np.asarray(angles_deg)), sinogram.shape[1]
    waves = [np.cos(angles), np.sin(angles), np.ones_like(angles)]
    if full_turn:  # a fan beam adds second harmonics, as the distance to the source changes
        waves += [np.cos(2 * angles), np.sin(2 * angles)]
    basis = np.stack(waves, axis=1)  # (views, waves)
    freedom = len(angles) - np.linalg.matrix_rank(basis)
    totals = sinogram.sum(1, dtype=np.float64)  # (views,)
    if freedom < 2 or totals.min() <= 0:
        return None
    places = np.arange(bins) - (bins - 1) / 2
    gravity = (sinogram @ places) / totals  # (views,)
    fitted = np.linalg.lstsq(basis, gravity, rcond=None)[0]
    residual = gravity - basis @ fitted
    variance = residual @ residual / freedom * np.linalg.pinv(basis.T @ basis)[2, 2]
    shift = float(fitted[2])
    if full_turn:
        share = angular_weights(
            np.asarray(angles_deg), 360.0
        )  # less for views that are there twice
        shift = float(share @ (sinogram @ places) / (share @ totals))
    error = math.sqrt(max(variance, 0.0))
    limit = max(LEAST_SHIFT, stats.t.isf(SURE / 2, freedom) * error)
    return Shift(shift, error, abs(shift) > limit)


def find_fan_shift(sinogram: NDArray, operator_at: Callable[[float], FanBeamCT]) -> Shift | None:
    """Offset of the central ray of a fan beam from the middle of the detector, of any scan.

    Rays that are measured from both ends have equal line integrals at the right offset.

    Args:
        sinogram: ``(views, bins)`` line integrals of an object that no view truncates.
        operator_at: function that returns the geometry with an offset in bins.

    Returns:
        The shift; None if too few rays are measured from both ends, as where the angles are
        limited.
    """
    views, bins = sinogram.shape
    smooth = _along_bins(sinogram, uniform_filter1d)
    chosen = np.ix_(
        np.unique(np.linspace(0, views - 1, min(views, COMPARED)).round().astype(int)),
        np.unique(np.linspace(0, bins - 1, min(bins, COMPARED)).round().astype(int)),
    )

    here = smooth[chosen]

    def difference(shift: float) -> NDArray:
        """Difference of the chosen rays to their other ends; NaN where those are not measured."""
        return here - _other_ends(smooth, operator_at(shift), chosen)

    def size(shift: float) -> float:
        """Energy of the differences, relative to that of the compared values."""
        found = difference(shift)
        compared = np.isfinite(found)
        total = float((here[compared] ** 2).sum())
        return float((found[compared] ** 2).sum()) / total if total > 0 else math.inf

    reach = math.floor(bins * LARGEST_SHIFT)
    sizes = {shift: size(shift) for shift in range(-reach, reach + 1)}
    nearest = min(sizes, key=sizes.__getitem__)
    if not math.isfinite(sizes[nearest]):
        return None
    bounds = (nearest - 1, nearest + 1)
    shift = float(minimize_scalar(size, bounds=bounds, method="bounded").x)
    residual = difference(shift)
    slope = difference(shift + 0.5) - difference(shift - 0.5)
    compared = np.isfinite(residual) & np.isfinite(slope)
    residual, slope = residual[compared], slope[compared]
    if len(slope) < LEAST_COMPARED or not slope.any():
        return None
    # neighbouring bins are averaged, and both ends of a line may be among the chosen rays
    variance = 2 * SMOOTH * ((residual * slope) ** 2).sum() / (slope**2).sum() ** 2
    error = math.sqrt(variance)
    limit = max(LEAST_SHIFT, float(stats.norm.isf(SURE / 2)) * error)
    return Shift(shift, error, abs(shift) > limit)


def _other_ends(sinogram: NDArray, operator: FanBeamCT, chosen: tuple[NDArray, NDArray]) -> NDArray:
    """Line integrals of the lines of chosen rays, from their other ends; NaN: not measured."""
    rows, columns = chosen
    gamma = operator.ray_angles
    angles, first = np.unique(np.mod(operator.angles_deg, 360.0), return_index=True)
    ring = np.concatenate([[angles[-1] - 360], angles, [angles[0] + 360]])
    values = sinogram[first][[-1, *range(len(first)), 0]]
    wanted = np.mod(opposite_views(operator.angles_deg, gamma)[rows, columns], 360.0)
    view = np.interp(wanted, ring, np.arange(len(ring)))
    bins = sinogram.shape[1]
    mirrored = np.broadcast_to(bins - 1 + 2 * operator.centre_offset - columns, view.shape)
    other = map_coordinates(values, [view, mirrored], order=1)
    there = is_measured_twice(operator.angles_deg, gamma)[rows, columns]
    return np.where(there & (mirrored >= 0) & (mirrored <= bins - 1), other, np.nan)


def find_unit_fault(sinogram: NDArray) -> str:
    """Description of what a sinogram holds instead of line integrals, with the remedy, or "".

    Logarithms of the wrong sign are mostly negative. Intensities are largest where nothing
    attenuates, at both ends of the detector, and equal there in all views.

    Args:
        sinogram: ``(views, bins)``.
    """
    if sinogram.sum(dtype=np.float64) < 0:
        return "logarithms of the wrong sign, log(I / I0): most are below 0; change the sign"
    ends = np.stack([sinogram[:, :EDGE].mean(1), sinogram[:, -EDGE:].mean(1)])  # (2, views)
    blocks = [block.mean() for end in ends for block in np.array_split(end, min(4, ends.shape[1]))]
    level = float(np.mean(blocks))
    if level <= 0 or np.ptp(blocks) > STEADY * level:
        return ""
    groups = np.array_split(_along_bins(sinogram, uniform_filter1d), min(GROUPS, len(sinogram)))
    average = np.stack([group.mean(0) for group in groups])
    middle = average[:, average.shape[1] // 4 : -average.shape[1] // 4]
    if np.mean(average > BRIGHTER * level) > STEADY or middle.mean() > level / BRIGHTER:
        return ""
    return (
        f"intensities: at both ends of the detector {level:.4g}, where nothing weakens the rays, "
        f"and less between; take -log(I / I0), here with I0 = {level:.4g} (counts of 0: as 1)"
    )
