"""Floating-point operations of a network, counted without computing anything."""

import torch
from ml_collections import ConfigDict
from torch.utils.flop_counter import FlopCounterMode

from models import create_model


def count_flops(
    config: ConfigDict, side: int, *, depth: int | None = None, backward: bool = False
) -> float:
    """Operations of a network for one image of `side` x `side` pixels (PyTorch's counter).

    Args:
        config: a training config, whose field `model` is read.
        side: pixels; a multiple of the network's stride.
        depth: of a nested network; None for others, or for its largest.
        backward: whether to count the backward pass as well, as in a training step.
    """
    channels = config.model.get("num_channels", 1)
    with torch.device("meta"):
        net = create_model(config)
        x, sigma = torch.empty(1, channels, side, side), torch.ones(1)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = net(x, sigma) if depth is None else net(x, sigma, depth)
        if backward:
            out.sum().backward()
    return counter.get_total_flops()
