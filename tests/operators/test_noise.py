"""The noise of a measurement, from the measurement alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import FanBeamCT, ParallelBeamCT
from operators.fourier import fft2c
from operators.inverse_problem import crop_readout, mri_problem, scaled_problem
from operators.masks import make_mask
from operators.noise import LEAST, RINGS, kspace_noise, rings, sinogram_noise

SIDE = 96
DEVIATIONS = 5  # standard deviations that a test allows


def white(*shape, dtype=torch.complex128, seed=0):
    """Standard normal numbers; of complex ones real and imaginary part each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype) * (
        math.sqrt(2) if dtype.is_complex else 1
    )


def draw(name: str, shape=(SIDE, SIDE), acceleration=4) -> torch.Tensor:
    if name == "full":
        return torch.ones(shape, dtype=torch.bool)
    return make_mask(name, shape, seed=0, acceleration=acceleration, center_fraction=0.08)


def spread(positions: float) -> float:
    """Relative standard deviation of a median of Rayleigh numbers: 1 / (2 f(median) sqrt(n))."""
    return 1 / (2 * math.log(2) * math.sqrt(positions))


def limits(mask: torch.Tensor, coils: int) -> tuple[float, float]:
    """What the least of the rings' estimates of white noise of 1 may be.

    No ring's is far below, and the least is not above that of the ring with the most positions.
    """
    counts = torch.bincount(rings(*mask.shape)[mask.flatten()], minlength=RINGS)
    return 1 - DEVIATIONS * spread(LEAST * coils), 1 + DEVIATIONS * spread(
        int(counts.max()) * coils
    )


def smooth_image(side: int = SIDE) -> torch.Tensor:
    """A blob with hardly any energy in the corners of k-space: ``(side, side)``, in [0, 1]."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side, dtype=torch.float64)] * 2, indexing="ij")
    return torch.exp(-8 * (x**2 + y**2))


# ----------------------------------------------------------------------------------------- k-space


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("name", ["full", "gaussian1d", "gaussian2d", "radial", "poisson"])
def test_white_noise_is_found(name, coils, dtype):
    mask = draw(name)
    kspace = 0.01 * white(3, coils, SIDE, SIDE, dtype=dtype) * mask
    found = kspace_noise(kspace)
    assert found.dtype == kspace.real.dtype
    least, most = limits(mask, coils)
    assert (found > 0.01 * least).all()
    assert (found < 0.01 * most).all()


@pytest.mark.parametrize("name", ["full", "gaussian1d", "radial"])
@pytest.mark.parametrize("sigma", [0.003, 0.05])
def test_noise_is_found_beside_an_image(name, sigma):
    mask = draw(name)
    kspace = (fft2c(smooth_image() + 0j) + sigma * white(1, 1, SIDE, SIDE)) * mask
    least, most = limits(mask, 1)
    # in the corners, that is: within the ring that is largest of those without image
    assert sigma * least < float(kspace_noise(kspace)) < 1.2 * sigma * most


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("shape", [(64, 64), (97, 65)])
@pytest.mark.parametrize("name", ["full", "gaussian1d", "gaussian2d", "radial", "poisson"])
def test_the_estimate_is_not_biased(name, shape, content):
    """The mean over many measurements of one coil; the least of all rings was 8 to 15 % too low."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, n).double() for n in shape], indexing="ij")
    image = content * torch.exp(-8 * (x**2 + y**2)) * torch.polar(torch.ones_like(x), 0.5 + x)
    found = kspace_noise((fft2c(image) + 0.05 * white(100, 1, *shape)) * draw(name, shape)) / 0.05
    # its standard deviation is 3 % (measured), so that of the mean is 0.3 %
    assert float(found.std()) < 0.05
    assert float(found.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["full", "gaussian1d"])
def test_noise_is_found_in_the_air_beside_an_image_of_fine_texture(name, turned):
    """A sharp scan with little noise, as a real MPRAGE: all of k-space holds image."""
    image = torch.zeros(SIDE, SIDE, dtype=torch.complex128)
    image[24:72, 16:80] = 1 + white(48, 64, seed=5)
    mask = draw(name)  # lines along the first axis, in which there is air
    kspace = (fft2c(image) + 0.05 * white(100, 1, SIDE, SIDE)) * mask
    found = kspace_noise(kspace.mT if turned else kspace) / 0.05
    assert float(found.mean()) == pytest.approx(1, abs=0.03)
    assert float(found.std()) < 0.06


def test_a_filter_of_the_scanner_is_no_lower_noise():
    """Receivers damp the ends of the readout; a body in between leaves no air."""
    filtered = torch.ones(SIDE, 1)
    filtered[:5], filtered[-5:] = 0.1, 0.1
    coils = fft2c(white(20, 2, SIDE, SIDE) * filtered)  # noise, as if it were an image
    assert (kspace_noise(coils) > 0.8).all()


def test_silent_coils_do_not_count():
    kspace = white(40, 4, 48, 48)
    kspace[:, 0] = 0
    assert float(kspace_noise(kspace).mean()) == pytest.approx(1, abs=0.02)


def test_without_noise_little_is_found():
    kspace = fft2c(smooth_image() + 0j)[None, None]
    assert 0 < float(kspace_noise(kspace)) < 1e-6


def test_coils_are_averaged():
    kspace = white(1, 2, SIDE, SIDE) * torch.tensor([1.0, 3.0])[:, None, None]
    assert float(kspace_noise(kspace)) == pytest.approx(math.sqrt(5), rel=0.2)


def test_zeros_are_no_measurement():
    """Padding k-space with zeros, or some coil with a zero, leaves the noise as it is."""
    kspace = white(1, 2, SIDE, SIDE)
    padded = torch.nn.functional.pad(torch.view_as_real(kspace), (0, 0, 40, 40, 56, 56))
    least, most = limits(draw("full"), 2)
    assert least < float(kspace_noise(torch.view_as_complex(padded))) < most
    kspace[0, 0, 0, 0] = 0
    assert float(kspace_noise(kspace)) > least


def test_few_positions_say_nothing():
    assert kspace_noise(torch.zeros(2, 3, 16, 16, dtype=torch.complex64)).tolist() == [0, 0]
    few = torch.zeros(1, 1, 64, 64, dtype=torch.complex128)
    few[..., :: 64 // 8, :: 64 // 8] = white(8, 8)[..., :8, :8]
    assert float(kspace_noise(few)) > 0  # LEAST = 64 positions, no ring of which has so many
    few[..., 0, 0] = 0
    assert float(kspace_noise(few)) == 0


def test_rings_with_few_positions_are_joined():
    side = 16  # 256 positions: 8 a ring
    assert (torch.bincount(rings(side, side), minlength=RINGS) < LEAST).all()
    least, most = 1 - DEVIATIONS * spread(LEAST), 1 + DEVIATIONS * spread(LEAST)
    found = kspace_noise(white(20, 1, side, side))
    assert (found > least).all()
    assert (found < most).all()


@settings(deadline=None, max_examples=30)
@given(exponent=st.floats(-30, 30), double=st.booleans())
def test_the_estimate_scales_with_the_data(exponent, double):
    factor = 10.0 ** (exponent if double else exponent / 2)
    kspace = white(2, 2, 24, 24, dtype=torch.complex128 if double else torch.complex64)
    sinogram = white(2, 1, 5, 20, dtype=kspace.real.dtype)
    for estimate, y in ((kspace_noise, kspace), (sinogram_noise, sinogram)):
        torch.testing.assert_close(estimate(factor * y), factor * estimate(y), rtol=1e-5, atol=0)


def test_samples_do_not_mix():
    kspace = white(3, 2, 32, 32) * torch.tensor([1.0, 1e6, 1e-6])[:, None, None, None]
    kspace = (
        kspace * torch.stack([draw(n, (32, 32)) for n in ("full", "gaussian1d", "radial")])[:, None]
    )
    sinogram = white(3, 1, 6, 40, dtype=torch.float64)
    sinogram[1] *= 1e6
    sinogram[2, ..., 20:] = 0
    for estimate, y in ((kspace_noise, kspace), (sinogram_noise, sinogram)):
        alone = torch.cat([estimate(y[b : b + 1]) for b in range(3)])
        torch.testing.assert_close(estimate(y), alone, rtol=1e-6, atol=0)


# ---------------------------------------------------------------------------------------- sinograms


def median_spread(differences: int) -> float:
    """Relative standard deviation of the median of |normal| numbers, neighbours being dependent.

    A difference shares rays with `ORDER` others on either side: not more than 9 count as one.
    """
    density = 2 * math.exp(-(0.6745**2) / 2) / math.sqrt(2 * math.pi)  # of |normal| at its median
    return 1 / (2 * density * 0.6745 * math.sqrt(differences / 9))


@pytest.mark.parametrize(("views", "bins"), [(60, 200), (6, 200), (1, 400)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_white_noise_of_sinograms_is_found(views, bins, dtype):
    found = sinogram_noise(0.5 * white(4, 1, views, bins, dtype=dtype))
    assert found.dtype == dtype
    tolerance = DEVIATIONS * median_spread(views * (bins - 4))
    torch.testing.assert_close(found, torch.full_like(found, 0.5), rtol=tolerance, atol=0)


def test_the_scale_of_the_sinograms_noise():
    found = sinogram_noise(white(1, 1, 400, 1000, dtype=torch.float64))
    assert float(found) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("views", [60, 8])
@pytest.mark.parametrize("geometry", ["parallel", "fan"])
def test_noise_of_sinograms_is_found_beside_an_object(geometry, views):
    angles = torch.linspace(0, 180, views + 1)[:-1].numpy()
    operator = (
        ParallelBeamCT(SIDE, angles)
        if geometry == "parallel"
        else FanBeamCT(SIDE, angles, source_distance=300, detector_distance=150, num_bins=200)
    )
    clean = operator.forward(smooth_image()[None, None])
    assert float(sinogram_noise(clean)) < 0.02
    noise = 0.5 * white(*clean.shape, dtype=torch.float64)
    tolerance = DEVIATIONS * median_spread(clean.numel())
    assert float(sinogram_noise(clean + noise)) == pytest.approx(0.5, rel=tolerance)


def test_padded_detectors_and_missing_views_do_not_count():
    sinogram = torch.zeros(1, 1, 40, 300)
    sinogram[..., ::2, 100:200] = white(20, 100, dtype=torch.float32)
    tolerance = DEVIATIONS * median_spread(20 * 96) + 8 / 100  # differences across the edge
    assert float(sinogram_noise(sinogram)) == pytest.approx(1, rel=tolerance)
    assert float(sinogram_noise(torch.zeros(1, 1, 4, 9))) == 0


def test_too_few_bins_are_an_error():
    with pytest.raises(ValueError, match=r"at least 5 bins.*got 4; sinograms are \(views, bins\)"):
        sinogram_noise(torch.ones(1, 1, 100, 4))
    assert sinogram_noise(white(1, 1, 100, 5, dtype=torch.float32)) > 0


# ----------------------------------------------------------------- what the samplers are told


def test_problems_say_the_noise_of_their_measurement():
    """That of y as the operator has it, whatever unit, phase and scale of coil maps were."""
    sigma, unit = 0.02, 4e-7
    image = smooth_image().to(torch.complex64) * torch.polar(torch.ones(()), torch.tensor(2.0))
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIDE)] * 2, indexing="ij")
    maps = torch.stack([torch.exp(1j * x), 0.5 * torch.exp(-1j * y + x)])[None]  # (1, 2, H, W)
    mask = draw("gaussian1d")
    noise = sigma * white(1, 2, SIDE, SIDE, dtype=torch.complex64)
    kspace = unit * (fft2c(maps * image) + noise) * mask
    problem = mri_problem(kspace, mask[None, None], 30 * maps)
    least, most = limits(mask, 2)
    found = float(problem.noise * problem.scale) / unit
    assert sigma * least < found < 1.2 * sigma * most
    residual = problem.y - kspace / problem.scale
    assert float(residual.abs().max()) == 0  # y is the measurement itself
    given_noise = mri_problem(kspace, mask[None, None], 30 * maps, noise=torch.tensor([unit]))
    assert float(given_noise.noise * given_noise.scale) == pytest.approx(unit)
    operator = ParallelBeamCT(SIDE, range(0, 180, 6))
    clean = operator.forward(smooth_image().float()[None, None])
    sinogram = unit * (clean + 0.5 * white(*clean.shape, dtype=torch.float32))
    problem = scaled_problem(operator, sinogram)
    tolerance = DEVIATIONS * median_spread(clean.numel())
    assert float(problem.noise * problem.scale) == pytest.approx(0.5 * unit, rel=tolerance)


def test_cropping_the_readout_keeps_the_noise_but_fills_zeros():
    """Why the noise is estimated before: what was padded with zeros is quiet, not 0, afterwards."""
    kspace, mask = white(1, 2 * SIDE, SIDE), torch.ones(2 * SIDE, SIDE, dtype=torch.bool)
    cropped, small = crop_readout(kspace, mask, (SIDE, SIDE))
    least, most = limits(small, 1)
    assert least < float(kspace_noise(cropped[None])) < most
    kspace[:, : SIDE // 2] = kspace[:, -SIDE // 2 :] = 0
    cropped, small = crop_readout(kspace, mask, (SIDE, SIDE))
    assert float(kspace_noise(cropped[None])) < 0.3
    least, most = limits(draw("full"), 1)
    assert least < float(kspace_noise(kspace[None])) < most
