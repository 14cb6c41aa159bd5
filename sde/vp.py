"""The variance-preserving and the sub-VP-SDE of Song et al. (ICLR 2021), seen as noise levels.

Both scale the image while noise is added: x(t) = s(t) (x(0) + sigma(t) z). Divided by s(t) they are
the VE-SDE at other levels (Karras et al. 2022, table 1), which is how all samplers see them; what
remains of them is how often training sees a level, and how the network is scaled (`sde.view`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sde.ve import VESDE

BETA_MIN, BETA_MAX = 0.1, 20.0
EPS = 1e-5  # smallest time of training (Song et al., appendix C)
SAMPLING_EPS = 1e-3  # and of sampling
LEAST = 0.002  # level that ends sampling at the latest: half a grey level of 8 bits
WIDTH = 2.0  # of the range of images before the network, [-1, 1]
LABELS = 999  # networks see the time times this


@dataclass(frozen=True)
class VPSDE:
    """dx = -beta(t) x / 2 dt + sqrt(beta(t)) dw with beta linear in t, on images in [-1, 1].

    Args:
        beta_min: beta(0).
        beta_max: beta(1).
        eps: smallest time that is trained.
    """

    beta_min: float = BETA_MIN
    beta_max: float = BETA_MAX
    eps: float = EPS

    def __post_init__(self):
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(
                "expected 0 < beta_min < beta_max, got "
                f"beta_min={self.beta_min}, beta_max={self.beta_max}"
            )

    def integral(self, t: Tensor) -> Tensor:
        """The integral of beta from 0 to `t`, same shape."""
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def scale(self, t: Tensor) -> Tensor:
        """s(t) = exp(-integral / 2), same shape as `t`."""
        return torch.exp(-self.integral(t) / 2)

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of x(t) given x(0), same shape as `t`."""
        return torch.sqrt(-torch.expm1(-self.integral(t)))

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level of x(t) / s(t) where clean images lie in [0, 1], same shape as `t`."""
        return self.std(t) / self.scale(t) / WIDTH

    def integral_of(self, level: Tensor) -> Tensor:
        """The integral at the time with std / scale = `level`, same shape."""
        return torch.log1p(level.square())

    def time(self, sigma: Tensor) -> Tensor:
        """The time at which the noise level is `sigma`: the inverse of `sigma`."""
        total, slope = self.integral_of(WIDTH * sigma), self.beta_max - self.beta_min
        return 2 * total / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * total))

    def ladder(self, num_steps: int) -> Tensor:
        """The levels of DDPM's chain of N steps, growing, as `sigma` has them: ``(N,)``, float64.

        Of its N betas from beta_min / N to beta_max / N (Song et al., appendix C).

        Raises:
            ValueError: fewer than two steps, or so few that a beta is not below 1.
        """
        if num_steps < 2 or self.beta_max >= num_steps:
            least = max(2, math.floor(self.beta_max) + 1)
            raise ValueError(f"expected num_steps of at least {least}, got {num_steps}")
        ends = self.beta_min / num_steps, self.beta_max / num_steps
        betas = torch.linspace(*ends, num_steps, dtype=torch.float64)
        squares = torch.cumprod(1 - betas, 0)
        return torch.sqrt((1 - squares) / squares) / WIDTH  # (N,)

    @property
    def ve(self) -> VESDE:
        """The VE-SDE of the levels from which and to which this one is sampled."""
        first, last = self.sigma(torch.tensor([SAMPLING_EPS, 1.0], dtype=torch.float64)).tolist()
        return VESDE(max(first, LEAST), last)


@dataclass(frozen=True)
class SubVPSDE(VPSDE):
    """The sub-VP-SDE: as `VPSDE`, with the smaller variance (1 - s(t)^2)^2."""

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of x(t) given x(0), same shape as `t`."""
        return -torch.expm1(-self.integral(t))

    def integral_of(self, level: Tensor) -> Tensor:
        """The integral at the time with std / scale = `level`, same shape."""
        return 2 * torch.asinh(level / 2)  # 1 / s - s = 2 sinh(integral / 2)
