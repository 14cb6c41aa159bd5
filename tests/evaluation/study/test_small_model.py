"""Statistics of the study in small against closed forms and known components of variance."""

import math

import numpy as np
import pytest
from scipy import stats

from evaluation.study.small_model import (
    Component,
    Scores,
    combine,
    contrast,
    pooled_component,
    slope,
)

A, B = ("brain", "1"), ("brain", "4")
SETS = ("brain_t1",)


def row(network, person, value, *, data="brain_t1", number=0, sampler="pnp"):
    place = {"measurement": "mr", "sampler": sampler, "set": data, "person": person}
    return {"network": network, **place, "slice": str(number), "psnr": str(value), "ssim": "1"}


def paired(rows, weights=None, sets=SETS):
    return contrast(Scores(rows), weights or {A: 1.0, B: -1.0}, "mr", "pnp", sets)


def test_one_slice_a_person_and_one_training_is_the_paired_t_interval():
    rng = np.random.default_rng(0)
    a, b = rng.normal(30, 3, 7), rng.normal(29, 3, 7)
    rows = [row("brain_1_s0", f"p{i}", value) for i, value in enumerate(a)]
    rows += [row("brain_4_s0", f"p{i}", value) for i, value in enumerate(b)]
    found = paired(rows)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.interval == pytest.approx((np.mean(a - b), expected.low, expected.high))
    assert (found.people, found.freedom, found.with_trainings) == (7, pytest.approx(6), False)


def test_people_count_alike_however_many_slices_they_have():
    rows = [row("brain_4_s0", p, 0.0, number=i) for p in "abc" for i in range(4)]
    rows += [row("brain_1_s0", "a", 1.0, number=i) for i in range(4)]
    rows += [row("brain_1_s0", "b", 2.0), row("brain_1_s0", "c", 6.0)]
    found = paired(rows)
    expected = stats.ttest_1samp([1.0, 2.0, 6.0], 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((3.0, expected.low, expected.high))


def test_a_person_in_two_test_sets_is_one_person():
    rows = []
    for data, shift in (("brain_flair", 0.0), ("brain_t2", 2.0)):
        for i, person in enumerate("abc"):
            rows.append(row("brain_1_s0", person, i + shift, data=data))
            rows.append(row("brain_4_s0", person, 0.0, data=data))
    found = paired(rows, sets=("brain_flair", "brain_t2"))
    assert found.people == 3
    assert found.interval.mean == pytest.approx(2.0)


def test_only_slices_of_all_networks_count():
    rows = [row("brain_1_s0", p, 1.0) for p in "abc"] + [row("brain_4_s0", p, 0.0) for p in "bcd"]
    assert paired(rows).people == 2
    assert paired(rows[:3]).people == 0
    assert math.isnan(paired(rows[:3]).interval.mean)
    one = paired([*rows[:1], row("brain_4_s0", "a", 0.0)])
    assert one.interval.mean == 1.0
    assert math.isnan(one.interval.low)


def test_the_analysis_of_variance_of_a_table_by_hand():
    # trainings x people: means 2 and 5; rest +-1 around them
    table = np.array([[1.0, 3.0, 2.0], [6.0, 4.0, 5.0]])
    component = pooled_component([table])
    people = table.mean(0)
    rest = table - table.mean(1, keepdims=True) - people + table.mean()
    trainings = 3 * ((2 - 3.5) ** 2 + (5 - 3.5) ** 2) / 1
    expected = (trainings - np.sum(rest**2) / 2) / 3
    assert component.variance == pytest.approx(expected)
    assert component.parts == (
        (pytest.approx(4.5), 1.0),
        (pytest.approx(np.sum(rest**2) / 2 / 3), 2.0),
    )


def test_equal_trainings_have_no_variance():
    table = np.array([[1.0, 3.0, 2.0], [1.5, 2.5, 2.0]])
    assert pooled_component([table]) == Component(0.0, ())
    assert pooled_component([]) is None


def test_known_components_are_found():
    rng = np.random.default_rng(1)
    trainings, people = 4, 6
    tables = []
    for _ in range(3000):
        person = rng.normal(0, 3.0, people)
        training = rng.normal(0, 0.5, (trainings, 1))
        tables.append(person + training + rng.normal(0, 0.8, (trainings, people)))
    assert pooled_component(tables).variance == pytest.approx(0.25, rel=0.05)


def test_the_variance_is_that_of_people_plus_that_of_trainings():
    people = np.array([1.0, 2.0, 4.0, 5.0])
    component = Component(0.5, ((0.7, 3.0), (0.2, 9.0)))
    found = combine(people, 1.5, component)
    first = np.var(people, ddof=1) / 4
    total = first + 1.5 * 0.5
    freedom = total**2 / (first**2 / 3 + (1.5 * 0.7) ** 2 / 3 + (1.5 * 0.2) ** 2 / 9)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total)
    assert found.freedom == pytest.approx(freedom)
    assert found.interval == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert found.with_trainings


def made_up(rng, *, sizes, seeds, people, training, rest):
    """Rows of networks whose true means are equal; those at the corners have `seeds` trainings."""
    rows = []
    person = rng.normal(0, 3.0, people)
    for size in sizes:
        for seed in range(seeds):
            values = person + rng.normal(0, training) + rng.normal(0, rest, people)
            name = f"brain_{size}_s{seed}"
            rows += [row(name, f"p{i}", value) for i, value in enumerate(values)]
    return rows


def test_intervals_cover_the_truth_for_other_trainings_and_people():
    rng = np.random.default_rng(2)
    sizes = ("1", "4", "2", "3", "1_large", "4_small")
    covered = without = 0
    repetitions = 400
    for _ in range(repetitions):
        given = {"sizes": sizes, "seeds": 2, "people": 8, "training": 0.5, "rest": 0.4}
        rows = made_up(rng, **given)
        found = paired(rows)
        assert found.with_trainings
        covered += found.interval.low < 0 < found.interval.high
        single = paired([r for r in rows if r["network"].endswith("s0")])
        assert not single.with_trainings
        without += single.interval.low < 0 < single.interval.high
    # a standard error of the share is 0.011
    assert 0.91 < covered / repetitions < 0.99
    assert without / repetitions < 0.7


def test_trainings_are_averaged_and_one_that_was_run_once_has_the_whole_variance():
    rng = np.random.default_rng(3)
    rows = made_up(rng, sizes=("1", "4"), seeds=2, people=8, training=1.0, rest=0.1)
    both = paired(rows)
    once = paired([r for r in rows if r["network"] != "brain_4_s1"])
    assert both.interval.mean == pytest.approx(
        np.mean([float(r["psnr"]) for r in rows if "_1_s" in r["network"]])
        - np.mean([float(r["psnr"]) for r in rows if "_4_s" in r["network"]])
    )
    assert once.with_trainings
    assert once.interval.high - once.interval.low > 0


def test_trainings_of_other_priors_do_not_count():
    rng = np.random.default_rng(4)
    rows = made_up(rng, sizes=("1", "4"), seeds=1, people=6, training=0.1, rest=0.1)
    other = made_up(rng, sizes=("1", "4"), seeds=2, people=6, training=9.0, rest=0.1)
    other = [r | {"network": r["network"].replace("brain", "chest")} for r in other]
    assert paired(rows + other) == paired(rows)
    assert paired(rows + other, {("chest", "1"): 1.0, B: -1.0}).with_trainings


def test_the_slope_of_a_line():
    x, noise = np.arange(8.0), np.array([1, -1, -1, 1, 1, -1, -1, 1]) * 0.1
    found = slope(list(x), list(2 * x + noise))
    assert found.interval.mean == pytest.approx(2.0)
    rest = np.sum(noise**2) / 6
    half = stats.t.ppf(0.975, 6) * math.sqrt(rest / np.sum((x - 3.5) ** 2))
    assert found.interval.high - found.interval.mean == pytest.approx(half)
    assert math.isnan(slope([1.0, 2.0], [1.0, 2.0]).interval.mean)
    assert math.isnan(slope([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).interval.mean)
