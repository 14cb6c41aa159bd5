"""What training shows while it goes on: TensorBoard's groups, samples, reconstructions."""

import csv
import math
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import configs
import train as module
from datasets import DataError
from evaluation.run import held_out
from evaluation.run.keywords import starts_warm
from evaluation.run.posterior_samples import sample_source
from models.training_log import TAGS, TrainingLog
from operators.fourier import fft2c
from samplers import NonFiniteError
from sde import VESDE
from tests.test_train import assert_same_state, copy, last_state, rows, run
from train import REQUEUE, train

pytestmark = pytest.mark.usefixtures("one_thread")

WATCHED = {
    "validate_every": 2,
    "validation_images": 2,
    "validation_bins": 2,
    "sample_every": 2,
    "sample_images": 2,
    "sample_steps": 3,
    "reconstruct_every": 2,
    "reconstruct_images": 2,
    "reconstruct_steps": 4,
    "reconstruct_from": "mri,ct",
}


@pytest.fixture
def watched(tiny_config):
    return copy(tiny_config, **WATCHED)


def board(workdir: Path) -> EventAccumulator:
    found = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"images": 0})
    return found.Reload()


def scalars(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's curves, without those of the machine's speed."""
    found = board(workdir)
    return {
        tag: [(e.step, e.value) for e in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
        if not tag.startswith("speed/")
    }


def pictures(workdir: Path) -> dict[str, list[tuple[int, bytes]]]:
    found = board(workdir)
    return {
        tag: [(e.step, e.encoded_image_string) for e in found.Images(tag)]
        for tag in found.Tags()["images"]
    }


def test_tensorboard_has_groups(watched, tmp_path):
    train(watched, tmp_path, "cpu")
    found = board(tmp_path)
    curves = set(found.Tags()["scalars"])
    assert set(TAGS.values()) <= curves
    groups = {tag.partition("/")[0] for tag in curves}
    assert groups == {"loss", "optim", "speed", "validation", "reconstruction"}
    methods = {"mri": ("zero_filled", "tv", "prior"), "ct": ("fbp", "tv", "prior")}
    expected = {f"reconstruction/{n}_psnr_{m}" for n in methods for m in methods[n]}
    assert {tag for tag in curves if tag.startswith("reconstruction/")} == expected
    assert set(pictures(tmp_path)) == {
        "samples/prior", "reconstruction/mri", "reconstruction/ct"
    }  # fmt: skip
    log = rows(tmp_path)
    assert [e.value for e in found.Scalars("loss/train")] == pytest.approx(
        [float(row["loss"]) for row in log], rel=1e-6
    )
    validation = rows(tmp_path, "validation.csv")
    means = [
        np.mean([float(r["loss_per_pixel"]) for r in validation if r["step"] == s]) for s in "24"
    ]
    shown = [e.value for e in found.Scalars("loss/validation_per_pixel")]
    assert shown == pytest.approx(means, rel=1e-6)


def test_pictures_and_rows_of_reconstructions(watched, tmp_path):
    train(watched, tmp_path, "cpu")
    found = rows(tmp_path, "reconstructions.csv")
    kinds = {(r["step"], r["measurement"], r["image"], r["method"]) for r in found}
    assert len(kinds) == len(found) == 2 * 2 * 2 * 3  # steps, measurements, images, methods
    shown = dict(scalars(tmp_path)["reconstruction/mri_psnr_prior"])
    for step in (2, 4):
        own = [
            float(r["psnr"])
            for r in found
            if (r["step"], r["measurement"], r["method"]) == (str(step), "mri", "prior")
        ]
        assert shown[step] == pytest.approx(np.mean(own), rel=1e-6)
    path = tmp_path / "reconstructions" / "mri_step_00000004.png"
    with Image.open(path) as picture:
        assert picture.size == (2 * 16 + 2, 4 * 16 + 3 * 2)
    assert pictures(tmp_path)["reconstruction/mri"][-1][0] == 4


def test_watching_does_not_change_the_training(watched, tiny_config, tmp_path):
    plain = copy(tiny_config)
    plain.model.dropout = watched.model.dropout = 0.1  # from the global generator
    for config, name in ((watched, "watched"), (plain, "plain")):
        train(config, tmp_path / name, "cpu")
    assert_same_state(last_state(tmp_path / "watched"), last_state(tmp_path / "plain"))
    assert rows(tmp_path / "watched") == rows(tmp_path / "plain")
    assert not (tmp_path / "plain" / "reconstructions.csv").exists()


def test_an_interrupted_run_shows_what_an_uninterrupted_one_does(watched, tmp_path):
    config = copy(watched, num_steps=6)
    train(config, tmp_path / "whole", "cpu")
    calls = iter([False, True])
    with pytest.raises(SystemExit) as stop:
        train(config, tmp_path / "parts", "cpu", interrupted=lambda: next(calls))
    assert stop.value.code == REQUEUE
    assert list(dict(scalars(tmp_path / "parts")["loss/train"])) == [1, 2]  # nothing is lost
    calls = iter([False, False, True])  # steps 3 to 5, none of which is saved
    unsaved = copy(config, checkpoint_every=100)
    with pytest.raises(RuntimeError, match="a crash"):
        train(unsaved, tmp_path / "parts", "cpu", interrupted=lambda: next(calls) and crash())
    assert rows(tmp_path / "parts", "reconstructions.csv")[-1]["step"] == "4"
    train(config, tmp_path / "parts", "cpu")
    assert scalars(tmp_path / "parts") == scalars(tmp_path / "whole")
    assert pictures(tmp_path / "parts") == pictures(tmp_path / "whole")
    files = [(tmp_path / name / "reconstructions.csv").read_text() for name in ("parts", "whole")]
    assert files[0] == files[1]
    assert files[0].count("\n") == 1 + 3 * 2 * 2 * 3  # steps, measurements, images, methods
    assert not list((tmp_path / "parts").glob("*.damaged"))


def crash() -> bool:
    raise RuntimeError("a crash")


def test_of_several_processes_the_first_one_shows(tmp_path):
    fields = [f"--config.training.{name}={value}" for name, value in WATCHED.items()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}")
    fields += ["--config.training.num_steps=4", "--config.training.batch_size=2"]
    fields += ["--config.data.crop=16"]
    both = run(tmp_path / "two", *fields, launcher=launcher)
    assert both.returncode == 0, both.stderr
    assert len(list((tmp_path / "two" / "tensorboard").glob("events*"))) == 1
    one = run(tmp_path / "one", *fields)
    assert one.returncode == 0, one.stderr
    found = [rows(tmp_path / name, "reconstructions.csv") for name in ("two", "one")]
    assert len(found[0]) == len(found[1]) == 2 * 2 * 2 * 3
    for ours, expected in zip(*found, strict=True):
        assert float(ours["psnr"]) == pytest.approx(float(expected["psnr"]), abs=0.01)


def test_the_measurement_and_its_baselines():
    side = 32
    y, x = np.mgrid[:side, :side] - side / 2
    disc = torch.tensor(0.8 * (np.hypot(x, 1.3 * y) < 11) + 0.2 * (np.hypot(x, y) < 4))
    images = torch.stack([disc, disc.T])[:, None].float()
    mri, ct = held_out.measure(images, ["mri", "ct"], seed=3, device="cpu")
    full = fft2c(images.to(torch.complex64))
    torch.testing.assert_close(mri.y, torch.where(mri.y == 0, 0, full))
    measured = (mri.y != 0).float().mean((1, 2, 3))
    assert measured.tolist() == pytest.approx([0.25, 0.25], abs=0.02)
    assert ct.y.shape[2] == 30
    for one, direct in ((mri, "zero_filled"), (ct, "fbp")):
        held_out.add_tv(one)
        held_out.add_tv(one)
        off = 0.01 * torch.ones_like(images)
        found = held_out.rows(one, images + off, step=7)
        psnr = {(r["method"], r["image"]): r["psnr"] for r in found}
        assert psnr["prior", 1] == pytest.approx(40, abs=1e-3)  # 20 log10(1 / 0.01)
        for number in (0, 1):  # piecewise constant: TV's own image
            assert psnr["tv", number] > psnr[direct, number] + 10
        assert held_out.picture(one, images).shape == (2 * 4, 1, side, side)


def as_evaluated(measured, score):
    """What `evaluation.evaluate` makes of the same measurement."""
    options = {}
    draw, failures = sample_source(
        "pnp",
        score,
        VESDE(0.01, 5.0),
        measured.operator,
        measured.y,
        num_steps=20,
        num_samples=1,
        seed=0,
        keys=[str(i) for i in range(len(measured.y))],
        initial=measured.operator.direct(measured.y) if starts_warm("pnp", options) else None,
        options=options,
    )
    assert not failures
    return draw(0)


def test_a_good_prior_reconstructs_better_than_none():
    """Images of one constant and little noise: the score of that Gaussian is known."""
    rng = torch.Generator().manual_seed(0)
    mean = torch.nn.functional.interpolate(torch.rand(1, 1, 4, 4, generator=rng), scale_factor=8)
    images = mean + 0.05 * torch.randn(2, 1, 32, 32, generator=rng)

    def score(x, sigma):
        return (mean - x) / (0.05**2 + sigma[:, None, None, None] ** 2)

    for one in held_out.measure(images, ["mri", "ct"], seed=1, device="cpu"):
        found = held_out.reconstruct(one, score, VESDE(0.01, 5.0), num_steps=20)
        assert torch.equal(found, as_evaluated(one, score))
        held_out.add_tv(one)
        psnr = {r["method"]: r["psnr"] for r in held_out.rows(one, found, step=0)}
        # 30 views of so few pixels are nearly all there is to know: TV does without a prior
        others = {"mri": ("zero_filled", "tv"), "ct": ("fbp",)}[one.name]
        assert psnr[held_out.PRIOR] > max(psnr[method] for method in others) + 1
        assert psnr[held_out.PRIOR] > -20 * math.log10(0.05)


def test_a_complex_prior_is_shown_on_kspace(watched, tmp_path):
    config = copy(watched, reconstruct_from="mri", validate_every=0, sample_every=0)
    config.data.phase, config.model.num_channels = 1.0, 2
    train(config, tmp_path, "cpu")
    assert len(rows(tmp_path, "reconstructions.csv")) == 2 * 2 * 3
    config.training.reconstruct_from = "mri,ct"
    with pytest.raises(configs.ConfigError, match=r"reconstruct_from=mri with a data\.phase"):
        train(config, tmp_path / "other", "cpu")


def test_images_of_several_sizes_and_odd_sides():
    sizes = [(1, 17, 24), (1, 24, 17), (1, 17, 24)]
    assert held_out.stack([torch.rand(size) for size in sizes]).shape == (2, 1, 17, 24)
    assert held_out.stack([torch.rand(2, 8, 8)]).is_complex()


def test_a_prior_that_diverges_is_a_warning(watched, tmp_path, monkeypatch):
    def diverge(*_, **__):
        raise NonFiniteError([(0, "0", 3, 1.0)], None)

    monkeypatch.setattr(held_out, "reconstruct", diverge)
    with pytest.warns(UserWarning, match="no reconstructions at step 4"):
        train(watched, tmp_path, "cpu")
    assert rows(tmp_path, "reconstructions.csv") == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reconstruct_from": "mri,pet"}, "expected measurements out of mri, ct, got 'mri,pet'"),
        ({"reconstruct_steps": 2}, "expected training.reconstruct_steps of at least 3, got 2"),
        ({"reconstruct_images": 0}, "expected training.reconstruct_images of at least 1, got 0"),
    ],
)
def test_wrong_fields_are_errors_before_training(watched, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        train(copy(watched, **fields), tmp_path, "cpu")
    assert not any(tmp_path.iterdir())


def test_missing_held_out_images_say_what_to_set(watched, tmp_path, monkeypatch):
    def prepare(data, split, **options):
        if split == "val":
            raise DataError("no val")
        return real(data, split, **options)

    real = module.prepare_dataset
    monkeypatch.setattr(module, "prepare_dataset", prepare)
    config = copy(watched, validate_every=0)
    with pytest.raises(DataError, match=r"no val \(set training\.reconstruct_every=0 to train"):
        train(config, tmp_path, "cpu")


def test_the_log_of_a_run_without_reconstructions_stays_as_it_was(tmp_path):
    TrainingLog(tmp_path, 0, 10, {}).close()
    assert {p.name for p in tmp_path.glob("*.csv")} == {"log.csv", "validation.csv"}
    TrainingLog(tmp_path, 0, 10, {}, reconstructs=True).close()
    with (tmp_path / "reconstructions.csv").open(newline="") as file:
        assert next(csv.reader(file))[0] == "step"
