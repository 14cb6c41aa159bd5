"""Coverage of intervals: its measures on samples of a known distribution, and its table."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from benchmarks import coverage
from benchmarks.coverage import (
    SCALES,
    Values,
    body,
    by_spread,
    coverages,
    crps,
    fit,
    markdown,
    measures,
    pixels,
    problem_of,
    read,
    regions,
    run,
    spread_and_error,
)
from operators.batch import expand
from sde import Prior

CASES = 20_000


def gaussian(count, part=1.0, seed=0):
    """Truths of N(0, 1), and samples whose deviation is `part` of the posterior's."""
    draws = torch.randn(count + 1, CASES, generator=torch.Generator().manual_seed(seed))
    return Values(part * draws[1:], draws[0])


@pytest.mark.parametrize("count", [8, 16, 40])
@pytest.mark.parametrize("level", coverage.LEVELS)
def test_samples_of_the_posterior_cover_what_they_say(count, level):
    found = coverage.coverage(gaussian(count), level)
    error = math.sqrt(level * (1 - level) / CASES)
    assert found == pytest.approx(level, abs=4 * error + (0.01 if count == 8 else 0))
    assert coverage.coverage(gaussian(count, part=0.5), level) < level - 0.15


def test_a_scale_is_fitted_where_samples_spread_too_little():
    rows = [
        {"split": "val", "person": who, "pixel_by_scale": json.dumps(coverages(values, 0.9))}
        for who, values in {"a": gaussian(16, 0.5), "b": gaussian(16, 0.5, seed=1)}.items()
    ]
    # the centre, the samples' mean, is also half as far from 0 as it should be
    scale = fit(rows)
    assert scale == pytest.approx(2, rel=0.05)
    assert coverage.coverage(gaussian(16, 0.5, seed=2), 0.9, scale) == pytest.approx(0.9, abs=0.01)
    with pytest.raises(ValueError, match="test people are not fitted to"):
        fit([rows[0] | {"split": "test"}])
    values = gaussian(16)
    at = int(np.argmin(np.abs(SCALES - 1)))
    assert coverages(values, 0.9)[at] == pytest.approx(
        coverage.coverage(values, 0.9, SCALES[at]), abs=1e-4
    )


def test_crps_is_that_of_the_distribution_for_any_number_of_samples():
    """Of N(0, 1) and its own draws 1 / sqrt(pi); it grows if samples spread too little."""
    expected = 1 / math.sqrt(math.pi)
    for count in (2, 16):
        assert crps(gaussian(count)) == pytest.approx(expected, abs=0.015)
    assert crps(gaussian(16, 0.3)) > 1.1 * expected
    one = Values(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0]))
    assert crps(one) == pytest.approx((1 + 3) / 2 - 2 / 2)
    assert crps(one, scale=2.0) == pytest.approx((0 + 4) / 2 - 4 / 2)


def test_spread_and_error():
    std, error = spread_and_error(gaussian(16))
    assert error == pytest.approx(math.sqrt(1 + 1 / 16) * std, rel=0.02)
    scales = torch.linspace(0.1, 2, CASES)
    values = gaussian(16)
    bins = by_spread(Values(scales * values.samples, scales * values.truth))
    assert len(bins) == coverage.BINS
    assert [b[0] for b in bins] == sorted(b[0] for b in bins)
    assert [b[1] for b in bins] == sorted(b[1] for b in bins)


def test_regions_are_means_of_whole_blocks():
    samples = torch.arange(2 * 16 * 24.0).reshape(2, 16, 24)
    inside = torch.ones(16, 24, dtype=torch.bool)
    inside[3, 20] = False
    found = regions(samples, samples[0], inside)
    assert found.truth.shape == (5,)  # of 2 x 3 blocks of 8 x 8 one is not whole
    assert found.truth[0] == samples[0, :8, :8].double().mean()
    assert found.samples.shape == (2, 5)
    assert pixels(samples, samples[0], inside).truth.shape == (16 * 24 - 1,)


def test_the_body_is_filled_and_without_the_table():
    rows, columns = np.mgrid[:64, :64]
    disc = np.hypot(rows - 28, columns - 32) < 20
    image = 0.5 * disc
    image[np.hypot(rows - 28, columns - 30) < 6] = 0.0  # lungs
    image[58:60] = 0.3  # a table
    assert (body(image) == disc).mean() > 0.995
    assert not body(image)[57:].any()
    with pytest.raises(ValueError, match="without a bright region"):
        body(np.zeros((8, 8)))


@pytest.mark.parametrize("kind", coverage.KINDS)
def test_measurements_have_their_noise(kind, monkeypatch):
    monkeypatch.setattr(coverage, "SIDE", 64)
    image = torch.rand(1, 1, coverage.SIDE, coverage.SIDE, generator=torch.manual_seed(0))
    clean, noisy = (problem_of(kind, noise, image, "key") for noise in (0.0, 0.1))
    assert float((clean.noise * clean.scale)[0]) == 0
    assert float((noisy.noise * noisy.scale)[0]) == pytest.approx(0.1)
    there = clean.operator.measured().expand_as(clean.y)
    difference = noisy.y * noisy.scale - clean.y * clean.scale
    values = difference[there] if not difference.is_complex() else difference[there].real
    assert float(values.std()) == pytest.approx(0.1, rel=0.05)
    assert noisy.direct.is_complex() == (kind == "MR complex")


def test_a_run_continues_and_its_table_says_what_was_found(tmp_path, monkeypatch):
    image = torch.zeros(1, 1, 256, 256)
    image[..., 64:192, 64:192] = torch.rand(128, 128, generator=torch.manual_seed(0)) / 2 + 0.5
    people = [("a:0", "a", image), ("b:0", "b", image.flip(-1))]
    monkeypatch.setattr(coverage, "images_of", lambda kind, split, count: people[:count])
    opened = []

    def prior(name):
        opened.append(name)
        return Prior.from_denoiser(
            lambda x, s: x / (1 + expand(s, x) ** 2), sigma_min=0.01, sigma_max=1.0
        )

    def again(slices):
        run(
            tmp_path,
            kinds=["MR"],
            sampler="dds",
            num_steps=2,
            options={},
            count=4,
            split="val",
            slices=slices,
            seed=0,
            together=3,
            open_prior=prior,
            noises=[0.0],
        )
        return read(tmp_path / "coverage.csv")

    assert [row["key"] for row in again(1)] == ["a:0"]
    assert [row["key"] for row in again(2)] == ["a:0", "b:0"]
    assert opened == ["natural_small"] * 2
    rows = again(2)
    assert opened == ["natural_small"] * 2  # nothing was left to do
    assert len(rows) == 2
    assert rows[0]["calls"] == "2"
    assert 0 <= float(rows[0]["pixel_50"]) <= float(rows[0]["pixel_95"]) <= 1
    text = markdown(rows)
    assert "| MR | 0.0 | dds | 2 | 4 | 2, 2 val |" in text
    assert len(text.splitlines()) == 3  # no scale was fitted, so there is no line of it
    with (tmp_path / "coverage.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    common = {"num_steps": 2, "open_prior": prior, "noises": [0.0]}
    values = [
        float(coverage.point_table(["MR"], "val", count, **common).split()[-2]) for count in (1, 2)
    ]
    assert 10 < values[0] < 60
    assert values[1] == pytest.approx(values[0], abs=2)  # the mean with the mirror image's


def test_scaled_measures():
    values = gaussian(16, 0.5)
    samples = values.samples[:, : 64 * 64].reshape(16, 64, 64)
    truth = values.truth[: 64 * 64].reshape(64, 64)
    found = measures(samples, truth, torch.ones(64, 64, dtype=torch.bool), 2.0)
    assert found["pixel_90_scaled"] == pytest.approx(0.9, abs=0.03)
    assert found["pixel_90"] < 0.7
    assert found["pixel_crps_scaled"] < found["pixel_crps"]
