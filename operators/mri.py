"""Single-coil Cartesian MRI."""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.fourier import centring_signs, fft2, fft2c, ifft2, ifft2c
from operators.kspace import CartesianMRI


def check_mask(mask: Tensor) -> Tensor:
    """The sampling mask as bool ``(1, 1, H, W)`` or ``(B, 1, H, W)``.

    Args:
        mask: ``(H, W)`` or ``(B, 1, H, W)``, bool or numbers that are all 0 or 1.

    Raises:
        ValueError: another shape, other values, or a mask with no measured position.
    """
    mask = torch.as_tensor(mask)
    if mask.ndim == 2:
        mask = mask[None, None]  # (1, 1, H, W)
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(
            f"expected a mask of shape (H, W) or (B, 1, H, W), got {tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool and not torch.isin(mask, torch.tensor([0, 1]).to(mask)).all():
        raise ValueError("expected a mask of zeros and ones (True: measured), got other values")
    mask = mask.to(torch.bool)
    if not mask.flatten(1).any(1).all():
        raise ValueError("expected a mask with at least one measured position, got an empty one")
    return mask


class SingleCoilMRI(CartesianMRI):
    """Single-coil Cartesian MRI, y = M F x: the centred orthonormal DFT, then a sampling mask.

    Images are ``(B, 1, H, W)``, measurements complex ``(B, 1, H, W)``. For complex images the rows
    of A are orthonormal, so that `correct` with weight 1 replaces measured k-space; with weight
    lambda it gives F^-1[(1 - lambda M) F x + lambda y], the relaxed data consistency of Chung & Ye
    (2022). For real images the real part is taken.

    Args:
        mask: ``(H, W)`` for all samples or ``(B, 1, H, W)``, True where measured.
        real: whether images are real-valued; the adjoint is then Re F^H M.

    Raises:
        ValueError: the mask has another shape, values other than 0 and 1, or no measured position.
    """

    def __init__(self, mask: Tensor, real: bool = True):
        per_sample = torch.as_tensor(mask).ndim == 4
        mask = check_mask(mask)
        shape = (1, *mask.shape[-2:])
        super().__init__(
            shape,
            shape,
            domain_complex=not real,
            range_complex=True,
            batch_size=mask.shape[0] if per_sample else None,
        )
        self.mask = mask  # (1 or B, 1, H, W) bool
        signs = centring_signs(*mask.shape[-2:])
        self._image_signs = None
        if signs is not None:
            self._image_signs, kspace_signs = signs  # (H, W) each
            self._signed_mask = mask * kspace_signs  # (1 or B, 1, H, W)

    @classmethod
    def create(
        cls, shape: tuple[int, int], *, seed: int, keys: Sequence[str], study: bool, mask: Tensor
    ) -> "SingleCoilMRI":
        """Single-coil MRI of real images with the mask that a config describes.

        Args:
            shape: not used, as the mask has it.
            seed: not used.
            keys: not used.
            study: not used.
            mask: bool ``(H, W)`` for all samples or ``(B, 1, H, W)``, drawn by
                `operators.create.create_mask`.
        """
        return cls(mask)

    def _forward(self, x: Tensor) -> Tensor:
        if self._image_signs is None:
            return fft2c(x) * self.mask
        return fft2(x * self._image_signs) * self._signed_mask

    def _adjoint(self, y: Tensor) -> Tensor:
        if self._image_signs is None:
            image = ifft2c(y * self.mask)
            return image if self.domain_complex else image.real
        image = ifft2(y * self._signed_mask)
        return (image if self.domain_complex else image.real) * self._image_signs

    def _take(self, indices: Sequence[int]) -> "SingleCoilMRI":
        return SingleCoilMRI(self.mask[indices], real=not self.domain_complex)
