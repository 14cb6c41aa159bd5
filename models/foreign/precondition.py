"""Preconditioning: a denoiser D(x, sigma) = c_skip x + c_out F(c_in x, c_noise) from a network F.

Karras et al. (NeurIPS 2022), table 1. Images are in the network's own range, mostly [-1, 1].
"""

import torch
from torch import Tensor, nn

SIGMA_DATA = 0.5  # standard deviation of images in [-1, 1]


class Preconditioned(nn.Module):
    """The denoiser of a network `model`; subclasses give the coefficients of a noise level."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.num_channels, self.stride = model.num_channels, model.stride

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise of noise levels ``(B,)``, ``(B,)`` each."""
        raise NotImplementedError

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised image D(x; sigma) of ``(B, C, H, W)`` and noise levels ``(B,)``."""
        skip, out, in_, noise = self.coefficients(sigma)
        return _of(skip, x) * x + _of(out, x) * self.model(_of(in_, x) * x, noise)


def _of(coefficient: Tensor, x: Tensor) -> Tensor:
    return coefficient.to(x.dtype)[:, None, None, None]


class EDMPrecond(Preconditioned):
    """Input, output and target of unit variance at every level (Karras et al. 2022, appendix B.6).

    Args:
        model: F.
        sigma_data: standard deviation of the images.
    """

    def __init__(self, model: nn.Module, sigma_data: float = SIGMA_DATA):
        super().__init__(model)
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Preconditioned.coefficients`."""
        data, total = self.sigma_data, sigma.square() + self.sigma_data**2
        return data**2 / total, sigma * data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


class VEPrecond(Preconditioned):
    """Song's VE networks: F predicts minus the noise in standard deviations from x itself."""

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Preconditioned.coefficients`."""
        one = torch.ones_like(sigma)
        return one, sigma, one, (sigma / 2).log()


class VPPrecond(Preconditioned):
    """Song's VP networks: F predicts the noise from x / sqrt(1 + sigma^2), labelled by its time.

    Args:
        model: F.
        beta_d: slope of beta(t).
        beta_min: beta(0).
        M: number of timesteps; labels are times in [0, 1] times M - 1.
        epsilon_t: smallest time, without effect here.
    """

    def __init__(
        self,
        model: nn.Module,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
    ):
        super().__init__(model)
        self.beta_d, self.beta_min, self.steps = beta_d, beta_min, M

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Preconditioned.coefficients`."""
        # sigma^2 + 1 = exp(beta_d t^2 / 2 + beta_min t)
        root = (self.beta_min**2 + 2 * self.beta_d * sigma.square().log1p()).sqrt()
        time = (root - self.beta_min) / self.beta_d
        one = torch.ones_like(sigma)
        return one, -sigma, 1 / (1 + sigma.square()).sqrt(), (self.steps - 1) * time


# name of the original's class -> class, its own keywords
PRECONDS = {
    "EDMPrecond": (EDMPrecond, ("sigma_data",)),
    "VEPrecond": (VEPrecond, ()),
    "VPPrecond": (VPPrecond, ("beta_d", "beta_min", "M", "epsilon_t")),
}
