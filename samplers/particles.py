"""Particles of a sample, resampled by their weights (sequential Monte Carlo)."""

import torch
from torch import Tensor

from operators.batch import BatchGenerator


def resample(x: Tensor, log_weights: Tensor, rng: BatchGenerator) -> Tensor:
    """As many particles of each sample, each taken about as often as its weight says.

    Systematic resampling (Douc, Cappe & Moulines, ISPA 2005): particle p is taken floor or ceil of
    P w_p times, and P w_p times in the mean.

    Args:
        x: ``(P B, ...)`` P particles of each of B samples, one batch after the other.
        log_weights: ``(P B,)`` logarithms of the weights, each sample's up to a constant; a
            particle without a finite one is not taken while there is another.
        rng: one generator per sample ``(B)``; draws one number of each.

    Returns:
        ``(P B, ...)``, in the same order.
    """
    batch = len(rng)
    logs = torch.where(log_weights.isfinite(), log_weights, -torch.inf).reshape(-1, batch)
    count = len(logs)
    ends = torch.softmax(logs, 0).nan_to_num().cumsum(0)  # (P, B)
    ends = ends[:-1].contiguous()  # beyond the last of them all is the last particle's
    uniform = rng.uniform_like(ends.new_empty(batch, 1)).T  # (1, B)
    places = (torch.arange(count, device=ends.device)[:, None] + uniform) / count  # (P, B)
    taken = torch.searchsorted(ends.T.contiguous(), places.T.contiguous(), right=True).T  # (P, B)
    particles = x.reshape(count, batch, *x.shape[1:])
    return particles[taken, torch.arange(batch, device=x.device)].flatten(0, 1)
