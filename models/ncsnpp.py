"""NCSN++ at the study's five sizes: from a ResNet (depth 1) to an attention U-Net (depth 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import (
    RESCALE,
    AttentionBlock,
    NoiseEmbedding,
    PyramidDownsample,
    ResidualBlock,
    conv,
    full_precision,
    group_norm,
    working_dtype,
)


class DownLevel(nn.Module):
    """Residual blocks at one resolution, then one that halves it (except at the last level)."""

    def __init__(self, blocks: list[ResidualBlock], downsample, pyramid):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample: ResidualBlock | None = downsample
        self.pyramid: PyramidDownsample | None = pyramid


class UpLevel(nn.Module):
    """Residual blocks, each with a skip connection, then one that doubles (except at the top)."""

    def __init__(self, blocks: list[ResidualBlock], upsample):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.upsample: ResidualBlock | None = upsample


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, optionally with attention between them."""

    def __init__(self, block1: ResidualBlock, attention, block2: ResidualBlock):
        super().__init__()
        self.block1 = block1
        self.attention: AttentionBlock | None = attention
        self.block2 = block2


class NCSNpp(nn.Module):
    """NCSN++ score network s(x, sigma) of Song et al. (ICLR 2021), continuous, for the VE-SDE.

    Args:
        nf: base number of channels, which `ch_mult` multiplies.
        ch_mult: channel multiplier of each level; its length is the depth. Image sides have to be
            multiples of 2 ** (depth - 1).
        num_res_blocks: number of residual blocks per level on the way down (one more on the way
            up).
        attention: whether there is a self-attention block at the bottleneck.
        fourier_scale: standard deviation of the Fourier frequencies of log sigma.
        dropout: dropout probability in the residual blocks.
        num_channels: number of image channels.
    """

    def __init__(
        self,
        *,
        nf: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        attention: bool,
        fourier_scale: float,
        dropout: float = 0.0,
        num_channels: int = 1,
    ):
        super().__init__()
        widths = [nf * m for m in ch_mult]
        last = len(widths) - 1
        self.num_channels = num_channels
        self.stride = 2**last  # image sides have to be multiples of it

        def block(in_channels: int, out_channels: int, resample: str | None = None):
            return ResidualBlock(
                in_channels, out_channels, 4 * nf, resample=resample, dropout=dropout
            )

        self.embedding = NoiseEmbedding(nf, fourier_scale)
        self.input = conv(num_channels, nf)

        self.down = nn.ModuleList()
        channels, pyramid_channels, skips = nf, num_channels, [nf]
        for level, width in enumerate(widths):
            blocks = []
            for _ in range(num_res_blocks):
                blocks.append(block(channels, width))
                channels = width
                skips.append(channels)
            downsample = pyramid = None
            if level != last:
                downsample = block(channels, channels, "down")
                pyramid = PyramidDownsample(pyramid_channels, channels)
                pyramid_channels = channels
                skips.append(channels)
            self.down.append(DownLevel(blocks, downsample, pyramid))

        self.middle = Middle(
            block(channels, channels),
            AttentionBlock(channels) if attention else None,
            block(channels, channels),
        )

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(num_res_blocks + 1):
                blocks.append(block(channels + skips.pop(), width))
                channels = width
            self.up.append(UpLevel(blocks, block(channels, channels, "up") if level else None))

        self.output_norm = group_norm(channels)
        self.output = conv(channels, num_channels, scale=0.0)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score grad_x log p_sigma(x) of noisy images.

        Under `torch.autocast` the first and the last convolution keep the precision of the weights.

        Args:
            x: ``(B, C, H, W)`` noisy images; clean images lie in [0, 1].
            sigma: ``(B,)`` noise levels, > 0.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            ValueError: a wrong number of channels or noise levels, or sides that are not multiples
                of `stride`.
        """
        self._check(x, sigma)
        # samplers expand one level to the batch (stride 0): embed it once
        levels = sigma[:1] if sigma.stride(0) == 0 else sigma
        embedding = F.silu(self.embedding(torch.log(levels)))  # (1 or B, 4 nf)
        pyramid = 2 * x - 1
        with full_precision(x):  # bfloat16 would round away the smallest noise levels
            h = self.input(pyramid)
        h = h.to(working_dtype(h))
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block(h, embedding)
                skips.append(h)
            if level.downsample is not None:
                h = level.downsample(h, embedding)
                h = pyramid = (level.pyramid(pyramid) + h) * RESCALE
                skips.append(h)

        h = self.middle.block1(h, embedding)
        if self.middle.attention is not None:
            h = self.middle.attention(h)
        h = self.middle.block2(h, embedding)

        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), embedding)
            if level.upsample is not None:
                h = level.upsample(h, embedding)

        h = F.silu(self.output_norm(h))
        with full_precision(h):
            h = self.output(h.to(self.output.weight.dtype))
        return h / sigma[:, None, None, None]

    def _check(self, x: Tensor, sigma: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.num_channels:
            raise ValueError(
                f"expected images (B, {self.num_channels}, H, W), got {tuple(x.shape)}"
            )
        if x.shape[2] % self.stride or x.shape[3] % self.stride:
            raise ValueError(
                f"expected image sides that are multiples of {self.stride} (a network of depth "
                f"{len(self.down)} halves them {len(self.down) - 1} times), got "
                f"{x.shape[2]} x {x.shape[3]}; crop or pad the images, or use a shallower network"
            )
        if sigma.shape != x.shape[:1]:
            raise ValueError(f"expected sigma ({x.shape[0]},), got {tuple(sigma.shape)}")
