"""Log-densities along the flow against Gaussian priors, whose densities are known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from operators import BatchGenerator
from samplers.likelihood import (
    MEAN_STD,
    SLOPE,
    bits_per_dim,
    dimensions,
    end_log_density,
    log_density,
)
from samplers.start import GREY
from sde import VESDE, VPSDE, complex_score, score_function
from tests.sde.test_view import MEAN, STD, view

SIDE = 4
SIZE = SIDE**2
SDE = VESDE(0.01, 60.0)


pytestmark = pytest.mark.usefixtures("one_thread")


def _prior():
    rng = np.random.default_rng(0)
    root = 0.15 * rng.standard_normal((SIZE, SIZE))
    return rng.random(SIZE), root @ root.T + 0.02 * np.eye(SIZE)


CENTRE, COVARIANCE = _prior()


def score(x, sigma):
    """Of the prior with a full covariance; one level for all."""
    matrix = torch.from_numpy(np.linalg.inv(COVARIANCE + float(sigma[0]) ** 2 * np.eye(SIZE)))
    return ((torch.from_numpy(CENTRE) - x.flatten(1)) @ matrix).reshape(x.shape)


def samples(count, seed=1):
    rng = np.random.default_rng(seed)
    rows = rng.multivariate_normal(CENTRE, COVARIANCE + SDE.sigma_min**2 * np.eye(SIZE), count)
    return torch.from_numpy(rows).reshape(count, 1, SIDE, SIDE)


def exact(x):
    spread = COVARIANCE + SDE.sigma_min**2 * np.eye(SIZE)
    return torch.from_numpy(multivariate_normal(CENTRE, spread).logpdf(x.flatten(1).numpy()))


def run(x, score=score, sde=SDE, seeds=None, num_steps=48, probes=1):
    rng = BatchGenerator(range(len(x)) if seeds is None else seeds)
    return log_density(score, sde, x, rng=rng, num_steps=num_steps, probes=probes)


def test_a_gaussian_is_exact_to_one_percent():
    x, copies = samples(3), 100
    found = run(x.repeat_interleave(copies, 0), num_steps=32, probes=2)
    nats = found.nats.reshape(3, -1)  # (3, 200)
    bits, expected = bits_per_dim(nats.mean(1), x), bits_per_dim(exact(x), x)
    torch.testing.assert_close(bits, expected, rtol=0.01, atol=0)  # 0.3 % by chance
    error = nats.std(1) / math.sqrt(2 * copies)
    assert ((nats.mean(1) - exact(x)).abs() < found.solver_error[::copies] + 3 * error).all()
    assert found.calls == 3 * (33 + 17) + 32 + 16


def test_more_steps_change_it_by_what_the_solver_says():
    x = samples(2)
    coarse, fine = (run(x, num_steps=n) for n in (16, 128))
    change = (coarse.nats - fine.nats).abs()[:, 0]
    assert (change < coarse.solver_error).all()  # it is corrected
    assert (change > coarse.solver_error / 100).all()
    assert (fine.solver_error < coarse.solver_error / 30).all()  # order 2: 64


def test_the_standard_error_is_the_scatter_of_the_mean():
    x = samples(1).expand(200, -1, -1, -1)
    found = run(x, probes=4, num_steps=4)
    means = found.nats.mean(1)
    said = (found.nats.var(1) / 4).mean().sqrt()
    assert said == pytest.approx(means.std(), rel=0.25)  # 200 images: 5 % each by chance
    assert means.std() > 0.05


def test_probes_are_signs_that_make_a_diagonal_jacobian_exact():
    x = MEAN + STD * torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=_seeded())
    found = run(x, score_function(view("ve")), probes=3)
    torch.testing.assert_close(found.nats, found.nats[:, :1].expand(-1, 3))
    assert found.nats.dtype == torch.float64


def _seeded():
    return torch.Generator().manual_seed(2)


def white(x, sigma_min):
    variance = STD**2 + sigma_min**2
    return -0.5 * ((x - MEAN) ** 2 / variance + math.log(2 * math.pi * variance)).flatten(1).sum(1)


@pytest.mark.parametrize("name", ["ve", "vp", "subvp", "edm", "ddpm", "v", "flow"])
def test_twins_of_a_prior_have_equal_likelihoods(name):
    """Song's VE network, its VP twin and all others, on the same levels and on their own."""
    x = MEAN + STD * torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=_seeded())
    own = score_function(view(name))
    of_ve = run(x, score_function(view("ve")))
    found = run(x, own)
    torch.testing.assert_close(found.nats, of_ve.nats, rtol=1e-5, atol=1e-4)
    for sde in (SDE, VPSDE().ve):
        found = run(x, own, sde)
        error = found.solver_error + end_error(sde)
        assert ((found.nats[:, 0] - white(x, sde.sigma_min)).abs() < error).all()
        bits = bits_per_dim(found.nats[:, 0], x)
        expected = bits_per_dim(white(x, sde.sigma_min), x)
        torch.testing.assert_close(bits, expected, rtol=0.01, atol=0)


def end_error(sde):
    """At sigma_max the prior is another Gaussian than photographs, by so many nats."""
    return 64 * (SLOPE * 64 + STD**2 + MEAN_STD**2 * 64 / 8) / sde.sigma_max**2


def test_complex_images_have_two_dimensions_a_pixel():
    parts = MEAN + STD * torch.randn(2, 2, 6, 6, dtype=torch.float64, generator=_seeded())
    x = torch.complex(parts[:, :1], parts[:, 1:])
    found = run(x, complex_score(score_function(view("ve"))))
    assert dimensions(x) == 72
    expected = white(parts, SDE.sigma_min)
    torch.testing.assert_close(found.nats[:, 0], expected, rtol=0, atol=0.3)
    torch.testing.assert_close(
        bits_per_dim(found.nats[:, 0], x), bits_per_dim(expected, parts), rtol=1e-3, atol=0
    )


def test_images_of_a_batch_are_independent():
    x = samples(2).float()
    both, alone = run(x, seeds=[3, 5], probes=2), run(x[1:], seeds=[5], probes=2)
    torch.testing.assert_close(both.nats[1:], alone.nats, rtol=1e-12, atol=0)
    assert x.dtype == torch.float32


def test_the_end_is_a_gaussian_with_the_spectrum_of_photographs():
    """Written out with a dense covariance."""
    height, width, sigma = 3, 4, 1.5
    dft = np.kron(np.fft.fft(np.eye(height), norm="ortho"), np.fft.fft(np.eye(width), norm="ortho"))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")).ravel()

    def density(rows, mean, mean_variance):
        spectrum = np.append(mean_variance * 12, SLOPE / f[1:] ** 2) + sigma**2
        covariance = (dft.conj().T @ np.diag(spectrum) @ dft).real
        return multivariate_normal(np.full(12, mean), covariance).logpdf(rows)

    x = torch.randn(2, 1, height, width, dtype=torch.float64, generator=_seeded())
    rows = x.flatten(1).numpy()
    found = end_log_density(x, sigma)
    np.testing.assert_allclose(found, density(rows, GREY, MEAN_STD**2), rtol=1e-10)
    variance = (GREY**2 + MEAN_STD**2) / 2
    expected = density(rows, 0.0, variance) + density(2 * rows, 0.0, variance)
    np.testing.assert_allclose(
        end_log_density(torch.complex(x, 2 * x), sigma), expected, rtol=1e-10
    )


def test_uniform_pixels_have_the_bits_of_their_levels():
    x = torch.zeros(1, 1, 5, 5)
    assert bits_per_dim(torch.zeros(1), x).item() == 8
    assert bits_per_dim(torch.full((1,), 25 * math.log(2)), x, levels=16).item() == 3


def test_unfit_arguments_are_errors():
    with pytest.raises(ValueError, match="num_steps even and at least 2, got 7"):
        run(samples(1), num_steps=7)
    with pytest.raises(ValueError, match="probes of at least 1, got 0"):
        run(samples(1), probes=0)
