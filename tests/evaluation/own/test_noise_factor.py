"""The noise of k-space, found by predicting what was left out."""

import json

import numpy as np
import pytest
import torch

import reconstruct as program
from configs.reconstruct import get_config
from evaluation.own import noise_factor
from evaluation.own.arrays import open_array
from evaluation.own.engine import choose_sampling
from evaluation.own.folder import reconstruct_file
from evaluation.own.noise_factor import describe_noise_factor, find_noise_factor, noise_by_held_out
from operators import BatchGenerator
from operators.batch import expand
from operators.fourier import fft2c
from operators.masks import make_mask
from operators.simulation import birdcage_maps
from sde import Prior

SIDE, COILS = 32, 8


def shrink(x, sigma):
    """The denoiser of white images."""
    return x * 0.04 / (0.04 + expand(sigma, x) ** 2)


pytestmark = pytest.mark.filterwarnings("ignore:k-space has no peak")
PRIOR = Prior.from_denoiser(shrink, sigma_min=0.002, sigma_max=2.0)


def kspace(noise, mask="poisson"):
    """K-space of a white image, of which no place is quiet, and its maps ``(C, H, W)``."""
    rng = BatchGenerator([0])
    maps = birdcage_maps(COILS, (SIDE, SIDE))
    full = fft2c(maps * 0.2 * rng.normal_like(torch.zeros(1, 1, SIDE, SIDE)))[0]
    full = full + noise * rng.normal_like(full[None])[0]
    taken = make_mask(mask, (SIDE, SIDE), seed=0, acceleration=2, center_fraction=0.1)
    return (full * taken).numpy(), maps.numpy()


def opened(noise=0.01, mask="poisson"):
    measured, maps = kspace(noise, mask)
    return open_array(measured, mask=None, maps=maps, angles=None, operator=None)[0]


def sampling(name="", **changes):
    given = {"num_steps": None, "num_samples": 1, "sigma_y": None, "options": {}}
    return choose_sampling(name, **given | changes)


def test_image_energy_is_told_from_noise():
    """Coils predict points of an image, whereas noise cannot be predicted."""
    found = find_noise_factor(opened(noise=0.01), PRIOR, way="", seed=0, device="cpu")
    assert found["left_out"] == "points"
    assert found["factor"] == noise_factor.DOWN[-1]
    assert found["errors"] == sorted(found["errors"], reverse=True)
    loud = find_noise_factor(opened(noise=0.5), PRIOR, way="", seed=0, device="cpu")
    assert loud["factor"] == 1
    assert loud["factors"] == [1.0, 0.71, 1.41]  # both are worse: no further one is tried
    assert "1 times the estimate (error with 0.71: " in describe_noise_factor(loud)


class Answers:
    """Slices that are predicted as well as the test says."""

    def __init__(self, monkeypatch, errors, slices=1):
        self.errors, self.factors = errors, []
        monkeypatch.setattr(
            noise_factor, "leave_out", lambda *_, **__: ([self] * slices, "ab"[:slices])
        )
        monkeypatch.setattr(noise_factor, "sample", self.sample)
        self.what, self.problem = "points", self

    def scale_noise(self, factor):
        self.factors.append(factor)
        return factor

    def sample(self, factor, *_, keys, **__):
        class Moments:
            mean = (
                self.errors[factor, keys[0]]
                if (factor, keys[0]) in self.errors
                else self.errors[factor]
            )

        return Moments, ({} if Moments.mean < 9 else {"a": "failed"})

    def error(self, value):
        return value


@pytest.mark.parametrize(
    ("errors", "factor"),
    [
        ({1.0: 5.0, 0.71: 4.96, 1.41: 4.87}, 1.0),  # less than 1 % is chance, 3 % upwards
        ({1.0: 5.0, 0.71: 4.94, 0.5: 4.0, 0.35: 4.5}, 0.5),  # downhill from the estimate
        ({1.0: 5.0, 0.71: 4.0, 0.5: 3.0, 0.35: 2.0, 0.25: 1.0}, 0.25),
        ({1.0: 9.0, 0.71: 4.0, 0.5: 4.5}, 0.71),  # a run that fails is worse than any other
        ({1.0: 5.0, 0.71: 6.0, 1.41: 4.0, 2.0: 3.0, 2.83: 3.1}, 2.0),  # uphill
        ({1.0: 9.0, 0.71: 9.0, 1.41: 4.0, 2.0: 3.9}, 1.41),
        ({1.0: 9.0, 0.71: 9.0, 1.41: 9.0}, 1.0),
    ],
)
def test_the_noise_is_followed_as_long_as_it_helps(monkeypatch, errors, factor):
    answers = Answers(monkeypatch, errors)
    found = find_noise_factor(None, PRIOR, way="", seed=0, device="cpu")
    assert found["factor"] == factor
    assert answers.factors == found["factors"] == list(errors)
    json.dumps(found, allow_nan=False)
    describe_noise_factor(found)


def test_all_factors_are_reached(monkeypatch):
    Answers(monkeypatch, {0.71: 9.0} | {f: 8 - k for k, f in enumerate((1.0, *noise_factor.UP))})
    found = find_noise_factor(None, PRIOR, way="", seed=0, device="cpu")
    assert found["factor"] == noise_factor.UP[-1] == 8


def test_slices_are_averaged(monkeypatch):
    Answers(monkeypatch, {(1.0, "a"): 1, (1.0, "b"): 5, (0.71, "a"): 3, (0.71, "b"): 2, 0.5: 3}, 2)
    assert find_noise_factor(None, PRIOR, way="", seed=0, device="cpu")["factor"] == 0.71


def test_misfit_of_the_operator_raises_the_noise():
    """Maps that are wrong leave more unexplained than the noise of the measurement."""
    measured, maps = kspace(0.002, mask="gaussian1d")
    rng = BatchGenerator([1])
    wrong = torch.from_numpy(maps) + 0.2 * rng.normal_like(torch.from_numpy(maps)[None])[0]
    given = {"mask": None, "angles": None, "operator": None}
    right = open_array(measured, maps=maps, **given)[0]
    assert find_noise_factor(right, PRIOR, way="held_out", seed=0, device="cpu")["factor"] <= 1
    opened = open_array(measured, maps=wrong.numpy(), **given)[0]
    found = find_noise_factor(opened, PRIOR, way="held_out", seed=0, device="cpu")
    assert found["left_out"] == "lines"
    assert found["factor"] > 1


def test_nothing_to_leave_out():
    """All of a small k-space is its centre: the default keeps the estimate, who asks is told."""
    image = torch.zeros(1, 1, 20, 20, dtype=torch.complex64)
    image[..., 5:15, 6:14] = 1
    rng = BatchGenerator([0])
    full = fft2c(image)[0] + 0.01 * rng.normal_like(image)[0]
    taken = make_mask("poisson", (20, 20), seed=0, acceleration=2, center_fraction=0.1)
    measured, given = (full * taken).numpy(), {"prior": PRIOR, "num_steps": 4}
    found = program.reconstruct(measured, **given)
    assert found.noise_level["factor"] == 1
    assert "nothing that could be left out" in describe_noise_factor(found.noise_level)
    with pytest.raises(ValueError, match=r"outside its central 24 x 24 .* got none"):
        program.reconstruct(measured, **given, noise_level="held_out")


def test_where_it_is_the_default():
    points, lines = opened(), opened(mask="gaussian1d")
    assert noise_by_held_out("", points, sampling())
    assert noise_by_held_out("", points, sampling("dds", num_samples=2))
    assert not noise_by_held_out("", lines, sampling())
    assert noise_by_held_out("held_out", lines, sampling())
    assert not noise_by_held_out("estimated", points, sampling())
    assert not noise_by_held_out("", points, sampling(sigma_y=0.1))
    assert not noise_by_held_out("", points, sampling("predictor_corrector"))
    with pytest.raises(ValueError, match="no effect: sigma_y is given"):
        noise_by_held_out("held_out", points, sampling(sigma_y=0.1))
    with pytest.raises(ValueError, match="no effect: predictor_corrector does not use it"):
        noise_by_held_out("held_out", points, sampling("predictor_corrector"))


def test_the_samplers_get_that_part_of_the_estimate():
    measured, maps = kspace(0.01)
    given = {"maps": maps, "prior": PRIOR, "num_steps": 4}
    found = program.reconstruct(measured, **given)
    part = found.noise_level["factor"]
    assert part < 1
    estimate = program.reconstruct(measured, **given, noise_level="estimated")
    assert estimate.noise_level is None
    assert found.sigma_y == pytest.approx(part * estimate.sigma_y)
    assert not np.allclose(found.image, estimate.image)
    same = program.reconstruct(measured, **given, sigma_y=found.sigma_y)
    np.testing.assert_allclose(same.image, found.image, rtol=1e-4, atol=1e-5)
    samples = program.reconstruct(measured, **given, samples=2)  # also by warm_mmps
    assert samples.noise_level["factor"] == part
    with pytest.raises(ValueError, match="noise_level as one of estimated, held_out"):
        program.reconstruct(measured, **given, noise_level="guessed")


def test_the_command_finds_it_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("evaluation.own.folder.load_prior", lambda *_, **__: PRIOR)
    source, out = tmp_path / "kspace.npz", tmp_path / "out"
    measured, maps = kspace(0.01)
    np.savez(source, kspace=measured, sens_maps=maps)
    config = get_config()
    config.sampler.num_steps = 4
    summary = reconstruct_file(config, source, out, "cpu")
    kept = json.loads((out / "noise_level.json").read_text())
    assert summary["noise_level"] == kept
    assert summary["noise"]["origin"] == f"estimated, times {kept['factor']:g} by what was left out"
    assert "noise, by points that were left out" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["noise_level"] == "held_out"
    # gone on with after the images are lost: not found again
    (out / "summary.json").unlink()
    monkeypatch.setattr("evaluation.own.folder.find_noise_factor", None)
    assert reconstruct_file(config, source, out, "cpu")["noise_level"] == kept
    config.noise_level = "guessed"
    with pytest.raises(ValueError, match="noise_level as one of estimated, held_out"):
        reconstruct_file(config, tmp_path / "none.npy", out, "cpu")
