"""Confidence intervals of means over slices, and tests of the difference between two methods.

Slices of one volume are not independent, as they show the same person. The statistical unit is
therefore the volume (`volumes.volume_of` a slice's key), or the person if the data set knows whom
its slices show (`cells.CellResults.unit`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from evaluation.results.volumes import volume_of

SEED = 0
RESAMPLES = 9999
# number of volumes from which on the bootstrap is used. It accounts for skewness, but fails for few
# units: its 95 % intervals of 3 to 6 volumes cover 73 to 85 %, Student's 94 to 95 %
ENOUGH = 20
MOST_NUMBERS = 10_000_000  # numbers drawn at a time, which keeps memory below about 100 MB


Unit = Callable[[str], str]  # key of a slice -> its statistical unit: volume or person


class Interval(NamedTuple):
    """Mean and the ends of its confidence interval; the ends are NaN if there is none."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Comparison of two methods on the slices that both have.

    Attributes:
        slices: number of slices that both have.
        volumes: number of volumes of these slices.
        first: mean of the first method.
        second: mean of the second method.
        difference: mean of first - second, with its interval.
        p_permutation: two-sided p value of the permutation test that flips signs of volumes.
        p_wilcoxon: two-sided p value of the signed-rank test of the volumes' mean differences.
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
    """Mean over slices with its confidence interval by volume.

    The interval is Student's t from the deviations of volumes; from `ENOUGH` volumes on it is a
    bootstrap (BCa, Efron 1987) that resamples volumes. The order of `values` has no influence.

    Args:
        values: one value per slice, by key.
        confidence: confidence level in (0, 1).
        unit: function that maps a key to its statistical unit.

    Returns:
        Mean, lower and upper end; the ends are NaN if there is only one volume, or a value is not
        finite.

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
        paired=True,  # draw the sum of a volume together with its number of slices
        method="BCa",
        rng=np.random.default_rng(SEED),
    )
    return Interval(mean, *map(float, result.confidence_interval))


def gap_interval(
    first: Mapping[str, float], second: Mapping[str, float], *, confidence: float = 0.95
) -> Interval:
    """Difference of the means of two sets of different volumes, with its confidence interval.

    The interval is Student's t by volume with the degrees of freedom of Welch (1947).

    Args:
        first: one value per slice, by key.
        second: one value per slice of other volumes, by key.
        confidence: confidence level in (0, 1).

    Returns:
        Mean of `first` minus mean of `second`, lower and upper end; the ends are NaN if one of the
        sets has only one volume.

    Raises:
        ValueError: no values.
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
    """Paired comparison of two methods on the slices that both have, tested by volume.

    The permutation test is exact up to 13 volumes and otherwise draws `RESAMPLES` sign patterns;
    with n volumes its p value is at least 2^(1 - n).

    Args:
        first: one value per slice of the first method, by key.
        second: one value per slice of the second method, by key.
        confidence: confidence level of the interval of the difference, in (0, 1).
        unit: function that maps a key to its statistical unit.

    Raises:
        ValueError: there is no slice in common, or a value is not finite.
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
    """P values adjusted for multiple tests (Holm 1979), in the given order.

    Rejecting hypotheses whose adjusted p value is below alpha keeps the family-wise error below
    alpha.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()


def _by_volume(
    values: Mapping[str, float], unit: Unit = volume_of
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each volume, ``(n,)`` each, sorted by name of the volume."""
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
    """Variance of the mean over slices, from two or more volumes; linearised for unequal sizes.

    Source: W. G. Cochran, Sampling Techniques (1977), equation 9A.3 (means of clusters).
    """
    number = len(sums)
    deviations = sums - _ratio(sums, counts) * counts
    return float(number / (number - 1) * np.sum(deviations**2) / np.sum(counts) ** 2)


def _student(mean: float, variance: float, freedom: float, confidence: float) -> Interval:
    half = stats.t.isf((1 - confidence) / 2, freedom) * np.sqrt(variance)
    return Interval(mean, mean - float(half), mean + float(half))


def _permutation(sums: np.ndarray) -> float:
    if len(sums) < 2:  # both signs are equally extreme
        return 1.0
    # for one sample, scipy flips the signs of its entries
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
    if not differences.any():  # scipy returns NaN, as there are no ranks
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)
