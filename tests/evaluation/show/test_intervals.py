"""Intervals and tests against scipy, by hand, and by simulation."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from evaluation.evaluate import number_people
from evaluation.results.cells import METRICS, read_cell
from evaluation.show import intervals as module
from evaluation.show.intervals import (
    ENOUGH,
    RESAMPLES,
    SEED,
    compare,
    gap_interval,
    holm,
    mean_interval,
)
from evaluation.show.markup import number
from tests.helpers.grids import write_results


def slices(values, per_volume=1):
    """Values by key, so many of each volume in turn."""
    return {f"v{i // per_volume:04}.h5:{i % per_volume}": float(v) for i, v in enumerate(values)}


def test_one_slice_a_volume_is_scipys_bootstrap():
    values = np.random.default_rng(0).gamma(2, size=30)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(SEED), method="BCa"
    ).confidence_interval
    assert mean_interval(slices(values)) == pytest.approx((values.mean(), *expected), rel=1e-12)


def test_slices_of_a_volume_count_as_one():
    """Equal slices in a volume say no more than one of them, unequal numbers are weighted."""
    values = np.random.default_rng(1).normal(size=12)
    once, often = mean_interval(slices(values)), mean_interval(slices(np.repeat(values, 5), 5))
    assert often == pytest.approx(once, rel=1e-12)
    independent = mean_interval({f"{k}-": v for k, v in slices(np.repeat(values, 5)).items()})
    assert independent.high - independent.low < 0.6 * (once.high - once.low)
    assert mean_interval({"a:0": 1.0, "a:1": 1.0, "b:0": 4.0}).mean == 2.0


def test_intervals_cover_the_true_mean(monkeypatch):
    """Slices with a correlation of 0.8 in 20 volumes; as independent ones they cover far less."""
    monkeypatch.setattr(module, "RESAMPLES", 499)
    rng, covered, naive, runs = np.random.default_rng(2), 0, 0, 100
    for _ in range(runs):
        values = np.repeat(rng.normal(size=20), 4) + 0.5 * rng.normal(size=80)
        for by_volume in (True, False):
            interval = mean_interval(slices(values, 4 if by_volume else 1), confidence=0.9)
            hit = interval.low <= 0 <= interval.high
            covered, naive = covered + (by_volume and hit), naive + (not by_volume and hit)
    # 0.9 +- 3 standard errors of a proportion, and what 20 volumes cost the bootstrap
    assert 0.79 * runs <= covered <= 0.98 * runs
    assert naive < 0.75 * runs


@pytest.mark.parametrize("volumes", [2, 3, 6, 19])
def test_few_volumes_have_students_interval(volumes):
    values = np.random.default_rng(volumes).gamma(2, size=volumes)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    for per_volume in (1, 3):
        found = mean_interval(slices(np.repeat(values, per_volume), per_volume))
        assert found == pytest.approx((values.mean(), *expected), rel=1e-12)
    assert volumes < ENOUGH


@pytest.mark.parametrize("volumes", [3, 4, 6])
@pytest.mark.parametrize("unequal", [False, True])
def test_intervals_of_few_volumes_cover_the_true_mean(volumes, unequal):
    """1000 draws of people; a bootstrap covers 73 to 85 %."""
    rng, runs, covered = np.random.default_rng(7), 1000, 0
    counts = np.array([2, 3, 4, 3, 2, 4])[:volumes] if unequal else np.full(volumes, 3)
    for _ in range(runs):
        values = np.repeat(rng.normal(size=volumes), counts) + 0.5 * rng.normal(size=counts.sum())
        names = np.repeat(np.arange(volumes), counts)
        by_key = {f"v{n}.h5:{i}": v for i, (n, v) in enumerate(zip(names, values, strict=True))}
        interval = mean_interval(by_key)
        covered += interval.low <= 0 <= interval.high
    assert 0.92 * runs < covered < 0.98 * runs  # 0.95 +- 4 standard errors


def test_the_gap_of_different_volumes_is_welchs():
    rng = np.random.default_rng(8)
    first, second = rng.normal(size=4), 1 + 3 * rng.normal(size=7)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    found = gap_interval(slices(first), slices(second), confidence=0.9)
    assert found == pytest.approx((first.mean() - second.mean(), *expected), rel=1e-12)
    assert np.isnan(gap_interval(slices(first), {"a:0": 1.0}).low)
    same = gap_interval({"a:0": 1.0, "b:0": 1.0}, {"c:0": 3.0, "d:0": 3.0})
    assert same == (-2.0, -2.0, -2.0)


def test_order_has_no_influence_and_confidence_has():
    values = slices(np.random.default_rng(3).normal(size=24), 3)
    backwards = dict(reversed(values.items()))
    assert mean_interval(values) == mean_interval(backwards)
    narrow, wide = mean_interval(values, confidence=0.5), mean_interval(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_intervals_that_there_are_not():
    single = mean_interval({"a:0": 1.0, "a:1": 3.0})
    assert single.mean == 2.0
    assert np.isnan([single.low, single.high]).all()
    assert np.isnan(mean_interval({"a:0": 1.0, "b:0": float("inf")}).high)
    assert mean_interval({"a:0": 2.0, "b:0": 2.0}) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="expected at least one value, got none"):
        mean_interval({})
    with pytest.raises(ValueError, match=r"expected a confidence between 0 and 1, got 95"):
        mean_interval({"a:0": 1.0}, confidence=95)


def test_comparison_by_hand():
    first = {"a:0": 3.0, "a:1": 5.0, "b:0": 4.0, "c:0": 7.0, "only:0": 100.0}
    second = {"a:0": 1.0, "a:1": 4.0, "b:0": 5.0, "c:0": 3.0, "other:0": 0.0}
    result = compare(first, second)
    assert (result.slices, result.volumes) == (4, 3)
    assert (result.first, result.second) == (4.75, 3.25)
    assert result.difference.mean == 1.5
    # all sign patterns of the volumes' sums 3, -1, 4: |sum| >= 6 in 4 of 8 (8, 6 and negatives)
    sums = [sum(s * d for s, d in zip(p, (3, -1, 4), strict=True)) for p in signs(3)]
    assert result.p_permutation == np.mean(np.abs(sums) >= 6) == 0.5
    # ranks of 1.5, -1, 4: 2, 1, 3; the rank sum of the negative one is 1 or less in 2 of 8
    assert result.p_wilcoxon == 0.5


def signs(n):
    return itertools.product((-1, 1), repeat=n)


def test_comparison_is_antisymmetric():
    rng = np.random.default_rng(4)
    first = slices(rng.gamma(2, size=60), 3)
    second = slices(rng.gamma(2, size=60), 3)
    forth, back = compare(first, second), compare(second, first)
    assert forth.difference == pytest.approx(
        (-back.difference.mean, -back.difference.high, -back.difference.low)
    )
    assert (forth.first, forth.second) == (back.second, back.first)
    assert forth[-2:] == pytest.approx(back[-2:])


def test_many_volumes_agree_with_the_t_test():
    rng = np.random.default_rng(5)
    second = rng.normal(size=40)
    first = second + 0.1 + 0.3 * rng.normal(size=40)
    result = compare(slices(first), slices(second))
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval()
    assert result.p_permutation == pytest.approx(expected.pvalue, abs=0.01)
    assert result.p_wilcoxon == stats.wilcoxon(first - second).pvalue
    assert result.difference.low == pytest.approx(interval.low, abs=0.02)
    assert result.difference.high == pytest.approx(interval.high, abs=0.02)


def test_nothing_to_tell_apart():
    same = {"a:0": 1.0, "b:0": 2.0, "c:0": 5.0}
    assert compare(same, same)[-2:] == (1.0, 1.0)
    one_volume = compare({"a:0": 1.0, "a:1": 2.0}, {"a:0": 0.0, "a:1": 0.0})
    assert one_volume[-2:] == (1.0, 1.0)
    with pytest.raises(ValueError, match="expected slices that both methods have"):
        compare({"a:0": 1.0}, {"b:0": 1.0})
    with pytest.raises(ValueError, match="expected finite values to compare, got others for a:0"):
        compare({"a:0": float("nan"), "b:0": 1.0}, same)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.001, 0.9]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_intervals_are_over_people_where_they_are_known(tmp_path):
    keys = [f"f.hdf5:{i}" for i in range(6)]
    people = number_people({key: "secret " + "aabbcc"[i] for i, key in enumerate(keys)}, keys)
    assert list(people.values()) == [f"person {n}" for n in (1, 1, 2, 2, 3, 3)]
    values = [30.0, 30.5, 32.0, 32.5, 37.0, 37.5]
    rows = [(key, value, 0.9, 0.01) for key, value in zip(keys, values, strict=True)]
    folder = write_results(tmp_path / "d/m/tv", rows)
    assert "[" not in number(read_cell(folder).values("psnr"), METRICS["psnr"], "ci")  # one file
    info = json.loads((folder / "info.json").read_text())
    (folder / "info.json").write_text(json.dumps(info | {"people": people}))
    cell = read_cell(folder)
    found = mean_interval(cell.values("psnr"), unit=cell.unit)
    named = [f"{people[key]}:{i}" for i, key in enumerate(keys)]
    assert found == mean_interval(dict(zip(named, values, strict=True)))
    assert "[" in number(cell.values("psnr"), METRICS["psnr"], "ci", cell.unit)
    worse = {key: value - 1 for key, value in cell.values("psnr").items()}
    assert compare(cell.values("psnr"), worse, unit=cell.unit).volumes == 3
