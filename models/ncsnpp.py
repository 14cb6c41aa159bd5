"""NCSN++ at the study's sizes, from a ResNet (depth 1) to an attention U-Net, and DDPM++."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import (
    MAX_GROUPS,
    RESCALE,
    AttentionBlock,
    ImageInput,
    ImageOutput,
    NoiseEmbedding,
    PyramidDownsample,
    ResidualBlock,
    TimeEmbedding,
    conv,
    full_precision,
    group_norm,
    working_dtype,
)
from models.resample import average2, downsample2, repeat2, upsample2


class DownLevel(nn.Module):
    """Residual blocks at one resolution, then one that halves it (except at the last level).

    Each of the blocks may be followed by attention.
    """

    def __init__(self, blocks: list[ResidualBlock], attentions, downsample, pyramid):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)  # one a block, or none
        self.downsample: ResidualBlock | None = downsample
        self.pyramid: PyramidDownsample | ImageInput | None = pyramid


class UpLevel(nn.Module):
    """Residual blocks, each with a skip connection, then one that doubles (except at the top).

    The last of the blocks may be followed by attention, then by this resolution's output image.
    """

    def __init__(self, blocks: list[ResidualBlock], attention, image, upsample):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention: AttentionBlock | None = attention
        self.image: ImageOutput | None = image
        self.upsample: ResidualBlock | None = upsample


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, optionally with attention between them."""

    def __init__(self, block1: ResidualBlock, attention, block2: ResidualBlock):
        super().__init__()
        self.block1 = block1
        self.attention: AttentionBlock | None = attention
        self.block2 = block2

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` and noise features to ``(B, C, H, W)``."""
        h = self.block1(h, embedding)
        if self.attention is not None:
            h = self.attention(h)
        return self.block2(h, embedding)


class Levels(NamedTuple):
    """The parts of NCSN++ between its first and its last convolution."""

    down: nn.ModuleList  # of DownLevel, finest first
    middle: Middle
    up: nn.ModuleList  # of UpLevel, coarsest first


def build_levels(
    widths: Sequence[int],
    *,
    nf: int,
    num_res_blocks: int,
    attention: bool,
    dropout: float,
    max_groups: int,
    pyramid_channels: int,
    fir: bool = True,
    pyramid: bool = True,
    image_channels: int = 0,
    attention_levels: Sequence[int] = (),
) -> Levels:
    """The levels of a network, newly initialised.

    Args:
        widths: channels of each level.
        nf: channels of the input, and a quarter of the number of noise features.
        num_res_blocks: as for `NCSNpp`, and so are `attention`, `dropout`, `max_groups`, `fir`,
            `pyramid` and `attention_levels`.
        pyramid_channels: channels that the input pyramid starts with.
        image_channels: channels of images on the way down and up (`NCSNpp`'s `images`); 0: none.
    """

    def block(in_channels: int, out_channels: int, resample: str | None = None):
        return ResidualBlock(
            in_channels,
            out_channels,
            4 * nf,
            resample=resample,
            dropout=dropout,
            fir=fir,
            max_groups=max_groups,
        )

    last = len(widths) - 1
    down, up = nn.ModuleList(), nn.ModuleList()
    channels, skips = nf, [nf]
    for level, width in enumerate(widths):
        blocks, attentions = [], []
        for _ in range(num_res_blocks):
            blocks.append(block(channels, width))
            channels = width
            skips.append(channels)
            if level in attention_levels:
                attentions.append(AttentionBlock(channels))
        downsample = smaller = None
        if level != last:
            downsample = block(channels, channels, "down")
            if image_channels:
                smaller = ImageInput(image_channels, channels)
            elif pyramid:
                smaller = PyramidDownsample(pyramid_channels, channels)
                pyramid_channels = channels
            skips.append(channels)
        down.append(DownLevel(blocks, attentions, downsample, smaller))
    middle = Middle(
        block(channels, channels),
        AttentionBlock(channels) if attention else None,
        block(channels, channels),
    )
    for level, width in reversed(list(enumerate(widths))):
        blocks = []
        for _ in range(num_res_blocks + 1):
            blocks.append(block(channels + skips.pop(), width))
            channels = width
        attended = AttentionBlock(channels) if level in attention_levels else None
        upsample = block(channels, channels, "up") if level else None
        image = ImageOutput(channels, image_channels) if image_channels else None
        up.append(UpLevel(blocks, attended, image, upsample))
    return Levels(down, middle, up)


def through_levels(
    h: Tensor,
    pyramid: Tensor,
    embedding: Tensor,
    *,
    down: Sequence[DownLevel],
    middle: Middle | None,
    up: Sequence[UpLevel],
    fir: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Features after some levels, down, through the bottleneck if there is one, and up.

    Args:
        h: ``(B, C, H, W)`` features of the first convolution.
        pyramid: ``(B, C', H, W)``, what the input pyramid starts with.
        embedding: noise features ``(1 or B, E)``.
        down: levels, finest first; the last one does not halve the resolution.
        middle: bottleneck at the coarsest of them.
        up: the same levels, coarsest first; the last one does not double the resolution.
        fir: whether images are resampled with the FIR filter, or by means and repetition.

    Returns:
        The features, and the sum of the levels' output images, if they have some.
    """
    down2, up2 = (downsample2, upsample2) if fir else (average2, repeat2)
    skips = [h]
    for number, level in enumerate(down, start=1):
        for i, block in enumerate(level.blocks):
            h = block(h, embedding)
            if level.attentions:
                h = level.attentions[i](h)
            skips.append(h)
        if number < len(down):
            h = level.downsample(h, embedding)
            if isinstance(level.pyramid, ImageInput):
                pyramid = down2(pyramid)
                h = h + level.pyramid(pyramid)
            elif level.pyramid is not None:
                h = pyramid = (level.pyramid(pyramid) + h) * RESCALE
            skips.append(h)
    if middle is not None:
        h = middle(h, embedding)
    image = None
    for number, level in enumerate(up, start=1):
        for block in level.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        if level.attention is not None:
            h = level.attention(h)
        if level.image is not None:
            part = level.image(h)
            image = part if image is None else up2(image) + part
        if number < len(up):
            h = level.upsample(h, embedding)
    return h, image


def embed(embedding: NoiseEmbedding | TimeEmbedding, sigma: Tensor) -> Tensor:
    """Noise features of levels, or of times, ``(B,)``: ``(1 or B, E)``."""
    # samplers expand one level to the batch (stride 0): embed it once
    levels = sigma[:1] if sigma.stride(0) == 0 else sigma
    by_time = isinstance(embedding, TimeEmbedding)
    return F.silu(embedding(levels if by_time else torch.log(levels)))  # (1 or B, 4 nf)


def first_features(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """First convolution, in full precision: bfloat16 would round away the smallest noise levels."""
    with full_precision(x):
        h = layer(x)
    return h.to(working_dtype(h))


def last_layers(norm: nn.GroupNorm, layer: nn.Conv2d, h: Tensor) -> Tensor:
    """Norm, SiLU and the last convolution, the latter in full precision."""
    h = F.silu(norm(h))
    with full_precision(h):
        return layer(h.to(layer.weight.dtype))


def check_input(x: Tensor, sigma: Tensor, *, num_channels: int, depth: int) -> None:
    """Raise a ValueError for images or noise levels that a network of `depth` cannot take."""
    stride = 2 ** (depth - 1)
    if x.ndim != 4 or x.shape[1] != num_channels:
        raise ValueError(f"expected images (B, {num_channels}, H, W), got {tuple(x.shape)}")
    if x.shape[2] % stride or x.shape[3] % stride:
        raise ValueError(
            f"expected image sides that are multiples of {stride} (a network of depth {depth} "
            f"halves them {depth - 1} times), got {x.shape[2]} x {x.shape[3]}; crop or pad the "
            "images, or use a shallower network"
        )
    if sigma.shape != x.shape[:1]:
        raise ValueError(f"expected sigma ({x.shape[0]},), got {tuple(sigma.shape)}")


class NCSNpp(nn.Module):
    """NCSN++ score network s(x, sigma) of Song et al. (ICLR 2021), continuous, for the VE-SDE.

    The last keywords make it the networks that Song et al. use with the VP- and sub-VP-SDE, NCSN++
    or DDPM++ (``fir=False, pyramid=False``): with a `conditioning` by time, ``net(x, time)`` is the
    output of the last convolution, which predicts the noise in standard deviations.

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
        max_groups: largest number of groups of GroupNorm in the residual blocks.
        conditioning: "sigma", embedded by Fourier features of its logarithm, by which the output is
            divided; or "time", in steps of 1 / 999 of the SDE's, embedded by DDPM's sines.
        fir: whether to resample with an FIR filter, or by means and repetition.
        pyramid: whether downsampled features of the image are added to the features.
        images: whether, instead, downsampled images are, and the output is the sum of images of all
            resolutions (the original's input_skip and output_skip).
        attention_levels: levels, 0 for full resolution, with attention in all blocks on the way
            down and at the end on the way up.
        centred: whether images come in [-1, 1] instead of [0, 1].

    Raises:
        ValueError: an unknown `conditioning`, or attention at a level that there is not.
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
        max_groups: int = MAX_GROUPS,
        conditioning: str = "sigma",
        fir: bool = True,
        pyramid: bool = True,
        images: bool = False,
        attention_levels: Sequence[int] = (),
        centred: bool = False,
    ):
        super().__init__()
        widths = [nf * m for m in ch_mult]
        last = len(widths) - 1
        if conditioning not in ("sigma", "time"):
            raise ValueError(f"expected conditioning 'sigma' or 'time', got {conditioning!r}")
        if not set(attention_levels) <= set(range(len(widths))):
            raise ValueError(
                f"expected attention_levels out of 0 to {last}, got {list(attention_levels)}"
            )
        self.num_channels = num_channels
        self.stride = 2**last  # image sides have to be multiples of it
        self.conditioning, self.centred, self.fir = conditioning, centred, fir
        by_time = conditioning == "time"
        self.embedding = TimeEmbedding(nf) if by_time else NoiseEmbedding(nf, fourier_scale)
        self.input = conv(num_channels, nf)
        self.down, self.middle, self.up = build_levels(
            widths,
            nf=nf,
            num_res_blocks=num_res_blocks,
            attention=attention,
            dropout=dropout,
            max_groups=max_groups,
            pyramid_channels=num_channels,
            fir=fir,
            pyramid=pyramid,
            image_channels=num_channels if images else 0,
            attention_levels=attention_levels,
        )
        self.output_norm = self.output = None
        if not images:
            self.output_norm = group_norm(widths[0])
            self.output = conv(widths[0], num_channels, scale=0.0)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score grad_x log p_sigma(x) of noisy images; with a time as `sigma`, the noise.

        Under `torch.autocast` the first and the last convolution keep the precision of the weights.

        Args:
            x: ``(B, C, H, W)`` noisy images; clean images lie in [0, 1].
            sigma: ``(B,)`` noise levels, > 0, or the times of a network with that `conditioning`.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            ValueError: a wrong number of channels or noise levels, or sides that are not multiples
                of `stride`.
        """
        check_input(x, sigma, num_channels=self.num_channels, depth=len(self.down))
        shown = x if self.centred else 2 * x - 1
        h, image = through_levels(
            first_features(self.input, shown),
            shown,
            embed(self.embedding, sigma),
            down=self.down,
            middle=self.middle,
            up=self.up,
            fir=self.fir,
        )
        if image is None:
            image = last_layers(self.output_norm, self.output, h)
        return image if self.conditioning == "time" else image / sigma[:, None, None, None]
