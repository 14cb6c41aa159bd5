"""Denoising score matching."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators.batch import expand
from sde.ve import VESDE
from sde.view import SIGMA_DATA
from sde.vp import VPSDE, WIDTH


def draw_levels(
    generators: Sequence[torch.Generator],
    sde: VESDE | VPSDE,
    log_normal: tuple[float, float] | None = None,
) -> Tensor:
    """Noise levels of training, ``(B,)``, one from each of B generators.

    Args:
        generators: one a sample.
        sde: gives levels at times t ~ U(eps, 1).
        log_normal: mean and standard deviation of log sigma, for images in [-1, 1], to draw from a
            log-normal distribution instead (Karras et al. 2022, table 1); levels are in the unit of
            images in [0, 1] all the same.
    """
    if log_normal is not None:
        mean, std = log_normal
        normal = torch.cat([torch.randn(1, generator=g) for g in generators])  # (B,)
        return torch.exp(mean + std * normal) / WIDTH
    uniform = torch.cat([torch.rand(1, generator=g) for g in generators])  # (B,)
    return sde.sigma(sde.eps + (1 - sde.eps) * uniform)


def edm_weight(sigma: Tensor) -> Tensor:
    """Weight with which the loss of a preconditioned network starts at 1 for all levels: ``(B,)``.

    1 + (sigma / sigma_data)^2 beside the sigma^2 of score matching (Karras et al. 2022, table 1).
    """
    return 1 + (WIDTH * sigma / SIGMA_DATA) ** 2


def level_weight(sigma: Tensor, weight_sigma: float) -> Tensor:
    """Weight of a noise level's loss, 1 + sigma / weight_sigma: ``(B,)``; 1 for weight_sigma 0.

    The loss of a trained network falls about like 1 / sigma above the noise levels that hide the
    finest texture: unweighted, their share in the gradient falls with it. With a weight of about
    one over the loss each level counts by how much better it gets relatively, i.e. in dB.
    """
    if not weight_sigma:
        return torch.ones_like(sigma)
    return 1 + sigma / weight_sigma


def score_matching_loss(
    net: Callable[..., Tensor],
    x: Tensor,
    sigma: Tensor,
    noise: Tensor,
    *,
    depth: int | None = None,
) -> Tensor:
    """0.5 sum over pixels of (sigma s(x + sigma z, sigma) + z)^2 of each sample: ``(B,)``.

    Denoising score matching (Vincent 2011) weighted with sigma^2 (Song et al. 2021, equation 7).
    Divided by half the number of pixels it is 1 for s = 0 and 0 for noise that is told apart
    from the image entirely.

    Args:
        net: score network.
        x: ``(B, C, H, W)`` clean images.
        sigma: ``(B,)`` noise levels.
        noise: z, standard normal, shape of `x`.
        depth: of a nested network, which is called as ``net(x, sigma, depth)``; None for others,
            or for full depth.
    """
    noisy = x + expand(sigma, x) * noise
    chosen = () if depth is None else (depth,)
    residual = expand(sigma, x) * net(noisy, sigma, *chosen) + noise
    return 0.5 * residual.float().square().flatten(1).sum(1)  # (B,)
