"""The training loss on held-out images, told apart by noise level."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.batch import BatchGenerator, derive_seed
from sde.loss import score_matching_loss
from sde.ve import VESDE


def noise_level_bins(sde: VESDE, bins: int) -> Tensor:
    """Edges of `bins` intervals of noise levels, equally wide in log sigma: ``(bins + 1,)``."""
    return sde.sigma(sde.eps + (1 - sde.eps) * torch.linspace(0, 1, bins + 1))  # (bins + 1,)


@torch.no_grad()
def validation_loss(
    net: nn.Module,
    images: Sequence[Tensor],
    sde: VESDE,
    *,
    seed: int,
    bins: int,
    depth: int | None = None,
) -> Tensor:
    """Mean loss of `score_matching_loss` in each bin of noise levels: ``(bins,)``, float64.

    Every image meets one noise level a bin. Levels and noise depend on (seed, image, bin) only,
    so that losses at different steps and of different networks compare.

    Args:
        net: score network, in evaluation mode.
        images: ``(1, H, W)`` each, on the CPU; sizes may differ.
        sde: noise levels.
        seed: seed of levels and noise.
        bins: number of bins, see `noise_level_bins`.
        depth: of a nested network; None for others, or for full depth.
    """
    device = next(net.parameters()).device
    total = torch.zeros(bins, dtype=torch.float64)
    for i, image in enumerate(images):
        rng = BatchGenerator([derive_seed(seed, "validation", i, k) for k in range(bins)])
        uniform = torch.cat([torch.rand(1, generator=g) for g in rng.generators])  # (bins,)
        t = sde.eps + (1 - sde.eps) * (torch.arange(bins) + uniform) / bins  # (bins,)
        x = image.to(device).expand(bins, *image.shape)  # (bins, 1, H, W)
        sigma, noise = sde.sigma(t).to(device), rng.normal_like(x)
        loss = score_matching_loss(net, x, sigma, noise, depth=depth)
        total += loss.double().cpu()
    return total / len(images)  # (bins,)
