"""The operator without measurements: it makes a posterior sampler a sampler of the prior."""

import torch
from torch import Tensor

from operators.base import LinearOperator, Shape


class Unmeasured(LinearOperator):
    """Operator from images to the empty measurement ``(B, 0)``.

    Its adjoint is zero and `correct` changes nothing. With the measurement
    ``operator.nothing(batch)``, a posterior sampler samples the prior.

    Args:
        domain_shape: shape of one image, ``(1, H, W)``.
        real: whether images are real-valued.
    """

    def __init__(self, domain_shape: Shape, real: bool = True):
        super().__init__(domain_shape, (0,), domain_complex=not real, range_complex=not real)

    def nothing(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """The empty measurement of `batch` images: float32 or complex64 ``(B, 0)``."""
        dtype = torch.complex64 if self.range_complex else torch.float32
        return torch.empty((batch, 0), dtype=dtype, device=device)

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :0]  # (B, 0)

    def _adjoint(self, y: Tensor) -> Tensor:
        zeros = y.new_zeros((y.shape[0], *self.domain_shape))
        return zeros + y.sum(1).reshape(-1, *[1] * len(self.domain_shape))  # keeps autograd's graph

    def _correct(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        return x
