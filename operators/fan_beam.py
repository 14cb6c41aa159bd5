"""Fan-beam tomography with a flat or a curved detector; axes as in `operators.ct`."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from operators.ct import (
    RayTransform,
    check_angles,
    check_bins,
    check_length,
    check_offset,
    check_size,
    few_view_angles,
)
from operators.ct_matrix import Rays
from operators.ramp import angular_weights
from operators.redundancy import is_measured_twice, redundancy_weights

DETECTORS = ("flat", "curved")
# mm, of the Siemens SOMATOM Definition AS+, whose source is 1085 mm from its detector
SOURCE_DISTANCE, DETECTOR_DISTANCE, FIELD_OF_VIEW = 595.0, 490.0, 500.0


class FanBeamCT(RayTransform):
    """Fan-beam CT: integrals of x along the lines from the source to the bins of the detector.

    At angle beta the source is at source_distance * (sin beta, -cos beta). A flat detector runs
    along (cos beta, sin beta) through detector_distance * (-sin beta, cos beta), as in ASTRA's
    `fanflat`. A curved one is the arc around the source through the same point, in the same
    direction: equal distances along it are equal angles between the rays. The discretisation is
    Joseph's method, as for parallel beams; ASTRA has only `line_fanflat` and `strip_fanflat`. x is
    ``(B, 1, H, W)`` and y is ``(B, 1, num_views, num_bins)``, both float32 or float64; the unit of
    y is that of x times pixels. `correct` is x + weight * A^T (y - A x) / (A^T A 1) and does not
    change pixels that no ray meets.

    Args:
        size: image height and width in pixels, or one number for both.
        angles_deg: ``(num_views,)`` angles of the source in degrees, in any order;
            `few_view_angles(n, end=360.0)` for a full turn. `fbp` takes account of what a full
            turn, a short scan (180 degrees plus the fan angle) or anything between measures twice.
        source_distance: distance in pixels from the centre of rotation to the source, which has
            to be outside the image.
        detector_distance: distance in pixels from the centre of rotation to the detector; 0 for a
            virtual detector through the centre. A ray is a whole line: a detector inside the image
            does not end it.
        num_bins: number of detector bins.
        bin_spacing: distance of neighbouring bins on the detector in pixels, along the arc if it is
            curved.
        centre_offset: distance in bins from the middle of the detector to the line through source
            and centre of rotation.
        detector: "flat" or "curved".

    Raises:
        ValueError: sizes, bins, spacing or distances are not positive (the detector's may be 0),
            the source is inside the image, `centre_offset` is not finite, an unknown detector or
            one that reaches beside or behind the source, or the angles are not a list of finite
            numbers.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        angles_deg: ArrayLike,
        *,
        source_distance: float,
        detector_distance: float,
        num_bins: int,
        bin_spacing: float = 1.0,
        centre_offset: float = 0.0,
        detector: str = "flat",
    ):
        size = check_size(size)
        self.detector = check_detector(detector)
        self.centre_offset = check_offset(centre_offset)
        self.source_distance = check_length(source_distance, "source_distance")
        radius = math.hypot(*size) / 2
        if self.source_distance <= radius:
            raise ValueError(
                f"expected source_distance above {radius:.1f} pixels (half the diagonal of the "
                f"image: the source is outside it), got {source_distance}"
            )
        self.detector_distance = float(detector_distance)
        if not (math.isfinite(self.detector_distance) and self.detector_distance >= 0):
            raise ValueError(
                f"expected detector_distance of 0 pixels or more, got {detector_distance}"
            )
        self.bin_spacing = check_length(bin_spacing, "bin_spacing")
        super().__init__(size, check_angles(angles_deg), check_bins(num_bins))
        widest = math.degrees(np.abs(self.ray_angles).max())
        if widest >= 90:
            raise ValueError(
                f"expected all bins of a curved detector within 90 degrees of the central ray, got "
                f"{widest:.1f} degrees; bin_spacing is in pixels along the arc"
            )

    @classmethod
    def create(
        cls,
        shape: tuple[int, int],
        *,
        seed: int,
        keys: Sequence[str],
        study: bool,
        num_views: int = 30,
        end_angle: float = 360.0,
        detector: str = "curved",
        field_of_view: float = FIELD_OF_VIEW,
        source_distance: float = SOURCE_DISTANCE,
        detector_distance: float = DETECTOR_DISTANCE,
        bin_spacing: float | None = None,
        num_bins: int | None = None,
        centre_offset: float = 0.0,
    ) -> "FanBeamCT":
        """Fan-beam CT with equally spaced views, as a config describes it, in a clinical scanner.

        Lengths are in mm; only their ratios matter, as y is in pixels. Calls with equal arguments
        return one cached operator, so that they share its matrix.

        Args:
            shape: ``(H, W)`` of the images in pixels.
            seed: not used.
            keys: not used.
            study: not used.
            num_views: number of views.
            end_angle: end of the angular range in degrees, not included. The default is a full
                turn; a short scan is 180 degrees plus the fan angle, 253 by default.
            detector: "curved" or "flat".
            field_of_view: longer side of the image in mm.
            source_distance: distance from source to centre of rotation in mm.
            detector_distance: distance from centre of rotation to detector in mm.
            bin_spacing: distance of neighbouring bins on the detector in mm; by default that of
                rays one pixel apart at the centre of rotation.
            num_bins: number of bins; by default enough for every ray through the image.
            centre_offset: distance in bins from the middle of the detector to the projection of
                the centre of rotation.

        Raises:
            ValueError: `num_views` is below 1, `end_angle` is not positive and finite, or lengths
                do not fit as in `FanBeamCT`.
        """
        pixel = check_length(field_of_view, "field_of_view", "mm") / max(shape)
        source, distance = source_distance / pixel, detector_distance / pixel
        magnification = (source + distance) / source
        spacing = magnification if bin_spacing is None else bin_spacing / pixel
        if num_bins is None:
            half_angle = math.asin(min(1.0, math.hypot(*shape) / 2 / source))
            half = half_angle if check_detector(detector) == "curved" else math.tan(half_angle)
            half *= (source + distance) / check_length(spacing, "bin_spacing")  # bins
            num_bins = math.ceil(2 * (half + abs(check_offset(centre_offset))))
        lengths = (source, distance, spacing, centre_offset)
        return _shared(cls, tuple(shape), num_views, end_angle, detector, num_bins, lengths)

    @classmethod
    def describe(cls, fields: Mapping) -> tuple[str, str]:
        """Operator, views and keywords of a config, and no acceleration, "-".

        The first is such as "fan_ct 30 views of 360°, detector='flat'".
        """
        end = fields.get("end_angle") or 360.0
        text = f"{fields['name']} {fields['num_views']} views of {end:g}°"
        return ", ".join(filter(None, [text, fields.get("keywords")])), "-"

    def facts(self) -> dict:
        """Description as a dict: ``operator``, ``views``, ``angles_deg`` and ``detector``."""
        return {**super().facts(), "detector": self.detector}

    @property
    def magnification(self) -> float:
        """Magnification of lengths from the centre of rotation to the detector."""
        return 1 + self.detector_distance / self.source_distance

    @property
    def centre_spacing(self) -> float:
        """Distance of neighbouring rays at the centre of rotation, in pixels."""
        return self.bin_spacing / self.magnification

    @property
    def ray_angles(self) -> NDArray[np.float64]:
        """Angle in radians of each bin's ray off the central one: ``(num_bins,)``."""
        ratio = self._bin_centres() / (self.source_distance + self.detector_distance)
        return ratio if self.detector == "curved" else np.arctan(ratio)

    @property
    def bin_angle(self) -> float:
        """Angle in radians between the rays of neighbouring bins; 0 if the detector is flat."""
        if self.detector == "flat":
            return 0.0
        return self.bin_spacing / (self.source_distance + self.detector_distance)

    @property
    def view_weights(self) -> NDArray[np.float64]:
        """Angle in radians that each view covers of a half turn: ``(num_views,)``.

        What is measured from two ends counts half: all of a full turn.
        """
        shares = 1 / (1 + is_measured_twice(self.angles_deg, self.ray_angles))  # (V, R)
        return angular_weights(self.angles_deg, period=360.0) * shares.mean(1)

    @property
    def fbp_weights(self) -> NDArray[np.float64]:
        """Weights of the rays before the filter of filtered back-projection.

        Returns:
            ``(num_views, num_bins)``: angle in radians that the view covers, times the weights of
            `redundancy_weights`, times the cosine of the angle off the central ray.
        """
        angles = angular_weights(self.angles_deg, period=360.0)[:, None]
        shares = redundancy_weights(self.angles_deg, self.ray_angles)  # (V, R)
        return angles * shares * np.cos(self.ray_angles)

    @property
    def fbp_padding(self) -> tuple[int, int]:
        """Bins that make a shifted detector symmetric about the central ray.

        A full turn measures what is beyond the nearer end at the other one, half a turn later.
        None are added to a detector that does not reach the central ray.
        """
        if abs(self.centre_offset) >= self.num_bins / 2:
            return 0, 0
        beyond = math.ceil(2 * abs(self.centre_offset))
        return (0, beyond) if self.centre_offset > 0 else (beyond, 0)

    def bin_of_pixels(self, view: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fractional bin that points (x, y) project to in `view`, and their weights.

        The weights are those of fan-beam back-projection: D^2 / U^2 for a flat detector, D^2 / L^2
        for a curved one. D is the distance from the source to the centre of rotation, L that to the
        point, and U its part along the central ray (Kak and Slaney, section 3.4).
        """
        angle = math.radians(self.angles_deg[view])
        sine, cosine = math.sin(angle), math.cos(angle)
        along = self.source_distance - x * sine + y * cosine  # U
        across = x * cosine + y * sine
        far = self.source_distance + self.detector_distance
        if self.detector == "curved":
            offset, distance = torch.atan2(across, along) * far, torch.hypot(across, along)
        else:
            offset, distance = across / along * far, along
        return offset / self.bin_spacing + self._middle, (self.source_distance / distance) ** 2

    def _rays(self) -> Rays:
        angles = np.deg2rad(self.angles_deg)[:, None]  # (V, 1)
        source = self.source_distance * np.stack([np.sin(angles), -np.cos(angles)], axis=-1)
        towards = angles - self.ray_angles  # (V, R)
        directions = np.stack([-np.sin(towards), np.cos(towards)], axis=-1)  # (V, R, 2)
        sources = np.broadcast_to(source, directions.shape)
        return Rays(sources.reshape(-1, 2), directions.reshape(-1, 2))


def check_detector(detector: str) -> str:
    """The name of a detector; a ValueError for an unknown one."""
    if detector not in DETECTORS:
        raise ValueError(f"expected detector as {' or '.join(DETECTORS)}, got {detector!r}")
    return detector


@lru_cache(maxsize=4)
def _shared(
    kind: type[FanBeamCT],
    shape: tuple[int, int],
    num_views: int,
    end_angle: float,
    detector: str,
    num_bins: int,
    lengths: tuple[float, float, float, float],
) -> FanBeamCT:
    source_distance, detector_distance, bin_spacing, centre_offset = lengths
    return kind(
        shape,
        few_view_angles(num_views, end_angle),
        source_distance=source_distance,
        detector_distance=detector_distance,
        num_bins=num_bins,
        bin_spacing=bin_spacing,
        centre_offset=centre_offset,
        detector=detector,
    )
