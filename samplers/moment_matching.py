"""Gaussian of the clean image given a noisy one: Tweedie's mean and covariance, and the bridge."""

from collections.abc import Callable

import torch
from torch import Tensor

from operators.batch import BatchGenerator, expand
from operators.gaussian import lanczos_sqrt
from samplers.denoise import denoise
from sde import Score

MAX_PRODUCTS = 30  # with the Jacobian, for a draw
TOLERANCE = 0.1  # change by a further product, in standard deviations of the level's noise


def linearise(score: Score, x: Tensor, sigma: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """E[x_0 | x] and the products v -> (dE[x_0 | x] / dx)^T v, without a further network call."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        clean = denoise(score, x, sigma)

    def product(v: Tensor) -> Tensor:
        return torch.autograd.grad(clean, x, v, retain_graph=True)[0]

    return clean.detach(), product


def draw_clean(
    score: Score,
    x: Tensor,
    sigma: Tensor,
    *,
    rng: BatchGenerator,
    tolerance: float,
    max_products: int,
) -> tuple[Tensor, Callable[[Tensor], Tensor], Tensor]:
    """A draw x0 ~ N(D, V) of the clean image, D = E[x_0 | x] and V = sigma^2 dD/dx.

    For a Gaussian prior it is a sample of p(x_0 | x).

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, through which autograd can go.
        x: ``(B, *domain_shape)`` noisy images.
        sigma: ``(B,)`` noise levels.
        rng: draws z of V^(1/2) z.
        tolerance: the change by a further product, relative to sigma, at which a sample stops.
        max_products: largest number of Jacobian products.

    Returns:
        x0, the products with dD/dx, and an estimate ``(B,)`` of their mean eigenvalue.
    """
    clean, jacobian = linearise(score, x, sigma)
    root, mean = lanczos_sqrt(
        jacobian, rng.normal_like(x), max_products=max_products, tolerance=tolerance
    )
    return clean + expand(sigma, x) * root, jacobian, mean


def bridge(
    x: Tensor, clean: Tensor, sigma: Tensor, following: Tensor, rng: BatchGenerator
) -> Tensor:
    """The image at the next level, given that at this and the clean one.

    x' ~ q(x' | x, x_0): r x + (1 - r) x_0 + sigma' sqrt(1 - r) z with r = (sigma' / sigma)^2.

    Args:
        x: ``(B, *domain_shape)`` image with noise of `sigma`.
        clean: x_0, a draw of it; the mean E[x_0 | x] makes the step of ancestral sampling.
        sigma: ``(B,)`` noise levels.
        following: ``(B,)`` lower levels sigma', down to 0.
        rng: draws z.
    """
    share = expand((following / sigma) ** 2, x)
    spread = expand(following, x) * torch.sqrt(1 - share)
    return clean + share * (x - clean) + spread * rng.normal_like(x)


def check_iterations(tolerance: float, max_products: int) -> None:
    """Raise what a sampler with Jacobian products does not stand.

    Raises:
        ValueError: a `tolerance` or `max_products` out of range.
        RuntimeError: under `torch.inference_mode`.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("expected to run without torch.inference_mode: gradients are needed")
    if max_products < 1 or not tolerance >= 0:
        raise ValueError(
            "expected max_products of 1 or more and a tolerance of 0 or more, got "
            f"{max_products} and {tolerance}"
        )
