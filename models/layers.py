"""Building blocks of NCSN++ (Song et al., ICLR 2021), with their initialisation."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.resample import average2, downsample2, low_pass, repeat2, upsample2

RESCALE = 1 / math.sqrt(2)  # keeps the variance of the sum of two unit-variance branches
NORM_EPS = 1e-6
LONGEST_PERIOD = 10_000  # of the sines that embed a time, over 2 pi
MAX_GROUPS = 32  # of GroupNorm, as in Song et al.; the study of 2026 has 4 in residual blocks
ZERO_SCALE = 1e-10  # "zero" initialisation of the layers that end a residual branch


def init_fan_avg(weight: Tensor, scale: float = 1.0) -> None:
    """Initialise a weight in place as DDPM does: variance scaling, fan average, uniform.

    This equals Xavier's uniform initialisation with a gain of sqrt(scale).
    """
    nn.init.xavier_uniform_(weight, gain=math.sqrt(scale if scale > 0 else ZERO_SCALE))


def conv(in_channels: int, out_channels: int, size: int = 3, *, scale: float = 1.0) -> nn.Conv2d:
    """A stride-1 convolution that keeps the image size, with zero bias."""
    layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    init_fan_avg(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def dense(in_features: int, out_features: int, *, scale: float = 1.0) -> nn.Linear:
    """A fully connected layer with zero bias."""
    layer = nn.Linear(in_features, out_features)
    init_fan_avg(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int, max_groups: int = MAX_GROUPS) -> nn.GroupNorm:
    """GroupNorm with min(channels // 4, max_groups) groups.

    Raises:
        ValueError: the number of groups does not divide the channels.
    """
    groups = min(channels // 4, max_groups)
    if groups < 1 or channels % groups:
        raise ValueError(
            f"expected a number of channels that GroupNorm(min(C // 4, {max_groups})) divides, got "
            f"{channels}; choose model.nf as a multiple of 4 below {4 * max_groups}, of "
            f"{max_groups} above"
        )
    return nn.GroupNorm(groups, channels, eps=NORM_EPS)


def full_precision(x: Tensor) -> AbstractContextManager:
    """A context without `torch.autocast` on the device of `x`."""
    device = x.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def working_dtype(x: Tensor) -> torch.dtype:
    """Dtype of convolutions of `x`: that of `torch.autocast` if enabled, otherwise that of `x`."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


class NoiseEmbedding(nn.Module):
    """Embedding of log sigma: fixed random Fourier features, then an MLP.

    Args:
        nf: number of Fourier frequencies.
        fourier_scale: standard deviation of the frequencies.
    """

    def __init__(self, nf: int, fourier_scale: float):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(nf) * fourier_scale)
        self.dense1 = dense(2 * nf, 4 * nf)
        self.dense2 = dense(4 * nf, 4 * nf)

    def forward(self, log_sigma: Tensor) -> Tensor:
        """log sigma ``(B,)`` to features ``(B, 4 nf)``."""
        angle = 2 * math.pi * log_sigma[:, None] * self.frequencies  # (B, nf)
        features = torch.cat([angle.sin(), angle.cos()], dim=1)  # (B, 2 nf)
        return self.dense2(F.silu(self.dense1(features.to(self.dense1.weight.dtype))))


class TimeEmbedding(nn.Module):
    """Embedding of a time in steps, as in DDPM: sines and cosines, then an MLP.

    Args:
        nf: number of sines and cosines together, an even number of 4 or more.
    """

    def __init__(self, nf: int):
        super().__init__()
        if nf < 4 or nf % 2:
            raise ValueError(f"expected an even number of features, 4 or more, got nf={nf}")
        self.nf = nf
        self.dense1 = dense(nf, 4 * nf)
        self.dense2 = dense(4 * nf, 4 * nf)

    def forward(self, time: Tensor) -> Tensor:
        """Times ``(B,)`` to features ``(B, 4 nf)``."""
        half = self.nf // 2
        angle = time[:, None] * geometric_frequencies(half, half - 1, like=time)  # (B, nf / 2)
        features = torch.cat([angle.sin(), angle.cos()], dim=1)  # (B, nf)
        return self.dense2(F.silu(self.dense1(features.to(self.dense1.weight.dtype))))


def geometric_frequencies(count: int, last: int, *, like: Tensor) -> Tensor:
    """Frequencies 10000^(-k / last), k = 0, ..., count - 1, of transformers and DDPM: ``(count,)``.

    Args:
        count: number of frequencies.
        last: index of the frequency 1 / 10000: count - 1, or count where it is not included.
        like: a tensor of the dtype and device.
    """
    k = torch.arange(count, dtype=like.dtype, device=like.device)
    return torch.exp(-math.log(LONGEST_PERIOD) / last * k)


class ResidualBlock(nn.Module):
    """BigGAN residual block ``(x + branch(x)) / sqrt 2`` with optional resampling by 2.

    The noise features are added between the two convolutions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        embedding_size: number of noise features E.
        resample: None, or "down" or "up" to resample by 2.
        dropout: dropout probability.
        fir: whether to resample with the FIR filter, or by means and repetition (DDPM++).
        max_groups: largest number of groups of the two GroupNorms.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_size: int,
        *,
        resample: str | None = None,
        dropout: float = 0.0,
        fir: bool = True,
        max_groups: int = MAX_GROUPS,
    ):
        super().__init__()
        down, up = (downsample2, upsample2) if fir else (average2, repeat2)
        self.resample = {None: None, "down": down, "up": up}[resample]
        self.norm1 = group_norm(in_channels, max_groups)
        self.conv1 = conv(in_channels, out_channels)
        self.embedding = dense(embedding_size, out_channels)
        self.norm2 = group_norm(out_channels, max_groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(out_channels, out_channels, scale=0.0)
        # as in the original, resampled shortcuts also have a 1x1 convolution
        needs_conv = resample is not None or in_channels != out_channels
        self.shortcut = conv(in_channels, out_channels, 1) if needs_conv else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` and noise features ``(1 or B, E)`` to ``(B, C_out, H', W')``."""
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h) + self.embedding(embedding)[:, :, None, None]  # (B, C, H, W)
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (self.shortcut(x) + h) * RESCALE


class AttentionBlock(nn.Module):
    """Single-head self-attention over all pixels, with a residual connection.

    The N x N weights of N pixels are never in memory (`scaled_dot_product_attention`), so that it
    also works at full resolution. At 320 x 320 with 128 channels it takes 5.4 TFLOP a call, 6 times
    the rest of `1_attention`, and 0.3 GB of float32 for its input, q, k, v and output, where the
    weights alone would take 42 GB.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.query = conv(channels, channels, 1, scale=0.1)
        self.key = conv(channels, channels, 1, scale=0.1)
        self.value = conv(channels, channels, 1, scale=0.1)
        self.output = conv(channels, channels, 1, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        h = self.norm(x)
        q, k, v = (  # contiguous: only for those PyTorch has kernels without the N x N weights
            layer(h).flatten(2).transpose(1, 2)[:, None].contiguous()  # (B, 1, HW, C)
            for layer in (self.query, self.key, self.value)
        )
        h = F.scaled_dot_product_attention(q, k, v)  # (B, 1, HW, C)
        h = h[:, 0].transpose(1, 2).reshape(x.shape)  # (B, C, H, W)
        return (x + self.output(h)) * RESCALE


class ImageInput(nn.Module):
    """A smaller input image, added to features by a 1x1 convolution."""

    def __init__(self, image_channels: int, channels: int):
        super().__init__()
        self.conv = conv(image_channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C_image, H, W)`` to ``(B, C, H, W)``."""
        return self.conv(image)


class ImageOutput(nn.Module):
    """The part of a resolution's features in the output image."""

    def __init__(self, channels: int, image_channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.conv = conv(channels, image_channels, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C_image, H, W)``, in the precision of the weights."""
        h = F.silu(self.norm(x))
        with full_precision(h):
            return self.conv(h.to(self.conv.weight.dtype))


class PyramidDownsample(nn.Module):
    """Downsampling of the residual input pyramid: FIR low-pass, then a stride-2 convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = conv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H/2, W/2)``."""
        # with a padding of 2 at the filter, the strided convolution needs none
        return F.conv2d(low_pass(x, padding=2), self.conv.weight, self.conv.bias, stride=2)
