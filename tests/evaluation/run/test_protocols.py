"""What a protocol changes in an evaluation, and that given values go first."""

import json
import math

import numpy as np
import pytest
import torch

from configs import load_config
from evaluation import evaluate as evaluation
from evaluation import tables
from evaluation.metrics import all_metrics
from evaluation.results.folder import read_rows
from evaluation.results.recon_file import open_reconstructions
from evaluation.run import posterior_samples, protocols
from evaluation.run.protocols import (
    has_one_seed,
    is_averaged,
    is_clamped,
    is_stretched,
    protocol_of,
    study_step,
    with_protocol,
)
from evaluation.run.slices import stretched
from models import checkpoint
from samplers import SAMPLERS
from tests.helpers.tiny_prior import write_prior

pytestmark = pytest.mark.usefixtures("one_thread")


def config_of(**fields):
    config = load_config("configs/evaluate.py")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


@pytest.mark.parametrize(
    ("operator", "views", "end", "expected"),
    [
        ("mri", 30, None, 1.5),
        ("ct", 20, None, 1.27),
        ("ct", 30, 180.0, 1.91),
        ("ct", 60, None, 1.91),
        ("ct", 90, 90.0, 5.7),
        ("fan_ct", 60, None, 2.0),
        ("fan_ct", 60, 360.0, 2.0),
    ],
)
def test_zeta_of_2026_in_units_free_of_scale(operator, views, end, expected):
    config = config_of(operator__name=operator, operator__num_views=views, operator__end_angle=end)
    assert study_step(config.operator) == pytest.approx(expected, rel=0.01)
    config.protocol = "study2026"
    assert with_protocol(config, "dps", {})["step"] == study_step(config.operator)
    assert with_protocol(config, "dps", {"step": 0.3})["step"] == 0.3
    config.protocol = "study"
    assert with_protocol(config, "dps", {}) == {}


def test_pc_of_each_protocol():
    found = {
        (protocol, operator): with_protocol(
            config_of(protocol=protocol, operator__name=operator), "predictor_corrector", {}
        )
        for protocol in protocols.PROTOCOLS
        for operator in ("mri", "ct", "fan_ct")
    }
    assert found["correct", "mri"] == found["correct", "ct"] == {}
    assert found["study", "mri"]["final"] == "study"
    assert found["study", "ct"]["start"] == "residual"
    for operator, weight in (("mri", 2.0), ("ct", 1.0), ("fan_ct", 2.0)):
        ours = found["study2026", operator]
        assert (ours["weight"], ours["start"], ours["final"]) == (weight, "noise", "mean")


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_switches_of_each_protocol(protocol):
    edition, config = protocol == "study2026", config_of(protocol=protocol)
    assert is_averaged(config) != edition
    assert is_clamped(config) == edition
    assert not has_one_seed(config)
    for name, seed, stretch, clamp in (
        ("dps", edition, False, edition),
        ("unet", False, edition, False),
        ("tv", False, False, False),
    ):
        config.sampler.name = name
        found = has_one_seed(config), is_stretched(config), is_clamped(config)
        assert found == (seed, stretch, clamp)
    config.sampler.name, config.depth = "dps", 2
    assert not is_clamped(config)  # nested networks are not
    config.clamp, config.averaged = not edition, edition  # given: goes first
    config.sampler.name = "tv"
    assert is_clamped(config) == (not edition)
    assert is_averaged(config) == edition
    assert protocol_of(config).nmse == protocol_of(config).operators == (protocol != "correct")


def test_keywords_of_a_protocol_are_keywords():
    for protocol in protocols.PROTOCOLS.values():
        for table in (protocol.samplers, protocol.of_parallel_beams):
            for name, keywords in table.items():
                assert keywords.keys() <= SAMPLERS[name].__wrapped__.__kwdefaults__.keys()


def test_an_unknown_protocol_names_the_known_ones():
    with pytest.raises(ValueError, match=r"\('correct', 'study', 'study2026'\), got 'mine'"):
        protocol_of(config_of(protocol="mine"))


def small(prior, sampler="dps", **fields):
    return config_of(
        prior=str(prior),
        data__image_size=16,
        limit=2,
        panels=0,
        sampler__name=sampler,
        sampler__num_steps=4,
        **fields,
    )


@pytest.fixture
def prior(tmp_path):
    """A prior whose raw and averaged weights differ."""
    path = write_prior(tmp_path / "prior.pt")
    payload = checkpoint.load(path)
    payload["ema"] = {n: w if "frequencies" in n else 0.5 * w for n, w in payload["model"].items()}
    payload.pop("format")
    checkpoint.save(path, payload)
    return path


def test_an_evaluation_by_the_protocol_of_2026(prior, tmp_path):
    config = small(prior, protocol="study2026")
    evaluation.evaluate(config, tmp_path / "a", "cpu")
    rows = read_rows(tmp_path / "a")
    assert len(rows) == 2
    with open_reconstructions(tmp_path / "a") as images:
        found = {row["key"]: images[row["key"]][()] for row in rows}
    for image in found.values():
        assert (image.min(), image.max()) == (0, 1)  # random weights: clamped on both sides
    assert "dps (prior.pt, study2026)" in tables.make_table([tmp_path / "a"], "markdown")
    config.clamp = False
    evaluation.evaluate(config, tmp_path / "b", "cpu")
    with open_reconstructions(tmp_path / "b") as images:
        for key, image in found.items():
            np.testing.assert_array_equal(images[key][()].clip(0, 1), image)
            assert images[key][()].max() > 1
    config.averaged = True
    evaluation.evaluate(config, tmp_path / "c", "cpu")
    assert [r["psnr"] for r in read_rows(tmp_path / "b")] != [
        r["psnr"] for r in read_rows(tmp_path / "c")
    ]


def test_the_noise_of_dps_is_the_same_for_all_slices(prior, tmp_path, monkeypatch):
    seeds = []
    original = posterior_samples.BatchGenerator

    def watched(given, keys):
        seeds.append(list(given))
        return original(given, keys)

    monkeypatch.setattr(posterior_samples, "BatchGenerator", watched)
    for protocol in ("study2026", "correct"):
        evaluation.evaluate(small(prior, protocol=protocol), tmp_path / protocol, "cpu")
    assert seeds[0] == [42, 42]
    assert len(set(seeds[1])) == 2


def test_stretched_images_have_their_extremes_at_0_and_1():
    image = np.array([[0.2, 0.4], [0.3, 0.6]])
    np.testing.assert_allclose(stretched(image), [[0, 0.5], [0.25, 1]])
    np.testing.assert_array_equal(stretched(np.full((2, 2), 3.0)), np.zeros((2, 2)))
    target = np.linspace(0.1, 0.9, 64).reshape(8, 8)
    both = all_metrics(stretched(target), stretched(0.5 * target + 1e-9 * target**2))
    assert both["psnr"] > 100  # a wrong scale is forgiven
    assert all_metrics(target, 0.5 * target)["psnr"] < 20


def test_tv_of_2026_starts_from_the_back_projection(monkeypatch):
    from evaluation.baselines import BASELINES
    from operators import ParallelBeamCT

    operator = ParallelBeamCT(16, [0.0, 30.0, 60.0, 90.0])
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = operator.forward(x)
    options = {"num_iterations": 1, "weight": 1e-9}
    first = operator.correct(torch.zeros_like(x), y)
    ours = BASELINES["tv"](operator, y, start="back_projection", **options)
    other = BASELINES["tv"](operator, y, **options)
    assert (ours - first).norm() < (other - first).norm()
    with pytest.raises(ValueError, match=r"start to be one of \('direct', 'back_projection'\)"):
        BASELINES["tv"](operator, y, start="zero", **options)


def test_the_depth_of_a_nested_prior(tmp_path):
    from models import create_model

    config = load_config("configs/demo.py:structured")
    config.model.update(nf=4, num_levels=2)
    torch.manual_seed(0)
    net = create_model(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    state = {"ema": net.state_dict(), "config": config.to_dict(), "step": 10**9}
    checkpoint.save(tmp_path / "nested.pt", state)
    found = {}
    for depth in (None, 1, 2):
        out = tmp_path / str(depth)
        evaluation.evaluate(small(tmp_path / "nested.pt", depth=depth), out, "cpu")
        found[depth] = [row["psnr"] for row in read_rows(out)]
    assert found[None] == found[2] != found[1]
    assert json.loads((tmp_path / "1" / "config.json").read_text())["depth"] == 1
    assert "depth 1" in tables.make_table([tmp_path / "1"], "markdown")
    assert math.isfinite(float(found[1][0]))
