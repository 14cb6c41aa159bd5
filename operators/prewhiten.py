"""Receiver coils of unequal and correlated noise, brought to white noise of one level."""

import torch
from torch import Tensor


def noise_covariance(samples: Tensor) -> Tensor:
    """Covariance of the noise of coils, of the real and of the imaginary part each.

    Args:
        samples: complex ``(C, N)`` samples of noise alone, of at least C + 1 instants.

    Returns:
        complex128 ``(C, C)``, E[n n^H] / 2, Hermitian: the variance of one part on the diagonal.

    Raises:
        ValueError: another shape, or too few samples for an invertible covariance.
        TypeError: samples are not complex.
    """
    if samples.ndim != 2:
        raise ValueError(f"expected noise of shape (coils, samples), got {tuple(samples.shape)}")
    if not samples.is_complex():
        raise TypeError(f"expected complex noise, got {samples.dtype}")
    coils, count = samples.shape
    if count <= coils:
        raise ValueError(f"expected more than {coils} samples of {coils} coils, got {count}")
    noise = samples.to(torch.complex128)
    noise = noise - noise.mean(1, keepdim=True)
    return noise @ noise.mH / (2 * (count - 1))


def whitening_matrix(covariance: Tensor) -> Tensor:
    """The inverse L^-1 of the covariance's Cholesky factor, covariance = L L^H.

    Args:
        covariance: ``(C, C)``, Hermitian and positive definite.

    Raises:
        ValueError: it is not square, or not positive definite, as with a dead coil.
    """
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"expected a covariance (coils, coils), got {tuple(covariance.shape)}")
    factor, failed = torch.linalg.cholesky_ex(covariance.to(torch.complex128))
    if failed:
        raise ValueError(
            "expected a positive definite covariance, got one of coils without noise of their own: "
            "is one of them dead? Leave it out"
        )
    unit = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, unit, upper=False)


def prewhiten(kspace: Tensor, covariance: Tensor) -> Tensor:
    """K-space of virtual coils, whose noise is white with a standard deviation of 1.

    The virtual coils are L^-1 times the real ones, covariance = L L^H. Coil maps have to be
    estimated from the result, or be multiplied by L^-1 as well (`whitening_matrix`).

    Args:
        kspace: complex ``(..., C, H, W)``; exact zeros of all coils stay zeros.
        covariance: ``(C, C)``, from `noise_covariance`; of one part, so that the real and the
            imaginary part of the result's noise have a standard deviation of 1 each.

    Returns:
        ``(..., C, H, W)`` in the precision of `kspace`.

    Raises:
        ValueError: a covariance of another number of coils, or not positive definite.

    Source: K. P. Pruessmann et al., Magn. Reson. Med. 46 (2001) 638-651, appendix A.
    """
    matrix = whitening_matrix(covariance).to(kspace)
    if len(matrix) != kspace.shape[-3]:
        raise ValueError(
            f"expected a covariance of {kspace.shape[-3]} coils as k-space has, got {len(matrix)}"
        )
    return torch.einsum("dc,...chw->...dhw", matrix, kspace)
