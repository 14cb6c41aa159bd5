"""Differences between networks with people and trainings as random effects.

The model of a score (PSNR in dB) of network n after training s on person p is

    y_nsp = mean_n + training_ns + person_np + rest_nsp,

with independent random terms; slices are averaged by person first. A contrast is a weighted sum
over networks, such as one minus another, and so is its value for each person, averaged over the
trainings of a network. Its variance has two parts:

- people: the sample variance of the contrast's values by person over their number P (it has the
  part of `rest`),
- trainings: sigma_T^2 times the sum of weight^2 / (number of trainings) over networks. sigma_T^2 is
  estimated from the networks of the same priors that were trained more than once, by the analysis
  of variance of trainings x people: (MS_trainings - MS_rest) / P, or 0 where that is negative; it
  is taken to be the same for all their sizes.

Intervals are Student's t with Satterthwaite's degrees of freedom. Sources: Searle, Casella and
McCulloch, Variance Components (1992), section 4.4; Satterthwaite, Biometrics Bulletin 2, 110
(1946).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from evaluation.show.intervals import Interval
from evaluation.study.small_cells import parse_network

CONFIDENCE = 0.95
Size = tuple[str, str]  # (prior, size)
UNKNOWN = Interval(math.nan, math.nan, math.nan)


class Estimate(NamedTuple):
    """Mean over people with its interval.

    Attributes:
        interval: mean and ends; NaN if unknown.
        people: number of people.
        freedom: degrees of freedom of the interval.
        with_trainings: whether the interval accounts for another training.
    """

    interval: Interval
    people: int
    freedom: float
    with_trainings: bool


NOTHING = Estimate(UNKNOWN, 0, math.nan, False)


class Component(NamedTuple):
    """Estimated variance between trainings of a network, in dB^2.

    Attributes:
        variance: sigma_T^2, not negative.
        parts: (mean square over people, degrees of freedom) of trainings and rest, the two terms
            of whose difference `variance` is; empty if it was set to 0.
    """

    variance: float
    parts: tuple[tuple[float, float], ...]


class Scores:
    """Scores by measurement, sampler, network, training, test set, person and slice.

    Args:
        rows: of `small_rows.ROWS`.
        metric: column of it.
    """

    def __init__(self, rows: Iterable[Mapping[str, str]], metric: str = "psnr"):
        self._found: dict[tuple[str, str], dict[Size, dict[int, dict[tuple, float]]]] = {}
        for row in rows:
            place = self._found.setdefault((row["measurement"], row["sampler"]), {})
            size, seed = ("", ""), 0
            if row["network"]:
                network = parse_network(row["network"])
                size, seed = (network.prior, network.size), network.seed
            slices = place.setdefault(size, {}).setdefault(seed, {})
            slices[row["set"], row["person"], row["slice"]] = float(row[metric])

    def trainings(
        self, size: Size, measurement: str, sampler: str, sets: Sequence[str]
    ) -> dict[int, dict[tuple, float]]:
        """Seed -> (set, person, slice) -> score of a network, of seeds with any on these sets."""
        found = self._found.get((measurement, sampler), {}).get(size, {})
        chosen = {
            seed: {key: value for key, value in slices.items() if key[0] in sets}
            for seed, slices in found.items()
        }
        return {seed: slices for seed, slices in chosen.items() if slices}

    def sizes(self, measurement: str, sampler: str) -> list[Size]:
        """All networks with scores."""
        return [s for s in self._found.get((measurement, sampler), {}) if s != ("", "")]


def by_person(values: Mapping[tuple, float]) -> dict[str, float]:
    """Mean over the slices of each person; people of the same name in several sets are one."""
    people: dict[str, list[float]] = {}
    for (_, person, _), value in values.items():
        people.setdefault(person, []).append(value)
    return {person: float(np.mean(own)) for person, own in sorted(people.items())}


def contrast(
    scores: Scores,
    weights: Mapping[Size, float],
    measurement: str,
    sampler: str,
    sets: Sequence[str],
) -> Estimate:
    """Weighted sum over networks of their mean scores, with its interval.

    Args:
        scores: all scores.
        weights: (prior, size) -> weight.
        measurement: label of the measurement.
        sampler: label of the sampler.
        sets: test sets.

    Returns:
        The estimate, from the slices that all these networks have after all of their trainings;
        NaN without any, and without an interval for one person.
    """
    found = {size: scores.trainings(size, measurement, sampler, sets) for size in weights}
    if not all(found.values()):
        return NOTHING
    keys = set.intersection(*(set(s) for seeds in found.values() for s in seeds.values()))
    if not keys:
        return NOTHING
    values = {
        key: sum(
            weight * float(np.mean([slices[key] for slices in found[size].values()]))
            for size, weight in weights.items()
        )
        for key in sorted(keys)
    }
    people = np.array(list(by_person(values).values()))
    factor = sum(weight**2 / len(found[size]) for size, weight in weights.items())
    priors = {prior for prior, _ in weights}
    component = training_component(scores, priors, measurement, sampler, sets)
    return combine(people, factor, component)


def combine(people: np.ndarray, factor: float, component: Component | None) -> Estimate:
    """Mean over people with an interval for other people and other trainings.

    Args:
        people: ``(P,)`` values of a contrast.
        factor: sum of weight^2 / (number of trainings) over its networks.
        component: variance between trainings; None if unknown, and left out.
    """
    mean, count = float(np.mean(people)), len(people)
    if count < 2:
        return Estimate(Interval(mean, math.nan, math.nan), count, math.nan, False)
    terms = [(float(np.var(people, ddof=1)) / count, count - 1.0)]
    total = terms[0][0]
    if component is not None:
        total += factor * component.variance
        terms += [(factor * part, freedom) for part, freedom in component.parts]
    spread = sum(part**2 / freedom for part, freedom in terms)
    freedom = max(total**2 / spread, 1.0) if spread else count - 1.0
    half = float(stats.t.isf((1 - CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    interval = Interval(mean, mean - half, mean + half)
    return Estimate(interval, count, freedom, component is not None)


def training_component(
    scores: Scores, priors: Collection[str], measurement: str, sampler: str, sets: Sequence[str]
) -> Component | None:
    """Variance between trainings on some test sets, pooled over networks trained repeatedly.

    Of these priors alone: on images that are strange to a prior its trainings differ more. None if
    no network of them was trained repeatedly, or there is only one person.
    """
    tables = []
    for size in scores.sizes(measurement, sampler):
        if size[0] not in priors:
            continue
        seeds = scores.trainings(size, measurement, sampler, sets)
        if len(seeds) < 2:
            continue
        keys = set.intersection(*map(set, seeds.values()))
        people = [by_person({k: slices[k] for k in keys}) for slices in seeds.values()]
        if len(people[0]) > 1:
            tables.append(np.array([list(own.values()) for own in people]))  # (trainings, people)
    return pooled_component(tables)


def pooled_component(tables: Sequence[np.ndarray]) -> Component | None:
    """Variance between trainings from tables ``(trainings, people)`` of several networks.

    The mean squares over people are averaged with their degrees of freedom; None without tables.
    """
    if not tables:
        return None
    between = rest = 0.0
    between_freedom = rest_freedom = 0
    for table in tables:
        trainings, people = table.shape
        means = table.mean(1, keepdims=True) + table.mean(0) - table.mean()
        between += float(np.sum((table.mean(1) - table.mean()) ** 2))
        rest += float(np.sum((table - means) ** 2)) / people
        between_freedom += trainings - 1
        rest_freedom += (trainings - 1) * (people - 1)
    first, second = between / between_freedom, rest / rest_freedom
    if first <= second:
        return Component(0.0, ())
    parts = ((first, float(between_freedom)), (second, float(rest_freedom)))
    return Component(first - second, parts)


def slope(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Slope of a straight line through points, with its interval (Student's t, n - 2).

    NaN for fewer than three points, or equal x. `people` of the result is the number of points.
    """
    if len(x) < 3 or len(set(x)) < 2:
        return Estimate(UNKNOWN, len(x), math.nan, False)
    line = stats.linregress(x, y)
    freedom = len(x) - 2
    half = float(stats.t.isf((1 - CONFIDENCE) / 2, freedom)) * float(line.stderr)
    mean = float(line.slope)
    return Estimate(Interval(mean, mean - half, mean + half), len(x), float(freedom), False)
