"""Where samplers start and when they stop."""

import math

import pytest
import torch

from operators import (
    BatchGenerator,
    FunctionOperator,
    MultiCoilMRI,
    ParallelBeamCT,
    SingleCoilMRI,
)
from operators.ct import few_view_angles
from operators.fourier import ifft2c
from operators.kspace import fill_forward, unmeasured_level
from operators.masks import make_mask
from operators.noise import rings
from samplers import dds, diffpir, dps, pnp
from samplers.levels import error_level, first_level, last_level, noise_gain
from sde import VESDE

SIDE = 64
SDE = VESDE(0.01, 10.0)


def smooth_images(count: int, power: float = 1.5) -> torch.Tensor:
    """Random images whose spectrum falls with a power of frequency, as natural ones' does."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, SIDE, SIDE, generator=generator, dtype=torch.complex128)
    k = torch.arange(SIDE) - SIDE // 2
    radius = torch.hypot(k[:, None].double(), k[None].double()).clamp(min=1)
    return ifft2c(noise / radius**power).real * 10


def shrink(x, sigma):
    """The score of white images with variance 0.1."""
    return -x / (0.1 + sigma[:, None, None, None] ** 2)


def test_white_images_miss_what_is_not_measured():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(50, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    mask = torch.rand(SIDE, SIDE, generator=generator) < 0.25  # some positions in every ring
    levels = unmeasured_level(mask[None, None], SingleCoilMRI(mask).forward(images))
    assert levels.square().mean() == pytest.approx(1 - float(mask.double().mean()), rel=0.01)


@pytest.mark.parametrize("name", ["gaussian1d", "gaussian2d", "radial"])
def test_the_estimate_is_near_the_error_of_zero_filling(name):
    images = smooth_images(8)
    mask = make_mask(name, (SIDE, SIDE), seed=0, acceleration=4, center_fraction=0.08)
    operator = SingleCoilMRI(mask)
    y = operator.forward(images)
    first = operator.adjoint(y)
    error = (first - images).square().flatten(1).mean(1).sqrt()
    found = error_level(shrink, SDE, operator, y, first, cg_steps=5)
    assert (found / error).log().abs().max() < math.log(1.7)


def test_coils_and_complex_parts():
    images = smooth_images(2)
    mask = make_mask("gaussian1d", (SIDE, SIDE), seed=0, acceleration=4, center_fraction=0.08)
    one = SingleCoilMRI(mask)
    whole = error_level(
        shrink, SDE, one, one.forward(images), one.adjoint(one.forward(images)), cg_steps=5
    )
    # two coils that see the same image at half the energy each: the same k-space energy
    maps = torch.full((2, SIDE, SIDE), math.sqrt(0.5), dtype=torch.complex128)
    two = MultiCoilMRI(mask, maps)
    y = two.forward(images + 0j)
    first = two.adjoint(y)
    torch.testing.assert_close(
        error_level(shrink, SDE, two, y, first, cg_steps=5) * math.sqrt(2), whole
    )


def test_other_operators_take_what_changes():
    images = smooth_images(3)
    operator = ParallelBeamCT(SIDE, few_view_angles(12))
    y = operator.forward(images)
    far = torch.zeros_like(images)
    calls = []

    def score(x, sigma):
        calls.append(len(x))
        return shrink(x, sigma)

    far_level = error_level(score, SDE, operator, y, far, cg_steps=20)
    near_level = error_level(score, SDE, operator, y, images, cg_steps=20)
    assert calls == [3, 3]
    rms = images.square().flatten(1).mean(1).sqrt()
    assert (far_level / rms).log().abs().max() < math.log(1.5)
    assert (near_level < 0.5 * far_level).all()


def test_the_start_is_within_the_networks_range():
    images = smooth_images(2)
    images[1] *= 1e-6
    operator = ParallelBeamCT(SIDE, few_view_angles(12))
    y, first = operator.forward(images), torch.zeros_like(images)
    options = {"end_sigma": None, "cg_steps": 5}
    levels = first_level(shrink, SDE, operator, y, first, factor=4.0, **options)
    assert levels.shape == (2,)
    assert levels[1] == pytest.approx(2 * SDE.sigma_min)
    assert 2 * SDE.sigma_min < levels[0] <= SDE.sigma_max
    high = first_level(shrink, SDE, operator, y, first, factor=1e9, **options)
    assert high[0] == SDE.sigma_max


def test_rings_and_their_gaps():
    number = rings(8, 8).reshape(8, 8)
    assert number[4, 4] == 0
    assert number.max() == number[0, 0] == 31
    assert torch.equal(number[1:, 1:], number[1:, 1:].flip(0, 1))  # k and -k
    values, known = torch.tensor([[5.0, 2, 9, 9]]), torch.tensor([[False, True, False, False]])
    assert fill_forward(values, known).tolist() == [[0, 2, 2, 2]]


@pytest.mark.parametrize("sampler", [pnp, dds, diffpir, dps])
@pytest.mark.parametrize("kind", ["mri", "ct"])
def test_an_automatic_start_is_per_sample_and_its_look_counts_as_a_call(kind, sampler):
    images = smooth_images(2)
    images[1] *= 0.1
    operator = {
        "mri": SingleCoilMRI(torch.rand(SIDE, SIDE) < 0.5),
        "ct": ParallelBeamCT(SIDE, few_view_angles(8)),
    }[kind]
    levels = []

    def score(x, sigma):
        levels.append(sigma)
        return shrink(x, sigma)

    y, rng = operator.forward(images), BatchGenerator([1, 2])
    sampler(score, SDE, operator, y, rng=rng, num_steps=7, start_sigma=None)
    assert len(levels) == 7
    first = levels[1 if kind == "ct" else 0]
    begin = operator.correct(torch.zeros_like(images), y)
    expected = 4 * error_level(shrink, SDE, operator, y, begin)
    torch.testing.assert_close(first.double(), expected.double(), rtol=1e-5, atol=0)
    assert first[1] < 0.5 * first[0]


def test_the_gain_of_noise_is_the_root_of_the_measured_part_of_kspace():
    mask = make_mask("poisson", (128, 96), seed=1, acceleration=5, center_fraction=0.04)
    y = torch.zeros(2, 1, 128, 96, dtype=torch.complex64)
    gain = noise_gain(SingleCoilMRI(mask, real=False), y)
    assert gain.shape == (2,)
    assert gain[0].item() == pytest.approx(mask.double().mean().sqrt().item(), rel=0.03)
    full = SingleCoilMRI(torch.ones_like(mask))  # of real images
    assert noise_gain(full, y)[0].item() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 50.0])
def test_the_gain_of_noise_does_not_depend_on_the_scale_of_the_direct_image(factor):
    """y = factor x: noise of 1 in y is 1 / factor in x, though the adjoint is factor y."""
    scaled = FunctionOperator(lambda x: factor * x, lambda y: factor * y, domain_shape=(1, 32, 32))
    gain = noise_gain(scaled, torch.zeros(1, 1, 32, 32))
    assert gain.item() == pytest.approx(1 / factor, rel=0.1)


def test_the_gain_of_noise_of_each_mask_is_as_alone():
    masks = torch.stack(
        [
            make_mask("gaussian1d", (64, 64), seed=0, acceleration=a, center_fraction=0.04)
            for a in (2, 4, 8)
        ]
    )
    operator = MultiCoilMRI(masks[:, None], torch.ones(3, 1, 64, 64, dtype=torch.complex64))
    y = torch.zeros(3, 1, 64, 64, dtype=torch.complex64)
    gains = noise_gain(operator, y)
    for b in range(3):
        torch.testing.assert_close(noise_gain(operator[b], y[b : b + 1]), gains[b : b + 1])
        expected = masks[b].double().mean().sqrt().item()
        assert gains[b].item() == pytest.approx(expected, rel=0.05)


def test_the_last_level_is_the_noise_in_the_image_within_what_the_network_knows():
    operator, y = SingleCoilMRI(torch.ones(64, 64, dtype=torch.bool)), torch.zeros(4, 1, 64, 64)
    noise = torch.tensor([0.0, 0.001, 0.1, 100.0])
    found = last_level(VESDE(0.01, 2.0), operator, y + 0j, noise)
    expected = torch.tensor([0.01, 0.01, 0.1, 0.5], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
