"""Base of the Cartesian MRI operators: mask, error of the zero-filled image, noise estimate."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.masks import effective_acceleration
from operators.noise import RINGS, kspace_noise, rings


class CartesianMRI(LinearOperator):
    """Base class of the operators of Cartesian k-space.

    Attributes:
        mask: bool ``(1 or B, 1, H, W)``, True where measured.
    """

    direct_name = "zero-filled"
    mask: Tensor

    def direct_error(self, y: Tensor) -> Tensor:
        """Root mean square error of the zero-filled image, from the energy not measured.

        Args:
            y: complex ``(B, C, H, W)`` k-space.

        Returns:
            ``(B,)`` in units of the image; for complex images the error of the real and of the
            imaginary part each. See `unmeasured_level`.
        """
        parts = 2 if self.domain_complex else 1
        return unmeasured_level(self.mask, y) / math.sqrt(parts)

    def noise(self, y: Tensor) -> Tensor:
        """Standard deviation of the noise of the real and of the imaginary part: ``(B,)``.

        Args:
            y: complex ``(B, C, H, W)`` k-space. See `operators.noise.kspace_noise`.
        """
        return kspace_noise(y)

    def sampled(self) -> Tensor:
        """The mask ``(H, W)``, bool, of the first sample."""
        return self.mask[0, 0]

    def measured(self) -> Tensor:
        """The masks: bool ``(1 or B, 1, H, W)``, the same for all coils."""
        return self.mask

    @property
    def acceleration(self) -> float:
        """Number of positions of k-space divided by measured ones, of the first sample."""
        return effective_acceleration(self.sampled())

    def facts(self) -> dict:
        """Description as a dict: ``operator``, and ``measured_fraction`` of the whole batch."""
        return {**super().facts(), "measured_fraction": self.mask.float().mean().item()}

    @classmethod
    def describe(cls, fields: Mapping) -> tuple[str, str]:
        """Operator and mask of a config, and its acceleration, such as "mri gaussian1d", "4x"."""
        return f"{fields['name']} {fields['mask']}", f"{fields['acceleration']:g}x"


def unmeasured_level(mask: Tensor, kspace: Tensor) -> Tensor:
    """Root mean square error of the zero-filled image, estimated from measured k-space.

    The mean energy of the measured positions of a ring is assumed for its other positions. A ring
    without measured positions takes that of the next ring inside.

    Args:
        mask: bool ``(1 or B, 1, H, W)``, True where measured.
        kspace: ``(B, C, H, W)`` centred, orthonormal, zero where not measured.

    Returns:
        ``(B,)`` in units of the image.
    """
    height, width = mask.shape[-2:]
    ring = rings(height, width).to(kspace.device)  # (H W,)
    measured = mask.flatten(1).to(kspace.real.dtype).expand(len(kspace), -1)  # (B, H W)
    energy = kspace.abs().square().sum(1).flatten(1) * measured  # (B, H W)

    def total(values: Tensor) -> Tensor:
        sums = values.new_zeros(len(values), RINGS)
        return sums.index_add_(1, ring, values)  # (B, RINGS)

    count, energies = total(measured), total(energy)
    density = fill_forward(energies / count.clamp(min=1), count > 0)
    missing = (density * total(1 - measured)).sum(1)  # (B,)
    return torch.sqrt(missing / (height * width))


def fill_forward(values: Tensor, known: Tensor) -> Tensor:
    """`values` ``(B, N)`` with unknown ones replaced by the last known one before, or by 0."""
    position = torch.where(known, torch.arange(values.shape[1], device=values.device), 0)
    last = position.cummax(1).values  # (B, N)
    return torch.where(known, values, 0).gather(1, last)
