"""Measurements in a scanner's unit as inverse problems of images in [0, 1], and back."""

import numpy as np
import pytest
import torch

from operators import MultiCoilMRI, ParallelBeamCT
from operators.fourier import fft2c, ifft2c
from operators.inverse_problem import crop_readout, image_problem, mri_problem, scaled_problem
from tests.helpers.data_writers import coil_sensitivities
from tests.helpers.reconstruct_inputs import image, kspace_of, lines, phase


def random_complex(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def test_cropping_the_readout_keeps_the_measured_lines_exactly():
    pixels = torch.from_numpy(random_complex(3, 20, 14)).to(torch.complex128)
    mask = torch.from_numpy(lines(14, 2, 4)).expand(20, 14)
    kspace, cropped = crop_readout(fft2c(pixels) * mask, mask, (12, 10))
    assert kspace.shape == (3, 12, 14)  # columns cannot be cropped: some are missing
    torch.testing.assert_close(kspace, fft2c(pixels[:, 4:16]) * cropped)
    full, _ = crop_readout(fft2c(pixels), torch.ones(20, 14, dtype=torch.bool), (12, 10))
    torch.testing.assert_close(full, fft2c(pixels[:, 4:16, 2:12]))
    points = torch.rand(20, 14, generator=torch.Generator().manual_seed(0)) < 0.5
    same, _ = crop_readout(fft2c(pixels) * points, points, (12, 10))
    assert same.shape == (3, 20, 14)


@pytest.mark.parametrize("coils", [1, 3])
def test_a_problem_is_the_measurement_in_other_variables(coils):
    truth = torch.from_numpy(image() * phase())[None, None].to(torch.complex64) * 7e-5
    maps = torch.from_numpy(coil_sensitivities(coils, 32, 32)).to(torch.complex64)[None]
    mask = torch.from_numpy(lines()).expand(1, 1, 32, 32)
    kspace = fft2c(maps * truth) * mask
    problem = mri_problem(kspace, mask, 4.2 * maps)
    assert float(problem.scale) == pytest.approx(7e-5, rel=0.2)
    x = (truth / problem.factor) / problem.scale  # what the prior is to find
    torch.testing.assert_close(problem.operator.forward(x), problem.y, atol=2e-5, rtol=0)
    torch.testing.assert_close(problem.restore(x), truth, atol=1e-10, rtol=1e-5)
    inside = torch.from_numpy(image() > 0.1)[None, None]
    assert float(x[inside].angle().abs().mean()) < 0.15  # nearly real and positive


def test_what_estimated_maps_leave_unexplained_counts_as_noise():
    maps = torch.from_numpy(coil_sensitivities(3, 32, 32)).to(torch.complex64)[None]
    kspace = 40 * fft2c(maps * torch.from_numpy(image()))
    mask = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    quiet, loud = torch.tensor([0.0]), torch.tensor([4.0])
    found = [
        float(mri_problem(kspace, mask, maps, noise=noise, estimated_maps=estimated).noise)
        for noise, estimated in ((quiet, False), (quiet, True), (loud, False), (loud, True))
    ]
    assert found[:2] == [0.0, pytest.approx(0.005)]
    assert found[2] == found[3] > 0.05


def test_pixels_that_no_coil_sees_are_zero():
    maps = torch.ones(1, 1, 8, 8, dtype=torch.complex64)
    maps[..., :3] = 0
    problem = mri_problem(torch.from_numpy(random_complex(1, 1, 8, 8)), maps[:, :1].real > -1, maps)
    restored = problem.restore(torch.ones(1, 1, 8, 8, dtype=torch.complex64))
    assert (restored[..., :3] == 0).all()
    assert (restored[..., 3:] != 0).all()
    with pytest.raises(ValueError, match="expected sens_maps for 2 coils"):
        mri_problem(torch.ones(1, 2, 8, 8, dtype=torch.complex64), torch.ones(1, 1, 8, 8) > 0)


def test_problems_without_signal_stay_finite():
    zeros = torch.zeros(1, 2, 8, 8, dtype=torch.complex64)
    problem = mri_problem(zeros, torch.ones(1, 1, 8, 8) > 0, zeros)
    assert problem.scale == 0
    assert (problem.restore(problem.direct) == 0).all()
    operator = ParallelBeamCT(8, [0.0, 45.0, 90.0])
    assert scaled_problem(operator, torch.zeros(1, *operator.range_shape)).scale == 0
    flat = image_problem(operator, torch.full((1, 1, 8, 8), 3.0))
    assert (flat.restore(0 * flat.direct) == 3).all()


def test_problems_scale_with_the_unit():
    operator = ParallelBeamCT(16, np.arange(0, 180, 12))
    truth = torch.from_numpy(image((16, 16)))[None, None]
    y = operator.forward(truth)
    one, other = scaled_problem(operator, y), scaled_problem(operator, 50 * y)
    assert float(other.scale) == pytest.approx(50 * float(one.scale), rel=1e-5)
    torch.testing.assert_close(one.y, other.y)
    images = torch.cat([truth, -1000 + 2000 * truth])
    problem = image_problem(operator, images)
    torch.testing.assert_close(problem.y[0], problem.y[1], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(
        problem.restore(torch.cat([truth, truth])), images, atol=1e-3, rtol=0
    )


def test_multicoil_problem_of_a_batch_is_that_of_its_samples():
    kspace = torch.from_numpy(kspace_of(np.stack([image(), image(seed=1)])[:, None] * phase()))
    kspace = kspace.repeat(1, 2, 1, 1)
    maps = torch.from_numpy(coil_sensitivities(2, 32, 32)).to(torch.complex64).expand(2, -1, -1, -1)
    masks = torch.stack([torch.from_numpy(lines(every=e)).expand(32, 32) for e in (2, 4)])[:, None]
    both = mri_problem(kspace, masks, maps)
    assert isinstance(both.operator, MultiCoilMRI)
    for b in range(2):
        one = mri_problem(kspace[b : b + 1], masks[b : b + 1], maps[b : b + 1])
        torch.testing.assert_close(one.y[0], both.y[b])
        torch.testing.assert_close(one.factor[0], both.factor[b])
        torch.testing.assert_close(one.scale[0], both.scale[b])
    assert ifft2c(kspace).shape == kspace.shape
