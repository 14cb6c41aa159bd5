"""Gibbs samplers and denoisers of Lévy processes against importance sampling from the prior."""

import functools

import pytest
import torch

from benchmarks.levy_process import (
    INCREMENTS,
    denoise,
    increments_of,
    inverse_gaussian,
    posterior_chain,
    score_of,
)

KINDS = ["gauss", "laplace", "bernoulli-laplace", "student-1", "student-3"]
MATRIX = torch.tensor([[1.0, 0.5, 0.0], [0.2, -0.4, 1.0]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def prior_draws(kind):
    return INCREMENTS[kind].draw((300_000, 3), generator(1)).cumsum(-1)


def weighted(kind, matrix, y, noise):
    """Posterior mean, covariance and part of first increments that are 0, by weighted draws."""
    x = prior_draws(kind)
    logs = -((x @ matrix.T - y) ** 2).sum(-1) / (2 * noise**2)
    weights = torch.softmax(logs, dim=0)
    assert 1 / (weights**2).sum() > 1000  # effective number
    mean = weights @ x
    away = x - mean
    return mean, (weights[:, None] * away).T @ away, weights @ (x[:, 0] == 0).double()


@pytest.mark.parametrize("kind", KINDS)
def test_chains_have_the_posterior(kind):
    y, noise = torch.tensor([1.2, 0.3], dtype=torch.float64), 0.5
    mean, covariance, none = weighted(kind, MATRIX, y, noise)
    chain = posterior_chain(INCREMENTS[kind], MATRIX, y.expand(300, 2), noise, generator())
    drawn = torch.stack([next(chain) for _ in range(150)])[20:].flatten(0, 1)
    spread = covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - mean).abs() < 0.04 * spread).all()
    if kind != "student-1":  # whose covariance few draws decide
        error = (torch.cov(drawn.T) - covariance) / spread[:, None] / spread
        assert error.abs().max() < 0.1
    assert (drawn[:, 0] == 0).double().mean() == pytest.approx(float(none), abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.4, 1.5])
def test_denoised_mean_and_its_derivative(kind, sigma):
    y = torch.tensor([0.6, 0.9, 0.7], dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    mean, covariance, _ = weighted(kind, eye, y, sigma)
    options = {"burn_in": 20, "sweeps": 60}
    found = denoise(
        INCREMENTS[kind],
        y.expand(2000, 3),
        torch.full((2000,), sigma).double(),
        generator(),
        **options,
    )
    spread = covariance.diagonal().sqrt()
    assert ((found.mean.mean(1) - mean).abs() < 0.04 * spread).all()
    jacobian = torch.stack([found.jacobian(e[:, None].expand(3, 2000)).mean(1) for e in eye])
    error = (jacobian * sigma**2 - covariance) / spread[:, None] / spread
    assert error.abs().max() < 0.05


@pytest.mark.parametrize("kind", ["bernoulli-laplace", "student-3"])
def test_both_samplers_agree_on_noisy_signals(kind):
    """In 6 dimensions, where jumps that are drawn one by one have to be kept consistent."""
    x = INCREMENTS[kind].draw((1, 6), generator(5)).cumsum(-1)
    y = x + 0.2 * torch.randn(x.shape, generator=generator(4), dtype=x.dtype)
    eye = torch.eye(6, dtype=torch.float64)
    chain = posterior_chain(INCREMENTS[kind], eye, y.expand(2000, 6), 0.2, generator())
    drawn = torch.stack([next(chain) for _ in range(100)])[20:].flatten(0, 1)
    noise = torch.full((2000,), 0.2, dtype=torch.float64)
    found = denoise(INCREMENTS[kind], y.expand(2000, 6), noise, generator(1), sweeps=50)
    spread = drawn.std(0)
    assert ((found.mean.mean(1) - drawn.mean(0)).abs() < 0.1 * spread).all()
    jacobian = torch.stack([found.jacobian(e[:, None].expand(6, 2000)).mean(1) for e in eye])
    error = (jacobian * 0.04 - torch.cov(drawn.T)) / spread[:, None] / spread
    assert error.abs().max() < 0.15


def test_score_has_a_symmetric_jacobian_for_autograd():
    x = torch.randn(2, 1, 1, 6, generator=generator(), dtype=torch.float64).requires_grad_()
    sigma = torch.tensor([0.5, 1.0], dtype=torch.float64)
    score = score_of(INCREMENTS["laplace"], generator(), sweeps=20)
    clean = x + sigma.reshape(2, 1, 1, 1) ** 2 * score(x, sigma)
    rows = [torch.autograd.grad(clean[..., k].sum(), x, retain_graph=True)[0] for k in range(6)]
    jacobian = torch.stack(rows, dim=-1)[:, 0, 0]
    assert torch.allclose(jacobian, jacobian.mT, atol=1e-10)
    assert torch.linalg.eigvalsh(jacobian).min() > 0


def test_inverse_gaussian_numbers():
    mean = torch.full((400_000,), 3.0, dtype=torch.float64)
    drawn = inverse_gaussian(mean, 2.0, generator())
    assert drawn.mean() == pytest.approx(3.0, rel=0.02)
    assert drawn.reciprocal().mean() == pytest.approx(1 / 3 + 1 / 2, rel=0.01)
    # mean as large as an increment of about 0 makes it: then Lévy, whose median is known
    drawn = inverse_gaussian(mean * 1e12, 2.0, generator())
    assert drawn.median() == pytest.approx(2 / 0.45494, rel=0.02)


def test_increments_and_sums():
    x = INCREMENTS["bernoulli-laplace"].draw((1000, 64), generator()).cumsum(-1)
    u = increments_of(x)
    assert torch.allclose(u.cumsum(-1), x)
    assert (u.abs() > 1e-12).double().mean() == pytest.approx(0.1, abs=0.01)
