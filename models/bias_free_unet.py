"""A small bias-free residual U-Net: fast on a CPU, and equivariant to the image's intensity.

A much smaller version of DRUNet (Zhang et al., TPAMI 2021). It has no biases, normalisation or
noise embedding, and is therefore positively homogeneous: if the image and the noise level are
scaled by a factor, so is the denoised image. Such networks generalise to noise levels and contrasts
that they were not trained on (Mohan et al., ICLR 2020).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import full_precision, working_dtype

BRANCH_SCALE = 0.1  # initial scale of residual branches: a deep stack starts near the identity
OUTPUT_SCALE = 1e-2  # initial scale of the last layer: the score starts near zero


def bias_free_conv(in_channels: int, out_channels: int, *, scale: float = 1.0) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the image size; He's initialisation times `scale`."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.normal_(layer.weight, std=scale * math.sqrt(2 / (9 * in_channels)))
    return layer


def mirrored_on(x: Tensor, multiple: int) -> Tensor:
    """Images ``(B, C, H, W)`` padded at the bottom and right to sides that `multiple` divides.

    The padding is reflected, repeatedly if needed, so that noise continues as noise. A replicated
    row would look like structure to a denoiser.
    """
    for axis in (2, 3):
        size = x.shape[axis]
        missing = -size % multiple
        if missing:
            period = max(2 * size - 2, 1)
            position = torch.arange(size + missing, device=x.device) % period
            x = x.index_select(axis, torch.minimum(position, period - position))
    return x


class PlainBlock(nn.Module):
    """Residual block x + conv(relu(conv(x)))."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = bias_free_conv(channels, channels)
        self.conv2 = bias_free_conv(channels, channels, scale=BRANCH_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        # in place, as the block is limited by memory bandwidth and autograd needs no copy
        return self.conv2(F.relu(self.conv1(x), inplace=True)).add_(x)


class BiasFreeUNet(nn.Module):
    """Bias-free U-Net score network s(x, sigma) = h(x, sigma) / sigma^2.

    h is homogeneous of degree 1. The denoised image is x + sigma^2 s = x + h, so that h estimates
    the negative noise.

    Args:
        nf: base number of channels, which `ch_mult` multiplies.
        ch_mult: channel multiplier of each level, from full resolution down; each level halves the
            resolution.
        num_res_blocks: number of residual blocks per level, on the way down and on the way up
            each; one number for all levels, or one per level.
        num_channels: number of image channels.

    Raises:
        ValueError: `num_res_blocks` does not have one number per level.
    """

    def __init__(
        self,
        *,
        nf: int,
        ch_mult: Sequence[int],
        num_res_blocks: int | Sequence[int],
        num_channels: int = 1,
    ):
        super().__init__()
        widths = [nf * m for m in ch_mult]
        blocks = num_res_blocks
        blocks = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        if len(blocks) != len(widths):
            raise ValueError(
                f"expected model.num_res_blocks for each of {len(widths)} levels, got {blocks}"
            )
        self.num_channels = num_channels
        self.stride = 1  # image sides of any size
        self.halvings = len(widths) - 1

        def level(i: int) -> nn.Sequential:
            return nn.Sequential(*[PlainBlock(widths[i]) for _ in range(blocks[i])])

        steps = list(pairwise(widths))
        self.input = bias_free_conv(num_channels + 1, widths[0])
        self.down = nn.ModuleList(level(i) for i in range(self.halvings))
        self.downsample = nn.ModuleList(nn.Conv2d(a, b, 2, 2, bias=False) for a, b in steps)
        self.middle = level(self.halvings)
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, 2, bias=False) for a, b in reversed(steps)
        )
        self.up = nn.ModuleList(level(i) for i in reversed(range(self.halvings)))
        self.output = bias_free_conv(widths[0], num_channels, scale=OUTPUT_SCALE)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score grad_x log p_sigma(x) of noisy images.

        Images may have any size: they are padded by reflection until every level can halve them.
        Under `torch.autocast` the first and the last convolution keep the precision of the weights.

        Args:
            x: ``(B, C, H, W)`` noisy images; clean images lie in [0, 1].
            sigma: ``(B,)`` noise levels, > 0.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            ValueError: a wrong number of channels or of noise levels.
        """
        self._check(x, sigma)
        height, width = x.shape[2:]
        level = sigma[:, None, None, None]
        padded = mirrored_on(x, 2**self.halvings)
        levels = level.expand(-1, 1, *padded.shape[2:])
        with full_precision(x):  # bfloat16 would round away the smallest noise levels
            h = self.input(torch.cat([padded, levels], dim=1))  # (B, nf ch_mult[0], H', W')
        h = h.to(working_dtype(h))

        skips = []
        for blocks, downsample in zip(self.down, self.downsample, strict=True):
            h = blocks(h)
            skips.append(h)
            h = downsample(h)
        h = self.middle(h)
        for upsample, blocks in zip(self.upsample, self.up, strict=True):
            h = blocks(upsample(h).add_(skips.pop()))

        with full_precision(h):
            h = self.output(h.to(self.output.weight.dtype))
        return h[:, :, :height, :width] / level**2

    def _check(self, x: Tensor, sigma: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.num_channels:
            raise ValueError(
                f"expected images (B, {self.num_channels}, H, W), got {tuple(x.shape)}"
            )
        if sigma.shape != x.shape[:1]:
            raise ValueError(f"expected sigma ({x.shape[0]},), got {tuple(sigma.shape)}")
