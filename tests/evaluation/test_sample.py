"""Images of a prior without a measurement: the sampler, the picture, the command, statistics."""

import csv
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

import train
from configs import ConfigError, load_config
from configs.sample import get_config
from datasets import create_dataset
from evaluation.sample import (
    calls_a_level,
    given_images,
    radial_spectrum,
    read_image,
    sample,
    statistics,
    training_images,
)
from evaluation.show.contact_sheet import GAP, contact_sheet, png
from models import checkpoint
from operators import BatchGenerator
from samplers.start import GREY
from samplers.unconditional import UNCONDITIONAL, unconditional
from sde import VESDE
from tests.helpers.tiny_prior import write_prior

SDE = VESDE(0.01, 2.0)
MEAN, STD = GREY + 0.1, 0.1


def gaussian(x, sigma):
    """The score of independent pixels of mean `MEAN` and standard deviation `STD`."""
    return (MEAN - x) / (STD**2 + sigma[:, None, None, None] ** 2)


def seeds(count):
    return BatchGenerator(list(range(count)))


# --- the sampler


@pytest.mark.parametrize("joint", [False, True])
def test_samples_have_the_mean_and_the_variance_of_the_prior(joint):
    def score(x, sigma):
        return gaussian(x, sigma)

    score.joint = joint
    images = unconditional(score, SDE, (16, 16), rng=seeds(40), num_steps=200)
    assert images.shape == (40, 1, 16, 16)
    assert images.is_complex() == joint
    for part, mean in ((images.real, MEAN), *([(images.imag, 0.0)] if joint else [])):
        assert part.mean().item() == pytest.approx(mean, abs=0.01)  # 10 000 pixels: 0.001 by chance
        # all noise new in each step, `dds` by default, leaves 30 % less
        assert part.std().item() == pytest.approx(STD, rel=0.04)


def test_the_formula_is_that_of_ancestral_sampling():
    """Song et al. 2021, equation 47, from a grey image and noise of the largest level."""
    levels, rng = np.geomspace(SDE.sigma_max, SDE.sigma_min, 5), seeds(2)
    x = 0.5 + levels[0] * rng.normal((2, 1, 8, 8))
    for s, t in pairwise(levels):
        x = x + (s**2 - t**2) * gaussian(x, torch.full((2,), s))
        x = x + t * math.sqrt(1 - (t / s) ** 2) * rng.normal((2, 1, 8, 8))
    x = x + levels[-1] ** 2 * gaussian(x, torch.full((2,), levels[-1]))
    found = unconditional(gaussian, SDE, (8, 8), rng=seeds(2), num_steps=5)
    torch.testing.assert_close(found, x.float(), rtol=1e-4, atol=1e-5)


def test_images_of_a_batch_are_independent():
    options = {"num_steps": 7}
    both = unconditional(gaussian, SDE, (8, 6), rng=BatchGenerator([3, 5]), **options)
    alone = unconditional(gaussian, SDE, (8, 6), rng=BatchGenerator([5]), **options)
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0], both[1])


# --- the picture


def test_complex_images_show_magnitude_and_phase():
    values = torch.tensor([0.5, 0.5j, -0.5, 0.0]).reshape(4, 1, 1, 1).expand(4, 1, 3, 3)
    sheet = contact_sheet(values, columns=4)
    assert sheet.shape == (3 + GAP + 3, 4 * 3 + 3 * GAP, 3)
    magnitude, phase = sheet[1, 1 :: 3 + GAP], sheet[-2, 1 :: 3 + GAP]
    assert magnitude.tolist() == [[128] * 3, [128] * 3, [128] * 3, [0] * 3]
    assert phase[0].tolist() == [128, 0, 0]  # red
    assert phase[2].tolist() == [0, 128, 128]  # cyan, although the real part is negative
    assert phase[1, 1] == 128
    assert phase[1, 2] == 0  # between yellow and green
    assert phase[3].tolist() == [0, 0, 0]


def test_real_images_are_grey_clipped_and_apart():
    images = torch.tensor([-1.0, 0.25, 2.0]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
    sheet = contact_sheet(images, columns=2)
    assert sheet.shape == (4 + GAP + 4, 4 + GAP + 4)
    assert [sheet[0, 0], sheet[0, -1], sheet[-1, 0]] == [0, 64, 255]
    assert (sheet[4 : 4 + GAP] == 255).all()  # a line
    assert sheet[-1, -1] == 255  # nothing there
    assert png(sheet)[:4] == b"\x89PNG"


def test_training_s_pictures_of_complex_priors_show_magnitude_and_phase(tiny_config, tmp_path):
    config = tiny_config.copy_and_resolve_references()
    config.model.num_channels, config.data.phase = 2, 3.0
    config.training.num_steps, config.training.checkpoint_every = 1, 1
    config.training.sample_every, config.training.sample_steps = 1, 3
    config.training.sample_images = 2
    train.train(config, tmp_path, "cpu")
    picture = np.asarray(Image.open(tmp_path / "samples" / "step_00000001.png"))
    assert picture.shape == (16 + GAP + 16, 2 * 16 + GAP, 3)
    assert (np.ptp(picture[:16], axis=-1) == 0).all()  # grey
    assert np.ptp(picture[16 + GAP :], axis=-1).max() > 0  # coloured


def test_a_picture_of_one_level_is_refused_before_training(tiny_config, tmp_path):
    tiny_config.training.sample_every, tiny_config.training.sample_steps = 1, 1
    with pytest.raises(ConfigError, match="sample_steps of at least 2, got 1"):
        train.train(tiny_config, tmp_path, "cpu")


# --- the command


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return write_prior(tmp_path_factory.mktemp("prior") / "prior.pt")


@pytest.fixture
def config(prior):
    config = get_config()
    config.prior, config.num_images, config.num_steps, config.image_size = str(prior), 3, 4, 16
    return config


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_command_leaves_images_picture_and_statistics(config, tmp_path):
    config.compare = 5
    sample(config, tmp_path, "cpu")
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == [
        f"{n:05d}.npy" for n in range(3)
    ]
    assert np.asarray(Image.open(tmp_path / "samples.png")).shape == (16, 3 * 16 + 2 * GAP)
    found = rows(tmp_path / "statistics.csv")
    assert [(row["images"], row["count"]) for row in found] == [("samples", "3"), ("training", "5")]
    assert rows(tmp_path / "spectrum.csv")[0].keys() == {"cycles_per_pixel", "samples", "training"}
    files = {p.name for p in tmp_path.iterdir()}
    assert {"gradients_samples.csv", "gradients_training.csv"} <= files
    numbers = json.loads((tmp_path / "statistics.json").read_text())
    assert list(numbers) == ["samples", "training"]
    kurtosis = float(found[0]["gradient_kurtosis"])
    assert numbers["samples"]["gradient_kurtosis"] == kurtosis
    assert np.asarray(Image.open(tmp_path / "statistics.png")).std() > 0  # something was drawn


def test_samples_beside_given_photographs(config, tmp_path):
    config.num, config.compare = 2, 3
    config.data.name, config.data.subset = "samples", "natural"
    sample(config, tmp_path, "cpu")
    found = rows(tmp_path / "statistics.csv")
    assert [(row["images"], row["count"]) for row in found] == [("samples", "2"), ("given", "3")]
    photo = create_dataset({"name": "samples", "subset": "natural"}, "train")[1].image
    top, left = ((side - 16) // 2 for side in photo.shape[-2:])
    middle = photo[..., top : top + 16, left : left + 16]
    assert torch.equal(given_images(config, 16)[1], middle)
    config.compare = 13
    with pytest.raises(ValueError, match="compare of at most 12, got 13"):
        sample(config, tmp_path / "other", "cpu")


@pytest.mark.parametrize(
    ("name", "options", "calls"),
    [
        ("probability_flow", {"s_churn": 4.0}, 8),
        ("predictor_corrector", {"predictor": "ancestral"}, 8),
        ("ancestral_vp", {}, 4),
    ],
)
def test_other_samplers_are_named_with_their_keywords(config, tmp_path, name, options, calls):
    config.sampler.name = name
    config.sampler.update(options)
    config.num_images, config.num_steps = 1, 30 if name == "ancestral_vp" else 4
    sample(config, tmp_path / name, "cpu")
    assert torch.isfinite(read_image(tmp_path / name / "images", 0)).all()
    assert calls_a_level(name, options) == calls // 4
    config.sampler = get_config().sampler
    with pytest.raises(ConfigError, match=rf"sampler.name: '{name}' there, None now"):
        sample(config, tmp_path / name, "cpu")


def test_unknown_samplers_and_keywords_are_answered_with_the_known_ones(config, tmp_path):
    config.sampler.name = "ddim"
    with pytest.raises(ValueError, match=r"sampler.name out of ancestral, .*, got 'ddim'"):
        sample(config, tmp_path, "cpu")
    config.sampler.name, config.sampler.rho = "ancestral_vp", 5.0
    with pytest.raises(ValueError, match=r"has no sampler.rho; it has: beta_max, beta_min"):
        sample(config, tmp_path, "cpu")


def test_it_continues_and_adds_the_same_images(config, tmp_path, monkeypatch):
    config.batch_size = 1
    sample(config, tmp_path / "whole", "cpu")
    config.num_images = 1
    sample(config, tmp_path / "parts", "cpu")
    config.num_images = 3
    sample(config, tmp_path / "parts", "cpu")
    for n in range(3):
        whole, part = (tmp_path / f / "images" / f"{n:05d}.npy" for f in ("whole", "parts"))
        assert whole.read_bytes() == part.read_bytes()
    monkeypatch.setitem(UNCONDITIONAL, "ancestral", lambda: None)  # nothing is left to draw
    sample(config, tmp_path / "parts", "cpu")
    config.seed += 1
    with pytest.raises(ConfigError, match="seed: 42 there, 43 now"):
        sample(config, tmp_path / "parts", "cpu")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_images", 0, "num_images of at least 1"),
        ("num_steps", 1, "num_steps of at least 2"),
        ("precision", "int8", "expected precision in"),
        ("batch_size", -1, "batch_size of at least 0"),
        ("prior", "natural_smal", "did you mean natural_small"),
    ],
)
def test_bad_fields_are_named_before_anything_is_written(config, tmp_path, field, value, message):
    config[field] = value
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sample(config, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_training_images_are_cropped_and_augmented_as_in_training():
    trained = checkpoint.load(checkpoint.WEIGHTS / "natural_complex_small.pt")["config"]
    config = load_config("configs/demo.py")
    config.update({"model": {}})
    config.data.update({k: v for k, v in trained["data"].items() if k in ("phase", "crop")})
    images = training_images(config, "", 3, 20, seed=1)
    assert images.shape == (3, 1, 20, 20)
    assert images.is_complex()
    assert images.imag.abs().max() > 0.01
    assert torch.equal(images, training_images(config, "", 3, 20, seed=1))
    assert not torch.equal(images, training_images(config, "", 3, 20, seed=2))
    assert training_images(config, "", 0, 20, seed=1) is None


# --- statistics


def test_white_noise_has_a_flat_spectrum_and_the_kurtosis_of_a_gaussian():
    rng = torch.Generator().manual_seed(0)
    noise = 0.5 + 0.1 * torch.randn((60, 1, 64, 64), generator=rng)
    spectrum = radial_spectrum(noise)[2:]  # rings around 0 lack the mean
    np.testing.assert_allclose(spectrum, 0.01, rtol=0.2)
    found = {name: float(value) for name, value in statistics(noise).items()}
    assert found["std"] == pytest.approx(0.1, rel=0.01)
    assert found["gradient_std"] == pytest.approx(0.1 * math.sqrt(2), rel=0.01)
    assert found["gradient_kurtosis"] == pytest.approx(3, abs=0.1)
    edges = torch.zeros(1, 1, 64, 64)
    edges[..., 32:] = 1  # one of 127 gradients in two directions is 1, the others 0
    assert float(statistics(edges)["gradient_kurtosis"]) == pytest.approx(126, rel=1e-3)


def test_a_wave_has_its_power_in_its_ring():
    wave = torch.cos(2 * torch.pi * 0.25 * torch.arange(64)).expand(1, 1, 64, 64)
    spectrum = radial_spectrum(wave)
    assert np.nanargmax(spectrum) in (15, 16)  # 32 rings up to 0.5
    assert np.nanmax(spectrum[:12]) < 1e-6 * np.nanmax(spectrum)
