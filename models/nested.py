"""Nested NCSN++: one network whose depth is chosen at each call, for a whole curve of sizes."""

import torch
from torch import Tensor, nn

from models.layers import MAX_GROUPS, NoiseEmbedding, conv, group_norm
from models.ncsnpp import (
    build_levels,
    check_input,
    embed,
    first_features,
    last_layers,
    through_levels,
)

PARTS = ("finest", "coarsest")


class NestedNCSNpp(nn.Module):
    """Score network s_d(x, sigma) of depths d = 1 ... num_levels that share their weights.

    It is an NCSN++ with the same number of channels at all levels and no attention. The three
    families of Glaszner et al. (IJCV 2026) are

        mrncsn      part="finest", own_ends=True
        msncsn      part="coarsest", own_ends=True
        structured  part="finest", own_ends=False

    Args:
        nf: number of channels of all levels.
        num_levels: number of levels, the largest depth.
        num_res_blocks: number of residual blocks per level on the way down (one more on the way
            up).
        part: which levels depth d uses. ``"finest"``: the first d; the bottleneck only at full
            depth, otherwise the way up begins right after the last block on the way down.
            ``"coarsest"``: the last d, the first of them at full resolution, and the bottleneck.
        own_ends: whether each depth has a first and a last convolution of its own; the input
            pyramid then starts from the first convolution's features instead of the image.
        fourier_scale: standard deviation of the Fourier frequencies of log sigma.
        dropout: dropout probability in the residual blocks.
        num_channels: number of image channels.
        max_groups: largest number of groups of GroupNorm in the residual blocks.

    Raises:
        ValueError: an unknown `part`, or the coarsest levels without ends of their own.
    """

    def __init__(
        self,
        *,
        nf: int,
        num_levels: int,
        num_res_blocks: int,
        part: str,
        own_ends: bool,
        fourier_scale: float,
        dropout: float = 0.0,
        num_channels: int = 1,
        max_groups: int = MAX_GROUPS,
    ):
        super().__init__()
        if part not in PARTS:
            raise ValueError(f"expected model.part to be one of {PARTS}, got {part!r}")
        if part == "coarsest" and not own_ends:
            raise ValueError(
                "expected model.own_ends for model.part=coarsest, as the input pyramid of inner "
                "levels starts from features; set it to True"
            )
        self.num_channels = num_channels
        self.depths = num_levels
        self.stride = 2 ** (num_levels - 1)  # at full depth
        self.part, self.own_ends = part, own_ends
        ends = num_levels if own_ends else 1
        self.embedding = NoiseEmbedding(nf, fourier_scale)
        self.inputs = nn.ModuleList(conv(num_channels, nf) for _ in range(ends))
        self.down, self.middle, self.up = build_levels(
            [nf] * num_levels,
            nf=nf,
            num_res_blocks=num_res_blocks,
            attention=False,
            dropout=dropout,
            max_groups=max_groups,
            pyramid_channels=nf if own_ends else num_channels,
        )
        self.output_norm = group_norm(nf)
        self.outputs = nn.ModuleList(conv(nf, num_channels, scale=0.0) for _ in range(ends))

    def forward(self, x: Tensor, sigma: Tensor, depth: int | None = None) -> Tensor:
        """Score grad_x log p_sigma(x) of noisy images by the network of a depth.

        Args:
            x: ``(B, C, H, W)`` noisy images; clean images lie in [0, 1].
            sigma: ``(B,)`` noise levels, > 0.
            depth: d; None: all levels.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            ValueError: a depth that there is not, a wrong number of channels or noise levels, or
                sides that are not multiples of 2 ** (depth - 1).
        """
        depth = self.depths if depth is None else depth
        check_depth(depth, self.depths)
        check_input(x, sigma, num_channels=self.num_channels, depth=depth)
        shown = 2 * x - 1
        end, skipped = depth - 1 if self.own_ends else 0, self.depths - depth
        h = first_features(self.inputs[end], shown)
        finest = self.part == "finest"
        h, _ = through_levels(
            h,
            h if self.own_ends else shown,
            embed(self.embedding, sigma),
            down=list(self.down)[:depth] if finest else list(self.down)[skipped:],
            middle=None if finest and skipped else self.middle,
            up=list(self.up)[skipped:] if finest else list(self.up)[:depth],
        )
        return last_layers(self.output_norm, self.outputs[end], h) / sigma[:, None, None, None]


class AtDepth(nn.Module):
    """A nested network at one depth, as a network of two arguments.

    Args:
        net: a `NestedNCSNpp`.
        depth: its depth.

    Raises:
        ValueError: another network, or a depth that there is not.
    """

    def __init__(self, net: nn.Module, depth: int):
        super().__init__()
        if not isinstance(net, NestedNCSNpp):
            raise ValueError(
                f"expected a nested network (mrncsn, msncsn, structured) for a depth, got "
                f"{type(net).__name__}; leave the depth out"
            )
        check_depth(depth, net.depths)
        self.net, self.depth = net, depth
        self.num_channels, self.stride = net.num_channels, 2 ** (depth - 1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score of images ``(B, C, H, W)`` at noise levels ``(B,)``."""
        return self.net(x, sigma, self.depth)


def check_depth(depth: int, depths: int) -> None:
    """Raise a ValueError unless 1 <= depth <= depths."""
    if not 1 <= depth <= depths:
        raise ValueError(f"expected a depth in 1 ... {depths}, got {depth}")


def depth_of_step(seed: int, depths: int) -> int:
    """Uniformly random depth in 1 ... depths from a seed: one depth a training step.

    Source: Glaszner et al. (IJCV 2026) train nested networks so, all images of a step at one depth.
    """
    generator = torch.Generator().manual_seed(seed)
    return int(torch.randint(1, depths + 1, (1,), generator=generator))
