"""Inpainting: some pixels of the image are measured, the others are not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.masks import effective_acceleration
from operators.mri import check_mask


class Inpainting(LinearOperator):
    """Inpainting, y = M x: pixels outside the mask are set to zero.

    x and y are ``(B, 1, H, W)``. As A A^H y = y for every measurement y = A x, `correct` has
    D = 1, and a weight of 1 is the orthogonal projection onto {x : A x = y}: it replaces the
    measured pixels.

    Args:
        mask: ``(H, W)`` for all samples or ``(B, 1, H, W)``, True where measured.
        real: whether images are real-valued (float32, float64) or complex.

    Raises:
        ValueError: the mask has another shape, values other than 0 and 1, or no measured pixel.
    """

    direct_name = "measured pixels"

    def __init__(self, mask: Tensor, real: bool = True):
        per_sample = torch.as_tensor(mask).ndim == 4
        mask = check_mask(mask)
        shape = (1, *mask.shape[-2:])
        super().__init__(
            shape,
            shape,
            domain_complex=not real,
            range_complex=not real,
            batch_size=mask.shape[0] if per_sample else None,
        )
        self.mask = mask  # (1 or B, 1, H, W) bool

    def sampled(self) -> Tensor:
        """The mask ``(H, W)``, bool, of the first sample."""
        return self.mask[0, 0]

    def measured(self) -> Tensor:
        """The masks: bool ``(1 or B, 1, H, W)``."""
        return self.mask

    @property
    def acceleration(self) -> float:
        """Number of pixels divided by measured pixels, of the first sample."""
        return effective_acceleration(self.sampled())

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask

    def _take(self, indices: Sequence[int]) -> "Inpainting":
        return Inpainting(self.mask[indices], real=not self.domain_complex)
