"""Moment matching from the point estimate: its parts, and its spread in closed form."""

from inspect import signature

import pytest
import torch

from benchmarks import calibration
from benchmarks.gaussian_posterior import SDE, gaussian_prior
from operators import BatchGenerator
from samplers import mmps, pnp, warm_dds, warm_mmps, warm_start
from samplers.levels import error_level

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = [3, 7]


def problem(kind):
    """Score, levels, operator and two measurements."""
    operator = calibration.OPERATORS[kind]()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64)
    return gaussian_prior().score, SDE, operator, operator.forward(images)


@pytest.mark.parametrize("sigma_y", [0.05, 0.2])
@pytest.mark.parametrize("kind", ["mri", "ct"])
def test_it_is_mmps_from_the_plug_and_play_image(kind, sigma_y):
    score, sde, operator, y = problem(kind)
    direct = operator.direct(y)
    point = pnp(score, sde, operator, y, num_steps=6, initial=direct, sigma_y=sigma_y)
    factor = {"mri": 3.0, "ct": 2.0}[kind]  # of CT, a network call tells the error
    level = (factor * error_level(score, sde, operator, y, direct).double()).clamp(
        max=sde.sigma_max
    )
    options = {"num_steps": 4, "sigma_y": sigma_y, "max_products": 4}
    expected = mmps(
        score,
        sde,
        operator,
        y,
        rng=BatchGenerator(SEEDS),
        initial=point,
        start_sigma=level,
        end_sigma=(level / 15).clamp(min=sde.sigma_min),
        tolerance=0.2,
        **options,
    )
    found = warm_mmps(score, sde, operator, y, rng=BatchGenerator(SEEDS), point_steps=6, **options)
    torch.testing.assert_close(found, expected)


def test_it_takes_every_keyword_of_the_default_that_takes_its_place():
    """Which of the two is meant is not known before the input is read (`posterior_for`)."""
    names = [set(signature(sampler).parameters) for sampler in (warm_dds, warm_mmps)]
    assert names[0] <= names[1]


def test_the_iterations_of_a_data_step_are_those_of_the_point_estimate(monkeypatch):
    seen = []

    def watched(*arguments, **options):
        seen.append(options["cg_steps"])
        return pnp(*arguments, **options)

    monkeypatch.setattr(warm_start, "pnp", watched)
    score, sde, operator, y = problem("mri")
    options = {"num_steps": 2, "point_steps": 3, "cg_steps": 2, "max_products": 2}
    warm_mmps(score, sde, operator, y, rng=BatchGenerator(SEEDS), **options)
    assert seen == [2]


def test_given_levels_and_image_are_taken():
    score, sde, operator, y = problem("mri")
    options = {"num_steps": 4, "sigma_y": 0.1, "max_products": 4, "end_sigma": 0.05}
    options |= {"initial": torch.ones_like(operator.direct(y)), "tolerance": 0.3}
    arguments = (score, sde, operator, y)
    expected = mmps(*arguments, rng=BatchGenerator(SEEDS), start_sigma=0.4, **options)
    found = warm_mmps(*arguments, rng=BatchGenerator(SEEDS), start_sigma=0.4, **options)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_spread_of_a_gaussian_posterior_is_nearly_its_own(noise):
    """By the formula of its docstring at least 0.96 from two standard deviations on."""
    found = calibration.gaussian_row(
        "warm_mmps", {"start_sigma": 1.0, **calibration.EXACT}, 6, "mri", noise, 400, 0
    )
    assert 0.9 < found["all_variance_ratio"] < 1.08


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_the_first_draws_variance_is_that_of_the_docstring(sigma):
    """Data that are nothing but noise leave the prior, of standard deviation 1."""
    operator = calibration.OPERATORS["inpainting"]()
    s, count = 1.0, 2000

    def score(x, level):
        return -x / (s**2 + level.reshape(-1, 1, 1, 1) ** 2)

    y = torch.zeros(count, *operator.forward(torch.zeros(1, 1, 8, 8)).shape[1:]).double()
    samples = warm_mmps(
        score,
        SDE,
        operator,
        y,
        rng=BatchGenerator(range(count)),
        num_steps=2,
        initial=torch.zeros(count, 1, 8, 8).double(),
        start_sigma=sigma,
        end_sigma=sigma / 1.0001,  # the bridge leaves the image, and the last draw is the first
        sigma_y=1e6,
        **calibration.EXACT,
    )
    expected = s**2 * (1 - (s**2 / (s**2 + sigma**2)) ** 2)
    assert float(samples.var()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    "wrong", [{"ridge": -1.0}, {"precondition_steps": 0}, {"tolerance": -0.1}, {"max_products": 0}]
)
def test_keywords_out_of_range_are_told(wrong):
    score, sde, operator, y = problem("mri")
    with pytest.raises(ValueError, match=f"expected .*{next(iter(wrong))} of "):
        warm_mmps(score, sde, operator, y, rng=BatchGenerator(SEEDS), num_steps=3, **wrong)
