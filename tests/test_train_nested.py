"""train.py with nested networks: one depth a step, validation of each, exact resume."""

import csv

import pytest
import torch

import train as module
from configs import load_config
from models import checkpoint
from models.nested import depth_of_step
from operators.batch import derive_seed
from sde import VESDE, score_matching_loss, validation_loss
from train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config():
    found = load_config("configs/demo.py:structured")
    found.model.update(nf=4, num_levels=3)
    found.data.update(crop=8, num_workers=0)
    found.training.update(
        batch_size=2,
        num_steps=6,
        log_every=2,
        checkpoint_every=3,
        sample_every=0,
        validate_every=6,
        validation_images=1,
        validation_bins=2,
        compile="off",
    )
    return found


def last(workdir):
    return checkpoint.load(checkpoint.find_latest(workdir / "checkpoints"))


def test_every_step_trains_one_depth_of_the_seed(config, tmp_path, monkeypatch):
    seen = []

    def watched(*args, depth):
        seen.append(depth)
        return score_matching_loss(*args, depth=depth)

    monkeypatch.setattr(module, "score_matching_loss", watched)
    train(config, tmp_path, "cpu")
    expected = [depth_of_step(derive_seed(config.seed, "depth", k), 3) for k in range(6)]
    assert seen == expected
    assert len(set(seen)) > 1


def test_a_continued_run_equals_an_uninterrupted_one(config, tmp_path):
    train(config, tmp_path / "whole", "cpu")
    config.training.num_steps = 3
    train(config, tmp_path / "parts", "cpu")
    config.training.num_steps = 6
    train(config, tmp_path / "parts", "cpu")
    whole, parts = (last(tmp_path / name) for name in ("whole", "parts"))
    for kind in ("model", "ema"):
        assert all(torch.equal(whole[kind][n], parts[kind][n]) for n in whole[kind])
    for name in ("validation.csv", "validation_depth_1.csv", "validation_depth_2.csv"):
        rows = list(csv.DictReader((tmp_path / "whole" / name).open()))
        assert [row["step"] for row in rows] == ["6", "6"]
    losses = {(tmp_path / "whole" / f"validation{d}.csv").read_text() for d in ("", "_depth_1")}
    assert len(losses) == 2


def test_the_edition_of_2026_forgets_optimiser_and_average(config, tmp_path):
    config.training.validate_every = 0
    config.training.num_steps = 3
    found = {}
    for protocol in ("correct", "study2026"):
        config.protocol = protocol
        train(config, tmp_path / protocol, "cpu")
        before = last(tmp_path / protocol)
        config.training.num_steps = 4
        train(config, tmp_path / protocol, "cpu")
        config.training.num_steps = 3
        found[protocol] = before, last(tmp_path / protocol)
    before, after = found["study2026"]
    assert after["ema_updates"] == 2  # the copy at the start, one update
    assert found["correct"][1]["ema_updates"] == before["ema_updates"] + 1
    moments = {p: found[p][1]["optimizer"]["state"] for p in found}
    assert max(int(s["step"]) for s in moments["study2026"].values()) == 1
    assert max(int(s["step"]) for s in moments["correct"].values()) > 1


def test_priors_of_each_depth(config, tmp_path):
    train(config, tmp_path, "cpu")
    net = module.create_network(config).eval()
    checkpoint.load_weights(net, last(tmp_path)["ema"], "")
    x, sigma = torch.rand(1, 1, 8, 8), torch.tensor([0.5])
    for depth in (1, 2, 3, None):
        score, _ = checkpoint.load_prior(tmp_path, "cpu", depth=depth)
        torch.testing.assert_close(score(x, sigma), net(x, sigma, depth))
    raw = module.create_network(config).eval()
    checkpoint.load_weights(raw, last(tmp_path)["model"], "")
    score, _ = checkpoint.load_prior(tmp_path, "cpu", averaged=False)
    torch.testing.assert_close(score(x, sigma), raw(x, sigma))
    assert not torch.equal(score(x, sigma), net(x, sigma))
    with pytest.raises(ValueError, match=r"a depth in 1 \.\.\. 3, got 4"):
        checkpoint.load_prior(tmp_path, "cpu", depth=4)
    checkpoint.export(tmp_path, tmp_path / "exported.pt")
    with pytest.raises(checkpoint.CheckpointError, match=r"raw weights as well .* averaged ones"):
        checkpoint.load_prior(tmp_path / "exported.pt", "cpu", averaged=False)


def test_the_loss_is_of_the_depth():
    def net(x, sigma, depth=3):
        return depth * x

    x, sigma, z = torch.rand(2, 1, 4, 4), torch.tensor([0.5, 2.0]), torch.randn(2, 1, 4, 4)
    for depth in (1, 2):
        expected = score_matching_loss(lambda x, s, d=depth: d * x, x, sigma, z)
        assert torch.equal(score_matching_loss(net, x, sigma, z, depth=depth), expected)
    assert torch.equal(
        score_matching_loss(net, x, sigma, z), score_matching_loss(net, x, sigma, z, depth=3)
    )
    layer = torch.nn.Conv2d(1, 1, 1)

    class Nested(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, sigma, depth=2):
            return depth * self.layer(x)

    losses = [
        validation_loss(Nested(), [x[0]], VESDE(0.01, 5.0), seed=0, bins=2, depth=depth).tolist()
        for depth in (None, 1, 2)
    ]
    assert losses[0] == losses[2] != losses[1]
