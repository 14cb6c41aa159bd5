"""Theoretical receptive field of a network: how far away input can change a pixel of the output."""

import copy

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from models import create_model
from models.layers import AttentionBlock
from models.nested import AtDepth

NARROW = 4  # channels of the copy that is looked at: their number does not matter
LENGTH = 1024  # pixels of the strip that is looked at


def theoretical_field(config: ConfigDict, depth: int | None = None) -> int | None:
    """Receptive field of a training config's network through convolutions and resampling.

    GroupNorm, which couples all pixels weakly, is left out.

    Args:
        config: a training config.
        depth: of a nested network; None for others, or for full depth.

    Returns:
        Pixels a side, of the output pixel with the largest field; None if it is unlimited, by
        attention.
    """
    narrow = config.copy_and_resolve_references()
    if "nf" in narrow.model:
        narrow.model.nf = NARROW
    net = create_model(narrow)
    return field_of(net if depth is None else AtDepth(net, depth))


def field_of(net: nn.Module) -> int | None:
    """Receptive field of a network ``net(x, sigma)``, as in `theoretical_field`.

    A copy without normalisation, whose convolutions have positive weights only, so that nothing
    cancels, is differentiated on a strip: the field is where the gradient of a pixel is not 0.

    Args:
        net: its attributes `stride`, which divides the sides of images, and `num_channels` are 1
            where it has none.

    Raises:
        ValueError: the field is larger than `LENGTH` pixels.
    """
    if any(isinstance(module, AttentionBlock) for module in net.modules()):
        return None
    net = copy.deepcopy(net).double().eval()
    _without_norms(net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_in = module.weight[0].numel()
            nn.init.constant_(module.weight, 1 / fan_in)
        elif isinstance(module, nn.Linear):  # of the noise level, which is no pixel
            nn.init.zeros_(module.weight)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    stride = getattr(net, "stride", 1)
    shape = (1, getattr(net, "num_channels", 1), stride, LENGTH)
    x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    out = net(x, torch.ones(1, dtype=torch.float64))
    # fields of the pixels of one period of the resampling differ
    fields = [_extent(out[0, 0, 0, LENGTH // 2 + i], x) for i in range(stride)]
    return max(fields)


def _extent(pixel: Tensor, x: Tensor) -> int:
    """Length of the strip `x` that changes a pixel."""
    (gradient,) = torch.autograd.grad(pixel, x, retain_graph=True)
    columns = gradient.abs().amax((0, 1, 2)).nonzero()[:, 0]
    first, last = int(columns.min()), int(columns.max())
    if first == 0 or last == x.shape[-1] - 1:
        raise ValueError(
            f"expected a receptive field of less than {LENGTH} pixels, got one that reaches the "
            "border; raise LENGTH in models/receptive_field.py"
        )
    return last - first + 1


def _without_norms(module: nn.Module) -> None:
    """Replace GroupNorm by the identity, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, nn.Identity())
        else:
            _without_norms(child)
