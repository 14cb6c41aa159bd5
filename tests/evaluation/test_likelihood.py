"""Likelihoods of images: the command, what it measures, damage, and the detector's numbers."""

import csv
import math

import numpy as np
import pytest
import torch

from benchmarks.detection import auc, auc_interval
from configs import ConfigError
from configs.likelihood import get_config
from evaluation.likelihood import (
    FILE,
    check_config,
    dequantise,
    likelihood,
    measure,
    prepare,
    summary,
)
from evaluation.run.damage import BLUR, DAMAGE, NOISE
from samplers.likelihood import LogDensity
from sde import VESDE, Prior
from tests.helpers.tiny_prior import write_prior

STD = 0.2


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return write_prior(tmp_path_factory.mktemp("prior") / "prior.pt")


@pytest.fixture
def config(prior):
    config = get_config()
    config.prior, config.limit, config.crop, config.num_steps = str(prior), 3, 16, 4
    return config


def rows(folder):
    with (folder / FILE).open() as file:
        return list(csv.DictReader(file))


# --- the command


def test_it_writes_a_row_an_image_and_continues(config, tmp_path, monkeypatch):
    config.batch_size = 2
    likelihood(config, tmp_path / "whole", "cpu")
    found = rows(tmp_path / "whole")
    assert [row["person"] for row in found] == ["patient04", "patient09", "patient12"]
    for row in found:
        assert float(row["standard_error"]) > 0
        assert float(row["solver_error"]) > 0
        assert int(row["calls"]) == 3 * (5 + 3) + 4 + 2
    assert "3 images of 3 people" in summary(found)
    config.limit, config.batch_size = 1, 1
    likelihood(config, tmp_path / "parts", "cpu")
    config.limit = 3
    assert likelihood(config, tmp_path / "parts", "cpu") == rows(tmp_path / "parts")
    for row, other in zip(rows(tmp_path / "parts"), found, strict=True):
        assert row["key"] == other["key"]
        bits = float(row["bits_per_dim"]), float(other["bits_per_dim"])
        assert bits[0] == pytest.approx(bits[1], abs=2e-3)  # kernels depend on the batch size
    monkeypatch.setattr("evaluation.likelihood.measure", None)  # nothing is left to do
    likelihood(config, tmp_path / "parts", "cpu")
    config.probes = 3
    with pytest.raises(ConfigError, match="probes: 2 there, 3 now"):
        likelihood(config, tmp_path / "parts", "cpu")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("damage", "nois", "expected damage out of noise, blur, ghost, block, rows, got 'nois'"),
        ("num_steps", 5, "num_steps even and at least 2, got 5"),
        ("probes", 0, "probes of at least 1"),
        ("levels", 1, "levels of at least 2, or 0"),
        ("precision", "int8", "expected precision in"),
    ],
)
def test_unfit_fields_are_errors(config, tmp_path, field, value, message):
    config[field] = value
    with pytest.raises(ValueError, match=message):
        likelihood(config, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_a_crop_that_is_too_large_names_the_image(config, tmp_path):
    config.crop = 300
    with pytest.raises(ValueError, match=r"patient04.*crop of at most 256, got 300"):
        likelihood(config, tmp_path, "cpu")


# --- what is measured


def gaussian(joint=False):
    """Independent pixels of mean 1/2 (complex: 0), and their exact score."""
    mean = 0.0 if joint else 0.5

    def score(x, sigma):
        return (mean - x) / (STD**2 + sigma[:, None, None, None] ** 2)

    score.joint = joint
    return Prior(score, VESDE(0.001, 60.0))


def bits(values, mean):
    """Of independent Gaussian numbers, in units of 1 / 256."""
    nats = 0.5 * ((values - mean) / STD) ** 2 + math.log(STD * math.sqrt(2 * math.pi))
    return nats.mean() / math.log(2) + 8


def test_bits_are_those_of_a_gaussian_with_pixels_of_256_levels(config):
    config.num_steps = 48
    x = 0.5 + STD * torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    for found, image in zip(measure(config, gaussian(), x, ["a", "b"]), x, strict=True):
        assert float(found["bits_per_dim"]) == pytest.approx(bits(image.numpy(), 0.5), rel=1e-3)
        assert float(found["standard_error"]) < 1e-4  # signs are exact here
        assert int(found["calls"]) == 3 * (49 + 25) + 48 + 24


def test_a_complex_prior_sees_real_images_with_the_noise_of_rounding(config):
    config.num_steps = 48
    x = STD * torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    (found,) = measure(config, gaussian(joint=True), x, ["a"])
    imaginary = np.full(144, 0.5 / 256)  # about
    expected = (bits(x.numpy(), 0.0) + bits(imaginary, 0.0)) / 2
    assert float(found["bits_per_dim"]) == pytest.approx(expected, rel=2e-3)


def test_the_standard_error_is_over_probes(config, monkeypatch):
    nats = 16 * math.log(2) * torch.tensor([[1.0, 2.0, 3.0, 6.0]], dtype=torch.float64)
    said = LogDensity(nats, torch.tensor([0.0]), 7)
    monkeypatch.setattr("evaluation.likelihood.log_density", lambda *args, **options: said)
    (found,) = measure(config, gaussian(), torch.zeros(1, 1, 4, 4), ["a"])
    assert float(found["bits_per_dim"]) == pytest.approx(8 - 3)
    deviation = np.std([1, 2, 3, 6], ddof=1)
    assert float(found["standard_error"]) == pytest.approx(deviation / 2, abs=1e-5)
    assert found["calls"] == "7"


def test_an_image_without_a_density_is_named(config):
    x = torch.full((1, 1, 4, 4), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="slice 7: no finite density"):
        measure(config, gaussian(), x, ["slice 7"])


def test_grey_levels_are_spread_evenly():
    image = torch.tensor([0.0, 0.5, 1.0]).expand(1, 1000, 3)
    found = dequantise(image, 256, seed=1)
    k = (255 * image.double()).round()
    inside = 256 * found - k
    assert 0 <= inside.min() < 0.01
    assert 0.99 < inside.max() < 1
    assert inside.mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(found, dequantise(image, 256, seed=1))
    assert torch.equal(dequantise(image, 0, seed=1), image.double())
    assert dequantise(torch.complex(image, image), 16, seed=1).imag.max() < 1


# --- damage


def test_damage_is_what_it_says_and_of_its_seed():
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))

    def damaged(name, x=image):
        return DAMAGE[name](x.clone(), torch.Generator().manual_seed(3))

    for name in DAMAGE:
        assert damaged(name).shape == image.shape
        assert damaged(name).dtype == image.dtype
        assert torch.equal(damaged(name), damaged(name))
    assert (damaged("noise") - image).std().item() == pytest.approx(NOISE, rel=0.05)
    point = torch.zeros(1, 64, 64)
    point[0, 32, 32] = 1
    blurred, rows = damaged("blur", point)[0], torch.arange(64.0)
    assert (blurred.sum(1) * (rows - 32) ** 2).sum().sqrt() == pytest.approx(BLUR, rel=0.05)
    block = damaged("block")
    assert (block[..., 30:34, 30:34] == 0).all()
    assert (block != image).sum() == 16
    ghosts = damaged("ghost", point)[0]
    assert ghosts[:, 32].argsort()[-2:].sort().values.tolist() == [32, 36]
    assert ghosts[:, :32].max() < 1e-5
    shuffled = damaged("rows")
    assert torch.equal(shuffled.sort(-2).values, image.sort(-2).values)
    moved = (shuffled != image).any(-1).flatten().nonzero().flatten()
    assert 24 <= moved.min() < moved.max() < 40
    assert len(moved) > 10


def test_images_are_damaged_before_the_crop(config):
    class Images:
        def __getitem__(self, n):
            return type("Sample", (), {"image": torch.arange(64.0).reshape(1, 8, 8) / 64})

    config.crop, config.levels = 4, 0
    whole = prepare(config, Images(), 0, "a")
    assert torch.equal(whole[0, 0] * 64, torch.arange(18.0, 22.0).double())
    config.damage = "ghost"
    found = prepare(config, Images(), 0, "a")
    assert (found[0, 0] * 64 - whole[0, 0] * 64).abs().max() > 1  # rows from outside the crop
    check_config(config)


# --- the detector


def test_auc_is_the_probability_of_the_right_order():
    assert auc([1, 2], [3, 4]) == 1
    assert auc([1, 3], [2, 4]) == 0.75
    assert auc([1], [1]) == 0.5
    assert auc([3, 4], [1, 2]) == 0


def test_the_interval_is_over_people(monkeypatch):
    monkeypatch.setattr("benchmarks.detection.RESAMPLES", 200)
    rng = np.random.default_rng(0)
    own = rng.standard_normal(20)
    clean = {f"p{i}": [own[i]] * 5 for i in range(20)}
    shifted = {name: [v + 0.7 for v in values] for name, values in clean.items()}
    value, low, high = auc_interval(clean, shifted, same=True)
    assert low < value < high
    # 20 people, not 100 images
    few = auc_interval(
        {p: v[:1] for p, v in clean.items()}, {p: v[:1] for p, v in shifted.items()}, True
    )
    assert (value, low, high) == pytest.approx(few)
    apart = auc_interval(clean, shifted, same=False)
    assert apart[2] - apart[1] > high - low
