"""Evaluation of complex images and of several coils, simulated or measured."""

import h5py
import numpy as np
import pytest
import torch

from configs import load_config, published
from configs.ranges import check_numbers
from datasets import Sample, collate, create_dataset, dataset_options
from evaluation.evaluate import evaluate
from evaluation.metrics import all_metrics
from evaluation.results.cells import read_cell
from evaluation.results.folder import read_rows
from evaluation.results.volumes import COLUMNS
from evaluation.run.measurements import check_measurement, measure, pose, targets
from evaluation.run.methods import create_reconstructor
from evaluation.run.slices import run_slices
from evaluation.show.cell_images import CellImages
from operators import MultiCoilMRI
from operators.create import fields_of
from operators.fourier import ifft2c
from operators.noise import kspace_noise
from operators.simulation import birdcage_maps
from samplers import SAMPLERS
from tests.conftest import ROOT
from tests.evaluation.run.test_measurement_noise import batch_of, config_of
from tests.evaluation.test_evaluate import recon_of
from tests.helpers.data_writers import write_fastmri
from tests.helpers.tiny_prior import write_prior

COILS = {"operator.name": "multicoil_mri", "operator.coils": 4}
FULL = {"operator.mask": "regular", "operator.acceleration": 1.0}


def blob(size=32):
    """A smooth real image, ``(1, 1, size, size)``, with peak 1."""
    axis = torch.linspace(-1, 1, size)
    radius = axis[:, None].square() + 1.5 * axis.square()
    return torch.exp(-3 * radius)[None, None] * (1 + 0.3 * torch.cos(9 * axis))[None, None] / 1.3


def sample_of(image, extras=None):
    return Sample(image[0] / image.abs().max(), (0.0, 1.0), "file.h5:0", extras or {})


def test_simulated_coils_see_the_image_with_a_phase_of_its_own():
    config = config_of(**COILS, **FULL)
    batch = collate([sample_of(blob()), sample_of(blob())._replace(key="file.h5:1")])
    measurement = measure(config, batch)
    assert measurement.y.shape == (2, 4, 32, 32)
    images = (birdcage_maps(4, (32, 32)).conj() * ifft2c(measurement.y)).sum(1, keepdim=True)
    torch.testing.assert_close(images.abs(), batch.image, atol=1e-5, rtol=0)
    phases = (images / images.abs()).angle()
    assert (phases[0] - phases[1]).abs().max() > 0.1  # each slice's own
    assert not torch.equal(measurement.y[0], measurement.y[1])


def test_one_who_measures_finds_the_image_in_its_own_unit():
    """Full k-space and known maps: zero-filled is the image, the phase taken out is put back."""
    config = config_of(**COILS, **FULL, **{"operator.maps": "known"})
    batch = collate([sample_of(blob())])
    problem = pose(config, measure(config, batch))
    assert isinstance(problem.operator, MultiCoilMRI)
    restored = problem.restore(problem.direct)
    torch.testing.assert_close(restored.abs(), batch.image, atol=1e-5, rtol=0)
    assert not problem.noise.any()
    # what the prior sees is nearly real
    assert problem.direct.imag.abs().max() < 0.05 * problem.direct.abs().max()


def test_noise_keeps_its_level_in_the_unit_of_the_problem():
    config = config_of(**COILS, **{"operator.maps": "known", "noise.sigma": 0.02})
    batch = batch_of(2, size=64)
    measurement = measure(config, batch)
    problem = pose(config, measurement)
    torch.testing.assert_close(problem.noise * problem.scale, torch.full((2,), 0.02))
    config.noise.sigma = 0.0
    clean = measure(config, batch)
    noise = (measurement.y - clean.y)[:, :, clean.operator.mask[0, 0]]
    assert torch.view_as_real(noise).std().item() == pytest.approx(0.02, rel=0.03)


def test_no_bit_of_a_problem_depends_on_the_batch():
    fields = {"operator.center_fraction": 0.3, "operator.acceleration": 2.0, "noise.sigma": 0.01}
    config = config_of(**COILS, **fields)
    whole = pose(config, measure(config, batch_of(2)))
    for b, (image, key) in enumerate(zip(*batch_of(2)[::2], strict=True)):
        alone = pose(config, measure(config, collate([Sample(image, (0.0, 1.0), key, {})])))
        assert torch.equal(alone.y[0], whole.y[b])
        assert torch.equal(alone.operator.sens_maps[0], whole.operator.sens_maps[b])
        assert torch.equal(alone.factor[0], whole.factor[b])


def test_a_centre_too_small_for_maps_is_an_error_before_anything_is_written(tmp_path):
    config = config_of(**COILS, **{"operator.center_fraction": 0.0})
    with pytest.raises(ValueError, match=r"expected the central 8 x 8 of k-space.*known"):
        evaluate(config, tmp_path / "out", "cpu")
    config = config_of(**COILS, **{"operator.maps": "guessed"})
    with pytest.raises(ValueError, match=r"operator.maps to be one of .*got 'guessed'"):
        evaluate(config, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["rss", "mvue", "sense"])
def test_targets_by_hand(target):
    generator = torch.Generator().manual_seed(0)
    kspace, maps = (
        torch.randn(1, 3, 16, 16, dtype=torch.complex64, generator=generator) for _ in range(2)
    )
    config = config_of(**COILS, target=target)
    sample = sample_of(blob(16).to(torch.complex64), {"kspace": kspace[0], "sens_maps": maps[0]})
    found = targets(config, collate([sample]))
    coils = ifft2c(kspace)
    expected = {
        "rss": coils.abs().square().sum(1).sqrt(),
        "mvue": (maps.conj() * coils).sum(1).abs() / maps.abs().square().sum(1).sqrt(),
        "sense": (maps.conj() * coils).sum(1).abs() / maps.abs().square().sum(1),
    }[target][:, None]
    torch.testing.assert_close(found, expected / expected.max())


@pytest.fixture(scope="module")
def knee(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "knee"
    for split in ("train", "val"):
        write_fastmri(root / f"multicoil_{split}/file1.h5", slices=2, size=(32, 32), coils=4)
        write_fastmri(root / f"singlecoil_{split}/file1.h5", slices=2, size=(32, 32))
    return root


def knee_config(knee, mode, **fields):
    data = {
        "data.name": "fastmri",
        "data.root": str(knee),
        "data.cache_dir": str(knee.parent / "cache"),
        "data.mode": mode,
        "data.split": "val",
        "data.image_size": 0,
        "operator.center_fraction": 0.3,
        "operator.acceleration": 2.0,
        "panels": 1,
        "data.slices": "first:1",
    }
    return config_of(**data | fields)


@pytest.mark.parametrize(("maps", "target"), [("known", "rss"), ("espirit", "mvue")])
def test_measured_coils_end_to_end(knee, tmp_path, maps, target):
    fields = {"operator.maps": maps, "sampler.name": "cg_sense", "operator.center_fraction": 0.0}
    config = knee_config(knee, "multicoil", **COILS | fields | FULL, target=target)
    out = tmp_path / "out"
    evaluate(config, out, "cpu")
    rows, images = read_rows(out), recon_of(out)
    sample = create_dataset(config.data, "val")[0]
    truth = targets(config, collate([sample]))[0, 0].numpy()
    assert truth.max() == pytest.approx(1.0)
    image = images[sample.key]
    assert image.dtype == np.float32
    expected = all_metrics(truth, image)["psnr"]
    assert float(rows[0]["psnr"]) == pytest.approx(expected)
    assert expected > 30  # the phantom's k-space has no noise
    with h5py.File(knee / "multicoil_val/file1.h5") as file:
        assert read_cell(out).info["coils"] == file["kspace"].shape[1]
    (volume,) = [line.split(",") for line in (out / "volumes.csv").read_text().splitlines()[1:]]
    assert float(volume[COLUMNS.index("psnr")]) > 30
    shown = CellImages(read_cell(out))
    np.testing.assert_array_equal(shown.target(sample.key), truth)
    assert shown.direct(sample.key).shape == truth.shape


@pytest.mark.parametrize("name", ["cg_sense", "tv", "l1_wavelet", "pnp"])
def test_complex_images_with_noise_of_their_own(knee, tmp_path, name):
    fields = {"sampler.name": name, "sampler.num_steps": 3, "noise.sigma": 0.02}
    if name == "pnp":
        fields["prior"] = str(write_prior(tmp_path / "checkpoints/step_00000001.pt"))
    elif name != "cg_sense":
        fields["sampler.max_iterations"] = 3
    config = knee_config(knee, "complex", **fields)
    sample = create_dataset(config.data, "val")[0]
    assert sample.image.is_complex()
    (outcome,) = run_slices(config, create_reconstructor(config, "cpu"), [sample], set(), "cpu")
    assert outcome.image.dtype == np.float32
    assert outcome.image.shape == sample.image.shape[1:]
    expected = all_metrics(sample.image[0].numpy(), outcome.image)["psnr"]
    assert outcome.row["psnr"] == pytest.approx(expected, rel=1e-5)
    measurement = measure(config, collate([sample]))
    problem = pose(config, measurement)
    expected = max(kspace_noise(measurement.y).item(), 0.02)  # estimated, and at least what we know
    assert (problem.noise * problem.scale).item() == pytest.approx(expected, rel=1e-5)


def test_a_file_that_was_undersampled_has_no_target(tmp_path):
    root = tmp_path / "knee"
    write_fastmri(root / "multicoil_test/file1.h5", size=(32, 32), coils=4, test=True)
    write_fastmri(root / "multicoil_val/file1.h5", size=(32, 32), coils=4)
    config = knee_config(root, "multicoil", **COILS, **{"data.split": "test"})
    with pytest.raises(ValueError, match=r"undersampled when it was measured.*reconstruct\.py"):
        evaluate(config, tmp_path / "out", "cpu")


def test_coils_that_are_sampled_apart_give_a_magnitude_in_the_right_unit(tmp_path):
    """SSOS of the full k-space is the image; its phase is gone, and so is the residual."""
    prior = str(write_prior(tmp_path / "checkpoints/step_00000001.pt"))
    fields = {"sampler.name": "ssos", "sampler.num_steps": 3, "prior": prior}
    config = config_of(**COILS, **FULL, **fields, **{"operator.maps": "known"})
    method = create_reconstructor(config, "cpu")
    (outcome,) = run_slices(config, method, [sample_of(blob())], set(), "cpu")
    assert outcome.row["psnr"] > 40
    assert outcome.row["residual"] == ""


@pytest.mark.parametrize("name", published.SETTINGS)
def test_a_published_setting_is_a_config(name):
    config = load_config(f"{ROOT}/configs/evaluate.py:{name}")
    for field, value in published.SETTINGS[name].items():
        section, _, leaf = field.rpartition(".")
        assert (config[section] if section else config)[leaf] == value
    check_numbers(config)
    check_measurement(config)
    assert config.sampler.name in SAMPLERS
    assert set(fields_of(config.operator.name)) >= {"maps", "mask"}
    dataset_options(config.data)
    assert f"`{name}`" in (ROOT / "docs" / "published.md").read_text()


def test_an_unknown_setting_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"a setting out of score_mri, .*got 'dds'"):
        load_config(f"{ROOT}/configs/evaluate.py:dds")


def test_settings_undersample_measured_coils(knee, tmp_path):
    config = load_config(f"{ROOT}/configs/evaluate.py:inversebench_4x")
    folders = {"root": str(knee), "cache_dir": str(knee.parent / "cache")}
    config.data.update({**folders, "image_size": 0, "slices": "first:1"})
    config.operator.center_fraction = 0.25
    config.sampler.name, config.limit, config.panels = "cg_sense", 1, 0
    evaluate(config, tmp_path / "out", "cpu")
    info = read_cell(tmp_path / "out").info
    assert info["effective_acceleration"] == pytest.approx(4.0)
