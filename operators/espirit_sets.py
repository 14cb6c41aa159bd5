"""Several sets of coil sensitivity maps by ESPIRiT, for a field of view smaller than the object."""

import torch
from torch import Tensor

from operators.espirit import check_calibration, choose_kernel, read_centre


def espirit_sets(
    kspace: Tensor,
    *,
    calib_width: int = 24,
    kernel_width: int | None = None,
    threshold: float = 0.02,
    crop: float = 0.95,
    sets: int = 2,
) -> Tensor:
    """Sets of coil maps: at each pixel the first eigenvectors of the ESPIRiT operator.

    Where the object is larger than the field of view, its parts outside lie over those inside; a
    pixel then is the sum of two (or more) points, which the coils see differently, and as many
    eigenvalues are 1. The coil images are the sum over the sets of map times image
    (`SoftSenseMRI`). The first set is that of `espirit.espirit_maps`, and as there the reference
    coil's map is real and positive. Computed in double precision on the CPU.

    Args:
        kspace: complex ``(C, H, W)``, centred, 0 where not measured.
        calib_width: side of the calibration square, in positions of k-space.
        kernel_width: side of the kernel; None: as `espirit_maps`.
        threshold: singular values of the calibration matrix that are kept, relative to the
            largest one.
        crop: eigenvalue, from 0 to 1, up to which a pixel is 0 in a set.
        sets: S, number of sets.

    Returns:
        complex64 ``(S, C, H, W)`` on the device of `kspace`; sum_c |S_c|^2 is 1 or 0.

    Raises:
        ValueError: a wrong width, or a calibration square that is not fully measured.

    Source: M. Uecker et al., Magn. Reson. Med. 71 (2014) 990-1001, sections "ESPIRiT maps" and
    "extended (soft) SENSE".
    """
    kernel_width = choose_kernel(calib_width) if kernel_width is None else kernel_width
    check_calibration(kspace, calib_width, kernel_width)
    square, reference = read_centre(kspace, calib_width)
    kernels = _kernels(square.to("cpu", torch.complex128), kernel_width, threshold)
    gram = _pixel_matrices(kernels, tuple(kspace.shape[-2:]))  # (H, W, C, C)
    values, vectors = torch.linalg.eigh(gram)  # rising
    values = values[..., -sets:].flip(-1).permute(2, 0, 1)  # (S, H, W)
    maps = vectors[..., -sets:].flip(-1).permute(3, 2, 0, 1)  # (S, C, H, W)
    phase = torch.exp(-1j * maps[:, reference].angle())[:, None]
    maps = torch.where((values > crop)[:, None], maps * phase, 0)
    return maps.to(torch.complex64).to(kspace.device)


def overlap(maps: Tensor) -> float:
    """Part of the pixels of the first set of maps ``(S, C, H, W)`` that the second one has, too."""
    first, second = (maps[s].abs().sum(0) > 0 for s in (0, 1))
    return float((first & second).sum() / first.sum().clamp(min=1))


def _kernels(square: Tensor, width: int, threshold: float) -> Tensor:
    """Basis ``(n, C, k, k)`` of the rows of the calibration matrix of a square ``(C, w, w)``."""
    blocks = square.unfold(1, width, 1).unfold(2, width, 1)  # (C, m, m, k, k)
    matrix = blocks.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)  # (m m, C k k)
    _, values, rows = torch.linalg.svd(matrix, full_matrices=False)
    kept = rows[values > threshold * values[0]]
    return kept.reshape(-1, len(square), width, width)


def _pixel_matrices(kernels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sum over the kernels of q(r) q(r)^H / k^2, q the inverse DFT of a kernel: ``(H, W, C, C)``.

    As the inverse DFT of the kernels' correlations, which have 2 k - 1 lags along each axis.
    """
    width = kernels.shape[-1]
    side = 2 * width - 1
    spectra = torch.fft.fft2(kernels, s=(side, side))  # (n, C, side, side)
    power = torch.einsum("ncyx,ndyx->cdyx", spectra, spectra.conj())
    lags = torch.fft.ifft2(power)  # (C, C, side, side)
    offsets = torch.arange(side)
    offsets = torch.where(offsets < width, offsets, offsets - side)
    rows, columns = (offsets.remainder(n) for n in shape)
    spread = torch.zeros(*lags.shape[:2], shape[0] * shape[1], dtype=lags.dtype)
    places = (rows[:, None] * shape[1] + columns).flatten()  # lags that meet are added
    spread = spread.index_add_(2, places, lags.flatten(2)).unflatten(2, shape)
    sums = torch.fft.fftshift(torch.fft.ifft2(spread, norm="forward"), dim=(-2, -1))
    return sums.permute(2, 3, 0, 1) / width**2
