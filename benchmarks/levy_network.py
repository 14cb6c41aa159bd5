"""Denoisers of Lévy processes that were learnt from samples, beside the exact one.

A residual convolutional network along the 64 numbers, trained by denoising score matching on fresh
signals at all noise levels, in the parametrisation of Karras et al. (NeurIPS 2022, table 1). It is
what the benchmark of Zach et al. (ICLR 2026) calls the learnt denoiser: its samples show what is
left of a sampler when the prior is a network.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.levy_process import Increments
from sde import VESDE, Score

WIDTH, FREQUENCIES = 40, 16
TAPS, DILATIONS = 5, (1, 2, 4, 8, 16, 8, 4, 2, 1)
STEPS, BATCH, RATE = 4500, 256, 2e-3
WARM_UP, LONGEST = 100, 1.0  # steps to the full rate; norm of the gradient at most
AVERAGED = 0.999  # of the moving average of the weights, a step


class Block(nn.Module):
    """x + W2 f(W1 f(x) * (1 + scale) + shift), with scale and shift by the noise level."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        around = dilation * (TAPS // 2)
        self.first = nn.Conv1d(width, width, TAPS, padding=around, dilation=dilation)
        self.second = nn.Conv1d(width, width, 1)
        self.level = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x is ``(B, width, d)``, `level` ``(B, width)``."""
        scale, shift = self.level(level)[:, :, None].chunk(2, dim=1)
        h = self.first(nn.functional.silu(x)) * (1 + scale) + shift
        return x + self.second(nn.functional.silu(h))


class Denoiser(nn.Module):
    """E[x_0 | x] of signals ``(B, d)`` with noise of sigma ``(B,)``: c_skip x + c_out F.

    F sees x in its own size, as signals of heavy tails differ much in it; the increments before and
    after each number in that of the noise, by asinh, as a jump is known by it; and 1, which tells
    the ends. A signal begins at 0, which its padding is, too.

    Args:
        size: typical size of the numbers of a signal.
        width: channels of the hidden layers.
    """

    def __init__(self, size: float, width: int = WIDTH):
        super().__init__()
        self.register_buffer("size", torch.tensor(size))
        self.register_buffer("frequencies", math.pi * torch.arange(1, FREQUENCIES + 1) / 8)
        self.level = nn.Sequential(
            nn.Linear(4 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.inward, self.outward = nn.Conv1d(4, width, 3, padding=1), nn.Conv1d(width, 1, 1)
        self.blocks = nn.ModuleList(Block(width, dilation) for dilation in DILATIONS)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x is ``(B, d)``, sigma ``(B,)``."""
        own, sigma = x.square().mean(1, keepdim=True).sqrt(), sigma[:, None]  # (B, 1)
        angles = [torch.log(v / self.size) * self.frequencies for v in (sigma, own)]
        level = self.level(torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1))
        before = torch.asinh(torch.diff(x, prepend=torch.zeros_like(x[:, :1])) / sigma)  # (B, d)
        after = nn.functional.pad(before[:, 1:], (0, 1))
        h = self.inward(torch.stack([x / own, before, after, torch.ones_like(x)], dim=1))
        for block in self.blocks:
            h = block(h, level)
        change = self.outward(nn.functional.silu(h))[:, 0]
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
        width: channels of the hidden layers.
    """
    steps = STEPS if steps is None else steps
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Denoiser(size, width)
    mean = torch.optim.swa_utils.AveragedModel(net, avg_fn=_average)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps, step))
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
            nn.utils.clip_grad_norm_(net.parameters(), LONGEST)
            optimizer.step()
            rate.step()
            mean.update_parameters(net)
    return mean.module.eval().requires_grad_(False)


def _rate(part: float, step: int) -> float:
    """Part of the full rate: up from 0, then down as a cosine."""
    return min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * part)) / 2


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
    net = Denoiser(size, width)
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval().requires_grad_(False)


def score_of(denoiser: Denoiser) -> Score:
    """Score of noisy signals ``(B, ..., d)``, computed in single precision."""

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        clean = denoiser(x.flatten(1).float(), sigma.float()).to(x).reshape(x.shape)
        return (clean - x) / (sigma**2).reshape(-1, *[1] * (x.ndim - 1))

    return score
