"""The U-Net of guided-diffusion (Dhariwal & Nichol, NeurIPS 2021), unconditional.

Keywords are those of the original's `UNetModel`; `attention_resolutions` holds downsampling
factors. Those of its diffusion, `noise_schedule` ("linear", the default, or "cosine"),
`diffusion_steps` (1000), `rescale_timesteps` and `predict_xstart`, tell the levels. Of a network
with learnt variance, the second half of the output channels is that variance. Attributes have the
original's names, those of the state dict.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.foreign.strict import check_fixed, create, load
from models.layers import geometric_frequencies
from models.resample import average2, repeat2

NAME = "guided-diffusion UNetModel"
FIXED = {
    "image_size": (),
    "dropout": (),
    "use_checkpoint": (),
    "use_fp16": (),
    "num_heads_upsample": (),  # heads do not show in the state dict: checked below
    "num_classes": (None,),
    "dims": (2,),
    "conv_resample": (True,),
}


def build(keywords: dict, state: dict[str, Tensor]) -> nn.Module:
    """A `UNet`; see `models.foreign.build`."""
    heads, up = keywords.get("num_heads", 1), keywords.get("num_heads_upsample", -1)
    if up not in (-1, heads) and keywords.get("num_head_channels", -1) == -1:
        raise ValueError(f"expected num_heads_upsample={heads}, as num_heads, got {up}")
    for name, of, side in (
        ("in_channels", "input_blocks.0.0.weight", 1),
        ("out_channels", "out.2.weight", 0),
    ):
        if of in state and name not in keywords:
            keywords = {**keywords, name: state[of].shape[side]}
    net = create(UNet, check_fixed(keywords, FIXED, NAME), NAME)
    return load(net, state, NAME)


def norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups."""
    if channels % 32:
        raise ValueError(f"expected channels that are multiples of 32, got {channels}")
    return nn.GroupNorm(32, channels)


class ResBlock(nn.Module):
    """Two convolutions, conditioned between them, with an optional resampling by 2 before."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        embedding: int,
        *,
        scale_shift: bool,
        resample: str | None = None,
    ):
        super().__init__()
        self.resample = {None: None, "down": average2, "up": repeat2}[resample]
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            norm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        features = 2 * out_channels if scale_shift else out_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, features))
        self.out_layers = nn.Sequential(
            norm(out_channels),
            nn.SiLU(),
            nn.Identity(),  # the original's dropout
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` and features ``(B, E)`` to ``(B, C_out, H', W')``."""
        h = self.in_layers[:2](x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.in_layers[2](h)
        features = self.emb_layers(embedding)[..., None, None]
        if self.scale_shift:
            scale, shift = features.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + features)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    """Self-attention over all pixels; `new_order` puts q, k and v outside of heads."""

    def __init__(self, channels: int, heads: int, *, new_order: bool):
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H, W)``; the embedding is not used."""
        h = self.qkv(self.norm(x).flatten(2))  # (B, 3C, HW)
        if self.new_order:
            q, k, v = h.unflatten(1, (3, self.heads, -1)).unbind(1)  # (B, heads, c, HW)
        else:
            q, k, v = h.unflatten(1, (self.heads, 3, -1)).unbind(2)
        q, k, v = (part.transpose(2, 3) for part in (q, k, v))  # (B, heads, HW, c)
        h = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)  # (B, C, HW)
        return x + self.proj_out(h).view_as(x)


class Downsample(nn.Module):
    """A stride-2 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H/2, W/2)``; the embedding is not used."""
        return self.op(x)


class Upsample(nn.Module):
    """Repeated pixels, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, 2H, 2W)``; the embedding is not used."""
        return self.conv(repeat2(x))


class UNet(nn.Module):
    """Noise (and variance) of images at timesteps, of guided-diffusion.

    Args: as of the original's `UNetModel`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        channel_mult: Sequence[int] = (1, 2, 4, 8),
        num_heads: int = 1,
        num_head_channels: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
    ):
        super().__init__()
        embedding, last = 4 * model_channels, len(channel_mult) - 1
        self.num_channels, self.model_channels = in_channels, model_channels
        self.stride = 2**last  # image sides have to be multiples of it

        def block(channels: int, out: int, resample: str | None = None):
            return ResBlock(
                channels, out, embedding, scale_shift=use_scale_shift_norm, resample=resample
            )

        def attention(channels: int):
            heads = num_heads if num_head_channels == -1 else channels // num_head_channels
            return Attention(channels, heads, new_order=use_new_attention_order)

        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        channels = int(channel_mult[0] * model_channels)
        first = nn.ModuleList([nn.Conv2d(in_channels, channels, 3, padding=1)])
        self.input_blocks, skips = nn.ModuleList([first]), [channels]
        for level, multiplier in enumerate(channel_mult):
            width = int(multiplier * model_channels)
            for _ in range(num_res_blocks):
                layers = [block(channels, width)]
                channels = width
                if 2**level in attention_resolutions:
                    layers.append(attention(channels))
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(channels)
            if level != last:
                down = (
                    block(channels, channels, "down") if resblock_updown else Downsample(channels)
                )
                self.input_blocks.append(nn.ModuleList([down]))
                skips.append(channels)
        self.middle_block = nn.ModuleList(
            [block(channels, channels), attention(channels), block(channels, channels)]
        )
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(channel_mult))):
            width = int(multiplier * model_channels)
            for i in range(num_res_blocks + 1):
                layers = [block(channels + skips.pop(), width)]
                channels = width
                if 2**level in attention_resolutions:
                    layers.append(attention(channels))
                if level and i == num_res_blocks:
                    up = block(channels, channels, "up") if resblock_updown else Upsample(channels)
                    layers.append(up)
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(
            norm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """``(B, C, H, W)`` and timesteps ``(B,)`` to ``(B, out_channels, H, W)``.

        Raises:
            ValueError: a wrong number of channels, or sides that are not multiples of `stride`.
        """
        if x.shape[1] != self.num_channels or x.shape[2] % self.stride or x.shape[3] % self.stride:
            raise ValueError(
                f"expected images (B, {self.num_channels}, H, W) with sides that are multiples of "
                f"{self.stride}, got {tuple(x.shape)}"
            )
        half = self.model_channels // 2
        times = timesteps.to(x.dtype)
        angle = times[:, None] * geometric_frequencies(half, half, like=x)  # (B, half)
        features = torch.cat([angle.cos(), angle.sin()], dim=1)  # (B, 2 half)
        embedding = self.time_embed(F.pad(features, (0, self.model_channels - 2 * half)))
        h, skips = self.input_blocks[0][0](x), []
        skips.append(h)
        for layers in self.input_blocks[1:]:
            for layer in layers:
                h = layer(h, embedding)
            skips.append(h)
        for layer in self.middle_block:
            h = layer(h, embedding)
        for layers in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            for layer in layers:
                h = layer(h, embedding)
        return self.out(h)
