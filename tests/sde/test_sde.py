"""VE-SDE: closed forms, reference vectors, the training loss's minimum."""

import math

import pytest
import torch

from operators.batch import expand
from sde import (
    VESDE,
    complex_score,
    level_weight,
    score_function,
    score_matching_loss,
    validation_loss,
)


def test_reference_values(reference):
    vectors = reference("samplers_16")
    sde = VESDE(float(vectors["sigma_min"]), float(vectors["sigma_max"]))
    t = torch.from_numpy(vectors["sde_t"]).double()
    for value, name in ((sde.sigma(t), "sde_sigma"), (sde.diffusion(t), "sde_g")):
        expected = torch.from_numpy(vectors[name]).double()  # float32's precision
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    step = 499 - (t * 499).floor().long()  # the step whose level is k = floor(t 499)
    expected = torch.from_numpy(vectors["sde_G_500"]).double()
    torch.testing.assert_close(sde.increments(500)[step], expected, rtol=1e-5, atol=0)


def test_ladder_and_increments_add_up():
    sde = VESDE()
    ladder = sde.ladder(500)
    assert ladder[0] == pytest.approx(0.01)
    assert ladder[-1] == pytest.approx(378.0)
    ratios = ladder[1:] / ladder[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(499))
    # G^2 telescopes: the reverse steps undo exactly the variance of the prior
    assert sde.increments(500).square().sum().item() == pytest.approx(378.0**2)


def test_diffusion_is_the_growth_of_the_variance():
    sde = VESDE()
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sde.sigma(t).square().sum(), t)
    torch.testing.assert_close(sde.diffusion(t).square(), slope)
    torch.testing.assert_close(sde.time(sde.sigma(t)), t)


def test_unfit_parameters_are_errors():
    with pytest.raises(ValueError, match="expected 0 < sigma_min < sigma_max"):
        VESDE(1.0, 0.5)
    with pytest.raises(ValueError, match="num_steps of at least 2, got 1"):
        VESDE().ladder(1)


def test_loss_by_hand_and_its_minimum():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1, 4, 4, generator=generator)
    z = torch.randn(3, 1, 4, 4, generator=generator)
    sigma = torch.tensor([0.1, 1.0, 10.0])
    zero = score_matching_loss(lambda x, sigma: torch.zeros_like(x), x, sigma, z)
    torch.testing.assert_close(zero, 0.5 * z.square().sum((1, 2, 3)))
    told_apart = score_matching_loss(lambda v, s: (x - v) / expand(s, v) ** 2, x, sigma, z)
    assert told_apart.max() < 1e-4


def test_weight_of_a_noise_level():
    sigma = torch.tensor([0.01, 0.5, 2.0, 378.0])
    expected = torch.tensor([1.02, 2.0, 5.0, 757.0])
    torch.testing.assert_close(level_weight(sigma, 0.5), expected)
    assert torch.equal(level_weight(sigma, 0.0), torch.ones(4))


def test_the_exact_score_has_the_smallest_expected_loss():
    """For x ~ N(0, s^2) the loss of c * (true score) is least at c = 1, with a known value."""
    generator = torch.Generator().manual_seed(0)
    std, sigma = 0.7, torch.full((4000,), 0.5)
    x = std * torch.randn(4000, 1, 4, 4, generator=generator)
    z = torch.randn(4000, 1, 4, 4, generator=generator)

    def loss(factor):
        def score(v, s):
            return -factor * v / (std**2 + expand(s, v) ** 2)

        return score_matching_loss(score, x, sigma, z).mean().item()

    # E[(sigma s + z)^2] = std^2 / (std^2 + sigma^2) a pixel
    assert loss(1.0) == pytest.approx(0.5 * 16 * std**2 / (std**2 + 0.25), rel=0.01)
    assert loss(1.0) < min(loss(0.9), loss(1.1))


def test_complex_score_treats_the_parts_as_images():
    def score(x, sigma):
        return -x / expand(sigma, x) + x.mean((1, 2, 3), keepdim=True)

    x = torch.randn(2, 1, 3, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([1.0, math.pi])
    out = complex_score(score)(x, sigma)
    torch.testing.assert_close(out.real, score(x.real, sigma))
    torch.testing.assert_close(out.imag, score(x.imag, sigma))
    assert complex_score(score)(x.real, sigma).dtype == torch.float32


def test_a_network_of_two_channels_takes_both_parts_together():
    torch.manual_seed(0)

    class Net(torch.nn.Conv2d):
        num_channels = 2

        def forward(self, x, sigma):
            return super().forward(x) / expand(sigma, x)

    net = Net(2, 2, 3, padding=1)
    score = score_function(net)
    x = torch.randn(3, 1, 5, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([1.0, 2.0, 3.0])
    out, parts = score(x, sigma), net(torch.cat([x.real, x.imag], 1), sigma)
    torch.testing.assert_close(torch.view_as_real(out[:, 0]).movedim(-1, 1), parts)
    torch.testing.assert_close(score(parts, sigma), net(parts, sigma))
    with pytest.raises(ValueError, match="take a prior of one channel"):
        score(x.real, sigma)


def test_autocast_keeps_the_state_in_its_precision():
    torch.manual_seed(0)
    net = torch.nn.Conv2d(1, 1, 3, padding=1)
    calls = []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = net

        def forward(self, x, sigma):
            out = self.conv(x)
            calls.append(out.dtype)
            return out

    x, sigma = torch.rand(2, 1, 8, 8), torch.ones(2)
    exact = score_function(Net())(x, sigma)
    low = score_function(Net(), autocast=torch.bfloat16)(x, sigma)
    assert calls == [torch.float32, torch.bfloat16]
    assert low.dtype == torch.float32
    assert 0 < (low - exact).abs().max() < 0.02
    assert score_function(Net())(x.double(), sigma).dtype == torch.float64


def test_images_that_do_not_fit_are_padded():
    class Halving(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x, sigma):
            assert x.shape[-2:] == (12, 12)
            return self.conv(x)

    torch.manual_seed(0)
    net = Halving()
    x = torch.rand(2, 1, 9, 12)
    mirrored = torch.cat([x, x[..., 5:8, :].flip(-2)], dim=-2)  # rows 7, 6, 5 behind row 8
    score = score_function(net, stride=4)
    assert torch.equal(score(x, torch.ones(2)), net(mirrored, None)[..., :9, :])
    assert torch.equal(score(mirrored, torch.ones(2)), net(mirrored, None))
    z = torch.complex(x, x.flip(-1))
    torch.testing.assert_close(score(z, torch.ones(2)).imag, score(x.flip(-1), torch.ones(2)))


def test_validation_draws_levels_evenly_in_each_bin_and_averages_over_images():
    sde, count, bins = VESDE(0.01, 10.0), 200, 4
    seen = []

    class Silent(torch.nn.Linear):
        def forward(self, x, sigma):
            seen.append(sde.time(sigma) * bins % 1)  # place in the bin, 0 to 1
            return torch.zeros_like(x)

    losses = validation_loss(Silent(1, 1), [torch.zeros(1, 4, 4)] * count, sde, seed=1, bins=bins)
    # of s = 0: half the number of pixels, to 5 standard errors
    tolerance = 5 * math.sqrt(0.5 / (16 * count)) * 16
    torch.testing.assert_close(losses, torch.full_like(losses, 8.0), rtol=0, atol=tolerance)
    places = torch.stack(seen)  # (count, bins)
    deviation = math.sqrt(1 / 12 / count)
    assert (places.mean(0) - 0.5).abs().max() < 5 * deviation
    assert places.std(0).min() > 0.2
