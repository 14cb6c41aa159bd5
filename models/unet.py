"""The fastMRI U-Net from image to image. It is not a score network, so not in `models.NETWORKS`.

Parameter names are those of the published weights (`down_sample_layers.0.layers.0.weight`,
`up_conv.3.1.bias`, ...).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # negative slope of the leaky ReLU
FIRST = "conv.layers.0.weight"  # an entry that every state dict of this network has


class UNet(nn.Module):
    """U-Net with instance normalisation, average pooling and transposed convolutions.

    Input and output are real ``(B, 1, H, W)``. Each level halves the resolution and doubles the
    channels. Sides need not be multiples of 2^num_pool_layers, as rows and columns lost by pooling
    are restored by reflection. They have to be at least 2^(num_pool_layers + 1) pixels, so that two
    remain for the normalisation.

    Args:
        chans: channels at full resolution.
        num_pool_layers: number of poolings.

    Raises:
        ValueError: a number below 1.

    Source: J. Zbontar et al., fastMRI, arXiv:1811.08839 (2018), section 5.2; O. Ronneberger, P.
    Fischer, T. Brox, MICCAI 2015.
    """

    def __init__(self, *, chans: int, num_pool_layers: int):
        super().__init__()
        if chans < 1 or num_pool_layers < 1:
            raise ValueError(
                f"expected chans and num_pool_layers of at least 1, got {chans}, {num_pool_layers}"
            )
        widths = [chans * 2**level for level in range(num_pool_layers + 1)]
        down = [_Convolutions(a, b) for a, b in pairwise([1, *widths[:-1]])]
        self.down_sample_layers = nn.ModuleList(down)
        self.conv = _Convolutions(widths[-2], widths[-1])
        upwards = list(pairwise(reversed(widths)))  # (wide, narrow), coarse to fine
        self.up_transpose_conv = nn.ModuleList(_Upsampling(a, b) for a, b in upwards)
        up = [_Convolutions(a, b) for a, b in upwards]  # of upsampled and skipped features
        up[-1] = nn.Sequential(up[-1], nn.Conv2d(chans, 1, kernel_size=1))
        self.up_conv = nn.ModuleList(up)

    def forward(self, x: Tensor) -> Tensor:
        """Output images for real images ``(B, 1, H, W)``, of the same shape.

        Raises:
            ValueError: the image is too small for the number of poolings.
        """
        least = 2 ** (len(self.down_sample_layers) + 1)
        if min(x.shape[-2:]) < least:
            raise ValueError(f"expected sides of at least {least} pixels, got {tuple(x.shape)}")
        kept = []
        for block in self.down_sample_layers:
            kept.append(block(x))
            x = F.avg_pool2d(kept[-1], 2)
        x = self.conv(x)
        for upsample, block in zip(self.up_transpose_conv, self.up_conv, strict=True):
            skip = kept.pop()
            x = upsample(x)
            missing = (0, skip.shape[-1] - x.shape[-1], 0, skip.shape[-2] - x.shape[-2])
            if any(missing):
                x = F.pad(x, missing, "reflect")
            x = block(torch.cat([x, skip], dim=1))
        return x


class _Convolutions(nn.Module):
    """Two convolutions, each normalised and rectified; entry 3 takes the place of dropout."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
            nn.InstanceNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
            nn.Identity(),
            nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False),
            nn.InstanceNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Upsampling(nn.Module):
    """A transposed convolution to twice the size, normalised and rectified."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2, bias=False),
            nn.InstanceNorm2d(outputs),
            nn.LeakyReLU(SLOPE),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def unet_from_state_dict(state: dict) -> UNet:
    """U-Net with the weights of a state dict; its size is inferred from their shapes.

    Args:
        state: name -> tensor, as published for fastMRI, or a training checkpoint with such a dict
            at any depth, whose names may have any prefix (``unet.``, ``module.``).

    Raises:
        ValueError: `state` holds no U-Net or more than one, or entries are missing, extra or
            misshapen (all are named).
    """
    tensors = _flatten(state)
    prefixes = [
        name.removesuffix(FIRST) for name in tensors if name == FIRST or name.endswith(f".{FIRST}")
    ]
    if len(prefixes) != 1:
        raise ValueError(
            f"expected the weights of one U-Net (one entry {FIRST}, with any prefix), "
            f"found {len(prefixes)} among {len(tensors)} tensors"
        )
    prefix = prefixes[0]
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    levels = {n.split(".")[1] for n in own if n.startswith("down_sample_layers.")}
    width = own[FIRST].shape[0] >> len(levels)
    net = UNet(chans=max(width, 1), num_pool_layers=max(len(levels), 1))
    expected = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in own.items()}
    faults = [
        f"{name}: expected {expected.get(name, 'nothing')}, got {found.get(name, 'nothing')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if faults:
        raise ValueError(
            f"not the weights of a U-Net of {net_size(net)}:\n  " + "\n  ".join(faults)
        )
    net.load_state_dict(own)
    return net


def net_size(net: UNet) -> str:
    """Numbers of channels and poolings in words, for messages."""
    return (
        f"{net.down_sample_layers[0].layers[0].out_channels} channels and "
        f"{len(net.down_sample_layers)} poolings"
    )


def _flatten(state: dict, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested dicts by dotted name."""
    tensors = {}
    for name, value in state.items():
        if isinstance(value, dict):
            tensors |= _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            tensors[f"{prefix}{name}"] = value
    return tensors
