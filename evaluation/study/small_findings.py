"""The study's three findings, tested on the results of the study in small.

Differences are paired: of two priors on the same slices, from the same measurements. The unit of
intervals is the volume if there are at least `FEWEST_VOLUMES`, otherwise the slice. As slices of
one volume show one person, intervals over slices hold for these images, not for other people.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from configs.small_study import PRIORS, SIZES
from evaluation.results.cells import CellResults
from evaluation.results.volumes import volume_of
from evaluation.show.intervals import Interval, gap_interval, mean_interval
from evaluation.show.markup import MISSING
from evaluation.study.small_cells import DOMAINS, OWN, STUDIED, outside

METRIC = "psnr"
FEWEST_VOLUMES = 3
AS_GOOD = 0.5  # a prior that is worse by less than this many dB counts as equally good
YES, NO, OPEN = "yes", "no", "not decided"
SMALLEST = SIZES[0]
UNKNOWN = Interval(math.nan, math.nan, math.nan)

Values = Mapping[str, float]  # dB by DATA/KEY


class Estimate(NamedTuple):
    """Mean over slices with its interval.

    Attributes:
        interval: mean and ends; NaN if unknown.
        slices: number of slices.
        volumes: number of volumes of these slices.
    """

    interval: Interval
    slices: int
    volumes: int


class SizeFinding(NamedTuple):
    """Differences in dB of a larger network minus the smallest, for one prior and sampler."""

    prior: str
    measurement: str
    sampler: str
    size: str
    inside: Estimate
    outside: Estimate
    drop: Interval  # outside - inside


class NaturalFinding(NamedTuple):
    """Differences in dB of the natural-image prior minus a medical one of the same size."""

    prior: str
    measurement: str
    sampler: str
    size: str
    inside: Estimate  # inside the distribution of the medical prior
    outside: Estimate


class Scores:
    """PSNR of all cells by slice.

    Args:
        cells: cells of the grid.
    """

    def __init__(self, cells: Iterable[CellResults]):
        self.values = {
            (c.data, c.measurement, c.folder.name): c.values(METRIC) for c in cells if c.rows
        }

    def of(self, sets: Iterable[str], measurement: str, method: str) -> dict[str, float]:
        """Values of a method on some test sets, by DATA/KEY."""
        return {
            f"{data}/{key}": value
            for data in sets
            for key, value in self.values.get((data, measurement, method), {}).items()
        }

    def difference(
        self, sets: Iterable[str], measurement: str, first: str, second: str
    ) -> dict[str, float]:
        """Values of the first method minus those of the second, on the slices that both have."""
        sets = tuple(sets)
        a, b = self.of(sets, measurement, first), self.of(sets, measurement, second)
        return {key: a[key] - b[key] for key in a if key in b}


def estimate(values: Values) -> Estimate:
    """Mean of values by slice with its 95 % interval; NaN if there are no values."""
    if not values:
        return Estimate(UNKNOWN, 0, 0)
    return Estimate(
        mean_interval(resampled(values)), len(values), len({volume_of(key) for key in values})
    )


def resampled(values: Values) -> dict[str, float]:
    """The values with keys changed so that slices are the units if there are too few volumes."""
    if len({volume_of(key) for key in values}) >= FEWEST_VOLUMES:
        return dict(values)
    return {key.replace(":", " "): value for key, value in values.items()}


def gap(first: Values, second: Values) -> Interval:
    """Mean of `first` minus mean of `second`, over different slices, with its 95 % interval."""
    return gap_interval(resampled(first), resampled(second)) if first and second else UNKNOWN


def size_findings(scores: Scores) -> list[SizeFinding]:
    """Findings of every size against the smallest, for each prior and its measurements."""
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
    """Findings of the natural-image prior against each medical one, at every size."""
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
    """Verdict whether the mean is above `threshold`, decided only if the whole interval agrees."""
    if math.isnan(interval.mean):
        return MISSING
    if interval.low > threshold:
        return YES
    return NO if interval.high < threshold else OPEN


def opposite(interval: Interval) -> Interval:
    """Interval of the negative mean."""
    return Interval(-interval.mean, -interval.high, -interval.low)


def small_is_as_good(finding: SizeFinding) -> str:
    """Finding 1: in distribution, the smallest network loses less than `AS_GOOD`."""
    return verdict(opposite(finding.inside.interval), -AS_GOOD)


def small_is_better_outside(finding: SizeFinding) -> str:
    """Finding 2: out of distribution, the smallest network is better."""
    return verdict(opposite(finding.outside.interval), 0)


def size_helps_less_outside(finding: SizeFinding) -> str:
    """Finding 2: size helps less out of distribution than in distribution."""
    return verdict(opposite(finding.drop), 0)


def natural_is_better_outside(finding: NaturalFinding) -> str:
    """Finding 3: outside the medical prior's distribution, the natural-image prior is better."""
    return verdict(finding.outside.interval, 0)


def natural_is_as_good_inside(finding: NaturalFinding) -> str:
    """Finding 3: inside the medical prior's distribution, it loses less than `AS_GOOD`."""
    return verdict(finding.inside.interval, -AS_GOOD)


def count(verdicts: Sequence[str]) -> tuple[int, int, int]:
    """Numbers of verdicts that are yes, no and not decided."""
    return verdicts.count(YES), verdicts.count(NO), verdicts.count(OPEN)


def prior_means(
    scores: Scores, sets: Sequence[str], measurement: str, sampler: str
) -> dict[str, dict[str, Interval]]:
    """Mean PSNR over some test sets: prior -> size -> interval."""
    means: dict[str, dict[str, Interval]] = {}
    for prior in PRIORS:
        for size in SIZES:
            values = scores.of(sets, measurement, f"{prior}_{size}_{sampler}")
            if values:
                means.setdefault(prior, {})[size] = estimate(values).interval
    return means
