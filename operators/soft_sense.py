"""Multi-coil Cartesian MRI with several sets of coil maps (soft SENSE)."""

import torch
from torch import Tensor

from operators.fourier import fft2c, ifft2c
from operators.kspace import CartesianMRI
from operators.mri import check_mask


class SoftSenseMRI(CartesianMRI):
    """Multi-coil Cartesian MRI of several images at once, y_c = M F sum_s (S_sc x_s).

    For maps of `operators.espirit_sets`: where an object is larger than the field of view, two
    points of it lie in one pixel, one in each image. The adjoint has sum_c conj(S_sc) F^H M y_c.
    Images are complex ``(B, S, H, W)``, measurements complex ``(B, C, H, W)``. The maps of a pixel
    should be orthogonal and satisfy sum_c |S_sc|^2 = 1 or 0, so that the norm of A is at most 1.

    Args:
        mask: ``(H, W)`` for all samples or ``(B, 1, H, W)``, True where measured.
        sens_maps: complex ``(S, C, H, W)`` for all samples or ``(B, S, C, H, W)``.

    Raises:
        ValueError: shapes do not match, the mask is invalid or empty, or maps are not finite.
        TypeError: maps are not complex.

    Source: M. Uecker et al., Magn. Reson. Med. 71 (2014) 990-1001.
    """

    def __init__(self, mask: Tensor, sens_maps: Tensor):
        per_sample = sens_maps.ndim == 5
        masks_per_sample = mask.ndim == 4
        mask = check_mask(mask)
        if sens_maps.ndim not in (4, 5) or sens_maps.shape[-2:] != mask.shape[-2:]:
            raise ValueError(
                f"expected sens_maps (S, C, H, W) or (B, S, C, H, W) with (H, W) = "
                f"{tuple(mask.shape[-2:])} as the mask, got {tuple(sens_maps.shape)}"
            )
        if not sens_maps.is_complex():
            raise TypeError(f"expected complex sens_maps, got {sens_maps.dtype}")
        if not torch.isfinite(torch.view_as_real(sens_maps)).all():
            raise ValueError("expected finite sens_maps, got NaN or infinity; set them to 0 there")
        maps = sens_maps if per_sample else sens_maps[None]
        sizes = ({len(maps)} if per_sample else set()) | (
            {len(mask)} if masks_per_sample else set()
        )
        if len(sizes) == 2:
            raise ValueError(f"expected as many masks as maps, got {len(mask)} and {len(maps)}")
        super().__init__(
            (maps.shape[1], *mask.shape[-2:]),
            (maps.shape[2], *mask.shape[-2:]),
            domain_complex=True,
            range_complex=True,
            batch_size=sizes.pop() if sizes else None,
        )
        self.mask = mask  # (1 or B, 1, H, W) bool
        self.sens_maps = maps  # (1 or B, S, C, H, W)

    def _forward(self, x: Tensor) -> Tensor:
        coils = (self.sens_maps.to(x.dtype) * x[:, :, None]).sum(1)
        return fft2c(coils) * self.mask  # (B, C, H, W)

    def _adjoint(self, y: Tensor) -> Tensor:
        coils = ifft2c(y * self.mask)[:, None]  # (B, 1, C, H, W)
        return (self.sens_maps.to(y.dtype).conj() * coils).sum(2)  # (B, S, H, W)

    def _sample(self, index: int) -> "SoftSenseMRI":
        mask = self.mask[index if len(self.mask) > 1 else 0].unsqueeze(0)
        maps = self.sens_maps[index if len(self.sens_maps) > 1 else 0].unsqueeze(0)
        return SoftSenseMRI(mask, maps)
