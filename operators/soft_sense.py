"""Multi-coil Cartesian MRI with several sets of coil maps (soft SENSE)."""

from torch import Tensor

from operators.fourier import fft2c, ifft2c
from operators.multicoil import CoilMRI


class SoftSenseMRI(CoilMRI):
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
        super().__init__(mask, sens_maps, axes="S, C, H, W")

    def _forward(self, x: Tensor) -> Tensor:
        coils = (self.sens_maps.to(x.dtype) * x[:, :, None]).sum(1)
        return fft2c(coils) * self.mask  # (B, C, H, W)

    def _adjoint(self, y: Tensor) -> Tensor:
        coils = ifft2c(y * self.mask)[:, None]  # (B, 1, C, H, W)
        return (self.sens_maps.to(y.dtype).conj() * coils).sum(2)  # (B, S, H, W)
