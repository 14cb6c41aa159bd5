"""Multi-coil MRI: SENSE operator, simulator, ESPIRiT maps, CG-SENSE, masks from zeros."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from evaluation.baselines import zero_filled
from evaluation.baselines.cg_sense import cg_sense
from operators import MultiCoilMRI, SingleCoilMRI
from operators.batch import BatchGenerator, norm
from operators.espirit import acs_width, espirit_maps
from operators.fourier import fft2c, ifft2c
from operators.masks import make_mask
from operators.multicoil import rss
from operators.prospective import recover_mask
from operators.simulation import birdcage_maps, simulate_multicoil, smooth_phase
from samplers.denoise import data_step

SIZE, COILS = 64, 8


@pytest.fixture(scope="module")
def image():
    phantom = resize(shepp_logan_phantom(), (SIZE, SIZE), anti_aliasing=True)
    return torch.from_numpy(phantom).float()[None, None]  # (1, 1, H, W)


@pytest.fixture(scope="module")
def clean(image):
    return simulate_multicoil(image, num_coils=COILS, noise_std=0.0, rng=BatchGenerator([3]))


@pytest.fixture(scope="module")
def noisy(image):
    return simulate_multicoil(image, num_coils=COILS, noise_std=0.005, rng=BatchGenerator([3]))


def error(x, truth):
    return (norm(x - truth) / norm(truth)).max().item()


def complex_normal(*shape, seed=0):
    return BatchGenerator([seed] * shape[0]).normal_like(torch.empty(shape, dtype=torch.complex64))


def line_mask(acceleration, name="equispaced1d", center_fraction=0.25, seed=0):
    return make_mask(
        name,
        (SIZE, SIZE),
        seed=seed,
        acceleration=acceleration,
        center_fraction=center_fraction,
    )


# The operator


@pytest.mark.parametrize("shape", [(12, 16), (11, 14)])
@pytest.mark.parametrize("per_sample", [False, True])
def test_forward_is_a_masked_dft_of_every_coil_image(shape, per_sample):
    x = complex_normal(2, 1, *shape)
    maps = complex_normal(2, 3, *shape, seed=1) if per_sample else complex_normal(3, *shape)
    mask = make_mask("uniform2d", shape, seed=0, acceleration=2)
    y = MultiCoilMRI(mask, maps).forward(x)
    assert y.shape == (2, 3, *shape)
    for b in range(2):
        for c in range(3):
            expected = fft2c((maps[b, c] if per_sample else maps[c]) * x[b, 0]) * mask
            torch.testing.assert_close(y[b, c], expected)


def test_one_coil_of_sensitivity_one_is_single_coil_mri():
    x = complex_normal(2, 1, 12, 16)
    mask = make_mask("uniform2d", (12, 16), seed=0, acceleration=2)
    multi = MultiCoilMRI(mask, torch.ones(1, 12, 16, dtype=torch.complex64))
    single = SingleCoilMRI(mask, real=False)
    torch.testing.assert_close(multi.forward(x), single.forward(x))
    y = single.forward(x)
    torch.testing.assert_close(multi.adjoint(y), single.adjoint(y))


def test_normalised_maps_make_a_full_measurement_an_isometry(clean):
    operator = MultiCoilMRI(torch.ones(SIZE, SIZE), clean.sens_maps)
    torch.testing.assert_close(operator.normal(clean.image), clean.image)
    x = complex_normal(1, 1, SIZE, SIZE)
    torch.testing.assert_close(operator.correct(x, clean.kspace), clean.image)


def test_correct_steps_towards_the_measurement(clean):
    mask = line_mask(2)
    operator = MultiCoilMRI(mask, clean.sens_maps)
    y = clean.kspace * mask
    x = torch.zeros_like(clean.image)
    residuals = []
    for _ in range(20):
        residuals.append(norm(y - operator.forward(x)).item())
        x = operator.correct(x, y)
    assert all(b < a for a, b in pairwise(residuals))
    assert error(x, clean.image) < error(zero_filled(operator, y), clean.image) / 2


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("sets", [False, True])
def test_samples_are_independent(masks, sets):
    shape = (12, 10)
    mask = torch.stack(
        [make_mask("uniform2d", shape, seed=s, acceleration=2)[None] for s in range(3)]
    )  # (B, 1, H, W)
    maps = complex_normal(3, 4, *shape)
    operator = MultiCoilMRI(mask if masks else mask[0, 0], maps if sets else maps[0])
    assert operator.batch_size == (3 if masks or sets else None)
    x = complex_normal(3, 1, *shape)
    y = operator.forward(x)
    for i in range(3):
        torch.testing.assert_close(operator[i].forward(x[i : i + 1]), y[i : i + 1])
        torch.testing.assert_close(
            operator[i].adjoint(y[i : i + 1]), operator.adjoint(y)[i : i + 1]
        )


def test_operator_errors():
    mask, maps = torch.ones(8, 6), torch.ones(2, 8, 6, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"sens_maps of shape .*\(8, 6\).*got \(2, 6, 8\)"):
        MultiCoilMRI(mask, maps.mT)
    with pytest.raises(TypeError, match=r"complex sens_maps, got torch\.float32"):
        MultiCoilMRI(mask, maps.real)
    with pytest.raises(ValueError, match="finite sens_maps, got NaN"):
        MultiCoilMRI(mask, maps * float("nan"))
    with pytest.raises(ValueError, match="as many masks as sets of maps, got 2 and 3"):
        MultiCoilMRI(mask.expand(2, 1, 8, 6), maps.expand(3, 2, 8, 6))
    with pytest.raises(TypeError, match="expected a complex"):
        MultiCoilMRI(mask, maps).forward(torch.ones(1, 1, 8, 6))


def test_rss_of_coil_images_is_the_magnitude(clean):
    coil_images = clean.sens_maps * clean.image
    torch.testing.assert_close(rss(coil_images), clean.image.abs())
    zero = torch.zeros(1, 2, 3, 3, requires_grad=True)
    rss(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


# The simulator


@pytest.mark.parametrize("shape", [(16, 24), (15, 21)])
def test_birdcage_maps_are_normalised_smooth_and_turn_with_the_coil(shape):
    maps = birdcage_maps(4, shape)
    assert maps.shape == (4, *shape)
    torch.testing.assert_close(rss(maps[None])[0, 0], torch.ones(shape))
    y, x = shape[0] // 2, shape[1] // 2
    torch.testing.assert_close(maps[:, y, x].abs(), torch.full((4,), 0.5))  # equal at the centre
    assert maps[0].abs().flatten().argmax() % shape[1] == shape[1] - 1  # coil 0 at the right
    torch.testing.assert_close(maps[1, y + 2, x].abs(), maps[0, y, x + 3].abs(), atol=0.05, rtol=0)


def test_smooth_phase_has_modulus_one_and_no_jumps():
    phase = smooth_phase((32, 40), rng=BatchGenerator([0, 1]))
    assert phase.shape == (2, 1, 32, 40)
    torch.testing.assert_close(phase.abs(), torch.ones(2, 1, 32, 40))
    step = torch.angle(phase[..., 1:] * phase[..., :-1].conj())
    assert step.abs().max() < 1
    assert not torch.allclose(phase[0], phase[1])


def test_smooth_phase_is_the_polynomial_of_the_samples_numbers():
    height, width, std = 6, 9, 0.2
    y = (torch.arange(height) - height // 2)[:, None] / (height // 2)
    x = (torch.arange(width) - width // 2)[None] / (width // 2)
    a, b, c, d, e, f = std * torch.randn(6, generator=torch.Generator().manual_seed(4))
    expected = a + b * x + c * y + d * x**2 + e * x * y + f * y**2
    found = smooth_phase((height, width), rng=BatchGenerator([4]), std=std)
    torch.testing.assert_close(torch.angle(found)[0, 0], expected)


def test_noise_has_the_stated_level_per_part_and_is_white(image, clean):
    std = 0.03
    data = simulate_multicoil(image, num_coils=COILS, noise_std=std, rng=BatchGenerator([3]))
    torch.testing.assert_close(data.image, clean.image)  # the phase is drawn first
    noise = data.kspace - clean.kspace
    for part in (noise.real, noise.imag):
        assert part.std().item() == pytest.approx(std, rel=0.02)
        assert abs(part.mean().item()) < 4 * std / noise.numel() ** 0.5
    assert abs((noise.real * noise.imag).mean().item()) < 5 * std**2 / noise.numel() ** 0.5


def test_simulated_samples_depend_on_their_own_seed_only(image):
    images = torch.cat([image, image.flip(-1), image.mT])
    together = simulate_multicoil(images, num_coils=2, noise_std=0.1, rng=BatchGenerator([5, 6, 7]))
    alone = simulate_multicoil(images[1:2], num_coils=2, noise_std=0.1, rng=BatchGenerator([6]))
    torch.testing.assert_close(together.kspace[1:2], alone.kspace)
    torch.testing.assert_close(together.image[1:2], alone.image)


def test_complex_images_keep_their_phase(clean):
    data = simulate_multicoil(clean.image, num_coils=2, noise_std=0, rng=BatchGenerator([9]))
    assert torch.equal(data.image, clean.image)


# Reconstruction


def test_cg_sense_recovers_a_noise_free_image_at_2x(clean):
    mask = make_mask("regular", (SIZE, SIZE), seed=0, acceleration=2)
    operator = MultiCoilMRI(mask, clean.sens_maps)
    y = clean.kspace * mask
    assert error(zero_filled(operator, y), clean.image) > 0.4
    x = cg_sense(operator, y, max_iterations=50, tolerance=1e-6)
    assert error(x, clean.image) < 1e-4


def test_regularization_keeps_noise_down(noisy):
    mask = make_mask("equispaced1d", (SIZE, SIZE), seed=0, acceleration=4, center_fraction=0.125)
    operator = MultiCoilMRI(mask, noisy.sens_maps)
    y = noisy.kspace * mask
    plain = cg_sense(operator, y, max_iterations=100, tolerance=1e-7)
    damped = cg_sense(operator, y, weight=1e-3, max_iterations=100, tolerance=1e-7)
    assert error(damped, noisy.image) < error(plain, noisy.image)
    assert error(damped, noisy.image) < error(zero_filled(operator, y), noisy.image)


# ESPIRiT


def cosines(maps, truth):
    """|<S_estimated, S_true>| per pixel: 1 where they agree up to a phase and a scale."""
    product = (maps.conj() * truth).sum(-3).abs()
    return product / (rss(maps[None]) * rss(truth[None]))[0, 0]


def test_espirit_maps_are_the_true_ones_up_to_the_first_coils_phase(image, noisy):
    mask = line_mask(3, center_fraction=0.3)  # 19 central lines
    maps = espirit_maps(noisy.kspace[0] * mask, calib_width=18)
    assert maps.shape == noisy.sens_maps.shape
    assert maps.dtype == torch.complex64
    support = maps.abs().sum(0) > 0
    inside = image[0, 0] > 0.05
    assert (support & inside).sum() > 0.98 * inside.sum()
    assert support.float().mean() < 0.95  # background is cropped
    torch.testing.assert_close(rss(maps[None])[0, 0][support], torch.ones(int(support.sum())))
    assert (maps[0][support].imag.abs() < 1e-5).all()  # phase of the first coil
    both = cosines(maps, noisy.sens_maps)[support & inside]
    assert both.min() > 0.99
    assert both.mean() > 0.999


@pytest.mark.parametrize("loud", [0.0, 1e-3])
def test_a_silent_first_coil_leaves_the_phase_smooth(image, noisy, loud):
    """It has no phase to refer to, be it all zeros or noise alone."""
    kspace = noisy.kspace[0].clone()
    kspace[0] = loud * torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    maps = espirit_maps(kspace, calib_width=18)
    assert (maps[1].imag.abs() < 1e-5).all()  # the phase of the second coil
    combined = (maps.conj() * ifft2c(kspace)).sum(0)
    inside = (image[0, 0] > 0.05) & (maps.abs().sum(0) > 0)
    jumps = (combined[1:] * combined[:-1].conj()).angle().abs()[inside[1:] & inside[:-1]]
    assert (jumps > 1).float().mean() < 0.002


def test_espirit_maps_see_the_acs_lines_only(noisy):
    kspace = noisy.kspace[0]
    mask = torch.zeros(SIZE, SIZE)
    mask[:, SIZE // 2 - 9 : SIZE // 2 + 9] = 1
    assert torch.equal(
        espirit_maps(kspace, calib_width=18), espirit_maps(kspace * mask, calib_width=18)
    )


def test_cg_sense_with_espirit_maps(image, noisy):
    mask = line_mask(2)
    y = noisy.kspace * mask
    maps = espirit_maps(y, calib_width=16)
    operator = MultiCoilMRI(mask, maps)
    assert operator.batch_size == 1
    x = cg_sense(operator, y)
    assert error(x.abs(), image) < 0.12
    assert error(x.abs(), image) < error(zero_filled(operator, y).abs(), image) / 2


def test_espirit_prints_nothing(noisy, capfd):
    espirit_maps(noisy.kspace[0], calib_width=16)
    assert capfd.readouterr() == ("", "")


def test_espirit_asks_for_a_measured_centre(noisy):
    mask = line_mask(4, center_fraction=0.125)
    kspace = noisy.kspace * mask
    width = acs_width(kspace)
    assert width in (8, 9)
    with pytest.raises(
        ValueError, match=f"central 24 x 24.*fully measured, got a square of {width}"
    ):
        espirit_maps(kspace)
    with pytest.raises(ValueError, match=r"kernel_width <= calib_width.*got 6, 4"):
        espirit_maps(kspace, calib_width=4, kernel_width=6)
    with pytest.raises(TypeError, match=r"complex kspace, got torch\.float32"):
        espirit_maps(kspace.abs())


# The samplers' data step


def test_data_steps_with_coils_leave_little_of_the_misfit(clean, image):
    """Two conjugate gradients leave 15 to 32 % of it here, eight 4 to 11 %."""
    near = clean.image + 0.03 * complex_normal(1, 1, SIZE, SIZE)
    sigma = torch.ones(1)
    for mask in (line_mask(3), make_mask("gaussian2d", (SIZE, SIZE), seed=0, acceleration=6)):
        operator, y = MultiCoilMRI(mask, clean.sens_maps), clean.kspace * mask
        for start in (near, zero_filled(operator, y)):
            before = norm(operator.forward(start) - y)

            def left(steps, start=start, operator=operator, y=y, before=before):
                found = data_step(operator, y, start, sigma, sigma_y=0.0, cg_steps=steps)
                return float(norm(operator.forward(found) - y) / before)

            assert left(None) < 0.045
            assert left(8) > 1.3 * left(None)


def test_data_steps_with_coils_are_per_sample(clean):
    """Each stops where its own tolerance says, whatever the others need."""
    mask = line_mask(3)
    operator = MultiCoilMRI(mask, clean.sens_maps.to(torch.complex128))
    truth = clean.image.to(torch.complex128).expand(3, -1, -1, -1)
    noise = complex_normal(3, 1, SIZE, SIZE).to(torch.complex128)
    starts = truth + torch.tensor([0.0, 0.03, 3.0]).double()[:, None, None, None] * noise
    y, sigma = operator.forward(truth), torch.tensor([0.1, 1.0, 0.1]).double()
    sigma_y = torch.tensor([0.0, 0.0, 0.05])
    together = data_step(operator, y, starts, sigma, sigma_y=sigma_y)
    for b in range(3):
        one = slice(b, b + 1)
        alone = data_step(operator, y[one], starts[one], sigma[one], sigma_y=sigma_y[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("real", [True, False])
def test_data_steps_of_one_coil_are_exact(image, real):
    """Also where nearly all positions have their opposite, so that one iteration seems enough."""
    symmetric = make_mask("gaussian2d", (SIZE, SIZE), seed=0, acceleration=4)
    symmetric &= symmetric.flip(0, 1).roll((1, 1), (0, 1))
    lonely = symmetric.clone()
    lonely[SIZE // 2 + 20, SIZE // 2 + 25] = True
    lonely[SIZE // 2 - 20, SIZE // 2 - 25] = False
    for mask in (make_mask("gaussian2d", (SIZE, SIZE), seed=0, acceleration=4), lonely):
        operator = SingleCoilMRI(mask, real=real)
        y = operator.forward(image if real else image + 0j)
        start = 0.5 * image + 0.01 * complex_normal(1, 1, SIZE, SIZE).real
        found = data_step(operator, y, start if real else start + 0j, torch.ones(1), sigma_y=0.0)
        assert norm(operator.forward(found) - y) < 1e-5 * norm(y)


# Masks from zeros


@pytest.mark.parametrize("name", ["gaussian1d", "equispaced1d", "gaussian2d", "poisson", "radial"])
def test_mask_is_recovered(name, noisy):
    mask = make_mask(name, (SIZE, SIZE), seed=1, acceleration=4, center_fraction=0.1)
    for kspace in (noisy.kspace * mask, noisy.kspace[0] * mask):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(recover_mask(kspace), mask)


def test_rows_are_recovered_as_lines_along_w(noisy):
    mask = line_mask(4, name="gaussian1d", center_fraction=0.1).mT
    kspace = noisy.kspace * mask
    kspace[..., 32, 10] = 0
    assert torch.equal(recover_mask(kspace), mask)


def test_slices_share_a_mask_unless_asked_otherwise(noisy):
    masks = torch.stack([line_mask(4, "uniform1d", 0.1, seed=s)[None] for s in range(2)])
    kspace = noisy.kspace * masks  # (B, C, H, W)
    assert torch.equal(recover_mask(kspace), masks.any(0)[0])
    assert torch.equal(recover_mask(kspace, per_sample=True), masks)


def test_stray_zeros_in_a_measured_line_count_as_measured(noisy):
    mask = line_mask(4)
    kspace = noisy.kspace * mask
    kspace[..., 5, SIZE // 2] = 0
    assert torch.equal(recover_mask(kspace), mask)
    positions = make_mask("gaussian2d", (SIZE, SIZE), seed=1, acceleration=2)
    positions[SIZE // 2 + 1, SIZE // 2] = False  # not a line: stays as it is
    assert torch.equal(recover_mask(noisy.kspace * positions), positions)


def test_zero_padded_readouts_are_reported(noisy):
    kspace = noisy.kspace * line_mask(4)
    kspace[..., :8, :] = 0
    kspace[..., -8:, :] = 0
    with pytest.warns(UserWarning, match="rows 8 to 55 of 64 only and are zero-padded"):
        mask = recover_mask(kspace)
    assert not mask[:8].any()
    assert torch.equal(mask[8:-8], line_mask(4)[8:-8])


def test_partial_fourier_is_reported(noisy):
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    mask[:, :16] = False
    with pytest.warns(UserWarning, match="first 16 and the last 0 of 64 columns: partial Fourier"):
        assert torch.equal(recover_mask(noisy.kspace * mask), mask)


def test_origin_and_missing_zeros_are_reported(noisy):
    with pytest.warns(UserWarning, match="no zeros"):
        recover_mask(noisy.kspace)
    shifted = torch.fft.ifftshift(noisy.kspace * line_mask(4), dim=(-2, -1))
    with pytest.warns(UserWarning, match="origin of kspace.*fftshift"):
        recover_mask(shifted)


def test_recover_mask_errors(noisy):
    with pytest.raises(ValueError, match="nothing but zeros"):
        recover_mask(torch.zeros(2, 8, 8, dtype=torch.complex64))
    with pytest.raises(ValueError, match="nothing but zeros"):
        recover_mask(torch.zeros(2, 2, 8, 8, dtype=torch.complex64), per_sample=True)
    with pytest.raises(ValueError, match="finite kspace"):
        recover_mask(noisy.kspace * float("nan"))
    with pytest.raises(ValueError, match=r"got \(8, 8\)"):
        recover_mask(torch.ones(8, 8))
    with pytest.raises(ValueError, match="per_sample"):
        recover_mask(noisy.kspace[0], per_sample=True)


@pytest.mark.parametrize("width", [8, 9, 10, 12, 16, 24])
@pytest.mark.parametrize("coils", [4, 9])
def test_maps_of_a_narrow_calibration_explain_the_coil_images(width, coils):
    """With the usual kernel of 6 x 6 they are 0 everywhere at 8 and 9."""
    y, x = np.mgrid[-1 : 1 : 64 * 1j, -1 : 1 : 64 * 1j]
    places = np.exp(2j * np.pi * np.arange(coils) / coils) * 1.2
    sensitivities = [np.exp(-((x - p.real) ** 2) - (y - p.imag) ** 2) for p in places]
    images = torch.from_numpy(np.stack(sensitivities) * (np.hypot(x, y / 0.9) < 0.8))
    images = images * torch.from_numpy(np.exp(1j * (x + y * x)))
    kspace = fft2c(images).to(torch.complex64)
    maps = espirit_maps(kspace, calib_width=width)
    along = (maps.conj() * images).sum(0)
    missed = (images - maps * along).abs().square().sum() / images.abs().square().sum()
    assert missed < 0.01
