"""NCSNv2Deepest of Song & Ermon (NeurIPS 2020), the network of the Langevin MRI priors (Jalal).

A RefineNet with instance normalisation that keeps the means (InstanceNorm++) and ELU. Keywords:
`ngf`, the base number of channels, and `rescaled`, whether images come in [-1, 1] instead of
[0, 1]; False by default. The state dict holds `sigmas`, descending, and tells the channels.
Attributes have the original's names, those of the state dict.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.foreign.strict import create, load

NAME = "NCSNv2Deepest"
EPS = 1e-5


def build(keywords: dict, state: dict[str, Tensor]) -> nn.Module:
    """A `NCSNv2Deepest`; see `models.foreign.build`."""
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if "sigmas" not in state or "begin_conv.weight" not in state:
        raise ValueError(f"expected a state dict of {NAME}, with sigmas and begin_conv.weight")
    keywords = {"num_channels": state["begin_conv.weight"].shape[1], **keywords}
    net = create(NCSNv2Deepest, {"num_levels": len(state["sigmas"]), **keywords}, NAME)
    return load(net, state, NAME)


def read(payload: object, keywords: dict) -> dict[str, Tensor]:
    """The averaged weights of the original's checkpoint, or a state dict that is there alone.

    The original saves a list: state dict, optimiser, epoch, step and, with averaging, the averages.
    """
    if not isinstance(payload, list | tuple):
        return payload
    if not (payload and isinstance(payload[0], dict)):
        raise ValueError(f"expected a list that begins with a state dict of {NAME}")
    state = {name.removeprefix("module."): value for name, value in payload[0].items()}
    if len(payload) < 5:  # trained without averaging
        return state
    average = {name.removeprefix("module."): value for name, value in payload[-1].items()}
    unknown = sorted(average.keys() - state.keys())
    if unknown:
        raise ValueError(f"expected averages of the weights, got unknown ones: {unknown[0]}, ...")
    return state | average


def conv(in_channels: int, out_channels: int, *, bias: bool = True, dilation: int = 1):
    """A 3 x 3 convolution that keeps the image size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)


class InstanceNormPlus(nn.Module):
    """Instance normalisation, plus the means of channels normalised over channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H, W)``."""
        means = x.mean((2, 3))  # (B, C)
        variance = means.var(dim=1, keepdim=True)  # (B, 1)
        means = (means - means.mean(1, keepdim=True)) / torch.sqrt(variance + EPS)  # (B, C)
        h = F.instance_norm(x, eps=EPS) + (means * self.alpha)[..., None, None]
        return h * self.gamma[:, None, None] + self.beta[:, None, None]


class ConvMeanPool(nn.Module):
    """A convolution, then means of 2 x 2 pixels."""

    def __init__(self, in_channels: int, out_channels: int, size: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H/2, W/2)``."""
        return F.avg_pool2d(self.conv(x), 2)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; smaller images, or dilated convolutions instead."""

    def __init__(self, channels: int, out_channels: int, *, down: bool = False, dilation: int = 1):
        super().__init__()
        pools = down and dilation == 1
        inner = channels if down else out_channels
        self.normalize1 = InstanceNormPlus(channels)
        self.conv1 = conv(channels, inner, dilation=dilation)
        self.normalize2 = InstanceNormPlus(inner)
        self.conv2 = (
            ConvMeanPool(inner, out_channels, 3)
            if pools
            else conv(inner, out_channels, dilation=dilation)
        )
        self.shortcut = nn.Identity()
        if pools:
            self.shortcut = ConvMeanPool(channels, out_channels, 1)
        elif down:
            self.shortcut = conv(channels, out_channels, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        h = self.conv1(F.elu(self.normalize1(x)))
        return self.shortcut(x) + self.conv2(F.elu(self.normalize2(h)))


class ResidualConvUnit(nn.Module):
    """`blocks` residual branches of two convolutions each."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.blocks = blocks
        for i in range(1, blocks + 1):
            for j in (1, 2):
                self.add_module(f"{i}_{j}_conv", conv(channels, channels, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H, W)``."""
        for i in range(1, self.blocks + 1):
            h = x
            for j in (1, 2):
                h = self.get_submodule(f"{i}_{j}_conv")(F.elu(h))
            x = x + h
        return x


class ChainedPooling(nn.Module):
    """Pooling and convolution in a chain whose links are added up."""

    def __init__(self, channels: int):
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H, W)``."""
        x = path = F.elu(x)
        for layer in self.convs:
            path = layer(F.max_pool2d(path, 5, stride=1, padding=2))
            x = x + path
        return x


class Fusion(nn.Module):
    """Features of several sizes, added up at the size of the first."""

    def __init__(self, channels: list[int], out_channels: int):
        super().__init__()
        self.convs = nn.ModuleList(conv(c, out_channels) for c in channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        """``[(B, C_i, H_i, W_i)]`` to ``(B, C, H_0, W_0)``."""
        size = features[0].shape[2:]
        maps = [layer(x) for layer, x in zip(self.convs, features, strict=True)]
        return sum(F.interpolate(h, size, mode="bilinear", align_corners=True) for h in maps)


class RefineBlock(nn.Module):
    """Joins features of two resolutions."""

    def __init__(self, channels: list[int], out_channels: int, *, end: bool = False):
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvUnit(c, 2) for c in channels)
        self.output_convs = ResidualConvUnit(out_channels, 3 if end else 1)
        self.msf = Fusion(channels, out_channels) if len(channels) > 1 else None
        self.crp = ChainedPooling(out_channels)

    def forward(self, *features: Tensor) -> Tensor:
        """Features ``(B, C_i, H_i, W_i)``, the largest first, to ``(B, C, H_0, W_0)``."""
        adapted = [unit(x) for unit, x in zip(self.adapt_convs, features, strict=True)]
        h = adapted[0] if self.msf is None else self.msf(adapted)
        return self.output_convs(self.crp(h))


class NCSNv2Deepest(nn.Module):
    """Score s(x, sigma_i) = network(x) / sigma_i of images of given noise levels.

    Args:
        ngf: base number of channels.
        num_channels: image channels.
        num_levels: number of noise levels.
        rescaled: whether images come in [-1, 1] instead of [0, 1].
    """

    def __init__(self, *, ngf: int, num_channels: int, num_levels: int, rescaled: bool = False):
        super().__init__()
        n, m, k = ngf, 2 * ngf, 4 * ngf
        self.num_channels, self.rescaled = num_channels, rescaled
        self.stride = 8  # image sides have to be multiples of it
        self.register_buffer("sigmas", torch.empty(num_levels))
        self.begin_conv = conv(num_channels, n)
        self.normalizer = InstanceNormPlus(n)
        self.end_conv = conv(n, num_channels)
        self.res1 = _stage(n, n, down=False)
        self.res2 = _stage(n, m)
        self.res3 = _stage(m, m)
        self.res31 = _stage(m, m)
        self.res4 = _stage(m, k, dilation=2)
        self.res5 = _stage(k, k, dilation=4)
        self.refine1 = RefineBlock([k], k)
        self.refine2 = RefineBlock([k, k], m)
        self.refine3 = RefineBlock([m, m], m)
        self.refine31 = RefineBlock([m, m], m)
        self.refine4 = RefineBlock([m, m], n)
        self.refine5 = RefineBlock([n, n], n, end=True)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Score of noisy images ``(B, C, H, W)`` with levels ``sigmas[labels]``, labels ``(B,)``.

        Raises:
            ValueError: a wrong number of channels, or sides that are not multiples of 8.
        """
        if x.shape[1] != self.num_channels or x.shape[2] % 8 or x.shape[3] % 8:
            raise ValueError(
                f"expected images (B, {self.num_channels}, H, W) with sides that are multiples of "
                f"8, got {tuple(x.shape)}"
            )
        h1 = self.res1(self.begin_conv(x if self.rescaled else 2 * x - 1))
        h2 = self.res2(h1)
        h3 = self.res3(h2)
        h31 = self.res31(h3)
        h4 = self.res4(h31)
        h = self.refine2(h4, self.refine1(self.res5(h4)))
        h = self.refine3(h3, self.refine31(h31, h))
        h = self.refine5(h1, self.refine4(h2, h))
        h = self.end_conv(F.elu(self.normalizer(h)))
        return h / self.sigmas[labels][:, None, None, None]


def _stage(channels: int, out_channels: int, *, down: bool = True, dilation: int = 1):
    """Two residual blocks, the first with the change of size."""
    return nn.Sequential(
        ResidualBlock(channels, out_channels, down=down, dilation=dilation),
        ResidualBlock(out_channels, out_channels, dilation=dilation),
    )
