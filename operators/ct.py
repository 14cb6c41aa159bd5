"""Computed tomography: line integrals along rays, and parallel beams of them.

Angles and axes. The origin is the centre of the image, x points right, y points up, so that row 0
is at the top; lengths are in pixels. At angle theta the detector runs along
(cos theta, sin theta), and parallel rays travel along (sin theta, -cos theta): at 0 degrees they
sum the columns and bin j sees column j; increasing angles turn detector and rays
counter-clockwise; at 90 degrees they sum the rows, bottom row first. ASTRA (`parallel`,
`fanflat`; angles in radians) has the same convention. `skimage.transform.radon` has the same
direction of rotation and order of bins, but stores views in columns and rotates about pixel
``size // 2``, which is half a pixel off for even sizes.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from operators.back_projection import back_project
from operators.base import LinearOperator
from operators.batch import expand, peak
from operators.ct_matrix import Rays, SystemMatrix, joseph_matrix
from operators.fbp import fbp
from operators.ramp import angular_weights, gram_inverse, gram_spectrum
from operators.ray_noise import ray_noise

# of bodies measured with 512 x 512 pixels and reconstructed with 256 x 256: root mean square
MISFIT = 0.1
_DTYPES = (torch.float32, torch.float64)
FINE = "fine"  # key of the matrix of half the spacing, beside those of the two precisions


def few_view_angles(num_views: int, end: float = 180.0) -> NDArray[np.float64]:
    """Equally spaced angles in degrees from 0 to `end`, without `end` itself: ``(num_views,)``.

    With `end` below 180 these are the limited-angle views of a parallel beam.

    Raises:
        ValueError: `num_views` is below 1, or `end` is not a positive finite number.
    """
    if num_views < 1:
        raise ValueError(f"expected at least 1 view, got {num_views}")
    if not (math.isfinite(end) and end > 0):
        raise ValueError(f"expected a positive end angle in degrees, got {end}")
    return np.linspace(0.0, end, num_views, endpoint=False)


class RayTransform(LinearOperator):
    """Line integrals of an image along rays, y = A x, as a sparse matrix.

    The matrix is built on first use in each precision. A pickled copy, such as that of a worker
    process, holds only the geometry and builds it anew.
    """

    direct_name = "FBP"
    integrates_rays = True

    def __init__(self, size: int | Sequence[int], angles_deg: ArrayLike, num_bins: int):
        self.size = size
        self.angles_deg = angles_deg  # (num_views,) float64
        self.num_bins = num_bins
        self._device = torch.device("cpu")
        self._matrices: dict[torch.dtype | str, SystemMatrix] = {}
        super().__init__(
            (1, *size),
            (1, len(angles_deg), num_bins),
            domain_complex=False,
            range_complex=False,
        )

    def matrix(self, dtype: torch.dtype = torch.float32) -> SystemMatrix:
        """System matrix in `dtype` on the operator's device, built on first use.

        Raises:
            TypeError: `dtype` is not float32 or float64.
        """
        if dtype not in _DTYPES:
            raise TypeError(f"{self._name}: expected float32 or float64, got {dtype}")
        if dtype not in self._matrices:
            self._matrices[dtype] = joseph_matrix(self.size, self._rays(), dtype).to(self._device)
        return self._matrices[dtype]

    def row_sums(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Row sums A 1, the length of each ray inside the image: ``(1, 1, num_views, num_bins)``.

        With `column_sums` they are the normalisation of SIRT, x += C A^T R (y - A x) with
        R = 1 / (A 1) and C = 1 / (A^T 1). A ray that misses the image has 0.
        """
        return self.matrix(dtype).row_sums.reshape(1, *self.range_shape)

    def column_sums(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Column sums A^T 1: ``(1, 1, H, W)``. A pixel that no ray meets has 0."""
        return self.matrix(dtype).column_sums.reshape(1, *self.domain_shape)

    @property
    def centre_spacing(self) -> float:
        """Distance of neighbouring rays at the centre of rotation, in pixels."""
        raise NotImplementedError

    @property
    def view_weights(self) -> NDArray[np.float64]:
        """Angle in radians that each view covers of a half turn: ``(num_views,)``."""
        raise NotImplementedError

    @property
    def fbp_weights(self) -> NDArray[np.float64]:
        """Weights of the rays before the filter of filtered back-projection.

        Returns:
            ``(num_views, 1)`` or ``(num_views, num_bins)``: the angle in radians that a view covers
            of a half turn, for each of its rays, times what the geometry asks for.
        """
        return self.view_weights[:, None]

    @property
    def bin_angle(self) -> float:
        """Angle in radians between neighbouring rays where all are equal; 0 for other detectors."""
        return 0.0

    @property
    def fbp_padding(self) -> tuple[int, int]:
        """Bins to add at either end of the detector before the filter, whose result is used there.

        Needed where a line beyond one end is measured from its other side.
        """
        return 0, 0

    def measure_finely(self, x: Tensor) -> Tensor:
        """Line integrals of images on a grid of half the spacing, along the same rays.

        Args:
            x: ``(B, 1, 2 H, 2 W)``.

        Returns:
            ``(B, 1, num_views, num_bins)`` in units of the image times pixels of the coarse grid.
        """
        expected = (1, *(2 * n for n in self.size))
        self._check(x, expected, False, "measure_finely")
        if FINE not in self._matrices:
            points, directions = self._rays()
            fine = joseph_matrix(expected[1:], Rays(2 * points, directions), torch.float32)
            self._matrices[FINE] = fine.to(self._device)
        integrals = self._matrices[FINE].multiply(x.flatten(1).float()) / 2
        return integrals.reshape(-1, *self.range_shape).to(x.dtype)

    def noise(self, y: Tensor) -> Tensor:
        """Standard deviation of each ray's noise, and of what pixels cannot represent.

        An object is not made of pixels. Its line integrals differ from those of the image of its
        means over pixels by about `MISFIT` times the image's peak times a pixel.

        Args:
            y: ``(B, 1, num_views, num_bins)`` line integrals. See `operators.ray_noise`.

        Returns:
            ``(B, 1, num_views, num_bins)``.
        """
        unmodelled = MISFIT * peak(self.direct(y))  # (B,)
        return torch.hypot(ray_noise(y), expand(unmodelled, y))

    def sampled(self) -> Tensor:
        """Angles of the views in degrees: float64 ``(num_views,)``."""
        return torch.from_numpy(self.angles_deg)

    def facts(self) -> dict:
        """Description as a dict: ``operator``, ``views`` (their number) and ``angles_deg``."""
        angles = self.angles_deg.tolist()
        return {**super().facts(), "views": len(angles), "angles_deg": angles}

    def of_views(self, chosen: Sequence[int]) -> "RayTransform":
        """The operator of some of the views, in the given order.

        Raises:
            IndexError: a view that there is not.
        """
        part = copy.copy(self)
        part.angles_deg = self.angles_deg[list(chosen)]
        part.range_shape = (1, len(part.angles_deg), self.num_bins)
        part._matrices = {}
        vars(part).pop("_gram_spectrum", None)  # of all views
        return part

    def reach(self) -> NDArray[np.float64]:
        """Factor by which the image has to be enlarged for each ray to touch it.

        Returns:
            ``(num_views, num_bins)``; at most 1 for rays that meet the image.
        """
        points, directions = self._rays()
        normal = directions[:, ::-1] * (1, -1) / np.linalg.norm(directions, axis=1, keepdims=True)
        distance = np.abs((points * normal).sum(1))  # (views * bins,)
        half = (np.abs(normal) * (self.size[1] / 2, self.size[0] / 2)).sum(1)
        return (distance / half).reshape(self.range_shape[1:])

    @property
    def _middle(self) -> float:
        """Fractional bin that the centre of rotation projects to."""
        return (self.num_bins - 1) / 2 + self.centre_offset

    def _bin_centres(self) -> NDArray[np.float64]:
        """Position of each bin on the detector in pixels: ``(num_bins,)``."""
        return (np.arange(self.num_bins) - self._middle) * self.bin_spacing

    def gram_inverse(self, regularization: Tensor) -> Callable[[Tensor], Tensor]:
        """Approximation of (A A^T + regularization)^-1: a ramp filter at low frequencies.

        Args:
            regularization: ``(1,)`` or ``(B,)``, or one of each ray ``(1 or B, 1, V, R)``; 0 or
                more.

        Returns:
            A symmetric, positive definite map on sinograms ``(B, 1, num_views, num_bins)``.
        """
        return gram_inverse(self._gram_spectrum, regularization)

    @cached_property
    def _gram_spectrum(self) -> Tensor:
        side = math.sqrt(math.prod(self.size))
        spectrum = gram_spectrum(self.view_weights, self.centre_spacing, self.num_bins, side)
        return spectrum.to(self._device)

    def to(self, device: torch.device | str) -> "RayTransform":
        """A copy on `device`, with the matrices built so far."""
        moved = super().to(device)
        moved._device = torch.device(device)
        moved._matrices = {dtype: m.to(device) for dtype, m in self._matrices.items()}
        return moved

    def __getstate__(self) -> dict:
        return {**vars(self), "_matrices": {}}

    def _rays(self) -> Rays:
        raise NotImplementedError

    def _forward(self, x: Tensor) -> Tensor:
        sinogram = self.matrix(x.dtype).multiply(x.flatten(1))
        return sinogram.reshape(-1, *self.range_shape)  # (B, 1, num_views, num_bins)

    def _adjoint(self, y: Tensor) -> Tensor:
        image = self.matrix(y.dtype).multiply_transposed(y.flatten(1))
        return image.reshape(-1, *self.domain_shape)  # (B, 1, H, W)

    def _direct(self, y: Tensor) -> Tensor:
        return fbp(self, y)

    def _correct(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        sums = self.matrix(x.dtype).normal_sums.reshape(1, *self.domain_shape)  # D
        step = self._adjoint(y - self._forward(x))
        # Both are 0 where no ray passes: such a pixel does not change.
        return x + weight * torch.where(sums > 0, step / sums.clamp(min=_tiny(sums)), 0.0)


class ParallelBeamCT(RayTransform):
    """Parallel-beam CT: integrals of x along the ray at angle theta and offset s.

    The discretisation is Joseph's method in the convention of ASTRA's `linear` projector
    (`operators.ct_matrix.joseph_matrix`); axes and angles are described at the top of the module.
    x is ``(B, 1, H, W)`` and y is ``(B, 1, num_views, num_bins)``, both float32 or float64; the
    unit of y is that of x times pixels. `correct` is x + weight * A^T (y - A x) / (A^T A 1) and
    does not change pixels that no ray meets.

    Args:
        size: image height and width in pixels, or one number for both.
        angles_deg: ``(num_views,)`` angles in degrees, in any order; `few_view_angles` gives
            equally spaced ones.
        num_bins: number of detector bins; by default enough to cover the diagonal of the image,
            ceil(hypot(H, W) / bin_spacing), which is 453 at 320 x 320.
        bin_spacing: distance of neighbouring bins in pixels. A bin is a line without width.
        centre_offset: distance in bins from the middle of the detector to the projection of the
            centre of rotation.

    Raises:
        ValueError: sizes, bins or spacing are not positive, `centre_offset` is not finite, or
            the angles are not a list of finite numbers.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        angles_deg: ArrayLike,
        *,
        num_bins: int | None = None,
        bin_spacing: float = 1.0,
        centre_offset: float = 0.0,
    ):
        size = check_size(size)
        self.bin_spacing = check_length(bin_spacing, "bin_spacing")
        self.centre_offset = check_offset(centre_offset)
        if num_bins is None:
            num_bins = math.ceil(math.hypot(*size) / self.bin_spacing)
        super().__init__(size, check_angles(angles_deg), check_bins(num_bins))

    @classmethod
    def create(
        cls,
        shape: tuple[int, int],
        *,
        seed: int,
        keys: Sequence[str],
        study: bool,
        num_views: int = 30,
        end_angle: float = 180.0,
    ) -> "ParallelBeamCT":
        """Parallel-beam CT with equally spaced views, as a config describes it.

        Calls with equal arguments return one cached operator, so that they share its matrix.

        Args:
            shape: ``(H, W)`` of the images in pixels.
            seed: not used.
            keys: not used.
            study: not used; `StudyParallelBeamCT` has the original study's data consistency.
            num_views: number of views.
            end_angle: end of the angular range in degrees, not included; below 180 for limited
                angle.

        Raises:
            ValueError: `num_views` is below 1, or `end_angle` is not positive and finite.
        """
        return _shared(cls, shape, num_views, end_angle)

    @classmethod
    def describe(cls, fields: Mapping) -> tuple[str, str]:
        """Operator and views of a config, and no acceleration: "ct 30 views of 180°", "-"."""
        end = fields.get("end_angle") or 180.0
        return f"{fields['name']} {fields['num_views']} views of {end:g}°", "-"

    def facts(self) -> dict:
        """Description as a dict: ``operator``, ``views`` (their number) and ``angles_deg``.

        `StudyParallelBeamCT` has the same ``operator``, as its sinograms are the same.
        """
        return {**super().facts(), "operator": ParallelBeamCT.__name__}

    @property
    def centre_spacing(self) -> float:
        """Distance of neighbouring rays in pixels."""
        return self.bin_spacing

    @property
    def view_weights(self) -> NDArray[np.float64]:
        """Angle in radians that each view covers: ``(num_views,)``."""
        return angular_weights(self.angles_deg, period=180.0)

    def study_adjoint(self, y: Tensor) -> Tensor:
        """The original study's unfiltered, interpolating back-projection, times pi / (2 n).

        Each pixel interpolates linearly in each of the n views, as in `skimage.transform.iradon`
        with `filter_name=None`. Its scale and weights are **not** those of the adjoint; for that,
        use `adjoint`.

        Args:
            y: ``(B, 1, num_views, num_bins)`` sinograms.

        Returns:
            ``(B, 1, H, W)``, in the precision of `y`.

        Raises:
            ValueError: `y` has another shape.
            TypeError: `y` is not float32 or float64.
        """
        self._check(y, self.range_shape, self.range_complex, "study_adjoint")
        total = back_project(y, self.size, self.bin_of_pixels)
        return total * (math.pi / (2 * len(self.angles_deg)))

    def bin_of_pixels(self, view: int, x: Tensor, y: Tensor) -> tuple[Tensor, None]:
        """Fractional bin that points (x, y) project to in `view`, and None: all weights are 1."""
        angle = math.radians(self.angles_deg[view])
        offset = x * math.cos(angle) + y * math.sin(angle)
        return offset / self.bin_spacing + self._middle, None

    def _rays(self) -> Rays:
        angles = np.deg2rad(self.angles_deg)[:, None]  # (V, 1)
        offsets = self._bin_centres()  # (R,)
        points = np.stack([offsets * np.cos(angles), offsets * np.sin(angles)], axis=-1)
        directions = np.stack([np.sin(angles), -np.cos(angles)], axis=-1)  # (V, 1, 2)
        directions = np.broadcast_to(directions, points.shape)
        return Rays(points.reshape(-1, 2), directions.reshape(-1, 2))


@lru_cache(maxsize=4)
def _shared(
    kind: type[ParallelBeamCT], shape: tuple[int, int], num_views: int, end_angle: float
) -> ParallelBeamCT:
    return kind(shape, few_view_angles(num_views, end_angle))


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


def check_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of an image; a ValueError if they are not positive integers."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, int | np.integer) and n >= 1 for n in pair):
        raise ValueError(f"expected size as a positive integer or a pair (H, W), got {size!r}")
    return int(pair[0]), int(pair[1])


def check_angles(angles_deg: ArrayLike) -> NDArray[np.float64]:
    """A copy of a list of angles; a ValueError if it is empty or not finite."""
    angles = np.array(angles_deg, dtype=np.float64)  # a copy: the caller's may change
    if angles.ndim != 1 or angles.size == 0:
        raise ValueError(
            f"expected angles_deg of shape (num_views,) with at least one angle in degrees, "
            f"got shape {angles.shape}; few_view_angles(30) makes 30 of them"
        )
    if not np.isfinite(angles).all():
        raise ValueError(f"expected finite angles in degrees, got {angles[~np.isfinite(angles)]}")
    return angles


def check_bins(num_bins: int) -> int:
    """The number of bins; a ValueError if it is not a positive integer."""
    if not isinstance(num_bins, int | np.integer) or num_bins < 1:
        raise ValueError(f"expected num_bins as an integer of 1 or more, got {num_bins!r}")
    return int(num_bins)


def check_offset(value: float) -> float:
    """The centre's offset; a ValueError if it is not finite."""
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"expected centre_offset as a finite number of bins, got {value}")
    return value


def check_length(value: float, name: str, unit: str = "pixels") -> float:
    """A length; a ValueError that names it if it is not positive and finite."""
    value = float(value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"expected {name} as a positive number of {unit}, got {value}")
    return value
