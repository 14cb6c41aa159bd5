"""A field of view smaller than the object: several sets of coil maps, several images."""

import numpy as np
import pytest
import torch

import reconstruct as program
from evaluation.baselines import BASELINES
from operators import SoftSenseMRI, check_adjoint
from operators.espirit import espirit_maps
from operators.espirit_sets import espirit_sets, overlap
from operators.fourier import fft2c
from operators.inverse_problem import mri_problem
from operators.masks import make_mask
from sde import VESDE, Prior
from sde.score import complex_score, joint_score, set_by_set

TALL, SHAPE, COILS = 96, (64, 80), 6


def coil_images():
    """Coil images ``(C, 96, 80)`` of an object that is 84 high, with texture and a phase."""
    y, x = np.mgrid[-1 : 1 : TALL * 1j, -1 : 1 : SHAPE[1] * 1j]
    radius = ((x / 0.75) ** 6 + (y / 0.88) ** 6) ** (1 / 6)
    image = 1 / (1 + np.exp(30 * (radius - 1))) * np.random.default_rng(0).uniform(0.4, 1, x.shape)
    image = image * np.exp(1j * (x + 0.5 * y))
    places = np.exp(2j * np.pi * np.arange(COILS) / COILS) * 1.1
    coils = np.stack([np.exp(-2 * ((x - p.real) ** 2 + (y - p.imag) ** 2)) for p in places])
    return coils * image


def folded(images):
    """The images in a field of view of 64 rows: what is outside comes in on the other side."""
    edge = (TALL - SHAPE[0]) // 2
    inside = images[:, edge:-edge].copy()
    inside[:, -edge:] += images[:, :edge]
    inside[:, :edge] += images[:, -edge:]
    return inside


@pytest.fixture(scope="module")
def aliased():
    return fft2c(torch.from_numpy(folded(coil_images()))).to(torch.complex64)


def unexplained(maps, images):
    """Part of the energy of coil images ``(C, H, W)`` outside the span of maps ``(S, C, H, W)``."""
    along = torch.einsum("schw,chw->shw", maps.conj(), images)
    missed = images - torch.einsum("schw,shw->chw", maps, along)
    return float(missed.abs().square().sum() / images.abs().square().sum())


def test_two_sets_explain_what_one_cannot(aliased):
    images = torch.from_numpy(folded(coil_images())).to(torch.complex64)
    maps = espirit_sets(aliased, calib_width=32)
    assert unexplained(maps, images) < 1e-3
    assert unexplained(maps[:1], images) > 0.01
    # where the second set is: in the rows into which the object folds, and only there
    rows = maps[1].abs().sum((0, 2)) > 0
    assert rows[:10].all()
    assert rows[-10:].all()
    assert not rows[20:-20].any()
    assert 0.06 < overlap(maps) < 0.5


def test_the_maps_of_a_pixel_are_orthogonal_units(aliased):
    maps = espirit_sets(aliased, calib_width=32)
    products = torch.einsum("schw,tchw->sthw", maps.conj(), maps)
    assert products[0, 1].abs().max() < 1e-5
    size = products[1, 1].real
    assert torch.minimum(size, (size - 1).abs()).max() < 1e-5


@pytest.mark.parametrize("reference", [0, 1])  # LAPACK makes the first coil real by itself
def test_the_first_set_is_sigpys(reference):
    images = coil_images()
    images[:reference] *= 1e-6  # silent coils are none
    rng = np.random.default_rng(0)
    kspace = fft2c(torch.from_numpy(images)).to(torch.complex64)
    noise = rng.normal(size=(2, *kspace.shape)).astype(np.float32)
    kspace = kspace + 0.003 * torch.complex(*torch.from_numpy(noise))
    sets, one = espirit_sets(kspace), espirit_maps(kspace)
    assert ((sets[0].abs().sum(0) > 0) != (one.abs().sum(0) > 0)).float().mean() < 1e-3
    there = torch.from_numpy(np.abs(images).max(0)) > 0.1
    assert (sets[0] - one)[:, there].abs().max() < 0.01
    assert overlap(sets) < 0.02
    assert sets[0][reference].imag.abs().max() < 1e-5
    assert sets[0][reference].real.min() >= 0


def soft_sense(batch=None):
    generator = torch.Generator().manual_seed(0)
    shape = (batch or 1, 2, 3, 8, 10)
    maps = torch.randn(shape, dtype=torch.complex64, generator=generator)
    maps = torch.linalg.qr(maps.permute(0, 3, 4, 2, 1))[0].permute(0, 4, 3, 1, 2)
    mask = torch.rand(batch or 1, 1, 8, 10, generator=generator) < 0.6
    return SoftSenseMRI(mask, maps) if batch else SoftSenseMRI(mask[0, 0], maps[0])


@pytest.mark.parametrize("batch", [None, 2])
def test_the_adjoint_and_the_formula(batch):
    operator = soft_sense(batch)
    check_adjoint(operator)
    x = torch.randn(2, 2, 8, 10, dtype=torch.complex128)
    y = operator.forward(x)
    maps, mask = operator.sens_maps.to(x.dtype), operator.mask
    expected = sum(fft2c(maps[:, s] * x[:, s : s + 1]) for s in range(2)) * mask
    torch.testing.assert_close(y, expected)
    if batch:
        torch.testing.assert_close(operator[1].forward(x[1:]), y[1:])


def test_wrong_maps_are_refused():
    mask = torch.ones(8, 10, dtype=torch.bool)
    with pytest.raises(ValueError, match="expected sens_maps"):
        SoftSenseMRI(mask, torch.ones(3, 8, 10, dtype=torch.complex64))
    with pytest.raises(TypeError, match="complex"):
        SoftSenseMRI(mask, torch.ones(2, 3, 8, 10))
    with pytest.raises(ValueError, match="finite"):
        SoftSenseMRI(mask, torch.full((2, 3, 8, 10), torch.nan, dtype=torch.complex64))
    with pytest.raises(ValueError, match="as many masks"):
        SoftSenseMRI(mask.expand(3, 1, 8, 10), torch.ones(2, 2, 3, 8, 10, dtype=torch.complex64))


@pytest.mark.parametrize("extend", [complex_score, joint_score])
def test_each_image_of_a_sample_has_its_own_score(extend):
    one = extend(
        lambda x, sigma: -x * x.abs().mean((1, 2, 3), keepdim=True) / sigma[:, None, None, None]
    )
    score = set_by_set(one)
    x, sigma = torch.randn(3, 2, 4, 4, dtype=torch.complex64), torch.tensor([0.1, 1.0, 2.0])
    found = score(x, sigma)
    for s in range(2):
        torch.testing.assert_close(found[:, s : s + 1], one(x[:, s : s + 1], sigma))


def test_problems_of_two_sets_join_the_images(aliased):
    maps = espirit_sets(aliased, calib_width=32)
    mask = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    problem = mri_problem(aliased[None], mask, maps[None])
    image = problem.restore(problem.direct)  # all of k-space: least squares
    coils = torch.from_numpy(folded(coil_images()))
    expected = torch.linalg.vector_norm(coils, dim=0)
    assert image.shape == (1, 1, *SHAPE)
    torch.testing.assert_close(image[0, 0].abs().double(), expected, rtol=0, atol=0.03)
    std = problem.restore_std(torch.ones(1, 2, *SHAPE))
    seen = problem.factor.abs().square().sum(1, keepdim=True)  # sets that see a pixel
    torch.testing.assert_close(std, problem.scale * seen.sqrt())


@pytest.mark.parametrize("name", ["cg_sense", "tv", "l1_wavelet"])
def test_baselines_take_several_images(aliased, name):
    maps = espirit_sets(aliased, calib_width=32)
    mask = make_mask("gaussian1d", SHAPE, seed=0, acceleration=1.5, center_fraction=0.3)
    problem = mri_problem((aliased * mask)[None], mask[None, None], maps[None])
    x = BASELINES[name](problem.operator, problem.y, weight=1e-4)

    def misfit(image):
        return (problem.operator.forward(image) - problem.y).abs().square().sum()

    assert x.shape == (1, 2, *SHAPE)
    assert misfit(x) < 0.2 * misfit(problem.direct)


def shrink(x, sigma):
    return -x / (1 + sigma[:, None, None, None] ** 2)


def test_an_aliased_scan_is_noticed_and_predicted(aliased):
    mask = make_mask("gaussian1d", SHAPE, seed=1, acceleration=1.6, center_fraction=0.4)
    kspace = (aliased * mask).numpy()
    options = {"prior": Prior(set_by_set(shrink), VESDE(0.01, 1.0)), "num_steps": 4}
    options |= {"sigma_y": 0.0, "validate": 0.1}
    with pytest.warns(UserWarning, match="field of view smaller than the object"):
        found = program.reconstruct(kspace, **options)
    assert found.facts["coil_maps"] == "ESPIRiT, 2 sets"
    assert found.image.shape == SHAPE
    errors = {row["method"]: row["error"] for row in found.validation["methods"]}
    assert errors["cg_sense"] < 0.5 * errors["zero-filled"]
