"""Inverse problems for images in [0, 1] made from measurements in a scanner's units, and back.

Priors are trained on real images in [0, 1], whereas measured k-space and sinograms have arbitrary
units, and MR images an arbitrary phase. The conversion is a change of variables and loses nothing.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import expand, peak
from operators.espirit import acs_width
from operators.fourier import fft2c, ifft2c
from operators.kspace_peak import centre_peak, find_peak
from operators.multicoil import MultiCoilMRI, rss
from operators.non_cartesian import NonCartesianMRI
from operators.soft_sense import SoftSenseMRI
from operators.whitened import whiten

PHASE_WIDTH = (8, 32)  # smallest and largest width of the k-space square for the phase
# part of the image's peak that estimated coil maps leave unexplained, in each number of k-space;
# chosen on validation slices of simulated coils (0.002 to 0.01 are nearly as good)
MAP_ERROR = 0.005
TINY = 1e-6  # of the largest sensitivity: below it no coil sees the pixel


class InverseProblem(NamedTuple):
    """Inverse problem y = A x with x approximately in [0, 1], for a batch.

    Attributes:
        operator: A.
        y: ``(B, *range_shape)`` measurement, rescaled to the intensities of x.
        direct: ``(B, 1, H, W)`` direct reconstruction: zero-filled or filtered back-projection.
        scale: ``(B,)`` intensity range in the unit of the image, maximum minus minimum: the image
            is scale * x + offset. 0 if the image is constant or the measurement is zero.
        offset: ``(B,)`` minimum intensity in the unit of the image.
        noise: ``(B,)`` standard deviation of the noise of `y` (of real and imaginary part each);
            0 if the measurement was simulated without noise. Where the numbers of a measurement
            differ in noise, A and y are weighted so that they do not (`operators.whitened`).
        factor: complex ``(B, 1, H, W)``, the phase removed from x (0 where no coil sees anything);
            None for real images.

    With several sets of coil maps there is an image for each, ``(B, S, H, W)`` wherever it says
    ``(B, 1, H, W)``; `restore` joins them.
    """

    operator: LinearOperator
    y: Tensor
    direct: Tensor
    scale: Tensor
    offset: Tensor
    noise: Tensor
    factor: Tensor | None = None

    def restore(self, x: Tensor) -> Tensor:
        """Images in the unit of the measurement and with its phase.

        Args:
            x: ``(B, 1, H, W)`` images in [0, 1].

        Returns:
            ``(B, 1, H, W)`` scale * x + offset, times `factor`; of several sets of coil maps the
            root of the sum of squares, with the phase of the sum.
        """
        image = expand(self.scale, x) * x + expand(self.offset, x)
        image = image if self.factor is None else image * self.factor
        if image.shape[1] == 1:
            return image
        return torch.polar(rss(image), image.sum(1, keepdim=True).angle())

    def restore_std(self, std: Tensor) -> Tensor:
        """Standard deviations in the unit of the measurement.

        Args:
            std: ``(B, 1, H, W)`` real, of images in [0, 1].

        Returns:
            ``(B, 1, H, W)``, 0 where no coil sees anything, as `restore`; of several sets of coil
            maps the root of the sum of squares.
        """
        std = std * expand(self.scale, std)
        std = std if self.factor is None else std * (self.factor != 0)
        return std if std.shape[1] == 1 else rss(std)

    def with_noise(self, sigma_y: float) -> "InverseProblem":
        """The problem with white noise of a level that is known.

        Args:
            sigma_y: standard deviation in the unit of the measurement, of all numbers.
        """
        operator, y = self.operator.without_weights(self.y)
        noise = sigma_y / torch.where(self.scale > 0, self.scale, 1.0)
        return self._replace(operator=operator, y=y, noise=noise)

    def scale_noise(self, factor: float) -> "InverseProblem":
        """The problem with `factor` times the noise level."""
        return self._replace(noise=factor * self.noise)

    def to(self, device: torch.device | str) -> "InverseProblem":
        """A copy whose tensors are on `device`."""
        return InverseProblem(*(None if part is None else part.to(device) for part in self))


def mri_problem(
    kspace: Tensor,
    mask: Tensor,
    sens_maps: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    estimated_maps: bool = False,
) -> InverseProblem:
    """Inverse problem of Cartesian k-space with one or several coils.

    The slowly varying phase of the image, estimated from the k-space around its peak, becomes part
    of the coil maps. The remaining image is nearly real and positive, like the images that priors
    are trained on. x stays complex, so that an error of the phase loses no data.

    Args:
        kspace: complex ``(B, C, H, W)``, centred; ignored where not measured.
        mask: bool ``(B, 1, H, W)``, True where measured.
        sens_maps: complex ``(B, C, H, W)`` of any scale, or several sets ``(B, S, C, H, W)``; None
            for one coil of constant sensitivity.
        noise: ``(B,)`` standard deviation of the noise of `kspace`, of real and imaginary part
            each; None to estimate it from `kspace`.
        estimated_maps: whether `sens_maps` were estimated from k-space. No image then fits all of
            it, and a fit without noise would amplify what is wrong with the maps: the problem's
            noise is at least `MAP_ERROR` of the image's peak.

    Returns:
        The problem, with a `MultiCoilMRI` operator, or `SoftSenseMRI` for several sets.

    Raises:
        ValueError: several coils without maps, or shapes that do not match.
    """
    if sens_maps is None:
        if kspace.shape[1] != 1:
            raise ValueError(f"expected sens_maps for {kspace.shape[1]} coils, got none")
        sens_maps = torch.ones_like(kspace)
    sets = sens_maps if sens_maps.ndim == 5 else sens_maps[:, None]  # (B, S, C, H, W)
    size = torch.linalg.vector_norm(sets, dim=2)  # (B, S, H, W)
    seen = size > TINY * size.amax((1, 2, 3), keepdim=True)
    unit = torch.where(seen, size, 1.0)[:, :, None]
    maps = torch.where(seen[:, :, None], sets / unit, 0.0)  # (B, S, C, H, W)
    kspace = kspace * mask
    factor = _slow_phase(kspace, maps) * seen  # (B, S, H, W)
    maps = maps * factor[:, :, None]
    several = maps.shape[1] > 1
    operator = SoftSenseMRI(mask, maps) if several else MultiCoilMRI(mask, maps[:, 0])
    image = operator.adjoint(kspace)
    scale = peak(rss(image) if several else image)
    unit = torch.where(scale > 0, scale, 1.0)
    y = kspace / expand(unit, kspace)
    noise = operator.noise(y) if noise is None else noise / unit
    noise = _with_error_of_maps(noise, estimated_maps)
    return InverseProblem(
        operator, y, operator.direct(y), scale, torch.zeros_like(scale), noise, factor
    )


def trajectory_problem(
    operator: NonCartesianMRI,
    kspace: Tensor,
    sens_maps: Tensor,
    *,
    noise: Tensor | None = None,
    estimated_maps: bool = False,
) -> InverseProblem:
    """Inverse problem of k-space along a trajectory, otherwise like `mri_problem`.

    Args:
        operator: of the trajectory, with any maps.
        kspace: complex ``(B, C, L, N)``.
        sens_maps: complex ``(B, C, H, W)`` of any scale.
        noise: ``(B,)`` as in `mri_problem`.
        estimated_maps: as in `mri_problem`; the same part of the peak.
    """
    size = rss(sens_maps)  # (B, 1, H, W)
    seen = size > TINY * size.amax((1, 2, 3), keepdim=True)
    maps = torch.where(seen, sens_maps / torch.where(seen, size, 1.0), 0.0)
    operator = operator.with_maps(maps)
    factor = operator.slow_phase(kspace) * seen  # (B, 1, H, W)
    operator = operator.times(factor)
    noise = operator.noise(kspace) if noise is None else noise
    direct = operator.direct(kspace)
    scale = peak(direct)
    unit = torch.where(scale > 0, scale, 1.0)
    noise = noise / unit
    noise = _with_error_of_maps(noise, estimated_maps)
    return InverseProblem(
        operator,
        kspace / expand(unit, kspace),
        direct / expand(unit, direct),
        scale,
        torch.zeros_like(scale),
        noise,
        factor,
    )


def _with_error_of_maps(noise: Tensor, estimated_maps: bool) -> Tensor:
    return noise.clamp(min=MAP_ERROR) if estimated_maps else noise


def scaled_problem(
    operator: LinearOperator, measurement: Tensor, *, noise: Tensor | None = None
) -> InverseProblem:
    """Inverse problem of real images with background 0, such as CT, from data in any unit.

    The scale is the peak of the direct reconstruction, the offset is 0.

    Args:
        operator: measurement model A.
        measurement: ``(B, *range_shape)``, in the unit of A applied to the image.
        noise: standard deviation of the noise in the unit of `measurement`, ``(B,)`` or of each
            number ``(B, *range_shape)``; None for the operator's estimate.
    """
    direct = operator.direct(measurement)
    return fitted_problem(operator, measurement, direct, noise=noise)


def fitted_problem(
    operator: LinearOperator, measurement: Tensor, direct: Tensor, *, noise: Tensor | None = None
) -> InverseProblem:
    """Inverse problem of images with background 0, scaled by the peak of a direct reconstruction.

    Args:
        operator: measurement model A.
        measurement: ``(B, *range_shape)``, in the unit of A applied to the image.
        direct: ``(B, *domain_shape)`` direct reconstruction, in the unit of the image.
        noise: standard deviation of the noise in the unit of `measurement`, ``(B,)`` or of each
            number ``(B, *range_shape)``; None for the operator's estimate.
    """
    scale = peak(direct)
    unit = torch.where(scale > 0, scale, 1.0)
    noise = operator.noise(measurement) if noise is None else noise
    noise = torch.zeros_like(scale) if noise is None else noise / expand(unit, noise)
    y, direct = measurement / expand(unit, measurement), direct / expand(unit, direct)
    operator, y, noise = whiten(operator, y, noise)
    return InverseProblem(operator, y, direct, scale, torch.zeros_like(scale), noise)


def image_problem(operator: LinearOperator, images: Tensor) -> InverseProblem:
    """Inverse problem of a simulated, noise-free measurement; each image is scaled to [0, 1].

    Args:
        operator: measurement model A, applied to the scaled images.
        images: real ``(B, 1, H, W)`` ground truth in any unit; a constant image has scale 0.
    """
    offset = images.amin((1, 2, 3))  # (B,)
    scale = images.amax((1, 2, 3)) - offset
    scaled = (images - expand(offset, images)) / expand(torch.where(scale > 0, scale, 1.0), images)
    y = operator.forward(scaled)
    return InverseProblem(operator, y, operator.direct(y), scale, offset, torch.zeros_like(scale))


def crop_readout(kspace: Tensor, mask: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """K-space cropped to the wanted field of view along fully measured axes (the readout).

    A scanner samples the readout more densely than the field of view needs. If every measured line
    along an axis is complete, cropping the image along it is a linear map of the measured lines.
    Along other axes, the image can only be cropped after the reconstruction.

    Args:
        kspace: complex ``(..., H, W)``.
        mask: bool ``(H, W)``, the same for all samples.
        shape: (H, W) of the wanted image; a side that is not smaller is left as it is.

    Returns:
        k-space ``(..., H', W')`` and its mask ``(H', W')``.
    """
    for axis in (-2, -1):
        complete = bool((mask == mask.select(axis, 0).unsqueeze(axis)).all())
        size, wanted = mask.shape[axis], shape[axis]
        if complete and wanted < size:
            first = (size - wanted) // 2
            mask = mask.narrow(axis, first, wanted)
            kspace = fft2c(ifft2c(kspace).narrow(axis, first, wanted)) * mask
    return kspace, mask.contiguous()


def _slow_phase(kspace: Tensor, maps: Tensor) -> Tensor:
    """exp(i phi) ``(B, S, H, W)`` of the combined coils at low resolution; 1 where that is 0.

    Low frequencies are those around the peak of k-space: the phase ramp of an echo that was not
    centred belongs to the slow phase.
    """
    coils = ifft2c(torch.stack([around_peak(sample) for sample in kspace]))  # (B, C, H, W)
    image = (maps.conj() * coils[:, None]).sum(2)  # (B, S, H, W)
    size = image.abs()
    return torch.where(size > 0, image / torch.where(size > 0, size, 1.0), 1.0)


def around_peak(kspace: Tensor) -> Tensor:
    """K-space ``(C, H, W)`` windowed around its peak, as wide as it is fully measured there."""
    peak, _ = find_peak(kspace)
    least, most = PHASE_WIDTH
    width = min(max(acs_width(centre_peak(kspace, peak)), least), most)
    return kspace * _hann(tuple(kspace.shape[-2:]), width, peak).to(kspace.real)


def _hann(shape: tuple[int, int], width: int, peak: tuple[int, int]) -> Tensor:
    """Hann window ``(H, W)`` around `peak` that falls from 1 to 0 within `width` / 2."""
    distance = [
        (torch.remainder(torch.arange(n) - middle + n // 2, n) - n // 2).abs() / (width / 2)
        for n, middle in zip(shape, peak, strict=True)
    ]
    rows, columns = (torch.cos(math.pi / 2 * d.clamp(max=1)) ** 2 for d in distance)
    return rows[:, None] * columns
