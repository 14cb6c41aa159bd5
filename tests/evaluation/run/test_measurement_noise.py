"""Noise of measurements in an evaluation: its level, its counts, and what becomes of them."""

import json
import math

import numpy as np
import pytest
import torch

from configs import load_config
from datasets import Sample, collate
from evaluation.evaluate import evaluate
from evaluation.results.cells import describe_measurement
from evaluation.run.measurements import measure, pose
from evaluation.run.methods import create_reconstructor
from evaluation.run.provenance import fingerprint
from evaluation.run.slices import run_slices
from operators import BatchGenerator, ParallelBeamCT, SingleCoilMRI, Whitened
from operators.measurement_noise import MeasurementNoise, count_photons, create_noise
from operators.simulation import refine
from tests.conftest import ROOT
from tests.evaluation.test_evaluate import rows_of
from tests.helpers.tiny_prior import write_prior

CT = {"operator.name": "ct", "operator.num_views": 12}


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return write_prior(tmp_path_factory.mktemp("runs") / "checkpoints" / "step_00000001.pt")


def config_of(**fields):
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.data.image_size = 32
    config.panels, config.limit = 0, 3
    config.sampler.name = "zero_filled"
    for name, value in fields.items():
        section, _, leaf = name.rpartition(".")
        (config[section] if section else config)[leaf] = value
    return config


def batch_of(count=2, *, size=32, is_complex=False) -> Sample:
    rng = np.random.default_rng(0)
    samples = []
    for n in range(count):
        image = torch.from_numpy(rng.random((1, size, size), dtype=np.float32))
        image = torch.polar(image, 2 * image) if is_complex else image
        samples.append(Sample(image, (0.0, 1.0), f"file{n}.h5:{n}", {}))
    return collate(samples)


def test_white_noise_has_its_level_and_is_where_something_is_measured():
    mask = torch.zeros(64, 64)
    mask[:, ::4] = 1
    operator, image = SingleCoilMRI(mask), torch.rand(2, 1, 64, 64)
    clean = operator.forward(image)
    y, std = MeasurementNoise(sigma=0.05).add(operator, clean, BatchGenerator([1, 2]))
    noise = (y - clean)[:, 0]
    assert not noise[:, ~mask.bool()].any()
    for part in (noise.real, noise.imag):
        assert part[:, mask.bool()].std().item() == pytest.approx(0.05, rel=0.05)
    assert std.shape == (2, 1, 1, 1)
    assert std.unique().item() == pytest.approx(0.05)
    other = SingleCoilMRI(torch.ones(64, 64))  # the same noise where both measure
    again, _ = MeasurementNoise(sigma=0.05).add(other, other.forward(image), BatchGenerator([1, 2]))
    torch.testing.assert_close((again * mask), y)


@pytest.mark.parametrize("snr_db", [20.0, 30.0])
def test_the_signal_to_noise_ratio_is_that_of_the_measured_samples(snr_db):
    mri = SingleCoilMRI(torch.tensor(np.arange(96) % 3 == 0).expand(96, 96))
    ct = ParallelBeamCT(64, np.linspace(0, 180, 40, endpoint=False))
    for operator in (mri, ct):
        clean = operator.forward(torch.rand(2, *operator.domain_shape))
        y, std = MeasurementNoise(snr_db=snr_db).add(operator, clean, BatchGenerator([1, 2]))
        norms = [torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (clean, y - clean)]
        ratio = 20 * torch.log10(norms[0] / norms[1])
        torch.testing.assert_close(ratio, torch.full((2,), snr_db), atol=0.2, rtol=0)
        assert len(std.unique()) == 2  # each sample's own


def test_counts_have_the_variance_of_the_logarithm_of_poisson_numbers():
    """Var log N = 1 / mean + electronic^2 / mean^2 to first order; in units of y over nepers^2."""
    photons, nepers = 1e4, 0.02
    lengths = torch.tensor([0.0, 100.0, 200.0]).reshape(1, 1, 3, 1).expand(1, 1, 3, 40_000)
    for electronic in (0.0, 15.0):
        y, std = count_photons(
            lengths, BatchGenerator([3]), photons=photons, electronic=electronic, nepers=nepers
        )
        mean = photons * torch.exp(-nepers * lengths[0, 0, :, 0].double())
        expected = (1 / mean + electronic**2 / mean**2).sqrt() / nepers
        found = (y - lengths)[0, 0].double().std(1)
        torch.testing.assert_close(found, expected, rtol=0.03, atol=0)
        torch.testing.assert_close(std[0, 0].double().mean(1), expected, rtol=0.02, atol=0)
        bias = (y - lengths)[0, 0].double().mean(1) * nepers  # half the variance
        half = (expected * nepers).square() / 2
        torch.testing.assert_close(bias[1:], half[1:], atol=6e-4, rtol=0.2)


def test_rays_that_let_nothing_through_are_finite_and_uncertain():
    y, std = count_photons(
        torch.full((1, 1, 4, 50), 1000.0),
        BatchGenerator([0]),
        photons=1e3,
        electronic=5.0,
        nepers=0.1,
    )
    assert torch.isfinite(y).all()
    assert y.max().item() <= math.log(1e3) / 0.1 * (1 + 1e-6)
    assert std.max().item() == pytest.approx(math.sqrt(1 + 25) / 0.1)


def test_counts_are_those_of_each_slice_and_no_bit_depends_on_the_batch():
    for fields in ({"noise.photons": 1e4, **CT}, {"noise.sigma": 0.1}, {"noise.snr_db": 20.0}):
        config, batch = config_of(**fields), batch_of(3)
        whole = pose(config, measure(config, batch))
        for b, key in enumerate(batch.key):
            sample = Sample(batch.image[b], (0.0, 1.0), key, {})
            alone = pose(config, measure(config, collate([sample])))
            assert torch.equal(alone.y[0], whole.y[b])
            assert torch.equal(alone.noise[0], whole.noise[b])
        assert not torch.equal(whole.y[0], whole.y[1])


def test_weights_make_the_noise_of_counts_white():
    counts = {"noise.photons": 1e4, "noise.electronic": 10.0, "noise.attenuation": 6.0}
    config, batch = config_of(**counts, **CT), batch_of(1, size=64)
    measurement = measure(config, batch)
    problem = pose(config, measurement)
    assert isinstance(problem.operator, Whitened)
    clean = problem.operator.forward(batch.image)
    # a ray through the middle and one through air have the same noise, which they had not before
    scaled = (problem.y - clean) / problem.noise
    assert scaled.std().item() == pytest.approx(1.0, rel=0.1)
    assert measurement.std.max() > 3 * measurement.std.min()
    torch.testing.assert_close(
        measurement.std * problem.operator.weights / problem.noise, clean * 0 + 1
    )
    config.noise.weights = False
    plain = pose(config, measurement)
    assert plain.y is measurement.y
    assert plain.operator is measurement.operator
    assert plain.noise.item() == pytest.approx(measurement.std.square().mean().sqrt().item())


def test_a_finer_grid_has_the_same_means_and_nearly_the_same_integrals():
    """Of a disc they are those of the coarse grid but for the discretisation, in the same unit."""
    axis = torch.arange(64) - 31.5
    disc = torch.sigmoid(20 - torch.hypot(axis[:, None], axis))[None, None]
    fine = refine(disc)
    blocks = torch.nn.functional.avg_pool2d(fine, 2)
    torch.testing.assert_close(blocks, disc, atol=1e-3, rtol=0)
    operator = ParallelBeamCT(64, np.linspace(0, 180, 12, endpoint=False), num_bins=80)
    coarse, finer = operator.forward(disc), operator.measure_finely(fine)
    difference = torch.linalg.vector_norm(finer - coarse) / torch.linalg.vector_norm(coarse)
    assert 1e-4 < difference < 0.02
    assert finer.sum().item() == pytest.approx(coarse.sum().item(), rel=1e-3)  # the same unit
    part = operator.of_views([3, 1])  # has a matrix of its own
    torch.testing.assert_close(part.measure_finely(fine), finer[:, :, [3, 1]])
    config = config_of(**CT, **{"noise.fine": True})
    batch = batch_of(1)
    assert not torch.equal(measure(config, batch).y, measure(config_of(**CT), batch).y)


def test_without_noise_nothing_changes():
    config, batch = config_of(), batch_of()
    measurement = measure(config, batch)
    problem = pose(config, measurement)
    clean = torch.cat([measurement.operator[b].forward(batch.image[b : b + 1]) for b in range(2)])
    assert torch.equal(problem.y, clean)
    assert not problem.noise.any()
    assert torch.equal(problem.restore(batch.image), batch.image)
    config.noise.sigma = 0.0
    assert torch.equal(measure(config, batch).y, clean)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise.sigma": 0.1, "noise.snr_db": 30.0}, "expected one of noise.sigma.*got"),
        ({"noise.sigma": 0.1, "noise.photons": 1e4}, "expected one of noise.sigma.*got"),
        ({"noise.electronic": 5.0}, "noise.electronic belongs to counts; set noise.photons"),
        ({"noise.attenuation": 5.0, "noise.sigma": 0.1}, "noise.attenuation belongs to counts"),
        ({"noise.photons": 0.0, **CT}, "expected noise.photons above 0"),
        ({"noise.photons": 1e4}, "counts of rays, got SingleCoilMRI; set noise.sigma"),
        ({"noise.sigma": -0.1}, "expected noise.sigma of at least 0"),
        ({"noise.sigma": math.inf}, "expected a finite noise.sigma"),
        ({"noise.weights": False, "noise.sigma": 0.1}, "noise.weights are those of counted rays"),
        (
            {"noise.fine": True},
            "noise.fine needs line integrals, such as operator.name=ct, got mri",
        ),
        ({"target": "max"}, r"expected target to be one of \('mvue', 'rss', 'sense'\), got 'max'"),
    ],
)
def test_contradicting_fields_are_errors_before_anything_is_written(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        evaluate(config_of(**fields), tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def images_of(config, count=1):
    """Reconstructions of a config, ``(count, H, W)``, and their rows."""
    batch = batch_of(count, size=config.data.image_size)
    samples = [
        Sample(x, (0.0, 1.0), key, {}) for x, key in zip(batch.image, batch.key, strict=True)
    ]
    outcomes = run_slices(config, create_reconstructor(config, "cpu"), samples, set(), "cpu")
    return np.stack([one.image for one in outcomes]), [one.row for one in outcomes]


def test_the_sampler_is_told_the_noise(prior):
    fields = {"sampler.name": "pnp", "sampler.num_steps": 3, "prior": str(prior)}
    noisy = fields | {"noise.sigma": 0.1, "sampler.start_sigma": 1.0, "data.image_size": 16}
    told = images_of(config_of(**noisy), 2)[0]
    given = images_of(config_of(**noisy, **{"sampler.sigma_y": 0.1}), 2)[0]
    denied = images_of(config_of(**noisy, **{"sampler.sigma_y": 0.0}), 2)[0]
    np.testing.assert_allclose(told, given, atol=1e-6)
    np.testing.assert_allclose(told[:1], images_of(config_of(**noisy))[0], atol=1e-5)
    assert np.abs(told - denied).max() > 1e-3


def test_resuming_draws_the_same_noise(tmp_path):
    config = config_of(**{"noise.snr_db": 20.0}, limit=2)
    evaluate(config, tmp_path / "whole", "cpu")
    config.limit = 1
    evaluate(config, tmp_path / "pieces", "cpu")
    config.limit = 2
    evaluate(config, tmp_path / "pieces", "cpu")
    assert rows_of(tmp_path / "pieces") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("name", ["fbp", "tv", "l1_wavelet", "cg_sense", "pnp", "dds"])
def test_methods_take_counts_with_weights(prior, name):
    own = {"sampler.name": name, "sampler.num_steps": 3, "data.image_size": 16}
    if name in ("tv", "l1_wavelet"):
        own["sampler.max_iterations"] = 3
    given = {"prior": str(prior)} if name in ("pnp", "dds") else {}
    config = config_of(**{"noise.photons": 1e4}, **CT, **own, **given)
    images, (row,) = images_of(config)
    assert np.isfinite(images).all()
    assert row["measurement_hash"] == fingerprint(measure(config, batch_of(1, size=16)).y)


def test_a_folder_from_before_there_was_noise_is_continued(tmp_path):
    evaluate(config_of(limit=1), tmp_path, "cpu")
    config = json.loads((tmp_path / "config.json").read_text())
    for section in (config, config["operator"]):
        for name in ("noise", "target", "coils", "maps"):
            section.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "SHA256SUMS").unlink()
    evaluate(config_of(limit=2), tmp_path, "cpu")
    assert len(rows_of(tmp_path)) == 2


@pytest.mark.parametrize(
    ("noise", "text"),
    [
        ({"sigma": 0.03}, "mri gaussian1d, noise 0.03"),
        ({"snr_db": 30.0}, "mri gaussian1d, 30 dB"),
        ({"photons": 1e4, "electronic": 5.0}, "mri gaussian1d, 1e+04 photons + 5 electronic"),
        (
            {"photons": 1e4, "weights": False, "fine": True},
            "mri gaussian1d, 1e+04 photons, unweighted, finer image",
        ),
        ({}, "mri gaussian1d"),
    ],
)
def test_tables_name_the_noise(noise, text):
    config = config_of().to_dict() | {"noise": noise}
    assert describe_measurement(config, {})[0] == text
    del config["noise"]  # a folder from before there was noise
    assert describe_measurement(config, {})[0] == "mri gaussian1d"
    assert create_noise(noise).describe() in text
