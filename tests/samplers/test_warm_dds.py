"""Samples around the point estimate: its parts, what samples share, and their spread."""

import pytest
import torch

from benchmarks import calibration
from benchmarks.gaussian_posterior import SDE as TOY_SDE
from benchmarks.gaussian_posterior import gaussian_prior
from evaluation.run.keywords import expected_calls
from evaluation.run.posterior_samples import sample_source
from operators import BatchGenerator
from samplers import dds, pnp, warm_dds, warm_start
from samplers.levels import error_level
from tests.samplers import test_formulas as box

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS, KEYS = [3, 7], ["a", "b"]


def arguments(score=box.torch_score):
    y, _ = box.measurement()
    return score, box.SDE, box.OPERATOR, y


def test_an_estimated_error_starts_lower():
    """Of CT, whose error a network call tells."""
    operator, sigma_y = calibration.OPERATORS["ct"](), 0.1
    generator = torch.Generator().manual_seed(0)
    y = operator.forward(torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64))
    score, sde = gaussian_prior().score, TOY_SDE
    direct = operator.direct(y)
    point = pnp(score, sde, operator, y, num_steps=6, initial=direct, sigma_y=sigma_y)
    level = 0.75 * error_level(score, sde, operator, y, direct)
    options = {"num_steps": 5, "sigma_y": sigma_y}
    expected = dds(
        score,
        sde,
        operator,
        y,
        rng=BatchGenerator(SEEDS),
        initial=point,
        start_sigma=level,
        ancestral=True,
        old_noise="data",
        **options,
    )
    found = warm_dds(score, sde, operator, y, rng=BatchGenerator(SEEDS), point_steps=6, **options)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sigma_y", [0.0, 0.2])
def test_it_is_dds_from_the_plug_and_play_image(sigma_y):
    score, sde, operator, y = arguments()
    direct = operator.direct(y)
    point = pnp(score, sde, operator, y, num_steps=6, initial=direct, sigma_y=sigma_y)
    level = 1.0 * error_level(score, sde, operator, y, direct)
    expected = dds(
        score,
        sde,
        operator,
        y,
        rng=BatchGenerator(SEEDS),
        num_steps=5,
        initial=point,
        start_sigma=level,
        ancestral=True,
        old_noise="data",
        sigma_y=sigma_y,
    )
    found = warm_dds(
        *arguments(), rng=BatchGenerator(SEEDS), num_steps=5, point_steps=6, sigma_y=sigma_y
    )
    torch.testing.assert_close(found, expected)


def test_the_iterations_of_a_data_step_are_those_of_the_point_estimate_too(monkeypatch):
    seen = []

    def watched(*arguments, **options):
        seen.append(options["cg_steps"])
        return pnp(*arguments, **options)

    monkeypatch.setattr(warm_start, "pnp", watched)
    warm_dds(*arguments(), rng=BatchGenerator(SEEDS), num_steps=3, point_steps=3, cg_steps=2)
    source(box.torch_score, 4, cg_steps=2)
    assert seen == [2, 2]


def test_too_few_calls_of_the_point_estimate_are_told_by_name():
    with pytest.raises(ValueError, match="expected point_steps of at least 2, got 1"):
        source(box.torch_score, 4, point_steps=1)


def source(score, together, **options):
    calls = []
    draw, failures = sample_source(
        "warm_dds",
        *arguments(score),
        num_steps=5,
        num_samples=4,
        seed=1,
        keys=KEYS,
        initial=None,
        options={"point_steps": 6, "sigma_y": 0.2, **options},
        together=together,
        on_call=calls.append,
    )
    return torch.stack([draw(n) for n in range(4)]), failures, sum(calls)


def test_the_point_estimate_is_made_once_for_all_samples():
    few, failures, calls = source(box.torch_score, 3)
    assert not failures
    assert calls == 6 + 4 * 5 == expected_calls("warm_dds", 5, 4, {"point_steps": 6})
    alone, _, _ = source(box.torch_score, 1)
    torch.testing.assert_close(few, alone)
    assert (few[0] - few[1]).abs().max() > 1e-3
    own, _, calls = source(box.torch_score, 4, initial=torch.zeros_like(few[0]))
    assert calls == 4 * 5
    assert (own - few).abs().max() > 1e-3


def test_a_slice_whose_point_estimate_fails_leaves_the_others():
    whole, _, _ = source(box.torch_score, 4)

    def faulty(x, sigma):
        """NaN for every second image, which is the second slice's."""
        out = box.torch_score(x, sigma).clone()
        out[1::2] = torch.nan
        return out

    found, failures, _ = source(faulty, 4)
    assert list(failures) == ["b"]
    torch.testing.assert_close(found[:, 0], whole[:, 0])


@pytest.mark.parametrize(
    ("options", "noise", "low", "high"),
    [({}, 0.1, 0.57, 0.75), ({"start_sigma": 1.0}, 0.0, 0.72, 0.96)],
)
def test_its_spread_is_wider_than_that_of_dds(options, noise, low, high):
    """The variance of a Gaussian posterior by which much is left open: dds has half of it."""
    warm = calibration.gaussian_row("warm_dds", options, 20, "mri", noise, 400, 0)
    cold = calibration.gaussian_row("dds", {}, 20, "mri", noise, 400, 0)
    assert low < warm["all_variance_ratio"] < high
    assert cold["all_variance_ratio"] < 0.56
