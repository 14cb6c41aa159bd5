"""The project's only discrete Fourier transforms.

Images and k-space are centred: ``(H // 2, W // 2)`` is the origin of both, as in the public
fastMRI tools. All 2-D transforms are orthonormal, so that the inverse is the adjoint.
"""

import torch
from torch import Tensor

_AXES = (-2, -1)


def fft2c(x: Tensor) -> Tensor:
    """Centred orthonormal 2-D DFT: images ``(..., H, W)`` to complex k-space."""
    return torch.fft.fftshift(fft2(torch.fft.ifftshift(x, dim=_AXES)), dim=_AXES)


def ifft2c(kspace: Tensor) -> Tensor:
    """Inverse (and adjoint) of `fft2c`: k-space ``(..., H, W)`` to complex images."""
    return torch.fft.fftshift(ifft2(torch.fft.ifftshift(kspace, dim=_AXES)), dim=_AXES)


def ifftc(kspace: Tensor, *, dim: int) -> Tensor:
    """Centred orthonormal inverse DFT along one axis, of the same shape, complex."""
    shifted = torch.fft.ifftshift(kspace, dim=dim)
    return torch.fft.fftshift(torch.fft.ifft(shifted, dim=dim, norm="ortho"), dim=dim)


def fft2(x: Tensor) -> Tensor:
    """Orthonormal 2-D DFT of ``(..., H, W)``, complex, with both origins at index (0, 0)."""
    return torch.fft.fft2(x, norm="ortho")


def ifft2(kspace: Tensor) -> Tensor:
    """Inverse (and adjoint) of `fft2`: ``(..., H, W)`` to complex ``(..., H, W)``."""
    return torch.fft.ifft2(kspace, norm="ortho")


def centring_signs(height: int, width: int) -> tuple[Tensor, Tensor] | None:
    """Signs (s, t), float32 ``(H, W)``, with fft2c(x) = t fft2(s x) and ifft2c(k) = s ifft2(t k).

    For even sides, a shift by half the length on one side of the transform is a change of sign at
    every other position on the other side. An operator that multiplies its mask by t saves the
    four copies of the data that the shifts make. None if a side is odd.
    """
    if height % 2 or width % 2:
        return None
    parity = (torch.arange(height)[:, None] + torch.arange(width)) % 2  # (H, W)
    image_signs = 1.0 - 2.0 * parity
    return image_signs, image_signs * (-1.0) ** ((height + width) // 2)


def filter_rows(x: Tensor, kernel: Tensor, window: Tensor) -> Tensor:
    """Convolution of the last axis with a filter, by FFT.

    Args:
        x: real ``(..., N)``; zero-padded here to the kernel's length L.
        kernel: real and even ``(L,)``, origin at index 0; L >= 2 N - 1 avoids wrap-around.
        window: ``(L // 2 + 1,)`` factors that multiply the kernel's frequency response.

    Returns:
        ``(..., N)``.
    """
    response = torch.fft.rfft(kernel).real * window
    spectrum = torch.fft.rfft(x, n=len(kernel)) * response.to(x)
    return torch.fft.irfft(spectrum, n=len(kernel))[..., : x.shape[-1]]  # (..., N)
