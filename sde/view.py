"""One way of seeing all networks: the score of x0 + sigma z on images in [0, 1].

Whatever a network was trained with, it saw s (x0 + sigma z) of images in its own range, a label of
sigma, and predicts something that tells x0 from z. A `Schedule` has s and the label as functions of
sigma (Karras et al., NeurIPS 2022, table 1), `NOISE` what follows of the predictions.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from operators.batch import expand
from sde.vp import LABELS, VPSDE, WIDTH

SIGMA_DATA = 0.5  # standard deviation of images in [-1, 1] (Karras et al. 2022, appendix F.3)


class Schedule(NamedTuple):
    """What a network sees at a noise level sigma, in the unit of its own range.

    Attributes:
        scale: s, by which x0 + sigma z is multiplied; levels ``(B,)`` to ``(B,)``.
        label: the time, level or index that it takes; levels ``(B,)`` to ``(B,)``.
    """

    scale: Callable[[Tensor], Tensor]
    label: Callable[[Tensor], Tensor]


def ve_schedule() -> Schedule:
    """Networks that take x0 + sigma z and sigma."""
    return Schedule(torch.ones_like, lambda sigma: sigma)


def vp_schedule(sde: VPSDE) -> Schedule:
    """Song's VP and sub-VP networks, which take 999 t."""
    return Schedule(
        lambda sigma: torch.exp(-sde.integral_of(sigma) / 2),
        lambda sigma: LABELS * sde.time(sigma / WIDTH),
    )


def ladder_schedule(alphas_cumprod: Tensor) -> Schedule:
    """DDPM's networks, which take the index of a level; between two of them, a fraction.

    Args:
        alphas_cumprod: the squares of s at the steps, ``(T,)``, falling.

    Raises:
        ValueError: they do not fall, or are not between 0 and 1.
    """
    squares = torch.as_tensor(alphas_cumprod, dtype=torch.float64)
    if squares.ndim != 1 or not (bool((squares.diff() < 0).all()) and squares[-1] > 0):
        raise ValueError("expected alphas_cumprod (T,) that fall from below 1 to above 0")
    if squares[0] >= 1:
        raise ValueError(f"expected alphas_cumprod below 1, got {float(squares[0])}")
    levels = ladder_levels(squares).log()  # (T,), growing

    def label(sigma: Tensor) -> Tensor:
        """The index, linear in log sigma between steps, and that of the nearest end outside."""
        x, y = sigma.double().log(), levels.to(sigma.device)
        k = torch.searchsorted(y, x).clamp(1, len(y) - 1)  # (B,)
        part = (x - y[k - 1]) / (y[k] - y[k - 1])
        return (k - 1 + part.clamp(0, 1)).to(sigma.dtype)

    return Schedule(lambda sigma: torch.rsqrt(1 + sigma.square()), label)


def ladder_levels(alphas_cumprod: Tensor) -> Tensor:
    """Noise levels sqrt((1 - a) / a) of DDPM's steps, in the unit of the network's range."""
    return torch.sqrt((1 - alphas_cumprod) / alphas_cumprod)


def flow_schedule(steps: float = 1.0) -> Schedule:
    """Flow matching on straight lines, (1 - t) x0 + t z: the network takes `steps` t."""
    return Schedule(lambda sigma: 1 / (1 + sigma), lambda sigma: steps * sigma / (1 + sigma))


def edm_schedule() -> Schedule:
    """The preconditioning of Karras et al.: inputs of unit variance, labelled by log(sigma) / 4."""
    return Schedule(
        lambda sigma: torch.rsqrt(sigma.square() + SIGMA_DATA**2),
        lambda sigma: sigma.log() / 4,
    )


# prediction -> E[z] from the network's output F, its input y = s x, s and sigma
NOISE: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "noise": lambda f, y, s, sigma: f,
    "minus_noise": lambda f, y, s, sigma: -f,
    "x0": lambda f, y, s, sigma: (y / s - f) / sigma,
    "score": lambda f, y, s, sigma: -s * sigma * f,  # the gradient of the log-density of y
    # v = s z - s sigma x0 with s^2 + (s sigma)^2 = 1 (Salimans & Ho, ICLR 2022)
    "v": lambda f, y, s, sigma: s * f + s * sigma * y,
    # z - x0 of flow matching (Lipman et al., ICLR 2023)
    "velocity": lambda f, y, s, sigma: y + s * f,
    # with the scale of `edm_schedule` (Karras et al. 2022, table 1)
    "edm": lambda f, y, s, sigma: s * sigma * y - s * SIGMA_DATA * f,
}


class View(nn.Module):
    """``view(x, sigma) -> grad_x log p_sigma(x)`` on images in [0, 1], of any network.

    Args:
        net: ``net(y, label)``; its attributes `num_channels` and `stride` are kept.
        schedule: what it takes at a noise level.
        predicts: what it gives, a key of `NOISE`.
        low: value of black, 0, in the network's own range.
        high: value of white, 1, there.

    Raises:
        ValueError: an unknown `predicts`, or not low < high.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        predicts: str,
        *,
        low: float = 0.0,
        high: float = 1.0,
    ):
        super().__init__()
        if predicts not in NOISE:
            raise ValueError(f"expected predicts out of {', '.join(NOISE)}, got {predicts!r}")
        if not low < high:
            raise ValueError(f"expected a pixel range low < high, got {low} to {high}")
        self.net, self.schedule, self.predicts = net, schedule, predicts
        self.low, self.width = low, high - low
        self.num_channels = getattr(net, "num_channels", 1)
        self.stride = getattr(net, "stride", 1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score of images ``(B, C, H, W)`` at noise levels ``(B,)``, both in the unit of [0, 1]."""
        shared = len(sigma) > 1 and sigma.stride(0) == 0  # stays one number in memory
        own = self.width * (sigma[:1] if shared else sigma)
        scale, label = self.schedule.scale(own), self.schedule.label(own)
        if shared:
            scale, label, own = (v.expand(len(x)) for v in (scale, label, own))
        scale, own = expand(scale, x), expand(own, x)
        y = scale * (self.low + self.width * x)
        noise = NOISE[self.predicts](self.net(y, label), y, scale, own)
        return -noise / expand(sigma, x)
