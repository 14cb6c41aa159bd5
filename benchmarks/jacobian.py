"""Is the Jacobian of a network's denoiser a covariance? (docs/calibration.md)

    python -m benchmarks.jacobian natural_small natural_base

For the exact score, sigma^2 dD/dx is the covariance of the clean image given the noisy one:
symmetric, with eigenvalues of at least 0 and sigma^2 times their mean as the squared error of D. A
row for each prior, embedded validation image and noise level: the Frobenius norm of the
antisymmetric part over that of the symmetric one; least, largest and mean eigenvalue of the
symmetric part; the sum of those below 0 over that of the others; and the mean squared error of
this one denoised image over sigma^2, which the mean eigenvalue should be. Images are the middle 32
x 32 pixels of slices shrunk to 128 x 128: the whole matrix is computed, a product for each pixel.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.priors import table
from datasets.embedded import SUBSETS, open_samples
from models.checkpoint import load_prior, resolve_prior
from operators.batch import BatchGenerator
from samplers.denoise import denoise
from sde import Score

SIDE, SHRUNK = 32, 128  # pixels
SIGMAS = (0.03, 0.1, 0.3, 0.9)
TOGETHER = 64  # rows of the matrix in a batch of the network


class Shape(NamedTuple):
    """What a matrix lacks to be a covariance; the module says what each is."""

    antisymmetric: float
    least: float
    largest: float
    mean: float
    below_zero: float


def jacobian(score: Score, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """E[x_0 | x] of one image, and dE[x_0 | x] / dx as a matrix.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, through which autograd can go.
        x: ``(1, C, H, W)`` noisy image.
        sigma: its noise level.

    Returns:
        ``(1, C, H, W)`` and ``(n, n)``, n = C H W, in the precision of `x`.
    """
    rows = []
    for part in torch.eye(x.numel(), dtype=x.dtype).split(TOGETHER):
        with torch.enable_grad():
            images = x.expand(len(part), *x.shape[1:]).clone().requires_grad_()
            clean = denoise(score, images, torch.full((len(part),), sigma, dtype=x.dtype))
            gradient = torch.autograd.grad(clean, images, part.reshape(images.shape))[0]
        rows.append(gradient.flatten(1))
    return clean[:1].detach(), torch.cat(rows)


def shape(matrix: Tensor) -> Shape:
    """What ``(n, n)`` lacks to be a covariance."""
    matrix = matrix.double()
    symmetric, rest = (matrix + matrix.T) / 2, (matrix - matrix.T) / 2
    values = torch.linalg.eigvalsh(symmetric)
    return Shape(
        antisymmetric=float(rest.norm() / symmetric.norm()),
        least=float(values[0]),
        largest=float(values[-1]),
        mean=float(values.mean()),
        below_zero=float(values.clamp(max=0).sum().abs() / values.clamp(min=0).sum()),
    )


def middle(subset: str) -> Tensor:
    """Middle of the first validation image of an embedded subset, ``(1, 1, 32, 32)``."""
    image = open_samples("val", subset=subset, image_size=SHRUNK)[0].image
    start = (SHRUNK - SIDE) // 2
    return image[None, ..., start : start + SIDE, start : start + SIDE]


def row(name: str, score: Score, subset: str, sigma: float) -> list[str]:
    """A row of the table, of the noise with seed 0."""
    image = middle(subset)
    x = image + sigma * BatchGenerator([0]).normal_like(image)
    clean, matrix = jacobian(score, x, sigma)
    error = float((clean - image).square().mean()) / sigma**2
    numbers = [f"{value:.3f}" for value in (*shape(matrix), error)]
    return [f"`{name}`", subset, f"{sigma:g}", *numbers]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jacobian")
    parser.add_argument("priors", nargs="*", default=["natural_small", "natural_base"])
    parser.add_argument("--subsets", nargs="+", default=list(SUBSETS), choices=SUBSETS)
    parser.add_argument("--sigmas", nargs="+", type=float, default=SIGMAS)
    given = parser.parse_args(argv)
    rows = []
    for name in given.priors:
        score, _ = load_prior(resolve_prior(name), "cpu")
        rows += [row(name, score, s, sigma) for s in given.subsets for sigma in given.sigmas]
    names = ["antisymmetric", "least", "largest", "mean", "below 0", "error"]
    print(table(["prior", "image", "sigma", *names], rows))


if __name__ == "__main__":
    main()
