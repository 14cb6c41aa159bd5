"""How sure a mean over slices is, and whether two methods differ.

Slices of one volume show the same person, so they are not independent: everything here counts
whole volumes, `volumes.volume_of` a slice's key, or people, where a data set knows whom its slices
show (`cells.Cell.unit`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from evaluation.results.volumes import volume_of

SEED = 0
RESAMPLES = 9999
# volumes from which the bootstrap is taken, which knows of skewness, but nothing of few units: its
# 95 % intervals of 3 to 6 cover 73 to 85 %, Student's 94 to 95 %
ENOUGH = 20
MOST_NUMBERS = 10_000_000  # drawn at a time, so that memory stays below about 100 MB


Unit = Callable[[str], str]  # a slice's key -> what counts as one: its volume, or person


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval; NaN where there are none."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Of two methods on the slices that both have.

    Attributes:
        slices: how many both have.
        volumes: how many those belong to.
        first: mean of the first method.
        second: mean of the second.
        difference: mean of first - second, with its interval.
        p_permutation: two-sided, signs of whole volumes flipped.
        p_wilcoxon: two-sided signed-rank test of the volumes' mean differences.
    """

    slices: int
    volumes: int
    first: float
    second: float
    difference: Interval
    p_permutation: float
    p_wilcoxon: float


def mean_interval(
    values: Mapping[str, float], *, confidence: float = 0.95, unit: Unit = volume_of
) -> Interval:
    """Mean over slices with its interval by volume.

    Student's t, from volumes' deviations; from `ENOUGH` volumes on a bootstrap (BCa, Efron 1987)
    that resamples them. The order of `values` has no influence.

    Args:
        values: one a slice, by key.
        confidence: of the interval, in (0, 1).
        unit: of a key.

    Returns:
        Mean, lower and upper end; the ends are NaN with a single volume, or where a value is not
        finite, for then nothing is known about the spread.

    Raises:
        ValueError: no values, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    sums, counts = _by_volume(values, unit)
    mean = float(_ratio(sums, counts))
    if len(sums) < 2 or not np.isfinite(sums).all():
        return Interval(mean, np.nan, np.nan)
    if np.ptp(sums / counts) == 0:
        return Interval(mean, mean, mean)
    if len(sums) < ENOUGH:
        return _student(mean, _variance(sums, counts), len(sums) - 1, confidence)
    result = stats.bootstrap(
        (sums, counts),
        _ratio,
        n_resamples=RESAMPLES,
        batch=max(1, MOST_NUMBERS // len(sums)),
        confidence_level=confidence,
        paired=True,  # a volume's sum and its number of slices are drawn together
        method="BCa",
        rng=np.random.default_rng(SEED),
    )
    return Interval(mean, *map(float, result.confidence_interval))


def gap_interval(
    first: Mapping[str, float], second: Mapping[str, float], *, confidence: float = 0.95
) -> Interval:
    """Mean of `first` minus mean of `second`, of different volumes, with its interval.

    Student's t with the degrees of freedom of Welch (1947), by volume as in `mean_interval`; the
    ends are NaN where one of them has a single volume.
    """
    parts = [_by_volume(values) for values in (first, second)]
    gap = float(_ratio(*parts[0]) - _ratio(*parts[1]))
    sizes = np.array([len(sums) for sums, _ in parts])
    if sizes.min() < 2:
        return Interval(gap, np.nan, np.nan)
    variances = np.array([_variance(*part) for part in parts])
    if not variances.any():
        return Interval(gap, gap, gap)
    freedom = variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum()
    return _student(gap, variances.sum(), freedom, confidence)


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    confidence: float = 0.95,
    unit: Unit = volume_of,
) -> Comparison:
    """Two methods on the slices that both have, tested by volume.

    The permutation test is exact up to 13 volumes, else it draws `RESAMPLES` sign patterns; with n
    volumes its p is at least 2^(1 - n).

    Args:
        first: one value a slice, by key.
        second: the same of another method.
        confidence: of the difference's interval.
        unit: of a key.

    Raises:
        ValueError: no slice in common, or a value that is not finite.
    """
    keys = sorted(first.keys() & second.keys())
    if not keys:
        raise ValueError("expected slices that both methods have, got none in common")
    differences = {key: first[key] - second[key] for key in keys}
    bad = [key for key in keys if not np.isfinite(differences[key])]
    if bad:
        raise ValueError(f"expected finite values to compare, got others for {', '.join(bad)}")
    sums, counts = _by_volume(differences, unit)
    return Comparison(
        slices=len(keys),
        volumes=len(sums),
        first=float(np.mean([first[key] for key in keys])),
        second=float(np.mean([second[key] for key in keys])),
        difference=mean_interval(differences, confidence=confidence, unit=unit),
        p_permutation=_permutation(sums),
        p_wilcoxon=_wilcoxon(sums / counts),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number (Holm 1979), in the order given.

    The family-wise error is kept below alpha by rejecting where the adjusted value is below alpha.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()


def _by_volume(
    values: Mapping[str, float], unit: Unit = volume_of
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of each volume's values, ``(n,)`` each, in the order of the names."""
    if not values:
        raise ValueError("expected at least one value, got none")
    volumes: dict[str, list[float]] = {}
    for key in sorted(values):
        volumes.setdefault(unit(key), []).append(values[key])
    lists = [volumes[name] for name in sorted(volumes)]
    return np.array([sum(v) for v in lists]), np.array([len(v) for v in lists], dtype=float)


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray | float:
    """Mean over slices from sums and counts of volumes."""
    return np.sum(sums, axis=axis) / np.sum(counts, axis=axis)


def _variance(sums: np.ndarray, counts: np.ndarray) -> float:
    """Of the mean over slices, from two or more volumes; linearised where they are unequal.

    Source: W. G. Cochran, Sampling Techniques (1977), equation 9A.3 (means of clusters).
    """
    number = len(sums)
    deviations = sums - _ratio(sums, counts) * counts
    return float(number / (number - 1) * np.sum(deviations**2) / np.sum(counts) ** 2)


def _student(mean: float, variance: float, freedom: float, confidence: float) -> Interval:
    half = stats.t.isf((1 - confidence) / 2, freedom) * np.sqrt(variance)
    return Interval(mean, mean - float(half), mean + float(half))


def _permutation(sums: np.ndarray) -> float:
    if len(sums) < 2:  # either sign is as extreme as the other
        return 1.0
    # one sample: scipy flips the signs of its entries
    result = stats.permutation_test(
        (sums,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, MOST_NUMBERS // len(sums)),
        rng=np.random.default_rng(SEED),
    )
    return float(result.pvalue)


def _wilcoxon(differences: np.ndarray) -> float:
    if not differences.any():  # scipy gives NaN: there is no rank
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)
