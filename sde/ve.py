"""The variance-exploding SDE of Song et al. (ICLR 2021): x(t) = x(0) + sigma(t) z."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIGMA_MIN = 0.01
SIGMA_MAX = 378.0  # about the largest distance between two training images (Song & Ermon 2020)
EPS = 1e-5  # smallest time, for numerical stability (Song et al., appendix C)


@dataclass(frozen=True)
class VESDE:
    """dx = g(t) dw on t in [eps, 1], with sigma(t) = sigma_min (sigma_max / sigma_min)^t.

    Args:
        sigma_min: smallest noise level, in units of the image (clean images lie in [0, 1]).
        sigma_max: largest noise level; the prior is N(0, sigma_max^2).
        eps: smallest time that is trained and sampled.
    """

    sigma_min: float = SIGMA_MIN
    sigma_max: float = SIGMA_MAX
    eps: float = EPS

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                "expected 0 < sigma_min < sigma_max, got "
                f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max}"
            )

    @property
    def ve(self) -> "VESDE":
        """This SDE; of another kind, the VE-SDE that it amounts to."""
        return self

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at times `t` in [0, 1], same shape."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = sigma(t) sqrt(2 ln(sigma_max / sigma_min)), same shape as `t`."""
        return self.sigma(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    def time(self, sigma: Tensor) -> Tensor:
        """The time at which the noise level is `sigma`: the inverse of `sigma`."""
        return torch.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)

    def ladder(self, num_steps: int) -> Tensor:
        """The discrete noise levels sigma_0 = sigma_min, ..., sigma_{N-1} = sigma_max: ``(N,)``.

        Geometric, float64.
        """
        self._check_steps(num_steps)
        return self.sigma(torch.linspace(0, 1, num_steps, dtype=torch.float64))  # (N,)

    def sampling_times(self, num_steps: int) -> Tensor:
        """Times t_i = linspace(1, eps, N) of a sampling run: ``(N,)``, float64, falling."""
        self._check_steps(num_steps)
        return torch.linspace(1, self.eps, num_steps, dtype=torch.float64)  # (N,)

    def increments(self, num_steps: int) -> Tensor:
        """G_i of the reverse-diffusion predictor at step i of N: ``(N,)``, float64.

        G = sqrt(sigma_k^2 - sigma_{k-1}^2) with k = floor(t_i (N - 1)) and sigma_{-1} = 0
        (Song et al., equation 46 and appendix F).
        """
        sigma, previous = self._rungs(num_steps)
        return torch.sqrt(sigma**2 - previous**2)  # (N,)

    def ancestral_noise(self, num_steps: int) -> Tensor:
        """Noise of ancestral sampling at step i of N: ``(N,)``, float64; 0 at the last step.

        sigma_{k-1} G_i / sigma_k (Song et al., equation 47), with k and G_i as in `increments`.
        """
        sigma, previous = self._rungs(num_steps)
        return previous / sigma * torch.sqrt(sigma**2 - previous**2)  # (N,)

    def _rungs(self, num_steps: int) -> tuple[Tensor, Tensor]:
        """sigma_k and sigma_{k-1} of the steps: ``(N,)`` each, with sigma_{-1} = 0."""
        sigma = self.ladder(num_steps)
        previous = torch.cat([sigma.new_zeros(1), sigma[:-1]])
        k = (self.sampling_times(num_steps) * (num_steps - 1)).floor().long()
        return sigma[k], previous[k]

    @staticmethod
    def _check_steps(num_steps: int) -> None:
        if num_steps < 2:
            raise ValueError(f"expected num_steps of at least 2, got {num_steps}")
