"""Multi-coil Cartesian MRI with known coil sensitivities (SENSE)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from operators.fourier import centring_signs, fft2, fft2c, ifft2, ifft2c
from operators.kspace import CartesianMRI
from operators.mri import check_mask
from operators.simulation import birdcage_maps

MAPS = ("espirit", "known")  # how who reconstructs comes by coil maps


def rss(x: Tensor) -> Tensor:
    """Root sum of squares over coils, ``(B, C, H, W)`` to real ``(B, 1, H, W)``."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True)  # (B, 1, H, W)


class CoilMRI(CartesianMRI):
    """Base class of the operators with coil maps: what they check, and the operator of a sample.

    Args:
        mask: ``(H, W)`` for all samples or ``(B, 1, H, W)``, True where measured.
        sens_maps: complex, of `axes` for all samples, or with an axis of samples before them.
        axes: names of the maps' axes, "C, H, W" or "S, C, H, W" with S images a sample.

    Raises:
        ValueError: shapes do not match, the mask is invalid or empty, or maps are not finite.
        TypeError: maps are not complex.
    """

    def __init__(self, mask: Tensor, sens_maps: Tensor, *, axes: str = "C, H, W"):
        mask_per_sample = torch.as_tensor(mask).ndim == 4
        mask = check_mask(mask)
        sens_maps, maps_per_sample = check_maps(sens_maps, tuple(mask.shape[-2:]), axes)
        sizes = {len(mask)} if mask_per_sample else set()
        sizes |= {len(sens_maps)} if maps_per_sample else set()
        if len(sizes) == 2:
            raise ValueError(
                f"expected as many masks as sets of maps, got {len(mask)} and {len(sens_maps)}"
            )
        images = sens_maps.shape[1] if sens_maps.ndim == 5 else 1
        super().__init__(
            (images, *mask.shape[-2:]),
            tuple(sens_maps.shape[-3:]),
            domain_complex=True,
            range_complex=True,
            batch_size=sizes.pop() if sizes else None,
        )
        self.mask = mask  # (1 or B, 1, H, W) bool
        self.sens_maps = sens_maps  # (1 or B, ...)

    def facts(self) -> dict:
        """Description as a dict: ``operator``, ``measured_fraction`` and number of ``coils``."""
        return {**super().facts(), "coils": self.range_shape[0]}

    def _take(self, indices: Sequence[int]) -> "CoilMRI":
        mask = self.mask[indices] if len(self.mask) > 1 else self.mask  # (n or 1, 1, H, W)
        maps = self.sens_maps[indices if len(self.sens_maps) > 1 else [0] * len(indices)]
        return type(self)(mask if len(mask) > 1 else mask[0, 0], maps)


class MultiCoilMRI(CoilMRI):
    """Multi-coil Cartesian MRI (SENSE), y_c = M F (S_c x).

    The image is multiplied by the sensitivity S_c of each coil, transformed by the centred
    orthonormal DFT F and sampled by the mask M. The adjoint is sum_c conj(S_c) F^H M y_c. Images
    are complex ``(B, 1, H, W)``, measurements complex ``(B, C, H, W)``.

    The maps should satisfy sum_c |S_c|^2 = 1 on the object and be 0 elsewhere, as those of
    `operators.espirit`; divide other maps by ``rss(sens_maps)`` first. Then the norm of A is at
    most 1, so that `correct` with D = 1 cannot diverge; A^H A = 1 on the object if all of k-space
    is measured; and |x| is the root sum of squares of the coil images.

    Args:
        mask: ``(H, W)`` for all samples or ``(B, 1, H, W)``, True where measured.
        sens_maps: complex ``(C, H, W)`` for all samples or ``(B, C, H, W)``.

    Raises:
        ValueError: shapes do not match, the mask is invalid or empty, or maps are not finite.
        TypeError: maps are not complex.

    Source: K. P. Pruessmann et al., SENSE, Magn. Reson. Med. 42 (1999) 952-962.
    """

    def __init__(self, mask: Tensor, sens_maps: Tensor):
        super().__init__(mask, sens_maps)
        signs = centring_signs(*self.mask.shape[-2:])
        self._image_signs = None
        if signs is not None:
            self._image_signs, kspace_signs = signs  # (H, W) each
            self._signed_mask = self.mask * kspace_signs  # (1 or B, 1, H, W)

    @classmethod
    def create(
        cls,
        shape: tuple[int, int],
        *,
        seed: int,
        keys: Sequence[str],
        study: bool,
        mask: Tensor,
        coils: int = 8,
        maps: str = "espirit",
    ) -> "MultiCoilMRI":
        """Multi-coil MRI of complex images by simulated coils (`operators.simulation`).

        Args:
            shape: ``(H, W)`` of the images in pixels.
            seed: not used.
            keys: not used.
            study: not used.
            mask: bool ``(H, W)`` for all samples or ``(B, 1, H, W)``, drawn by
                `operators.create.create_mask`.
            coils: number of coils C.
            maps: "espirit" or "known": whether the maps are estimated from k-space for the
                reconstruction; the operator is the same.

        Raises:
            ValueError: an unknown value of `maps`, or fewer than 1 coil.
        """
        if maps not in MAPS:
            raise ValueError(f"expected operator.maps to be one of {MAPS}, got {maps!r}")
        return cls(mask, birdcage_maps(coils, shape))

    @classmethod
    def describe(cls, fields: Mapping) -> tuple[str, str]:
        """Operator and mask of a config, whether its maps are known, and its acceleration.

        Two texts such as "multicoil_mri poisson, known maps" and "8x".
        """
        what, acceleration = super().describe(fields)
        return what + (", known maps" if fields.get("maps") == "known" else ""), acceleration

    def _forward(self, x: Tensor) -> Tensor:
        maps = self.sens_maps.to(x.dtype)
        if self._image_signs is None:
            return fft2c(maps * x) * self.mask  # (B, C, H, W)
        return fft2(maps * (x * self._image_signs)) * self._signed_mask  # (B, C, H, W)

    def _adjoint(self, y: Tensor) -> Tensor:
        maps = self.sens_maps.to(y.dtype).conj()
        if self._image_signs is None:
            return (maps * ifft2c(y * self.mask)).sum(1, keepdim=True)  # (B, 1, H, W)
        image = (maps * ifft2(y * self._signed_mask)).sum(1, keepdim=True)
        return image * self._image_signs  # (B, 1, H, W)


def check_maps(sens_maps: Tensor, shape: tuple[int, int], axes: str) -> tuple[Tensor, bool]:
    """Maps with an axis of samples, 1 or B long, before their `axes`; and whether they had it."""
    sens_maps = torch.as_tensor(sens_maps)
    count = len(axes.split(", "))
    if sens_maps.ndim not in (count, count + 1) or tuple(sens_maps.shape[-2:]) != shape:
        raise ValueError(
            f"expected sens_maps of shape ({axes}) or (B, {axes}) with (H, W) = {shape} as the "
            f"mask, got {tuple(sens_maps.shape)}"
        )
    if not sens_maps.is_complex():
        raise TypeError(
            f"expected complex sens_maps, got {sens_maps.dtype}; use sens_maps.to(torch.complex64)"
        )
    if not torch.isfinite(torch.view_as_real(sens_maps)).all():
        raise ValueError("expected finite sens_maps, got NaN or infinity; set them to 0 there")
    per_sample = sens_maps.ndim == count + 1
    return (sens_maps if per_sample else sens_maps[None]), per_sample
