"""What a sinogram says about its geometry and unit, before anything is reconstructed."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from operators.noise import sinogram_noise

SMOOTH = 5  # neighbouring bins that are averaged to see what is weak
FAINT, CLEAR = 0.03, 5.0  # of the largest value, of the average's noise: less is taken for air
GROUPS = 8  # of neighbouring views that are averaged, too, where noise of single ones is large
SURE = 1e-6  # probability of a shift that is as clear, of a centred object
LEAST_SHIFT = 0.25  # bins; less is left as it is
EDGE = 2  # bins at each end
VIEWS_CUT = 0.05  # of the views
STEADY = 0.05  # relative differences of what the ends see, from view to view and end to end
BRIGHTER = 1.02  # than the ends: hardly a ray of intensities is


class Shift(NamedTuple):
    """Of the centre of rotation from the middle of the detector, in bins.

    Attributes:
        bins: the estimate.
        error: its standard error.
        is_clear: whether it is too large, and too sure, to be left out.
    """

    bins: float
    error: float
    is_clear: bool


def is_seen(sinogram: NDArray) -> NDArray[np.bool_]:
    """Where something attenuates, ``(views, bins)``: more than faintly, and more than noise."""
    average = _along_bins(sinogram, uniform_filter1d)
    return average > _least_signal(sinogram, SMOOTH)


def is_cut_off(sinogram: NDArray) -> bool:
    """Whether the object goes on beyond an end of the detector, in more than single views."""
    ends = np.stack([sinogram[:, :EDGE].mean(1), sinogram[:, -EDGE:].mean(1)])  # (2, views)
    views = (ends > _least_signal(sinogram, EDGE)).any(0)
    return bool(views.sum() > max(1, VIEWS_CUT * len(views)))


def _least_signal(sinogram: NDArray, count: int) -> float:
    """What the average of `count` neighbouring bins has to be above, to be more than air."""
    values = torch.from_numpy(np.ascontiguousarray(sinogram, np.float64))
    noise = float(sinogram_noise(values[None, None]))
    return max(FAINT * float(values.max()), CLEAR * noise / math.sqrt(count))


def needed_factor(sinogram: NDArray, reach: NDArray) -> float:
    """How much larger an image has to be, for every ray that something attenuates to meet it.

    Args:
        sinogram: ``(views, bins)``.
        reach: of the rays, from the `reach` of the image's operator.

    Returns:
        1 or less where it is large enough.
    """
    # of the rays in an average that shows something, one at least has met it
    return float((_along_bins(reach, minimum_filter1d) * is_seen(sinogram)).max())


def _along_bins(sinogram: NDArray, filter1d: Callable) -> NDArray[np.float64]:
    return filter1d(sinogram.astype(np.float64), SMOOTH, axis=1, mode="nearest")


def find_shift(sinogram: NDArray, angles_deg: ArrayLike, *, full_turn: bool) -> Shift | None:
    """How far the axis of rotation projects from the middle of the detector.

    The centre of gravity of a parallel view is that of the object, projected: x cos + y sin, and
    the shift. In the mean over a full turn, of a fan beam, too, each line is seen from both ends,
    so that the mean is symmetric about the axis.

    Args:
        sinogram: ``(views, bins)`` line integrals of an object that no view cuts off.
        angles_deg: of the views, degrees.
        full_turn: whether they are a full turn, evenly.

    Returns:
        None where it cannot be told: too few views, or nothing positive to see.

    Source: Helgason-Ludwig conditions of orders 0 and 1, F. Natterer, The Mathematics of
    Computerized Tomography (1986), theorem 4.2.
    """
    angles, bins = np.deg2rad(np.asarray(angles_deg)), sinogram.shape[1]
    waves = [np.cos(angles), np.sin(angles), np.ones_like(angles)]
    if full_turn:  # of a fan beam: the distance to the source changes
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
    shift = float((sinogram @ places).sum() / totals.sum()) if full_turn else float(fitted[2])
    error = math.sqrt(max(variance, 0.0))
    limit = max(LEAST_SHIFT, stats.t.isf(SURE / 2, freedom) * error)
    return Shift(shift, error, abs(shift) > limit)


def find_unit_fault(sinogram: NDArray) -> str:
    """What the numbers are instead of line integrals; "" if nothing speaks against them.

    Logarithms of the wrong sign are below 0; of intensities the largest are those that nothing has
    weakened, at both ends of the detector and alike in all views.
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
