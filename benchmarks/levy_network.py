"""Denoisers of Lévy processes that were learnt from samples, beside the exact one.

A residual network of vectors of 64 numbers, trained by denoising score matching on fresh signals at
all noise levels, in the parametrisation of Karras et al. (NeurIPS 2022, table 1). It is what the
benchmark of Zach et al. (ICLR 2026) calls the learnt denoiser: its samples show what is left of a
sampler when the prior is a network.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.levy_process import Increments
from sde import VESDE, Score

WIDTH, BLOCKS, FREQUENCIES = 256, 4, 16
STEPS, BATCH, RATE = 20_000, 512, 1e-3
AVERAGED = 0.999  # of the moving average of the weights, a step


class Block(nn.Module):
    """x + W2 f(W1 f(x) * (1 + scale) + shift), with scale and shift by the noise level."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.level = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x and `level` are ``(B, width)``."""
        scale, shift = self.level(level).chunk(2, dim=1)
        h = self.first(nn.functional.silu(x)) * (1 + scale) + shift
        return x + self.second(nn.functional.silu(h))


class Denoiser(nn.Module):
    """E[x_0 | x] of signals ``(B, d)`` with noise of sigma ``(B,)``: c_skip x + c_out F(x / |x|).

    Signals of heavy tails differ much in size, so that F sees them in their own.

    Args:
        length: d.
        size: typical size of the numbers of a signal.
        width: of the hidden layers.
    """

    def __init__(self, length: int, size: float, width: int = WIDTH):
        super().__init__()
        self.register_buffer("size", torch.tensor(size))
        self.register_buffer("frequencies", math.pi * torch.arange(1, FREQUENCIES + 1) / 8)
        self.inward, self.outward = nn.Linear(length, width), nn.Linear(width, length)
        self.level = nn.Sequential(nn.Linear(4 * FREQUENCIES, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width) for _ in range(BLOCKS))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x is ``(B, d)``, sigma ``(B,)``."""
        own, sigma = x.square().mean(1, keepdim=True).sqrt(), sigma[:, None]  # (B, 1)
        angles = [torch.log(v / self.size) * self.frequencies for v in (sigma, own)]
        level = self.level(torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1))
        h = self.inward(x / own)
        for block in self.blocks:
            h = block(h, level)
        change = self.outward(nn.functional.silu(h))
        return x / (1 + (sigma / self.size) ** 2) + change / torch.sqrt(sigma**-2 + own**-2)


def train(
    increments: Increments,
    sde: VESDE,
    *,
    length: int,
    size: float,
    seed: int = 0,
    steps: int | None = None,
    width: int = WIDTH,
) -> Denoiser:
    """A denoiser of fresh signals at noise levels that are uniform in their logarithm.

    Args:
        increments: their distribution.
        sde: range of noise levels.
        length: numbers of a signal.
        size: their typical size.
        seed: of the weights and of the signals.
        steps: of Adam, with a rate that falls to 0 as a cosine; None: `STEPS`.
        width: of the hidden layers.
    """
    steps = STEPS if steps is None else steps
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Denoiser(length, size, width)
    mean = torch.optim.swa_utils.AveragedModel(net, avg_fn=_average)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    span = math.log(sde.sigma_max / sde.sigma_min)
    with torch.enable_grad():
        for _ in range(steps):
            x = increments.draw((BATCH, length), generator).cumsum(-1).float()
            sigma = sde.sigma_min * torch.exp(span * torch.rand(BATCH, generator=generator))
            noise = torch.randn(x.shape, generator=generator)
            noisy = x + sigma[:, None] * noise
            # a weight that depends on what the network sees does not move the minimum, the mean
            weight = sigma**-2 + 1 / noisy.square().mean(1)
            loss = (weight * (net(noisy, sigma) - x).square().mean(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            mean.update_parameters(net)
    return mean.module.eval().requires_grad_(False)


def _average(old: Tensor, new: Tensor, count: Tensor) -> Tensor:
    """Moving average that forgets the first steps sooner."""
    return old + max(1 - AVERAGED, 9 / (10 + int(count))) * (new - old)


def kept(
    path: Path,
    increments: Increments,
    sde: VESDE,
    *,
    length: int,
    size: float,
    width: int = WIDTH,
    steps: int | None = None,
) -> Denoiser:
    """The denoiser whose weights are at `path`; it is trained, as by `train`, if none are."""
    if not path.exists():
        net = train(increments, sde, length=length, size=size, width=width, steps=steps)
        part = path.with_suffix(".part")
        torch.save(net.state_dict(), part)
        part.replace(path)
    net = Denoiser(length, size, width)
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval().requires_grad_(False)


def score_of(denoiser: Denoiser) -> Score:
    """Score of noisy signals ``(B, ..., d)``, computed in single precision."""

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        clean = denoiser(x.flatten(1).float(), sigma.float()).to(x).reshape(x.shape)
        return (clean - x) / (sigma**2).reshape(-1, *[1] * (x.ndim - 1))

    return score
