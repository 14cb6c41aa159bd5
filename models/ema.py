"""Exponential moving average of the weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def create_ema(net: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights of `net`.

    Each update is ``w_ema <- d w_ema + (1 - d) w`` with d = min(decay, (1 + n) / (10 + n)) at
    update n = 1, 2, ..., as in Song et al. (ICLR 2021), so that early weights are forgotten
    quickly. Call ``ema.update_parameters(net)`` after each optimiser step; ``ema.module`` is the
    averaged network.

    Args:
        net: the network, which is copied.
        decay: largest d.
    """

    def average(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        n = float(num_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    ema = AveragedModel(net, multi_avg_fn=average)
    ema.update_parameters(net)  # update 0 is a plain copy, so that n = 1 at the first real update
    ema.eval().requires_grad_(False)
    return ema
