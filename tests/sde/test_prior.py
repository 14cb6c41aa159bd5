"""Priors out of denoisers: what a network predicts, said and noticed."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.checkpoint import load_prior
from operators import SingleCoilMRI
from operators.batch import expand
from samplers import pnp
from sde import VESDE, Prior
from sde.prior import PREDICTS, find_prediction

PREDICTIONS = {
    "x0": lambda denoise, x, sigma: denoise(x, sigma),
    "noise": lambda denoise, x, sigma: (x - denoise(x, sigma)) / expand(sigma, x),
    "score": lambda denoise, x, sigma: (denoise(x, sigma) - x) / expand(sigma, x) ** 2,
}


def gaussian(mean, std):
    """The denoiser of white images with that mean and standard deviation."""

    def denoise(x, sigma):
        kept = std**2 / (std**2 + expand(sigma, x) ** 2)
        return mean + kept * (x - mean)

    return denoise


def blur(x, sigma):
    return F.avg_pool2d(x, 5, stride=1, padding=2)


@functools.cache
def shipped():
    return load_prior("natural_small", "cpu")


def natural(x, sigma):
    return x + expand(sigma, x) ** 2 * shipped().score(x, sigma)


def network(denoise, predicts):
    return lambda x, sigma: PREDICTIONS[predicts](denoise, x, sigma)


@pytest.mark.parametrize("predicts", PREDICTS)
def test_what_a_network_predicts_makes_no_difference(predicts):
    net = network(gaussian(0.4, 0.3), predicts)
    score, sde = Prior.from_denoiser(net, sigma_min=0.01, sigma_max=5, predicts=predicts)
    assert sde == VESDE(0.01, 5)
    x = torch.rand(3, 1, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.02, 0.3, 4.0], dtype=torch.float64)
    expected = (0.4 - x) / (0.3**2 + expand(sigma, x) ** 2)
    torch.testing.assert_close(score(x, sigma), expected)
    both = score(torch.complex(x, 1 - x), sigma)  # part by part
    torch.testing.assert_close(both.real, expected)
    torch.testing.assert_close(both.imag, (x - 0.6) / (0.3**2 + expand(sigma, x) ** 2))


CASES = [
    *((gaussian(0.5, std), (0.01, 378.0)) for std in (0.1, 0.3, 1.0)),
    *((gaussian(0.5, std), (0.01, 0.2)) for std in (0.05, 0.3, 1.0)),
    (gaussian(0.0, 0.3), (0.002, 1.0)),
    (gaussian(0.0, 0.12), (0.01, 1.0)),  # its noise at sigma_min looks like the image
    (gaussian(1.0, 0.3), (0.001, 0.1)),
    (blur, (0.01, 378.0)),
    (blur, (0.001, 0.05)),
    (natural, (0.002, 1.0)),
]


@pytest.mark.parametrize(("denoise", "levels"), CASES)
def test_a_wrong_declaration_is_noticed(denoise, levels):
    """And a right one is not."""
    for predicts in PREDICTS:
        net, sde = network(denoise, predicts), VESDE(*levels)
        assert find_prediction(net, sde, like=torch.zeros(1, 1, 32, 40)) == predicts
        for said in PREDICTS:
            prior = Prior.from_denoiser(
                net, sigma_min=levels[0], sigma_max=levels[1], predicts=said
            )
            x, sigma = torch.full((1, 1, 32, 40), 0.5), torch.full((1,), levels[0])
            if said == predicts:
                assert prior.score(x, sigma).shape == x.shape
                continue
            for _ in range(2):  # not only at the first call
                with pytest.raises(ValueError, match=rf"\('{said}'\).*predicts='{predicts}'"):
                    prior.score(x, sigma)


def test_the_check_costs_two_calls_once():
    sizes = []

    def net(x, sigma):
        sizes.append(len(x))
        return gaussian(0.5, 0.2)(x, sigma)

    prior = Prior.from_denoiser(net, sigma_min=0.01, sigma_max=1)
    for _ in range(3):
        prior.score(torch.zeros(5, 1, 8, 8), torch.full((5,), 0.1))
    assert sizes == [2, 2, 5, 5, 5]


class Shrink(nn.Module):
    """A denoiser with parameters, for sides that are multiples of 4."""

    def __init__(self):
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(0.09, dtype=torch.float64))

    def forward(self, x, sigma):
        assert x.dtype == sigma.dtype == torch.float64
        assert all(side % 4 == 0 for side in x.shape[-2:])
        return x * self.variance / (self.variance + expand(sigma, x) ** 2)


def test_a_module_is_called_in_its_precision_on_padded_images():
    prior = Prior.from_denoiser(Shrink(), sigma_min=0.01, sigma_max=2, stride=4, symmetric=True)
    score, _ = prior
    assert score.symmetric
    assert score.device == torch.device("cpu")
    x = torch.rand(2, 1, 9, 6)
    found = score(x, torch.full((2,), 0.4))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, -x / 0.25, rtol=1e-5, atol=1e-5)
    mask = torch.ones(9, 6, dtype=torch.bool)
    operator = SingleCoilMRI(mask)
    image = pnp(*prior, operator, operator.forward(x), num_steps=3, start_sigma=0.5)
    torch.testing.assert_close(image, x, rtol=1e-3, atol=1e-3)


def test_unfit_denoisers_are_told():
    levels = {"sigma_min": 0.01, "sigma_max": 1.0}
    x, sigma = torch.zeros(1, 1, 8, 8), torch.full((1,), 0.1)
    for net, message in (
        (lambda x, sigma: (x,), r"a tensor of the shape of x, \(2, 1, 8, 8\), got tuple"),
        (lambda x, sigma: torch.cat([x, x], 1), r"got \(2, 2, 8, 8\); wrap it"),
    ):
        with pytest.raises(ValueError, match=message):
            Prior.from_denoiser(net, **levels).score(x, sigma)
    with pytest.raises(ValueError, match=r"expected predicts in \['x0', 'noise', 'score'\]"):
        Prior.from_denoiser(blur, **levels, predicts="v")
    with pytest.raises(ValueError, match=r"expected a denoiser net\(x, sigma\), got str"):
        Prior.from_denoiser("natural_small", **levels)
    with pytest.raises(ValueError, match="expected 0 < sigma_min < sigma_max"):
        Prior.from_denoiser(blur, sigma_min=1.0, sigma_max=0.1)


def test_load_prior_gives_a_prior():
    prior = shipped()
    assert isinstance(prior, Prior)
    score, sde = prior
    assert (score, sde) == (prior.score, prior.sde)
    assert score.device == torch.device("cpu")


def test_a_denoiser_without_a_gradient_is_told_where_it_is_asked_for():
    """Its derivative was taken for 0: what is left of x in the score has one."""
    prior = Prior.from_denoiser(lambda x, sigma: 0.9 * x.detach(), sigma_min=0.01, sigma_max=1.0)
    x, sigma = torch.ones(1, 1, 8, 8), torch.full((1,), 0.1)
    prior.score(x, sigma)  # without one it is not needed
    with pytest.raises(RuntimeError, match="expected a denoiser that autograd can go through"):
        prior.score(x.requires_grad_(), sigma)
