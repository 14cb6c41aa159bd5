"""SongUNet and DhariwalUNet with the preconditionings of NVlabs/edm (Karras et al., NeurIPS 2022).

Keywords are those of the original's U-Net, and `model_type` (SongUNet, DhariwalUNet) and `precond`
(EDMPrecond, VEPrecond, VPPrecond) with that class's own, such as `sigma_data`. State dicts have
names with ``model.`` (of the preconditioned module) or without. Attributes have the original's
names, those of the state dict. Networks are unconditional, or called as such: augmentation labels
are zero, as in sampling.
"""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.foreign.precondition import PRECONDS
from models.foreign.strict import check_fixed, create, load
from models.layers import RESCALE, geometric_frequencies

FIXED = {
    "label_dim": (0,),
    "label_dropout": (),
    "dropout": (),
    "use_fp16": (),
    "img_channels": (),  # the state dict tells
}
EPS_SONG, EPS_DHARIWAL = 1e-6, 1e-5


def build(keywords: dict, state: dict[str, Tensor]) -> nn.Module:
    """A preconditioned U-Net ``D(x, sigma)``; see `models.foreign.build`."""
    keywords = dict(keywords)
    type_ = keywords.pop("model_type", "SongUNet")
    if type_ not in NETWORKS:
        raise ValueError(f"expected model_type out of {', '.join(NETWORKS)}, got {type_!r}")
    precond = keywords.pop("precond", "EDMPrecond")
    if precond not in PRECONDS:
        raise ValueError(f"expected precond out of {', '.join(PRECONDS)}, got {precond!r}")
    wrap, own = PRECONDS[precond]
    constants = {name: keywords.pop(name) for name in own if name in keywords}
    state = {name.removeprefix("model."): value for name, value in state.items()}
    resolution, channels, outputs = _shapes(state, type_)
    keywords = check_fixed(keywords, FIXED, type_)
    keywords = {
        "img_resolution": resolution,
        "in_channels": channels,
        "out_channels": outputs,
        **keywords,
    }
    return wrap(load(create(NETWORKS[type_], keywords, type_), state, type_), **constants)


def _shapes(state: dict[str, Tensor], what: str) -> tuple[int, int, int]:
    """Resolution, input and output channels by the names and shapes in a state dict."""
    found = [re.fullmatch(r"enc\.(\d+)x\1_conv\.weight", name) for name in state]
    first = [match for match in found if match]
    last = [name for name in state if re.fullmatch(r"(dec\.(\d+)x\2_aux|out)_conv\.weight", name)]
    if not (first and last):
        raise ValueError(
            f"expected a state dict of {what}, with enc.RxR_conv.weight, got "
            f"{', '.join(list(state)[:3]) or 'nothing'}, ..."
        )
    return int(first[0][1]), state[first[0][0]].shape[1], state[last[-1]].shape[0]


def norm(channels: int, eps: float) -> nn.GroupNorm:
    """GroupNorm with min(32, channels // 4) groups."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class Conv(nn.Module):
    """Convolution after resampling by 2 with a filter; size 0: the resampling alone.

    Args:
        channels: channels of the input.
        out_channels: channels of the output.
        size: of the kernel.
        resample: None, "down" or "up".
        taps: the 1-D filter; its buffer holds the 2-D one, with the sum 1.
        fused: whether the borders are those of convolution and filter in one (downsampling only).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        size: int,
        *,
        resample: str | None = None,
        taps: Sequence[float] = (1, 1),
        fused: bool = False,
    ):
        super().__init__()
        self.resample, self.fused = resample, fused
        self.weight = self.bias = None
        if size:
            self.weight = nn.Parameter(torch.empty(out_channels, channels, size, size))
            self.bias = nn.Parameter(torch.empty(out_channels))
        if resample is not None:
            self.register_buffer("resample_filter", torch.empty(1, 1, len(taps), len(taps)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        padding = 0 if self.weight is None else self.weight.shape[-1] // 2
        if self.resample is not None:
            count = x.shape[1]
            kernel = self.resample_filter.expand(count, -1, -1, -1)
            border = (kernel.shape[-1] - 1) // 2
            if self.resample == "up":
                x = F.conv_transpose2d(x, 4 * kernel, stride=2, padding=border, groups=count)
            elif self.fused:
                h = F.conv2d(x, self.weight, padding=padding + border)
                count = h.shape[1]
                kernel = self.resample_filter.expand(count, -1, -1, -1)
                h = F.conv2d(h, kernel, stride=2, groups=count)
                return h + self.bias[:, None, None]
            else:
                x = F.conv2d(x, kernel, stride=2, padding=border, groups=count)
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=padding)


class Block(nn.Module):
    """Residual block with optional resampling by 2 and attention; the U-Nets differ in `Style`.

    Args:
        channels: channels of the input.
        out_channels: channels of the output.
        style: what the blocks of a U-Net have in common.
        resample: None, "down" or "up".
        attention: whether self-attention follows.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        style: "Style",
        *,
        resample: str | None = None,
        attention: bool = False,
    ):
        super().__init__()
        self.channels, self.style, taps = channels, style, style.taps
        self.heads = style.heads(out_channels) if attention else 0
        self.norm0 = norm(channels, style.eps)
        self.conv0 = Conv(channels, out_channels, 3, resample=resample, taps=taps)
        features = 2 * out_channels if style.adaptive else out_channels
        self.affine = nn.Linear(style.embedding, features)
        self.norm1 = norm(out_channels, style.eps)
        self.conv1 = Conv(out_channels, out_channels, 3)
        self.skip = nn.Identity()
        if channels != out_channels or resample is not None:
            size = 1 if channels != out_channels or style.project else 0
            self.skip = Conv(channels, out_channels, size, resample=resample, taps=taps)
        if self.heads:
            self.norm2 = norm(out_channels, style.eps)
            self.qkv = Conv(out_channels, 3 * out_channels, 1)
            self.proj = Conv(out_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` and features ``(B, E)`` to ``(B, C_out, H', W')``."""
        h = self.conv0(F.silu(self.norm0(x)))
        features = self.affine(embedding)[..., None, None]
        if self.style.adaptive:
            scale, shift = features.chunk(2, dim=1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + features)
        x = (self.conv1(F.silu(h)) + self.skip(x)) * self.style.rescale
        if self.heads:
            x = (x + self.proj(self._attend(self.norm2(x)))) * self.style.rescale
        return x

    def _attend(self, x: Tensor) -> Tensor:
        h = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1, 3))  # (B, heads, c, 3, HW)
        q, k, v = (part.transpose(2, 3) for part in h.unbind(3))  # (B, heads, HW, c)
        h = F.scaled_dot_product_attention(q, k, v)
        return h.transpose(2, 3).reshape(x.shape)


class Style:
    """What the blocks of a U-Net have in common.

    Args:
        embedding: number of noise features.
        eps: of normalisations.
        heads: number of attention heads, a function of the channels.
        taps: 1-D resampling filter.
        project: whether resampled shortcuts of the same channels have a 1 x 1 convolution.
        adaptive: whether noise features scale, too.
        rescale: factor of sums of two branches.
    """

    def __init__(
        self,
        *,
        embedding: int,
        eps: float,
        heads: Callable[[int], int],
        taps: Sequence[float],
        project: bool,
        adaptive: bool,
        rescale: float,
    ):
        self.embedding, self.eps, self.heads, self.taps = embedding, eps, heads, taps
        self.project, self.adaptive, self.rescale = project, adaptive, rescale


class Sines(nn.Module):
    """Sines and cosines of a noise label; `endpoint`: up to the frequency 1 / 10000 included."""

    def __init__(self, count: int, *, endpoint: bool):
        super().__init__()
        self.half, self.endpoint = count // 2, endpoint

    def forward(self, label: Tensor) -> Tensor:
        """``(B,)`` to ``(B, count)``, cosines first."""
        last = self.half - 1 if self.endpoint else self.half
        angle = label[:, None] * geometric_frequencies(self.half, last, like=label)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class Fourier(nn.Module):
    """Random Fourier features of a noise label."""

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("freqs", torch.empty(count // 2))

    def forward(self, label: Tensor) -> Tensor:
        """``(B,)`` to ``(B, count)``, cosines first."""
        angle = 2 * torch.pi * label[:, None] * self.freqs
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class UNet(nn.Module):
    """What the two U-Nets share: encoder, decoder and their skip connections.

    Subclasses give the embedding of the noise label and the last layers.
    """

    def __init__(
        self,
        style: Style,
        *,
        img_resolution: int,
        in_channels: int,
        widths: Sequence[int],
        first: int,
        num_blocks: int,
        attn_resolutions: Sequence[int],
        all_attend: bool,
        encoder_type: str,
        decoder_type: str,
        out_channels: int,
    ):
        super().__init__()
        last = len(widths) - 1
        self.num_channels, self.stride = in_channels, 2**last
        self.enc = nn.ModuleDict()
        channels, aux_channels, skips = first, in_channels, [first]
        for level, width in enumerate(widths):
            side = f"{img_resolution >> level}x{img_resolution >> level}"
            attends = img_resolution >> level in attn_resolutions
            if level == 0:
                self.enc[f"{side}_conv"] = Conv(in_channels, first, 3)
            else:
                self.enc[f"{side}_down"] = Block(channels, channels, style, resample="down")
                taps = style.taps
                if encoder_type == "skip":
                    self.enc[f"{side}_aux_down"] = Conv(0, 0, 0, resample="down", taps=taps)
                    self.enc[f"{side}_aux_skip"] = Conv(aux_channels, channels, 1)
                elif encoder_type == "residual":
                    self.enc[f"{side}_aux_residual"] = Conv(
                        aux_channels, channels, 3, resample="down", taps=taps, fused=True
                    )
                    aux_channels = channels
                skips.append(channels)
            for i in range(num_blocks):
                block = Block(channels, width, style, attention=attends)
                self.enc[f"{side}_block{i}"] = block
                channels = width
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for level, width in reversed(list(enumerate(widths))):
            side = f"{img_resolution >> level}x{img_resolution >> level}"
            attends = img_resolution >> level in attn_resolutions
            if level == last:
                self.dec[f"{side}_in0"] = Block(channels, channels, style, attention=True)
                self.dec[f"{side}_in1"] = Block(channels, channels, style)
            else:
                self.dec[f"{side}_up"] = Block(channels, channels, style, resample="up")
            for i in range(num_blocks + 1):
                here = attends and (all_attend or i == num_blocks)
                block = Block(channels + skips.pop(), width, style, attention=here)
                self.dec[f"{side}_block{i}"] = block
                channels = width
            if decoder_type == "skip" or (decoder_type == "standard" and level == 0):
                if decoder_type == "skip" and level != last:
                    self.dec[f"{side}_aux_up"] = Conv(0, 0, 0, resample="up", taps=style.taps)
                self.dec[f"{side}_aux_norm"] = norm(channels, style.eps)
                self.dec[f"{side}_aux_conv"] = Conv(channels, out_channels, 3)
        self.channels = channels

    def encode(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Features of all layers of the encoder."""
        side = x.shape[2:]
        if x.shape[1] != self.num_channels or any(n % self.stride for n in side):
            raise ValueError(
                f"expected images (B, {self.num_channels}, H, W) with sides that are multiples of "
                f"{self.stride}, got {tuple(x.shape)}"
            )
        h, aux, skips = x, x, []
        for name, layer in self.enc.items():
            if name.endswith("aux_down"):
                aux = layer(aux)
            elif name.endswith("aux_skip"):
                h = skips[-1] = h + layer(aux)
            elif name.endswith("aux_residual"):
                h = skips[-1] = aux = (h + layer(aux)) * RESCALE
            else:
                h = layer(h, embedding) if isinstance(layer, Block) else layer(h)
                skips.append(h)
        return skips

    def decode(self, skips: list[Tensor], embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features at full resolution, and the image of the auxiliary layers."""
        h, aux, normed = skips[-1], None, None
        for name, layer in self.dec.items():
            if name.endswith("aux_up"):
                aux = layer(aux)
            elif name.endswith("aux_norm"):
                normed = layer(h)
            elif name.endswith("aux_conv"):
                image = layer(F.silu(normed))
                aux = image if aux is None else aux + image
            else:
                if h.shape[1] != layer.channels:
                    h = torch.cat([h, skips.pop()], dim=1)
                h = layer(h, embedding)
        return h, aux


class SongUNet(UNet):
    """DDPM++ and NCSN++ as reimplemented by Karras et al.; keywords as of the original."""

    def __init__(
        self,
        *,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ):
        for name, value, known in (
            ("embedding_type", embedding_type, ("positional", "fourier")),
            ("encoder_type", encoder_type, ("standard", "skip", "residual")),
            ("decoder_type", decoder_type, ("standard", "skip")),
        ):
            if value not in known:
                raise ValueError(f"expected {name} out of {', '.join(known)}, got {value!r}")
        style = Style(
            embedding=model_channels * channel_mult_emb,
            eps=EPS_SONG,
            heads=lambda channels: 1,
            taps=resample_filter,
            project=True,
            adaptive=False,
            rescale=RESCALE,
        )
        super().__init__(
            style,
            img_resolution=img_resolution,
            in_channels=in_channels,
            widths=[model_channels * m for m in channel_mult],
            first=model_channels,
            num_blocks=num_blocks,
            attn_resolutions=attn_resolutions,
            all_attend=False,
            encoder_type=encoder_type,
            decoder_type=decoder_type,
            out_channels=out_channels,
        )
        count = model_channels * channel_mult_noise
        fourier = embedding_type == "fourier"
        self.map_noise = Fourier(count) if fourier else Sines(count, endpoint=True)
        # of the augmentation labels of training, which are zero afterwards
        self.map_augment = nn.Linear(augment_dim, count, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(count, style.embedding)
        self.map_layer1 = nn.Linear(style.embedding, style.embedding)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """``(B, C, H, W)`` and noise labels ``(B,)`` to ``(B, out_channels, H, W)``."""
        cosines, sines = self.map_noise(label).chunk(2, dim=1)
        features = F.silu(self.map_layer0(torch.cat([sines, cosines], dim=1)))
        embedding = F.silu(self.map_layer1(features))  # (B, E)
        return self.decode(self.encode(x, embedding), embedding)[1]


class DhariwalUNet(UNet):
    """The U-Net of Dhariwal & Nichol as reimplemented by Karras et al.; keywords as there."""

    def __init__(
        self,
        *,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
    ):
        style = Style(
            embedding=model_channels * channel_mult_emb,
            eps=EPS_DHARIWAL,
            heads=lambda channels: channels // 64,
            taps=(1, 1),
            project=False,
            adaptive=True,
            rescale=1.0,
        )
        super().__init__(
            style,
            img_resolution=img_resolution,
            in_channels=in_channels,
            widths=[model_channels * m for m in channel_mult],
            first=model_channels * channel_mult[0],
            num_blocks=num_blocks,
            attn_resolutions=attn_resolutions,
            all_attend=True,
            encoder_type="standard",
            decoder_type="none",
            out_channels=out_channels,
        )
        self.map_noise = Sines(model_channels, endpoint=False)
        # of the augmentation labels of training, which are zero afterwards
        self.map_augment = (
            nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        )
        self.map_layer0 = nn.Linear(model_channels, style.embedding)
        self.map_layer1 = nn.Linear(style.embedding, style.embedding)
        self.out_norm = norm(self.channels, EPS_DHARIWAL)
        self.out_conv = Conv(self.channels, out_channels, 3)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """``(B, C, H, W)`` and noise labels ``(B,)`` to ``(B, out_channels, H, W)``."""
        features = F.silu(self.map_layer0(self.map_noise(label)))
        embedding = F.silu(self.map_layer1(features))  # (B, E)
        h = self.decode(self.encode(x, embedding), embedding)[0]
        return self.out_conv(F.silu(self.out_norm(h)))


NETWORKS = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}
