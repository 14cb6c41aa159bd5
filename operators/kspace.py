"""What Cartesian k-space of one coil or several says of itself, and of its sampling."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import derive_seed
from operators.masks import effective_acceleration, make_mask
from operators.noise import RINGS, kspace_noise, rings


class CartesianMRI(LinearOperator):
    """The part that operators of Cartesian k-space share; `mask` is bool ``(1 or B, 1, H, W)``."""

    direct_name = "zero-filled"
    mask: Tensor

    def direct_error(self, y: Tensor) -> Tensor:
        """As `LinearOperator.direct_error`: the energy of what was not measured."""
        parts = 2 if self.domain_complex else 1
        return unmeasured_level(self.mask, y) / math.sqrt(parts)

    def noise(self, y: Tensor) -> Tensor:
        """As `LinearOperator.noise`: that of the quietest positions (`kspace_noise`)."""
        return kspace_noise(y)

    def sampled(self) -> Tensor:
        """The mask ``(H, W)``, bool, of the first sample."""
        return self.mask[0, 0]

    @property
    def acceleration(self) -> float:
        """Positions over measured positions, of the first sample."""
        return effective_acceleration(self.sampled())

    def facts(self) -> dict:
        """``operator`` and ``measured_fraction``, of the whole batch."""
        return {**super().facts(), "measured_fraction": self.mask.float().mean().item()}

    @classmethod
    def describe(cls, fields: Mapping) -> tuple[str, str]:
        """Such as "mri gaussian1d" and "4x"."""
        return f"{fields['name']} {fields['mask']}", f"{fields['acceleration']:g}x"


def create_mask(
    shape: tuple[int, int],
    *,
    seed: int,
    keys: Sequence[str],
    study: bool,
    mask: str,
    acceleration: float,
    center_fraction: float,
    num_spokes: int | None,
    mask_per_slice: bool,
) -> Tensor:
    """The mask ``(H, W)`` bool that a config describes; ``(B, 1, H, W)``, one for each key.

    Args: as `operators.masks.make_mask`, but

        keys: of the batch's samples.
        mask: name of the mask.
        mask_per_slice: whether each sample gets a mask of its own.
    """

    def draw(seed: int) -> Tensor:
        return make_mask(
            mask,
            shape,
            seed=seed,
            acceleration=acceleration,
            center_fraction=center_fraction,
            num_spokes=num_spokes,
            study=study,
        )

    if not mask_per_slice:
        return draw(seed)
    return torch.stack([draw(derive_seed(seed, "mask", key)) for key in keys])[:, None]


def unmeasured_level(mask: Tensor, kspace: Tensor) -> Tensor:
    """Root mean square of what zero-filling misses: ``(B,)``.

    The energy density of k-space, averaged over the measured positions of a ring, is taken for that
    of the ring's other positions. A ring without any has that of the next one inside.

    Args:
        mask: ``(1 or B, 1, H, W)`` bool, True where measured.
        kspace: ``(B, C, H, W)`` centred, orthonormal, zero where not measured.
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
    """Each unknown value of ``(B, N)`` becomes the last known one before it; 0 without one."""
    position = torch.where(known, torch.arange(values.shape[1], device=values.device), 0)
    last = position.cummax(1).values  # (B, N)
    return torch.where(known, values, 0).gather(1, last)
