"""Evaluation: metrics, results folders, resuming, independence of batching, tables, bad input."""

import csv
import json

import h5py
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

from configs import ConfigError, load_config
from datasets import create_dataset
from evaluation import evaluate as evaluation
from evaluation.baselines import direct, fbp, gridded, zero_filled
from evaluation.results.folder import COLUMNS, Results, read_rows
from evaluation.run import methods, slices
from evaluation.tables import make_table
from operators import NonCartesianMRI, ParallelBeamCT, SingleCoilMRI
from operators.simulation import birdcage_maps
from operators.trajectories import radial
from tests.conftest import ROOT
from tests.helpers.tiny_prior import write_prior

TIMING = ("seconds", "memory_mib")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """A run's folder."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    write_prior(workdir / "checkpoints" / "step_00000001.pt")
    return workdir


def small_config(prior="", **sampler) -> ConfigDict:
    """Brain slices cropped to 32 pixels, few levels."""
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.prior = str(prior)
    config.data.image_size = 32
    config.sampler.num_steps = 3
    config.panels = 1
    config.sampler.update(sampler)
    return config


def rows_of(folder, *, timeless=True):
    rows = read_rows(folder)
    return [{k: v for k, v in row.items() if k not in TIMING or not timeless} for row in rows]


def recon_of(folder):
    with h5py.File(folder / "recon.h5") as file:
        return dict(zip(file["key"].asstr()[()], file["reconstruction"][()], strict=True))


def test_baselines():
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    mri = SingleCoilMRI(torch.ones(16, 16))
    torch.testing.assert_close(zero_filled(mri, mri.forward(image)), image)
    with pytest.raises(ValueError, match="expected a CT operator for fbp, got SingleCoilMRI"):
        fbp(mri, mri.forward(image))
    with pytest.raises(ValueError, match=r"a trajectory for gridded, got .* called zero-filled"):
        gridded(mri, mri.forward(image))
    along = NonCartesianMRI(radial(24, 32), birdcage_maps(2, (16, 16)))
    y = along.forward(image.to(torch.complex64))
    assert torch.equal(gridded(along, y), direct(along, y))
    with pytest.raises(ValueError, match=r"on a grid for zero_filled.*trajectory is gridded"):
        zero_filled(along, y)
    smooth = torch.zeros(1, 1, 32, 32)
    smooth[..., 10:22, 10:22] = 1.0
    ct = ParallelBeamCT(32, np.linspace(0, 180, 90, endpoint=False))
    assert (fbp(ct, ct.forward(smooth)) - smooth).square().mean().sqrt() < 0.1
    assert torch.equal(direct(ct, ct.forward(smooth)), fbp(ct, ct.forward(smooth)))
    assert torch.equal(direct(mri, mri.forward(image)), zero_filled(mri, mri.forward(image)))


def test_the_priors_symmetry_reaches_the_sampler(prior, tmp_path):
    results = {}
    for turns in (None, True, False):  # the tiny prior's config has flips and rotations
        config = small_config(prior, name="pnp", start_sigma=1.0, turns=turns)
        config.limit = 1
        evaluation.evaluate(config, tmp_path / str(turns), "cpu")
        (results[turns],) = recon_of(tmp_path / str(turns)).values()
    np.testing.assert_array_equal(results[None], results[True])
    assert not np.allclose(results[None], results[False])


def test_folder_has_what_it_promises(prior, tmp_path):
    out = tmp_path / "results"
    evaluation.evaluate(small_config(prior), out, "cpu")
    with (out / "metrics.csv").open() as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    rows, recon = read_rows(out), recon_of(out)
    assert [row["key"] for row in rows] == list(recon)
    assert all(image.shape == (32, 32) and image.dtype == np.float32 for image in recon.values())
    assert {row["nfe"] for row in rows} == {"6"}
    assert len(list((out / "panels").glob("*.png"))) == 1
    assert not (out / "parts").exists()
    info = json.loads((out / "info.json").read_text())
    assert info["effective_acceleration"] == pytest.approx(4.0)
    assert json.loads((out / "config.json").read_text())["sampler"]["num_steps"] == 3


@pytest.mark.parametrize("sampler", [{}, {"name": "annealed_langevin"}, {"num_samples": 2}])
def test_batch_size_and_resuming_change_nothing(prior, tmp_path, sampler):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    config = small_config(prior, **sampler)
    config.batch_size = 5
    evaluation.evaluate(config, whole, "cpu")
    config.batch_size = 1
    config.limit = 2
    evaluation.evaluate(config, pieces, "cpu")
    assert len(read_rows(pieces)) == 2
    config.batch_size, config.limit = 2, 0
    evaluation.evaluate(config, pieces, "cpu")
    for a, b in zip(rows_of(whole), rows_of(pieces), strict=True):
        assert a["key"] == b["key"]
        # equal up to the network's choice of kernels for another batch size
        assert float(a["psnr"]) == pytest.approx(float(b["psnr"]), abs=1e-3)
    for key, image in recon_of(whole).items():
        np.testing.assert_allclose(image, recon_of(pieces)[key], atol=1e-3)


def test_a_folder_made_with_another_config_is_refused(tmp_path):
    config = small_config(name="zero_filled")
    evaluation.evaluate(config, tmp_path, "cpu")
    config.operator.acceleration = 8.0
    config.batch_size = 1  # may change
    with pytest.raises(ConfigError, match=r"operator\.acceleration: 4\.0 there, 8\.0 now"):
        evaluation.evaluate(config, tmp_path, "cpu")


def change(config, **fields):
    for name, value in fields.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operator__mask": "spiral"}, "expected a mask among gaussian1d, .*; got 'spiral'"),
        (
            {"operator__name": "pet"},
            "unknown operator 'pet'; known: ct, fan_ct, mri, multicoil_mri, nufft, super",
        ),
        ({"operator__acceleration": 0.5}, "expected acceleration >= 1"),
        ({"operator__center_fraction": 0.9}, "lower center_fraction or acceleration"),
        ({"sampler__name": "magic"}, "unknown sampler 'magic'; known: annealed_langevin, .*fbp"),
        ({"sampler__likelihood": "gaussian"}, "predictor_corrector has no sampler.likelihood; it"),
        (
            {"sampler__name": "annealed_langevin", "sampler__sigma_y": 0.1},
            "annealed_langevin uses sampler.sigma_y with sampler.likelihood=gaussian only",
        ),
        (
            {"sampler__name": "dds", "sampler__sigma_y": float("inf")},
            "expected sampler.sigma_y of 0 or more, got inf",
        ),
        (
            {"sampler__name": "pnp", "sampler__num_samples": 2},
            "num_samples of 1 for pnp, a point estimate, got 2; samples differ with .*, dds, ",
        ),
        (
            {"sampler__name": "zero_filled", "sampler__num_samples": 2},
            "num_samples of 1 for zero_filled, a point estimate, got 2",
        ),
        ({"data__name": "imagenet"}, "unknown data set 'imagenet'; known: .*fastmri"),
        ({"data__subset": "liver"}, "unknown subset 'liver' of the samples; known: brain"),
        ({"data__split": "dev"}, "unknown split 'dev'; known: train, val, test"),
        ({"protocol": "mine"}, "expected protocol to be one of"),
        ({"precision": "int8"}, "expected precision in"),
        ({"batch_size": -1}, "expected batch_size of at least 0, got -1"),
    ],
)
def test_bad_configs_are_errors_before_any_result(prior, tmp_path, fields, message):
    config = change(small_config(prior), **fields)
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(config, tmp_path / "results", "cpu")
    assert not read_rows(tmp_path / "results")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operator__name": "nufft", "sampler__name": "zero_filled"}, "k-space on a grid for zero"),
        ({"operator__name": "mri", "sampler__name": "gridded"}, "a trajectory for gridded"),
        ({"operator__name": "multicoil_mri", "sampler__name": "fbp"}, "a CT operator for fbp"),
        (
            {"operator__name": "nufft", "sampler__name": "pnp", "sampler__num_steps": 2},
            "num_steps of at least 3, got 2; the first finds start_sigma",
        ),
    ],
)
def test_what_an_operator_does_not_have_is_found_before_a_measurement(prior, fields, message):
    config = change(small_config(prior), **fields)
    with pytest.raises(ValueError, match=message):
        methods.create_reconstructor(config, "cpu")


def test_missing_priors_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"no prior given; set --config\.prior"):
        evaluation.evaluate(small_config(), tmp_path, "cpu")
    with pytest.raises(FileNotFoundError, match="nowhere: expected a checkpoint file"):
        evaluation.evaluate(small_config("nowhere"), tmp_path, "cpu")


def test_non_finite_measurements_name_the_slice():
    y = torch.ones(2, 1, 4, 4, dtype=torch.complex64)
    y[1, 0, 0, 0] = complex("nan")
    with pytest.raises(ValueError, match=r"the measurement of b\.h5:3$"):
        slices.check_finite(y, ("a.h5:1", "b.h5:3"))


def test_a_failing_slice_is_named_and_the_others_are_kept(prior, tmp_path, monkeypatch):
    score, sde = methods.load_prior(prior, "cpu")

    def poisoned(*_, **__):
        calls = [0]

        def nan_in_the_second(x, sigma):
            calls[0] += 1
            s = score(x, sigma).clone()
            if calls[0] == 2:
                s[1] = torch.nan
            return s

        return nan_in_the_second, sde

    monkeypatch.setattr(methods, "load_prior", poisoned)
    config = small_config(prior)
    config.batch_size = config.limit = 6
    keys = create_dataset(config.data, config.data.split).keys[:6]
    with pytest.raises(
        evaluation.FailedSlicesError, match=rf"1 slices failed(.|\n)*{keys[1]}: not finite at step"
    ):
        evaluation.evaluate(config, tmp_path, "cpu")
    assert [row["key"] for row in read_rows(tmp_path)] == [keys[0], *keys[2:]]
    assert len(recon_of(tmp_path)) == 5


def test_study_protocol_changes_the_result(prior, tmp_path):
    config = small_config(prior)
    config.limit = 1
    evaluation.evaluate(config, tmp_path / "correct", "cpu")
    config.protocol = "study"
    evaluation.evaluate(config, tmp_path / "study", "cpu")
    infos = [json.loads((tmp_path / n / "info.json").read_text()) for n in ("correct", "study")]
    # drawn with replacement, fewer lines than asked for
    assert infos[0]["effective_acceleration"] != infos[1]["effective_acceleration"]
    assert rows_of(tmp_path / "correct") != rows_of(tmp_path / "study")


@pytest.mark.parametrize("protocol", ["correct", "study"])
def test_ct_with_a_warm_start(prior, tmp_path, protocol):
    config = small_config(prior, start_level=2)
    config = change(config, operator__name="ct", data__subset="ct", protocol=protocol)
    config.limit = 2
    evaluation.evaluate(config, tmp_path, "cpu")
    assert [row["nfe"] for row in read_rows(tmp_path)] == ["4", "4"]
    assert "ct 30 views of 180°" in make_table([tmp_path], "markdown")


def hand_made(folder, name, values):
    results = Results(folder, json.dumps(small_config(name=name).to_dict()))
    results.write_info({"effective_acceleration": 4.0})
    for i, value in enumerate(values):
        row = {"psnr": value, "ssim": 0.5, "nmse": 0.25, "seconds": 2.0, "nfe": 6}
        results.add(f"file.h5:{i}", np.zeros((2, 2), np.float32), row)
    return folder


def test_tables_by_hand(tmp_path):
    folders = [
        hand_made(tmp_path / "a", "zero_filled", [20.0, 22.0]),
        hand_made(tmp_path / "b", "predictor_corrector", [30.0]),
    ]
    lines = make_table(folders, "markdown").splitlines()
    assert len(lines) == 4
    start = "| samples | mri gaussian1d | 4x (effective 4.00x) |"
    assert lines[2] == (
        f"{start} zero_filled | 6 | 2 | 21.00 ± 1.41 | 0.5000 ± 0.0000 | 0.2500 ± 0.0000 | 2.00 |"
    )
    assert lines[3] == f"{start} predictor_corrector | 6 | 1 | 30.00 | 0.5000 | 0.2500 | 2.00 |"
    latex = make_table(folders, "latex")
    assert r"zero\_filled & 6 & 2 & 21.00 $\pm$ 1.41" in latex
    assert latex.count(r"\\") == 3
    table = list(csv.DictReader(make_table(folders, "csv").splitlines()))
    assert float(table[0]["psnr_mean"]) == 21.0
    assert float(table[0]["psnr_std"]) == pytest.approx(2**0.5)
    with pytest.raises(ValueError, match="expected a results folder"):
        make_table([tmp_path], "markdown")
