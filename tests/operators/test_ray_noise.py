"""The noise of rays as a function of their line integrals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from operators import ParallelBeamCT, Whitened
from operators.batch import BatchGenerator
from operators.inverse_problem import scaled_problem
from operators.ray_noise import convex_below, ray_noise

SIDE = 96
VIEWS = np.arange(0.0, 180.0, 4.5)
PHOTONS = 1e4


def body() -> Tensor:
    """A disc that lets 1 of 150 photons through, with two smaller ones in it: ``(1, 1, H, W)``."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIDE, dtype=torch.float64)] * 2, indexing="ij")
    disc = 1.0 * (x**2 + y**2 < 0.6) + 0.4 * ((x - 0.3) ** 2 + y**2 < 0.05)
    return (disc - 0.7 * ((x + 0.3) ** 2 + y**2 < 0.08))[None, None] * (5 / SIDE / 0.8)


def operator() -> ParallelBeamCT:
    return ParallelBeamCT(SIDE, VIEWS)


def counted(integrals: Tensor, photons: float) -> Tensor:
    """Line integrals from Poisson counts, and the standard deviation of each."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(photons * torch.exp(-integrals), generator=generator)
    return -torch.log(counts.clamp(min=0.5) / photons)


def spread(found: Tensor, true: Tensor) -> tuple[float, float]:
    ratio = (found / true).flatten()
    return float(ratio.quantile(0.02)), float(ratio.quantile(0.98))


@pytest.mark.parametrize("photons", [3e3, 1e4, 1e5])
def test_noise_of_counted_photons(photons):
    """At 1e5 photons the edge of the disc is 100 times as large as the noise."""
    clean = operator().forward(body())
    true = torch.exp(clean / 2) / photons**0.5
    assert float(true.max() / true.min()) > 10
    least, most = spread(ray_noise(counted(clean, photons)), true)
    assert 0.75 < least < most < 1.25


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_equal_noise_is_found_as_equal(level):
    clean = operator().forward(body())
    sinogram = clean + level * BatchGenerator([1]).normal_like(clean)
    least, most = spread(ray_noise(sinogram), torch.tensor(level, dtype=torch.float64))
    assert 0.85 < least <= most < 1.2


def test_noise_scales_with_the_sinogram_and_samples_are_apart():
    one = counted(operator().forward(body()), PHOTONS)
    other = torch.rand(one.shape, generator=torch.Generator().manual_seed(3), dtype=one.dtype)
    both = ray_noise(torch.cat([one, other]))
    torch.testing.assert_close(both[:1], ray_noise(one), rtol=0, atol=0)
    torch.testing.assert_close(ray_noise(1e3 * one), 1e3 * ray_noise(one))


def test_missing_views_and_bins_do_not_count():
    sinogram = counted(operator().forward(body()), PHOTONS)
    padded = torch.nn.functional.pad(sinogram, (40, 40, 0, 8))
    found = ray_noise(padded)[..., : len(VIEWS), 40:-40]
    inside = operator().forward(body()) > 1
    ratio = (found / ray_noise(sinogram))[inside]
    assert 0.8 < float(ratio.min()) < float(ratio.max()) < 1.25
    assert not ray_noise(torch.zeros(1, 1, 8, 30)).any()
    assert (ray_noise(padded) > 0).all()
    with pytest.raises(ValueError, match=r"at least 5 bins.*got 4; sinograms are \(views, bins\)"):
        ray_noise(torch.ones(1, 1, 100, 4))


def test_the_problem_of_a_sinogram_has_white_noise():
    clean = operator().forward(body())
    y = torch.cat([counted(clean, PHOTONS), torch.zeros_like(clean)])
    problem = scaled_problem(operator(), y)
    assert isinstance(problem.operator, Whitened)
    missed = problem.y[:1] - problem.operator[0].forward(body() / problem.scale[0])
    noise = float(problem.noise[0])
    assert float(missed[clean > 3].std()) == pytest.approx(noise, rel=0.15)
    # here noise is a 13th, and what pixels cannot represent counts as much
    assert 0.5 * noise < float(missed[clean < 0.5].std()) < noise
    assert problem.noise[1] == 0
    known = problem.with_noise(0.3)
    torch.testing.assert_close(known.y[:1], y[:1] / problem.scale[0])
    assert known.operator.facts() == problem.operator.facts()
    assert not isinstance(known.operator, Whitened)
    assert float(known.noise[0] * known.scale[0]) == pytest.approx(0.3)


def test_what_pixels_cannot_represent_counts_as_noise():
    """A body of twice as many pixels, without noise."""
    coarse = operator()
    fine = ParallelBeamCT(2 * SIDE, VIEWS, num_bins=4 * coarse.num_bins, bin_spacing=0.5)
    x = torch.nn.functional.interpolate(body(), scale_factor=2, mode="bicubic") / 2
    turned = x.roll((3, 5), dims=(-2, -1))  # edges that are no edges of the coarse pixels
    measured = fine.forward(turned).unflatten(-1, (-1, 4)).mean(-1)
    image = 2 * torch.nn.functional.avg_pool2d(turned, 2)
    missed = float((measured - coarse.forward(image)).square().mean().sqrt())
    found = coarse.noise(measured)
    assert missed < float(found.min()) < 3 * missed
    assert float(ray_noise(measured).min()) < 0.5 * missed


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_convex_below_is_the_largest_such_function(values):
    x, y = np.arange(len(values)) ** 1.3, np.array(values)
    found = convex_below(x, y)
    assert (found <= y + 1e-9).all()
    slopes = np.diff(found) / np.diff(x)
    assert (slopes >= -1e-9).all()
    assert (np.diff(slopes) >= -1e-9).all()
    assert found[-1] == pytest.approx(y[-1]) or found[-1] < y[-1]
    # it touches the points wherever its slope changes, or it could be raised there
    bends = np.flatnonzero(np.diff(slopes) > 1e-6) + 1
    np.testing.assert_allclose(found[bends], y[bends], atol=1e-6)
