"""The noise level at which pnp ends, found by predicting what was left out."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import reconstruct as program
from configs.reconstruct import get_config
from evaluation.own import last_level
from evaluation.own.base import Input
from evaluation.own.engine import choose_sampling
from evaluation.own.folder import reconstruct_file
from evaluation.own.holdout import HoldOut
from evaluation.own.last_level import by_held_out, describe_last_level, find_last_level
from operators import FunctionOperator, ParallelBeamCT
from operators.inverse_problem import InverseProblem
from samplers import NonFiniteError
from sde import VESDE, Prior

ANGLES = np.linspace(0, 180, 12, endpoint=False)
PRIOR = Prior.from_denoiser(lambda x, sigma: 0.9 * x, sigma_min=0.002, sigma_max=1.0)
IDENTITY = FunctionOperator(lambda x: 1.0 * x, domain_shape=(1, 8, 8))
LEVELS = 0.002 * math.sqrt(2) ** np.arange(9)


@dataclass
class Slices(Input):
    """Slices of ones, of which everything is left out."""

    noise: float = 0.0

    def holdout(self, item, part, seed):
        one = torch.ones(1, 1, 8, 8)
        level = torch.tensor([self.noise])
        whole = InverseProblem(IDENTITY, one, one, torch.ones(1), torch.zeros(1), level)
        return HoldOut(whole, IDENTITY, one, 64, "views")


def opened(count=1, kind="a sinogram", views=40, noise=0.0):
    keys = [f"slice {k}" for k in range(count)]
    return Slices(kind, range(count), keys, "", "FBP", (), facts={"views": views}, noise=noise)


def sampling(sampler="", **options):
    samples = options.pop("num_samples", 1)
    sigma_y = options.pop("sigma_y", None)
    return choose_sampling(
        sampler, num_steps=None, num_samples=samples, sigma_y=sigma_y, options=options
    )


def run_with(monkeypatch, *curves, levels=LEVELS):
    """A pnp whose image has these relative squared errors at the levels, run by run."""
    runs = iter(curves)

    def pnp(score, sde, operator, y, *, num_steps, initial, end_sigma, callback, **options):
        assert (num_steps, end_sigma) == (last_level.CALLS, sde.sigma_min)
        for step, (level, error) in enumerate(zip(levels[::-1], next(runs)[::-1], strict=True)):
            if math.isnan(error):
                raise NonFiniteError([], None)
            callback(step, level, y * (1 + math.sqrt(error)))

    monkeypatch.setitem(last_level.SAMPLERS, "pnp", pnp)


def find(count=1, **changes):
    return find_last_level(opened(count, **changes), sampling(), PRIOR, seed=0, device="cpu")


def test_the_level_that_predicts_best_is_found(monkeypatch):
    curve = [0.05, 0.05, 0.04, 0.03, 0.02, 0.03, 0.05, 0.06, 0.1]
    run_with(monkeypatch, curve)
    found = find()
    assert found["end_sigma"] == pytest.approx(LEVELS[4], rel=1e-3)
    assert found["at_noise"] == pytest.approx(0.05, rel=1e-3)
    assert found["errors"][:9] == pytest.approx(curve, rel=1e-3)
    assert found["levels"][:9] == pytest.approx(LEVELS, rel=1e-3)
    assert found["slices"] == ["slice 0"]
    assert "0.008 (error 0.02; at that of the noise 0.05)" in describe_last_level(found)


def test_errors_are_interpolated_between_the_levels_of_the_run(monkeypatch):
    run_with(monkeypatch, [0.05, 0.03, 0.09], levels=np.array([0.002, 0.008, 0.032]))
    found = find()
    assert found["errors"][:5] == pytest.approx([0.05, 0.045, 0.04, 0.035, 0.03], rel=1e-3)


def test_less_than_a_percent_is_chance(monkeypatch):
    for gain, level in ((0.009, None), (0.011, 0.004)):
        curve = np.full(9, 0.05)
        curve[2] *= 1 - gain
        run_with(monkeypatch, curve)
        assert find()["end_sigma"] == level


def test_it_is_compared_with_the_level_of_the_noise(monkeypatch):
    """The smallest level is worse, but not where the run would end anyway."""
    curve = [0.09, 0.07, 0.06, 0.05, 0.05, 0.05, 0.06, 0.07, 0.08]
    run_with(monkeypatch, curve, curve)
    assert find()["end_sigma"] is not None
    found = find(noise=0.008)  # A is the identity: as much in the image
    assert found["at_noise"] == pytest.approx(0.05, rel=1e-3)
    assert found["end_sigma"] is None
    assert "that of the noise" in describe_last_level(found)


def test_slices_are_averaged_and_one_that_fails_decides_for_the_noise(monkeypatch):
    first, second = np.full(9, 0.05), np.full(9, 0.05)
    first[2], second[2], second[5] = 0.01, 0.08, 0.03
    run_with(monkeypatch, first, second)
    assert find(2)["end_sigma"] == pytest.approx(LEVELS[5], rel=1e-3)
    run_with(monkeypatch, first, np.full(9, math.nan))
    found = find(2)
    assert found["end_sigma"] is None
    json.dumps(found, allow_nan=False)
    assert "that of the noise" in describe_last_level(found)


def test_a_prior_of_few_levels_has_few_candidates(monkeypatch):
    run_with(monkeypatch, [0.05, 0.03], levels=np.array([0.3, 0.5]))
    prior = Prior(PRIOR.score, VESDE(0.3, 0.5))
    found = find_last_level(opened(), sampling(), prior, seed=0, device="cpu")
    assert found["levels"] == [0.3]
    assert found["end_sigma"] is None


def test_where_it_is_the_default():
    assert by_held_out("", opened(), sampling(), {})
    assert not by_held_out("", opened(views=9), sampling(), {})
    assert not by_held_out("", opened(kind="k-space"), sampling(), {})
    assert not by_held_out("", opened(), sampling(sigma_y=0.0), {})
    assert not by_held_out("", opened(), sampling(end_sigma=0.01), {})
    assert not by_held_out("", opened(), sampling(), {"end_sigma": (0.01, 0.02)})
    assert not by_held_out("", opened(), sampling(num_samples=2), {})  # by warm_mmps
    assert not by_held_out("noise", opened(), sampling(), {})
    assert by_held_out("held_out", opened(kind="k-space"), sampling(), {})
    assert by_held_out("held_out", opened(views=9), sampling(sigma_y=0.0), {})


@pytest.mark.parametrize(
    ("changes", "options", "match"),
    [
        ({}, {"end_sigma": 0.01}, "end_sigma is given"),
        ({}, {"sampler": "dds"}, "it is for pnp, the sampler is dds"),
        ({"kind": "images"}, {}, "nothing can be left out of images"),
    ],
)
def test_where_it_has_no_effect_it_is_refused(changes, options, match):
    with pytest.raises(ValueError, match=match):
        by_held_out("held_out", opened(**changes), sampling(**options), {})


def sinogram():
    """Line integrals ``(views, bins)`` of a small square."""
    x = torch.zeros(1, 1, 16, 16)
    x[..., 5:11, 4:9] = 1.0
    return ParallelBeamCT(16, ANGLES).forward(x)[0, 0].numpy()


def test_the_level_is_what_pnp_is_given_in_python():
    found = program.reconstruct(sinogram(), angles=ANGLES, prior=PRIOR, num_steps=4)
    level = found.last_level["end_sigma"]
    assert level is not None
    options = {"end_sigma": level}
    same = program.reconstruct(sinogram(), angles=ANGLES, prior=PRIOR, num_steps=4, options=options)
    assert same.last_level is None
    np.testing.assert_array_equal(found.image, same.image)
    other = program.reconstruct(
        sinogram(), angles=ANGLES, prior=PRIOR, num_steps=4, last_level="noise"
    )
    assert other.last_level is None
    assert not np.array_equal(found.image, other.image)
    with pytest.raises(ValueError, match="last_level as one of noise, held_out"):
        program.reconstruct(sinogram(), angles=ANGLES, prior=PRIOR, last_level="views")


def test_the_command_finds_it_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("evaluation.own.folder.load_prior", lambda *_, **__: PRIOR)
    source, out = tmp_path / "sinogram.npy", tmp_path / "out"
    np.save(source, sinogram())
    config = get_config()
    config.sampler.num_steps = 4
    summary = reconstruct_file(config, source, out, "cpu")
    kept = json.loads((out / "last_level.json").read_text())
    assert summary["last_level"] == kept
    assert "last level, by views that were left out" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["last_level"] == "held_out"
    # gone on with after the images are lost: not found again
    (out / "summary.json").unlink()
    monkeypatch.setattr("evaluation.own.folder.find_last_level", None)
    assert reconstruct_file(config, source, out, "cpu")["last_level"] == kept


def test_a_wrong_name_is_refused_before_the_input_is_read(tmp_path):
    config = get_config()
    config.last_level = "views"
    with pytest.raises(ValueError, match="last_level as one of noise, held_out"):
        reconstruct_file(config, tmp_path / "none.npy", tmp_path / "out", "cpu")
