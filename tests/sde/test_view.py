"""One Gaussian prior through every parametrisation: the same score, the same reconstruction."""

import numpy as np
import pytest
import torch
from torch import nn

from operators import SingleCoilMRI
from operators.batch import BatchGenerator, expand
from samplers import SAMPLERS
from sde import VESDE, VPSDE, SubVPSDE, View, score_function
from sde.view import (
    NOISE,
    edm_schedule,
    flow_schedule,
    ladder_schedule,
    ve_schedule,
    vp_schedule,
)

MEAN, STD = 0.4, 0.3  # of every pixel of images in [0, 1]
BETAS = np.linspace(1e-4, 0.02, 1000)
CUMPROD = np.cumprod(1 - BETAS)


pytestmark = pytest.mark.usefixtures("one_thread")


class Exact(nn.Module):
    """The exact network of independent Gaussian pixels, from its own formulas of the paper.

    Args:
        sigma_of: level in the network's range from its label.
        scale_of: s from that level.
        output: what it predicts of (s, sigma, x0, noise, y), given E[x0 | y] and E[z | y].
        low, high: its range of pixels.
    """

    num_channels, stride = 1, 1

    def __init__(self, sigma_of, scale_of, output, low, high):
        super().__init__()
        self.sigma_of, self.scale_of, self.output = sigma_of, scale_of, output
        self.mean, self.std = low + (high - low) * MEAN, (high - low) * STD
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, y, label):
        sigma = torch.as_tensor(self.sigma_of(label.numpy()))
        s, sigma = expand(self.scale_of(sigma), y), expand(sigma, y)
        x = y / s
        x0 = (self.std**2 * x + sigma**2 * self.mean) / (self.std**2 + sigma**2)
        return self.output(s, sigma, x0, (x - x0) / sigma, y)


def vp_integral(label):
    t = label / 999
    return 0.1 * t + 19.9 * t**2 / 2


def variance_preserving(sigma):
    return 1 / torch.sqrt(1 + sigma**2)


def edm_output(s, sigma, x0, noise, y):
    skip, out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / torch.sqrt(sigma**2 + 0.25)
    return (x0 - skip * (x0 + sigma * noise)) / out


# name -> schedule, predicts, sigma of a label, s of sigma, output
EXACT = {
    "ve": (
        ve_schedule(), "score", lambda n: n, torch.ones_like,
        lambda s, sigma, x0, noise, y: -noise / sigma,
    ),
    "denoiser": (
        ve_schedule(), "x0", lambda n: n, torch.ones_like, lambda s, sigma, x0, noise, y: x0,
    ),
    "ve_noise": (
        ve_schedule(), "minus_noise", lambda n: n, torch.ones_like,
        lambda s, sigma, x0, noise, y: -noise,
    ),
    "vp": (
        vp_schedule(VPSDE()), "noise", lambda n: np.sqrt(np.expm1(vp_integral(n))),
        variance_preserving, lambda s, sigma, x0, noise, y: noise,
    ),
    "subvp": (
        vp_schedule(SubVPSDE()), "noise",
        lambda n: (1 - np.exp(-vp_integral(n))) / np.exp(-vp_integral(n) / 2),
        lambda sigma: (torch.sqrt(sigma**2 + 4) - sigma) / 2,  # s of sigma = (1 - s^2) / s
        lambda s, sigma, x0, noise, y: noise,
    ),
    "ddpm": (
        ladder_schedule(CUMPROD), "noise",
        lambda n: np.exp(np.interp(n, np.arange(1000), np.log((1 - CUMPROD) / CUMPROD) / 2)),
        variance_preserving, lambda s, sigma, x0, noise, y: noise,
    ),
    "ddpm_x0": (
        ladder_schedule(CUMPROD), "x0",
        lambda n: np.exp(np.interp(n, np.arange(1000), np.log((1 - CUMPROD) / CUMPROD) / 2)),
        variance_preserving, lambda s, sigma, x0, noise, y: x0,
    ),
    "v": (
        ladder_schedule(CUMPROD), "v",
        lambda n: np.exp(np.interp(n, np.arange(1000), np.log((1 - CUMPROD) / CUMPROD) / 2)),
        variance_preserving, lambda s, sigma, x0, noise, y: s * noise - s * sigma * x0,
    ),
    "edm": (
        edm_schedule(), "edm", lambda n: np.exp(4 * n),
        lambda sigma: 1 / torch.sqrt(sigma**2 + 0.25), edm_output,
    ),
    "flow": (
        flow_schedule(1000), "velocity", lambda n: n / (1000 - n),
        lambda sigma: 1 / (1 + sigma), lambda s, sigma, x0, noise, y: noise - x0,
    ),
}  # fmt: skip


def view(name: str, low: float = -1.0, high: float = 1.0) -> View:
    schedule, predicts, *own = EXACT[name]
    return View(Exact(*own, low, high), schedule, predicts, low=low, high=high)


@pytest.mark.parametrize("name", EXACT)
def test_every_parametrisation_is_the_same_score(name):
    x = torch.randn(4, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.012, 0.2, 3.0, 40.0], dtype=torch.float64)
    expected = (MEAN - x) / (STD**2 + expand(sigma, x) ** 2)
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        found = view(name, low, high)(x, sigma)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
        shared = view(name, low, high)(x, sigma[1:2].expand(4))
        expected_shared = (MEAN - x) / (STD**2 + 0.2**2)
        torch.testing.assert_close(shared, expected_shared, rtol=1e-6, atol=1e-8)
    assert {predicts for _, predicts, *_ in EXACT.values()} == set(NOISE)


@pytest.mark.parametrize("sampler", ["pnp", "predictor_corrector", "dds", "daps"])
def test_a_sampler_finds_the_same_image_through_each(sampler):
    generator = torch.Generator().manual_seed(1)
    image = MEAN + STD * torch.randn(2, 1, 8, 8, generator=generator)
    mask = torch.rand(8, 8, generator=generator) < 0.5
    operator = SingleCoilMRI(mask)
    found = {}
    for name in ("ve", "vp", "subvp", "edm", "ddpm", "flow"):
        found[name] = SAMPLERS[sampler](
            score_function(view(name)),
            VESDE(0.01, 20.0),
            operator,
            operator.forward(image),
            rng=BatchGenerator([1, 2]),
            num_steps=8,
        )
    for name, other in found.items():
        assert (other - found["ve"]).norm() < 1e-3 * found["ve"].norm(), name


def test_vp_levels_are_those_of_the_paper():
    t = torch.linspace(0.001, 1, 50, dtype=torch.float64)
    # the integral of beta by sums, means and variances of Song et al. 2021, equation 29
    grid = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    beta = 0.1 + 19.9 * grid
    integral = torch.cat([beta.new_zeros(1), torch.cumsum((beta[1:] + beta[:-1]) / 2e5, 0)])
    at = integral[(t * 100_000).round().long()]
    t = (t * 100_000).round() / 100_000
    for sde, variance in (
        (VPSDE(), 1 - torch.exp(-at)),
        (SubVPSDE(), (1 - torch.exp(-at)) ** 2),
    ):
        torch.testing.assert_close(sde.scale(t), torch.exp(-at / 2))
        torch.testing.assert_close(sde.std(t).square(), variance)
        torch.testing.assert_close(sde.sigma(t), variance.sqrt() / torch.exp(-at / 2) / 2)
        torch.testing.assert_close(sde.time(sde.sigma(t)), t)
        assert sde.ve.sigma_max == pytest.approx(float(sde.sigma(t[-1])))
        first = float(sde.sigma(torch.tensor(1e-3).double()))
        assert sde.ve.sigma_min == pytest.approx(max(first, 0.002))  # sub-VP: 0.00005


def test_unfit_views_are_errors():
    with pytest.raises(ValueError, match="expected 0 < beta_min < beta_max"):
        VPSDE(2.0, 1.0)
    with pytest.raises(ValueError, match="expected predicts out of noise"):
        View(nn.Identity(), ve_schedule(), "eps")
    with pytest.raises(ValueError, match="expected a pixel range low < high"):
        View(nn.Identity(), ve_schedule(), "x0", low=1.0, high=1.0)
    with pytest.raises(ValueError, match=r"alphas_cumprod .* that fall"):
        ladder_schedule(torch.tensor([0.1, 0.9]))
    with pytest.raises(ValueError, match="below 1, got"):
        ladder_schedule(torch.tensor([1.0, 0.5]))
