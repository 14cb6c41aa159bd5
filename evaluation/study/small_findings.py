"""What the study in small says about the study's three findings, from its results folders.

Differences are paired: of two priors on the same slices, from the same measurements. Intervals
count volumes where there are `FEWEST_VOLUMES`, else slices. Slices of one volume show one
person, so the latter say what the priors do on these images, not on other people's.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from configs.small_study import PRIORS, SIZES
from evaluation.results.cells import Cell
from evaluation.results.volumes import volume_of
from evaluation.show.intervals import Interval, gap_interval, mean_interval
from evaluation.show.markup import MISSING
from evaluation.study.small_cells import DOMAINS, OWN, STUDIED, outside

METRIC = "psnr"
FEWEST_VOLUMES = 3
AS_GOOD = 0.5  # dB: what is less worse than this counts as good
YES, NO, OPEN = "yes", "no", "not decided"
SMALLEST = SIZES[0]
UNKNOWN = Interval(math.nan, math.nan, math.nan)

Values = Mapping[str, float]  # dB by DATA/KEY


class Estimate(NamedTuple):
    """A mean over slices with its interval.

    Attributes:
        interval: mean and ends; NaN where unknown.
        slices: how many.
        volumes: they belong to; counted if there are `FEWEST_VOLUMES`.
    """

    interval: Interval
    slices: int
    volumes: int


class SizeFinding(NamedTuple):
    """A larger network against the smallest, same prior and sampler: differences in dB."""

    prior: str
    measurement: str
    sampler: str
    size: str
    inside: Estimate
    outside: Estimate
    drop: Interval  # outside - inside


class NaturalFinding(NamedTuple):
    """The natural-image prior against a medical one of the same size: differences in dB."""

    prior: str
    measurement: str
    sampler: str
    size: str
    inside: Estimate  # of the medical prior's distribution
    outside: Estimate


class Scores:
    """PSNR of every cell, and of sets together.

    Args:
        cells: of the grid.
    """

    def __init__(self, cells: Iterable[Cell]):
        self.values = {
            (c.data, c.measurement, c.folder.name): c.values(METRIC) for c in cells if c.rows
        }

    def of(self, sets: Iterable[str], measurement: str, method: str) -> dict[str, float]:
        """A method's values on some sets."""
        return {
            f"{data}/{key}": value
            for data in sets
            for key, value in self.values.get((data, measurement, method), {}).items()
        }

    def difference(
        self, sets: Iterable[str], measurement: str, first: str, second: str
    ) -> dict[str, float]:
        """First method's values minus the second's, on the slices that both have."""
        sets = tuple(sets)
        a, b = self.of(sets, measurement, first), self.of(sets, measurement, second)
        return {key: a[key] - b[key] for key in a if key in b}


def estimate(values: Values) -> Estimate:
    """Mean and 95 % interval of values by slice; NaN where there are none."""
    if not values:
        return Estimate(UNKNOWN, 0, 0)
    return Estimate(
        mean_interval(resampled(values)), len(values), len({volume_of(key) for key in values})
    )


def resampled(values: Values) -> dict[str, float]:
    """The same values with keys whose volumes are the units: their own, or the slices."""
    if len({volume_of(key) for key in values}) >= FEWEST_VOLUMES:
        return dict(values)
    return {key.replace(":", " "): value for key, value in values.items()}


def gap(first: Values, second: Values) -> Interval:
    """Mean of `first` minus mean of `second`, of different slices, with its 95 % interval."""
    return gap_interval(resampled(first), resampled(second)) if first and second else UNKNOWN


def size_findings(scores: Scores) -> list[SizeFinding]:
    """Every size against the smallest, of every prior with the measurements it is meant for."""
    found = []
    for prior, measurement in DOMAINS:
        for sampler in STUDIED[measurement]:
            for size in SIZES[1:]:
                names = f"{prior}_{size}_{sampler}", f"{prior}_{SMALLEST}_{sampler}"
                own = scores.difference([OWN[prior]], measurement, *names)
                others = scores.difference(outside(prior, measurement), measurement, *names)
                kind = (prior, measurement, sampler, size)
                if own or others:
                    found.append(
                        SizeFinding(*kind, estimate(own), estimate(others), gap(others, own))
                    )
    return found


def natural_findings(scores: Scores) -> list[NaturalFinding]:
    """The natural-image prior against each medical one, at every size."""
    found = []
    for prior, measurement in DOMAINS:
        if prior == "natural":
            continue
        for sampler in STUDIED[measurement]:
            for size in SIZES:
                names = f"natural_{size}_{sampler}", f"{prior}_{size}_{sampler}"
                own = scores.difference([OWN[prior]], measurement, *names)
                others = scores.difference(outside(prior, measurement), measurement, *names)
                if own or others:
                    found.append(
                        NaturalFinding(
                            *(prior, measurement, sampler, size), estimate(own), estimate(others)
                        )
                    )
    return found


def verdict(interval: Interval, threshold: float) -> str:
    """Whether the true mean is above `threshold`: only if the whole interval says so."""
    if math.isnan(interval.mean):
        return MISSING
    if interval.low > threshold:
        return YES
    return NO if interval.high < threshold else OPEN


def opposite(interval: Interval) -> Interval:
    """The interval of the negative."""
    return Interval(-interval.mean, -interval.high, -interval.low)


def small_is_as_good(finding: SizeFinding) -> str:
    """1: in distribution the smallest loses less than `AS_GOOD`."""
    return verdict(opposite(finding.inside.interval), -AS_GOOD)


def small_is_better_outside(finding: SizeFinding) -> str:
    """2: out of distribution the smallest is better."""
    return verdict(opposite(finding.outside.interval), 0)


def size_helps_less_outside(finding: SizeFinding) -> str:
    """2: size helps less out of distribution than in it."""
    return verdict(opposite(finding.drop), 0)


def natural_is_better_outside(finding: NaturalFinding) -> str:
    """3: out of the medical prior's distribution photographs make the better prior."""
    return verdict(finding.outside.interval, 0)


def natural_is_as_good_inside(finding: NaturalFinding) -> str:
    """3: in the medical prior's distribution they lose less than `AS_GOOD`."""
    return verdict(finding.inside.interval, -AS_GOOD)


def count(verdicts: Sequence[str]) -> tuple[int, int, int]:
    """How many are yes, no and not decided."""
    return verdicts.count(YES), verdicts.count(NO), verdicts.count(OPEN)


def prior_means(
    scores: Scores, sets: Sequence[str], measurement: str, sampler: str
) -> dict[str, dict[str, Interval]]:
    """Mean PSNR by prior and size, each over the same sets."""
    means: dict[str, dict[str, Interval]] = {}
    for prior in PRIORS:
        for size in SIZES:
            values = scores.of(sets, measurement, f"{prior}_{size}_{sampler}")
            if values:
                means.setdefault(prior, {})[size] = estimate(values).interval
    return means
