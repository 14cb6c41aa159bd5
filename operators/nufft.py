"""Non-uniform Fourier transforms, by finufft, of images and k-space anywhere between grid points.

finufft (Barnett, Magland, af Klinteberg, SIAM J. Sci. Comput. 2019) is an optional dependency
(``pip install finufft``). Transforms are computed on the CPU; tensors of a GPU are copied there and
back.
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

ACCURACY = {torch.complex64: 1e-6, torch.complex128: 1e-12}  # relative, asked of finufft


class Nufft:
    """F: images ``(..., H, W)`` to k-space ``(..., M)`` at M positions, and its adjoint.

    (F x)_m = (H W)^-1/2 sum_r x_r exp(-2 pi i k_m . r) with r = 0 at the pixel
    ``(H // 2, W // 2)``: at the positions of the grid it is the centred orthonormal DFT.

    Args:
        positions: ``(M, 2)`` k-space positions (row, column) in cycles per pixel, from -1/2 to 1/2.
        shape: ``(H, W)`` of the images in pixels.

    Raises:
        ImportError: finufft is not installed.
        ValueError: positions are not ``(M, 2)``, not finite, or beyond 1/2.
    """

    def __init__(self, positions: Tensor, shape: Sequence[int]):
        if find_spec("finufft") is None:
            raise ImportError("k-space off the grid needs finufft: pip install finufft")
        if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions):
            raise ValueError(f"expected positions (M, 2), got {tuple(positions.shape)}")
        if not torch.isfinite(positions).all() or positions.abs().max() > 0.5 * (1 + 1e-4):
            raise ValueError(
                "expected finite k-space positions in cycles per pixel, from -0.5 to 0.5, got up "
                f"to {positions.abs().max().item():g}; divide those in cycles per field of view by "
                "the number of pixels"
            )
        self.shape = (int(shape[0]), int(shape[1]))
        self.positions = positions.detach().cpu().double()
        self._plans: dict = {}

    def __getstate__(self) -> dict:
        return vars(self) | {"_plans": {}}  # plans are pointers

    def forward(self, x: Tensor) -> Tensor:
        """F x of complex images ``(..., H, W)``: ``(..., M)``."""
        return _Transform.apply(x, self, False)

    def adjoint(self, y: Tensor) -> Tensor:
        """F^H y of complex k-space ``(..., M)``: ``(..., H, W)``."""
        return _Transform.apply(y, self, True)

    def run(self, values: Tensor, adjoint: bool) -> Tensor:
        """`forward` or `adjoint` without gradients."""
        ends = 1 if adjoint else 2
        front = values.shape[: values.ndim - ends]
        flat = values.detach().reshape(-1, *values.shape[values.ndim - ends :])
        plan = self._plan(adjoint, len(flat), values.dtype)
        found = plan.execute(np.ascontiguousarray(flat.cpu().numpy()))
        found = torch.from_numpy(np.asarray(found)) / math.sqrt(math.prod(self.shape))
        after = self.shape if adjoint else (len(self.positions),)
        return found.reshape(*front, *after).to(values.device)

    def _plan(self, adjoint: bool, count: int, dtype: torch.dtype):
        """A plan of finufft for `count` transforms at once, made at its first use."""
        import finufft

        threads = torch.get_num_threads()
        key = (adjoint, count, dtype, threads)
        if key not in self._plans:
            plan = finufft.Plan(
                1 if adjoint else 2,
                self.shape,
                count,
                ACCURACY[dtype],
                1 if adjoint else -1,
                dtype=str(dtype).removeprefix("torch."),
                nthreads=threads,
                showwarn=0,
            )
            real = np.float32 if dtype == torch.complex64 else np.float64
            points = (2 * math.pi * self.positions).numpy().astype(real).T
            plan.setpts(*(np.ascontiguousarray(axis) for axis in points))
            self._plans[key] = plan
        return self._plans[key]


class _Transform(torch.autograd.Function):
    """A linear map whose gradient is its adjoint, which is of the same kind."""

    @staticmethod
    def forward(ctx, values: Tensor, nufft: Nufft, adjoint: bool) -> Tensor:
        ctx.nufft, ctx.adjoint = nufft, adjoint
        return nufft.run(values, adjoint)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Transform.apply(gradient, ctx.nufft, not ctx.adjoint), None, None


def toeplitz_spectrum(nufft: Nufft) -> Tensor:
    """Spectrum of F^H F, a convolution: real ``(2 H, 2 W)``, float64, not centred.

    For `toeplitz` (Fessler et al., IEEE Trans. Signal Process. 53 (2005) 3393-3402).
    """
    height, width = nufft.shape
    twice = Nufft(nufft.positions, (2 * height, 2 * width))
    ones = torch.ones(len(nufft.positions), dtype=torch.complex128)
    spread = 2 * twice.adjoint(ones)  # (2 H, 2 W), origin at (H, W); (4 H W)^-1/2 -> (H W)^-1/2
    spread = spread / math.sqrt(height * width)
    spread[0] = 0  # differences of H or W pixels do not occur: without them it is Hermitian
    spread[:, 0] = 0
    return torch.fft.fft2(torch.fft.ifftshift(spread)).real


def toeplitz(x: Tensor, spectrum: Tensor) -> Tensor:
    """F^H F x of complex images ``(..., H, W)`` by two FFTs of twice the size.

    Args:
        x: the images.
        spectrum: of `toeplitz_spectrum`, real ``(2 H, 2 W)``.
    """
    height, width = x.shape[-2:]
    large = torch.fft.fft2(x, s=(2 * height, 2 * width))
    return torch.fft.ifft2(large * spectrum)[..., :height, :width]
