"""The U-Net baseline: network, published weights, training."""

import csv
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from configs import ConfigError, load_config
from evaluation.baselines import direct
from evaluation.baselines.unet import (
    compare_measurements,
    load_unet,
    normalise,
    unet,
)
from evaluation.train_unet import REQUEUE, train_unet
from models import checkpoint
from models.checkpoint import CheckpointError
from models.unet import UNet, unet_from_state_dict
from operators import ParallelBeamCT, SingleCoilMRI
from operators.masks import make_mask
from tests.conftest import PATIENCE, ROOT

# names and shapes of the published weights, for 4 channels and 2 poolings
PUBLISHED = {
    "down_sample_layers.0.layers.0.weight": (4, 1, 3, 3),
    "down_sample_layers.0.layers.4.weight": (4, 4, 3, 3),
    "down_sample_layers.1.layers.0.weight": (8, 4, 3, 3),
    "down_sample_layers.1.layers.4.weight": (8, 8, 3, 3),
    "conv.layers.0.weight": (16, 8, 3, 3),
    "conv.layers.4.weight": (16, 16, 3, 3),
    "up_conv.0.layers.0.weight": (8, 16, 3, 3),
    "up_conv.0.layers.4.weight": (8, 8, 3, 3),
    "up_conv.1.0.layers.0.weight": (4, 8, 3, 3),
    "up_conv.1.0.layers.4.weight": (4, 4, 3, 3),
    "up_conv.1.1.weight": (1, 4, 1, 1),
    "up_conv.1.1.bias": (1,),
    "up_transpose_conv.0.layers.0.weight": (16, 8, 2, 2),
    "up_transpose_conv.1.layers.0.weight": (8, 4, 2, 2),
}


def published(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: 0.3 * torch.randn(shape, generator=generator) for n, shape in PUBLISHED.items()}


def by_hand(state: dict, x: torch.Tensor) -> torch.Tensor:
    """The network written out for two poolings."""

    def active(x):
        return F.leaky_relu(F.instance_norm(x), 0.2)

    def block(x, name):
        for i in (0, 4):
            x = active(F.conv2d(x, state[f"{name}.layers.{i}.weight"], padding=1))
        return x

    def up(x, name, skip):
        x = active(F.conv_transpose2d(x, state[f"{name}.layers.0.weight"], stride=2))
        bottom, right = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
        x = F.pad(x, (0, right, 0, bottom), mode="reflect") if bottom or right else x
        return torch.cat([x, skip], 1)

    a = block(x, "down_sample_layers.0")
    b = block(F.avg_pool2d(a, 2), "down_sample_layers.1")
    c = block(F.avg_pool2d(b, 2), "conv")
    b = block(up(c, "up_transpose_conv.0", b), "up_conv.0")
    a = block(up(b, "up_transpose_conv.1", a), "up_conv.1.0")
    return F.conv2d(a, state["up_conv.1.1.weight"], state["up_conv.1.1.bias"])


# ---- the network


def test_names_and_shapes_are_the_published_ones():
    net = UNet(chans=4, num_pool_layers=2)
    assert {name: tuple(t.shape) for name, t in net.state_dict().items()} == PUBLISHED
    # Zbontar et al. (2018), section 5.2: 7.76 million parameters with 32 channels
    size = sum(p.numel() for p in UNet(chans=32, num_pool_layers=4).parameters())
    assert size == pytest.approx(7.76e6, rel=1e-3)


@pytest.mark.parametrize("shape", [(16, 16), (13, 18), (11, 15)])
def test_forward_against_the_network_written_out(shape):
    state = published()
    net = unet_from_state_dict(state)
    x = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net(x), by_hand(state, x), rtol=1e-4, atol=1e-4)


def test_images_too_small_are_errors():
    net = UNet(chans=2, num_pool_layers=2)
    with pytest.raises(ValueError, match="expected sides of at least 8 pixels, got"):
        net(torch.zeros(1, 1, 7, 16))
    with pytest.raises(ValueError, match="expected chans and num_pool_layers of at least 1"):
        UNet(chans=0, num_pool_layers=2)


# ---- checkpoints


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": {f"unet.{n}": t for n, t in s.items()}, "epoch": 3},
        lambda s: {"state_dict": {"NMSE.total": torch.zeros(1)} | {f"unet.{n}": s[n] for n in s}},
        lambda s: {"classy_state_dict": {"base_model": {"model": {"trunk": s}}}},
        lambda s: {"model": {f"module.{n}": t for n, t in s.items()}},
    ],
    ids=["plain", "lightning", "lightning with metrics", "classy", "parallel"],
)
def test_published_weights_in_any_wrapping(tmp_path, wrap):
    state = published()
    torch.save(wrap(state), tmp_path / "unet.pt")
    net, trained_for = load_unet(tmp_path / "unet.pt")
    assert trained_for == {}
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())


def without(name):
    return lambda s: {n: t for n, t in s.items() if n != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("up_conv.1.1.bias"), r"up_conv\.1\.1\.bias: expected \(1,\), got nothing"),
        (lambda s: s | {"extra": torch.zeros(2)}, r"extra: expected nothing, got \(2,\)"),
        (
            lambda s: s | {"conv.layers.4.weight": torch.zeros(16, 8, 3, 3)},
            r"conv\.layers\.4\.weight: expected \(16, 16, 3, 3\), got \(16, 8, 3, 3\)",
        ),
        (
            lambda s: s | {"down_sample_layers.0.layers.0.weight": torch.zeros(4, 2, 3, 3)},
            r"down_sample_layers\.0\.layers\.0\.weight: expected \(4, 1, 3, 3\), got \(4, 2",
        ),
        (without("conv.layers.0.weight"), "expected the weights of one U-Net .* found 0 among 13"),
        (lambda s: {"a": s, "b": s}, "found 2 among 28 tensors"),
        (lambda s: [1], "expected a state dict, got list"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    torch.save(change(published()), tmp_path / "unet.pt")
    with pytest.raises(CheckpointError, match=message):
        load_unet(tmp_path / "unet.pt")


def test_pickled_objects_are_refused(tmp_path):
    torch.save({"model": UNet(chans=2, num_pool_layers=1)}, tmp_path / "unet.pt")
    with pytest.raises(CheckpointError, match="pickled objects, which are refused"):
        load_unet(tmp_path / "unet.pt")
    with pytest.raises(FileNotFoundError, match="no such U-Net checkpoint"):
        load_unet(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match=r"expected a training run with checkpoints/step"):
        load_unet(tmp_path)


# ---- the baseline


def test_normalisation_by_hand():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 40, 40, generator=generator)
    x[1] = x[1] * 7 - 3
    x[0, 0, 0, 0] = 50.0
    scaled, mean, deviation = normalise(x)
    for b in range(2):
        torch.testing.assert_close(mean[b], x[b].mean())
        torch.testing.assert_close(deviation[b], x[b].std())
        expected = ((x[b] - x[b].mean()) / x[b].std()).clamp(-6, 6)
        torch.testing.assert_close(scaled[b], expected)
    assert scaled[0].max() == 6
    complex_image = x * torch.exp(torch.tensor(0.3j))
    torch.testing.assert_close(normalise(complex_image)[1], x.abs().flatten(1).mean(1))


def test_reconstruction_is_the_network_on_the_scaled_image(tmp_path):
    state = published()
    torch.save(state, tmp_path / "unet.pt")
    operator = SingleCoilMRI(make_mask("gaussian1d", (16, 16), seed=0, acceleration=2,
                                       center_fraction=0.2))  # fmt: skip
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    y = operator.forward(x)
    image = unet(operator, y, checkpoint=str(tmp_path / "unet.pt"))
    for b in range(3):
        one = direct(operator, y[b : b + 1])
        mean, deviation = one.mean(), one.std()
        expected = by_hand(state, (one - mean) / deviation) * deviation + mean
        torch.testing.assert_close(image[b : b + 1], expected, rtol=1e-4, atol=1e-4)
    # the scale of the data does not matter
    twice = unet(operator, 2 * y, checkpoint=str(tmp_path / "unet.pt"))
    torch.testing.assert_close(twice, 2 * image, rtol=1e-4, atol=1e-4)


def test_another_measurement_than_trained_for():
    def mri(acceleration):
        mask = make_mask(
            "gaussian1d", (64, 64), seed=0, acceleration=acceleration, center_fraction=0.1
        )
        return SingleCoilMRI(mask).facts()

    ct = [ParallelBeamCT(8, list(range(n))).facts() for n in (10, 20)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_measurements({}, ct[0], "unet.pt")  # published weights do not say
        compare_measurements(ct[0], ct[0], "unet.pt")
        compare_measurements(mri(4), mri(4), "unet.pt")
    with pytest.raises(ValueError, match="trained for SingleCoilMRI, got ParallelBeamCT"):
        compare_measurements(mri(4), ct[0], "unet.pt")
    with pytest.warns(UserWarning, match="trained for 10 other views than the 20"):
        compare_measurements(ct[0], ct[1], "unet.pt")
    with pytest.warns(UserWarning, match=r"trained with 25\.0% of k-space .* here it is 12\.5%"):
        compare_measurements(mri(4), mri(8), "unet.pt")


# ---- training


@pytest.fixture
def config():
    config = load_config(str(ROOT / "configs" / "unet.py"))
    config.data.image_size, config.data.flip = 32, True
    config.operator.mask_per_slice, config.operator.center_fraction = True, 0.1
    config.model.chans, config.model.num_pool_layers = 4, 2
    config.training.update(num_steps=6, log_every=2, checkpoint_every=2, validate_every=3)
    config.training.batch_size = 2
    return config


def rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_resumed_run_equals_an_uninterrupted_one(config, tmp_path):
    whole = checkpoint.load(train_unet(config, tmp_path / "whole", "cpu"))
    asked = []
    with pytest.raises(SystemExit) as stopped:  # after step 3, between two rows of the log
        train_unet(config, tmp_path / "b", "cpu", lambda: asked.append(0) or len(asked) == 3)
    assert stopped.value.code == REQUEUE
    with (tmp_path / "b" / "log.csv").open("a") as file:
        file.write("5,0.1\n6,")  # written by a run that was killed before its checkpoint
    pieces = checkpoint.load(train_unet(config, tmp_path / "b", "cpu"))
    assert whole["step"] == pieces["step"] == 6
    assert all(torch.equal(whole["model"][n], pieces["model"][n]) for n in whole["model"])
    for name in ("log.csv", "validation.csv"):
        assert rows(tmp_path / "whole" / name) == rows(tmp_path / "b" / name)
    assert [row["step"] for row in rows(tmp_path / "b" / "log.csv")] == ["2", "4", "6"]
    assert [row["step"] for row in rows(tmp_path / "b" / "validation.csv")] == ["3", "6"]


def test_training_lowers_the_loss_and_the_result_is_a_baseline(config, tmp_path):
    config.training.update(num_steps=40, log_every=10, validate_every=0, checkpoint_every=40)
    config.operator.mask_per_slice = False
    train_unet(config, tmp_path, "cpu")
    losses = [float(row["loss"]) for row in rows(tmp_path / "log.csv")]
    assert losses[-1] < 0.85 * losses[0]  # 0.69 of it; 1 without training
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    ct = ParallelBeamCT(32, [0.0, 90.0])
    with pytest.raises(ValueError, match="trained for SingleCoilMRI, got ParallelBeamCT"):
        unet(ct, torch.zeros(1, *ct.range_shape), checkpoint=str(tmp_path))


def test_another_config_in_the_same_folder_is_refused(config, tmp_path):
    train_unet(config, tmp_path, "cpu")
    config.operator.acceleration = 2.0
    with pytest.raises(ConfigError, match=r"operator\.acceleration: 4\.0 there, 2\.0 now"):
        train_unet(config, tmp_path, "cpu")
    config.training.batch_size = 0
    with pytest.raises(ConfigError, match=r"expected training\.batch_size of at least 1, got 0"):
        train_unet(config, tmp_path, "cpu")


def test_a_signal_saves_and_leaves(tmp_path):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "evaluation.train_unet", f"--workdir={tmp_path}"),
            *("--config.data.image_size=32", "--config.operator.center_fraction=0.1"),
            *("--config.model.chans=4", "--config.training.log_every=1"),
            *("--config.training.num_steps=1000000", "--config.training.validate_every=0"),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "log.csv").is_file() or len(rows(tmp_path / "log.csv")) < 3:
        assert time.monotonic() < deadline, "no rows"
        assert process.poll() is None, "left by itself"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == REQUEUE
    latest = checkpoint.find_latest(tmp_path / "checkpoints")
    assert checkpoint.load(latest)["step"] == int(rows(tmp_path / "log.csv")[-1]["step"])
