"""Simulated multi-coil measurements of a known image."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from operators.batch import BatchGenerator
from operators.fourier import fft2c

CORRECTIONS = 12  # of an interpolation; the means are then met to about 1e-4 at an edge
COIL_RADIUS = 1.5  # in units of half the field of view, as in sigpy's birdcage


class MultiCoilData(NamedTuple):
    """Simulated acquisition of fully sampled multi-coil k-space."""

    kspace: Tensor  # (B, C, H, W) complex, noisy, every position measured
    sens_maps: Tensor  # (C, H, W) complex, sum_c |S_c|^2 = 1
    image: Tensor  # (B, 1, H, W) complex ground truth


def birdcage_maps(num_coils: int, shape: tuple[int, int]) -> Tensor:
    """Birdcage sensitivity maps: coils spaced evenly on a circle around the image.

    Coil c is a straight wire through the plane at z_c = 1.5 exp(2 pi i c / C), where the edges of
    the image are at x, y = -1 and 1. By the law of Biot and Savart its field at z = x + i y is
    S_c ~ exp(2 pi i c / C) / (z - z_c). Maps are normalised to sum_c |S_c|^2 = 1 at every pixel.

    Args:
        num_coils: number of coils C.
        shape: (H, W) in pixels.

    Returns:
        complex64 ``(C, H, W)``.

    Raises:
        ValueError: fewer than 1 coil.
    """
    if num_coils < 1:
        raise ValueError(f"expected at least one coil, got {num_coils}")
    y, x = _coordinates(shape)
    position = torch.complex(*torch.broadcast_tensors(x, y))  # (H, W)
    angle = 2 * math.pi * torch.arange(num_coils, dtype=torch.float64) / num_coils
    direction = torch.polar(torch.ones_like(angle), angle)[:, None, None]  # (C, 1, 1)
    maps = direction / (position - COIL_RADIUS * direction)  # (C, H, W)
    return (maps / torch.linalg.vector_norm(maps, dim=0)).to(torch.complex64)


def smooth_phase(shape: tuple[int, int], *, rng: BatchGenerator, std: float = 1.0) -> Tensor:
    """Random smooth phase exp(i phi), with a polynomial phi of degree 2 for each sample.

    phi(x, y) = a + b x + c y + d x^2 + e x y + f y^2 with x, y from -1 to 1 models the phase from
    field inhomogeneity and the receive chain.

    Args:
        shape: (H, W) in pixels.
        rng: one generator per sample; six numbers are drawn from each.
        std: standard deviation of the coefficients in radians.

    Returns:
        complex64 ``(B, 1, H, W)``, modulus 1.
    """
    y, x = torch.broadcast_tensors(*_coordinates(shape))
    terms = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])  # (6, H, W)
    coefficients = std * rng.normal((len(rng), 6)).to(torch.float64)
    phase = torch.einsum("bk,khw->bhw", coefficients, terms)[:, None]  # (B, 1, H, W)
    return torch.polar(torch.ones_like(phase), phase).to(torch.complex64)


def refine(images: Tensor) -> Tensor:
    """Smooth images on a grid of half the spacing, whose 2 x 2 blocks have the given means.

    They are interpolated bicubically and corrected until the means are met.

    Args:
        images: real ``(B, 1, H, W)``.

    Returns:
        ``(B, 1, 2 H, 2 W)``.
    """
    fine = torch.zeros(*images.shape[:2], *(2 * n for n in images.shape[-2:])).to(images)
    for _ in range(CORRECTIONS):
        missing = images - functional.avg_pool2d(fine, 2)
        fine = fine + functional.interpolate(missing, scale_factor=2, mode="bicubic")
    return fine


def simulate_multicoil(
    image: Tensor, *, num_coils: int, noise_std: float, rng: BatchGenerator
) -> MultiCoilData:
    """Simulated multi-coil acquisition y_c = F (S_c x) + noise of all of k-space.

    The maps are `birdcage_maps`. A real image is first multiplied by a random smooth phase, a
    complex one is used as it is. Each sample draws its phase (if any), then its noise, real part
    first, from its own generator.

    Args:
        image: ``(B, 1, H, W)``, real or complex.
        num_coils: number of coils C.
        noise_std: standard deviation of the white Gaussian noise of each coil, of the real and of
            the imaginary part each, in units of the image (the DFT is orthonormal).
        rng: one generator per sample.

    Returns:
        K-space, maps and the complex image, on the device of `image`. To undersample, multiply
        k-space by a mask.

    Raises:
        ValueError: a wrong shape, a negative `noise_std`, fewer than 1 coil, or another number of
            generators than samples.
    """
    if image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f"expected an image of shape (B, 1, H, W), got {tuple(image.shape)}")
    if noise_std < 0:
        raise ValueError(f"expected noise_std of 0 or more, got {noise_std}")
    shape = tuple(image.shape[-2:])
    if not image.is_complex():
        if len(rng) != len(image):
            raise ValueError(f"expected one generator a sample ({len(image)}), got {len(rng)}")
        image = image * smooth_phase(shape, rng=rng).to(image.device)
    maps = birdcage_maps(num_coils, shape).to(image.device)
    kspace = fft2c(maps * image)  # (B, C, H, W)
    return MultiCoilData(kspace + noise_std * rng.normal_like(kspace), maps, image)


def _coordinates(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Coordinates y ``(H, 1)`` and x ``(1, W)``: 0 at the origin ``n // 2``, -1 at pixel 0."""
    y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / max(n // 2, 1) for n in shape)
    return y[:, None], x[None]
