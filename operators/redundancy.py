"""Rays of a fan beam that are measured twice, and weights with which each line counts once.

The ray at the angle gamma off the central one in the view at beta is the line that the view at
beta + 180 degrees - 2 gamma measures at -gamma, from its other end.
"""

import numpy as np
from numpy.typing import NDArray

from operators.ramp import missing_arcs


def redundancy_weights(
    angles_deg: NDArray[np.float64], gamma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights of the rays of a fan beam that add to 1 for the two ends of each measured line.

    They are c / (c + c'), where c is the weight of a ray and c' that of the same line from its
    other end; c falls smoothly to 0 towards views that are missing and towards the end of the
    detector that is nearer to the central ray, and c' is 0 where nothing is measured. For a full
    turn they are 1/2, for a short scan of 180 degrees plus the fan angle nearly Parker's weights;
    longer scans use what they measure in addition; lines that a shorter scan or a shifted detector
    measures once have 1.

    Args:
        angles_deg: ``(V,)`` angles of the views in degrees, in any order.
        gamma: ``(R,)`` angles of the rays off the central one in radians, increasing.

    Returns:
        ``(V, R)`` float64, above 0 and at most 1.

    Source: D. L. Parker, Med. Phys. 9 (1982) 254-257; M. D. Silver, Med. Phys. 27 (2000) 773-774,
    for more than a short scan; G. Wang, Med. Phys. 29 (2002) 1634-1636, for shifted detectors.
    """
    own = view_window(angles_deg, angles_deg)[:, None] * bin_window(gamma, gamma)  # (V, R)
    other = view_window(opposite_views(angles_deg, gamma), angles_deg) * bin_window(-gamma, gamma)
    return own / (own + other)


def is_measured_twice(
    angles_deg: NDArray[np.float64], gamma: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether the line of each ray is also measured from its other end: bool ``(V, R)``.

    Args:
        angles_deg: ``(V,)`` angles of the views in degrees.
        gamma: ``(R,)`` angles of the rays off the central one in radians, increasing.
    """
    views = view_window(opposite_views(angles_deg, gamma), angles_deg) > 0
    return views & (bin_window(-gamma, gamma) > 0)


def opposite_views(
    angles_deg: NDArray[np.float64], gamma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Angles in degrees at which the line of each ray is seen from its other end: ``(V, R)``."""
    return angles_deg[:, None] + 180 - 2 * np.rad2deg(gamma)


def view_window(
    wanted_deg: NDArray[np.float64], angles_deg: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Window over a full turn: 0 in missing arcs, and smoothly up to 1 beside them.

    It rises over as many degrees as the arc has.

    Args:
        wanted_deg: angles in degrees at which it is wanted, of any shape.
        angles_deg: ``(V,)`` angles of the views in degrees.
    """
    window = np.ones(wanted_deg.shape)
    for start, width in missing_arcs(angles_deg, 360.0):
        beyond = np.mod(wanted_deg - start, 360.0) - width  # below 0 inside
        window *= _rise(np.minimum(beyond, 360.0 - width - beyond), width)
    return window


def bin_window(wanted: NDArray[np.float64], gamma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Window over the detector: 0 beyond it, smoothly up to 1 from the end nearer to the middle.

    It rises over as wide an angle as is measured on one side only.

    Args:
        wanted: angles in radians at which it is wanted.
        gamma: ``(R,)`` angles of the rays off the central one in radians, increasing.
    """
    if len(gamma) == 1:
        return np.ones(wanted.shape)
    half = np.diff(gamma).mean() / 2
    first, last = gamma[0] - half, gamma[-1] + half
    inside = ((wanted > first) & (wanted < last)).astype(np.float64)
    near, far = sorted((-first, last))
    width = min(far - near, 2 * near)
    if width < half / 1000:  # symmetric, or the middle is not seen at all
        return inside
    return inside * _rise(wanted - first if -first < last else last - wanted, width)


def _rise(distance: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Smooth step from 0 (at and below a distance of 0) to 1 (from `width` on)."""
    return np.sin(np.pi / 2 * np.clip(distance / width, 0, 1)) ** 2
