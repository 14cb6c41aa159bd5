"""Measurements in a scanner's unit as inverse problems for images in [0, 1], and the way back.

A prior knows images in [0, 1]; measured k-space and sinograms come in any unit, and MR images with
any phase. All of it is a change of variables: nothing is taken away from the measurement.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import expand
from operators.espirit import acs_width
from operators.fourier import fft2c, ifft2c
from operators.kspace_peak import centre_peak, find_peak
from operators.multicoil import MultiCoilMRI, rss

PEAK = 0.999  # part of the pixels that are below what counts as the image's peak
PHASE_WIDTH = (8, 32)  # of the k-space square for the phase: at least, at most
TINY = 1e-6  # of the largest sensitivity: no coil sees this pixel


class Problem(NamedTuple):
    """y = A x with x in about [0, 1], for a batch.

    Attributes:
        operator: A.
        y: ``(B, *range_shape)`` measurement, in the unit of x.
        direct: ``(B, 1, H, W)`` zero-filled image or filtered back-projection.
        scale: ``(B,)`` what 1 stands for, above what 0 stands for; 0: nothing was measured there.
        offset: ``(B,)`` what 0 stands for.
        noise: ``(B,)`` standard deviation of y's noise (of real and imaginary part each),
            estimated from the measurement; 0 where it was simulated without.
        factor: ``(B, 1, H, W)`` complex, the phase that x does not have (0 where no coil sees);
            None for real images.
    """

    operator: LinearOperator
    y: Tensor
    direct: Tensor
    scale: Tensor
    offset: Tensor
    noise: Tensor
    factor: Tensor | None = None

    def restore(self, x: Tensor) -> Tensor:
        """Images x ``(B, 1, H, W)`` in the unit (and with the phase) of the measurement."""
        image = expand(self.scale, x) * x + expand(self.offset, x)
        return image if self.factor is None else image * self.factor

    def to(self, device: torch.device | str) -> "Problem":
        """A copy on `device`."""
        return Problem(*(None if part is None else part.to(device) for part in self))


def mri_problem(
    kspace: Tensor,
    mask: Tensor,
    sens_maps: Tensor | None = None,
    *,
    noise: Tensor | None = None,
) -> Problem:
    """Cartesian k-space of one or several coils.

    The image's slowly varying phase, that of k-space around its peak, is made a part of the coil
    maps: what is left is nearly real and positive, as the images that priors are trained on. x
    stays complex, so that a wrong phase costs nothing but that.

    Args:
        kspace: complex ``(B, C, H, W)``, centred; ignored where not measured.
        mask: bool ``(B, 1, H, W)``.
        sens_maps: complex ``(B, C, H, W)`` of any scale; None for one coil of constant
            sensitivity.
        noise: ``(B,)`` standard deviation of the noise of `kspace`; None: estimated from it.

    Raises:
        ValueError: several coils without maps, or shapes that do not fit.
    """
    if sens_maps is None:
        if kspace.shape[1] != 1:
            raise ValueError(f"expected sens_maps for {kspace.shape[1]} coils, got none")
        sens_maps = torch.ones_like(kspace)
    size = rss(sens_maps)  # (B, 1, H, W)
    seen = size > TINY * size.amax((1, 2, 3), keepdim=True)
    maps = torch.where(seen, sens_maps / torch.where(seen, size, 1.0), 0.0)  # (B, C, H, W)
    kspace = kspace * mask
    factor = _slow_phase(kspace, maps) * seen  # (B, 1, H, W)
    operator = MultiCoilMRI(mask, maps * factor)
    image = operator.adjoint(kspace)
    scale = peak(image)
    unit = torch.where(scale > 0, scale, 1.0)
    y = kspace / expand(unit, kspace)
    noise = operator.noise(y) if noise is None else noise / unit
    return Problem(operator, y, operator.direct(y), scale, torch.zeros_like(scale), noise, factor)


def scaled_problem(operator: LinearOperator, measurement: Tensor) -> Problem:
    """A measurement of real images that are 0 where nothing is, such as a sinogram, in any unit.

    Args:
        operator: measurement model.
        measurement: ``(B, *range_shape)``, in the unit that A gives for images in theirs.
    """
    scale = peak(operator.direct(measurement))
    y = measurement / expand(torch.where(scale > 0, scale, 1.0), measurement)
    zero = torch.zeros_like(scale)
    noise = operator.noise(y)
    return Problem(operator, y, operator.direct(y), scale, zero, zero if noise is None else noise)


def image_problem(operator: LinearOperator, images: Tensor) -> Problem:
    """A simulated measurement of real images ``(B, 1, H, W)`` in any unit, scaled to [0, 1] each.

    Args:
        operator: measures images in [0, 1].
        images: the truth; those that are constant have the scale 0.
    """
    offset = images.amin((1, 2, 3))  # (B,)
    scale = images.amax((1, 2, 3)) - offset
    scaled = (images - expand(offset, images)) / expand(torch.where(scale > 0, scale, 1.0), images)
    y = operator.forward(scaled)
    return Problem(operator, y, operator.direct(y), scale, offset, torch.zeros_like(scale))


def peak(images: Tensor) -> Tensor:
    """The magnitude that a part `PEAK` of each image's pixels is not above: ``(B,)``."""
    pixels = images.abs().flatten(1)  # (B, N)
    return pixels.kthvalue(math.ceil(PEAK * pixels.shape[1]), dim=1).values


def crop_readout(kspace: Tensor, mask: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Remove oversampling along the axes where every measured line is complete.

    A scanner samples the readout more densely than the field of view needs. Where each line of
    the mask is measured over its whole length, cropping the image along it is a linear map of the
    measured lines alone; along other axes the image can be cropped at the end only.

    Args:
        kspace: complex ``(..., H, W)``.
        mask: bool ``(H, W)``, the same for all.
        shape: of the image that is wanted; sides that are not smaller are left as they are.

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
    """exp(i phi) ``(B, 1, H, W)`` of the coils' combination at low resolution; 1 where it is 0.

    Low are the frequencies around the peak of k-space, wherever it lies: an echo that was not in
    the middle is a phase ramp of the image, and part of its slow phase.
    """
    coils = ifft2c(torch.stack([around_peak(sample) for sample in kspace]))  # (B, C, H, W)
    image = (maps.conj() * coils).sum(1, keepdim=True)  # (B, 1, H, W)
    size = image.abs()
    return torch.where(size > 0, image / torch.where(size > 0, size, 1.0), 1.0)


def around_peak(kspace: Tensor) -> Tensor:
    """k-space ``(C, H, W)``, windowed around its peak, as wide as it is measured there."""
    peak, _ = find_peak(kspace)
    least, most = PHASE_WIDTH
    width = min(max(acs_width(centre_peak(kspace, peak)), least), most)
    return kspace * _hann(tuple(kspace.shape[-2:]), width, peak).to(kspace.real)


def _hann(shape: tuple[int, int], width: int, peak: tuple[int, int]) -> Tensor:
    """A window ``(H, W)`` around `peak` that falls from 1 to 0 within `width` / 2."""
    distance = [
        (torch.remainder(torch.arange(n) - middle + n // 2, n) - n // 2).abs() / (width / 2)
        for n, middle in zip(shape, peak, strict=True)
    ]
    rows, columns = (torch.cos(math.pi / 2 * d.clamp(max=1)) ** 2 for d in distance)
    return rows[:, None] * columns
