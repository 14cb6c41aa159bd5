"""The eight questions to the study of 2026, asked of the rows of the study in small.

Each question is one or more statements, see `small_answers`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from configs.small_study import FLAT, NESTED, SIZES
from evaluation.study.small_answers import NO, NONE, OPEN, YES, Row, Statement, verdict
from evaluation.study.small_cells import DOMAINS, MEDICAL, OWN, SAMPLERS, outside
from evaluation.study.small_model import Estimate, Scores, Size, by_person, contrast, slope
from evaluation.study.small_rows import training_key

AS_GOOD = 0.5  # dB by which a network may be worse and still count as equally good
MAIN = tuple(name for name in SAMPLERS if name != "pc_2026")
EDITIONS = ("pc", "pc_2026")  # the same sampler by the correct protocol and by that of 2026
SMALLEST, RESNET, LARGEST = "1_small", "1", "4_attention"
LEVELS_BELOW_1 = (0.03, 0.1, 0.3)

Weights = Callable[[str], Mapping[Size, float]]  # prior -> contrast


def minus(first: str, second: str) -> Weights:
    """Contrast of a size minus another, for any prior."""
    return lambda prior: {(prior, first): 1.0, (prior, second): -1.0}


# main effects and interaction of the 2 x 2 of parameters and field
def more_parameters(prior: str) -> dict[Size, float]:
    """Mean gain by more parameters at an equal theoretical field."""
    wide, narrow = {"4": 0.5, "4_small": -0.5}, {"1_large": 0.5, "1": -0.5}
    return {(prior, size): weight for size, weight in (wide | narrow).items()}


def wider_field(prior: str) -> dict[Size, float]:
    """Mean gain by a wider theoretical field at about equal parameters."""
    few, many = {"4_small": 0.5, "1": -0.5}, {"4": 0.5, "1_large": -0.5}
    return {(prior, size): weight for size, weight in (few | many).items()}


def interaction(prior: str) -> dict[Size, float]:
    """What a wider field gains with many parameters minus what it gains with few."""
    signs = {"4": 1.0, "1_large": -1.0, "4_small": -1.0, "1": 1.0}
    return {(prior, size): sign for size, sign in signs.items()}


def sets_of(prior: str, measurement: str, where: str) -> tuple[str, ...]:
    """Test sets in ("in") or out of ("out") a prior's distribution."""
    return (OWN[prior],) if where == "in" else outside(prior, measurement)


def cases(
    scores: Scores,
    weights: Weights,
    where: str,
    *,
    threshold: float,
    samplers: Sequence[str] = MAIN,
    domains: Sequence[tuple[str, str]] = DOMAINS,
    detail: str = "",
) -> list[Row]:
    """Rows of a contrast for each domain and sampler."""
    found = []
    for (prior, measurement), sampler in product(domains, samplers):
        sets = sets_of(prior, measurement, where)
        estimate = contrast(scores, weights(prior), measurement, sampler, sets)
        decided = verdict(estimate, threshold)
        found.append(Row(prior, measurement, sampler, detail, estimate, decided))
    return found


def natural_rows(scores: Scores, samplers: Sequence[str] = MAIN) -> list[Row]:
    """Natural minus medical prior at each size, outside the medical one's distribution."""
    return [
        row
        for size in SIZES
        for row in cases(
            scores,
            lambda prior, size=size: {("natural", size): 1.0, (prior, size): -1.0},
            "out",
            threshold=0.0,
            samplers=samplers,
            domains=MEDICAL,
            detail=size,
        )
    ]


def first_four(scores: Scores, samplers: Sequence[str]) -> list[Statement]:
    """Statements of questions 1 to 4 with some samplers."""

    def made(question: int, text: str, weights: Weights, where: str, threshold: float) -> Statement:
        rows = cases(scores, weights, where, threshold=threshold, samplers=samplers)
        return Statement(question, text, "dB", threshold, tuple(rows))

    pair = minus(RESNET, LARGEST)
    rows = natural_rows(scores, samplers)
    text = "outside a medical prior's distribution, photographs of equal number make a better one"
    return [
        made(1, "in distribution, 1 loses less than 0.5 dB against 4_attention", pair, "in", -0.5),
        made(2, "out of distribution, 1 is better than 4_attention", pair, "out", 0.0),
        Statement(3, text, "dB", 0.0, tuple(rows), share_won(scores, samplers)),
        made(4, "in distribution, more parameters help", more_parameters, "in", 0.0),
        made(4, "in distribution, a wider field helps", wider_field, "in", 0.0),
        made(4, "in distribution, it helps more with many parameters", interaction, "in", 0.0),
        made(4, "out of distribution, more parameters help", more_parameters, "out", 0.0),
        made(4, "out of distribution, a wider field helps", wider_field, "out", 0.0),
        made(4, "out of distribution, it helps more with many parameters", interaction, "out", 0.0),
    ]


def share_won(scores: Scores, samplers: Sequence[str]) -> str:
    """Sentence with the share of cells in which the natural prior has the higher mean."""
    won = total = 0
    for (prior, measurement), sampler, size in product(MEDICAL, samplers, SIZES):
        for data in outside(prior, measurement):
            weights = {("natural", size): 1.0, (prior, size): -1.0}
            mean = contrast(scores, weights, measurement, sampler, (data,)).interval.mean
            won, total = won + (mean > 0), total + (not math.isnan(mean))
    return f"Photographs have the higher mean in {won} of {total} cells." if total else ""


def smallest(scores: Scores) -> list[Statement]:
    """Question 5."""
    texts = {"in": "in distribution", "out": "out of distribution"}
    return [
        Statement(
            5,
            f"{text}, 1_small loses less than 0.5 dB against 1",
            "dB",
            -AS_GOOD,
            tuple(cases(scores, minus(SMALLEST, RESNET), where, threshold=-AS_GOOD)),
        )
        for where, text in texts.items()
    ]


def fields_and_numbers(scores: Scores, trainings: Sequence[Mapping[str, str]]) -> list[Statement]:
    """Question 6: effective fields, and the number of training images."""
    radii = {training_key(row): effective_radius(row) for row in trainings}
    rows = []
    for (prior, measurement), sampler in product(DOMAINS, MAIN):
        points = shift_losses(scores, prior, measurement, sampler, radii)
        estimate = slope(*zip(*points, strict=True)) if points else slope([], [])
        rows.append(Row(prior, measurement, sampler, "", estimate, verdict(estimate, 0.0)))
    text = "a training with a wider effective field below sigma 1 loses more out of distribution"
    more = [
        row
        for size in ("1", "4")
        for row in cases(
            scores,
            lambda _, size=size: {("photos", size): 1.0, ("natural", size): -1.0},
            "out",
            threshold=0.0,
            domains=(("natural", "mr"), ("natural", "ct")),
            samplers=("pnp",),
            detail=size,
        )
    ]
    remark = (
        "Slope of (mean in minus mean out) over log2 of the radius with 80 % of the energy, "
        "averaged over sigma 0.03, 0.1 and 0.3; a point a training."
    )
    return [
        Statement(6, text, "dB per doubling", 0.0, tuple(rows), remark),
        Statement(6, "969 photographs make a better prior than 98", "dB", 0.0, tuple(more)),
    ]


def effective_radius(row: Mapping[str, str]) -> float:
    """Radius with 80 % of the energy, averaged over the noise levels below 1."""
    return float(np.mean([float(row[f"radius_80_at_{level:g}"]) for level in LEVELS_BELOW_1]))


def shift_losses(
    scores: Scores, prior: str, measurement: str, sampler: str, radii: Mapping[str, float]
) -> list[tuple[float, float]]:
    """(log2 of the effective radius, mean in minus mean out of distribution) of each training."""
    points = []
    for size in SIZES:
        inside, out = (
            scores.trainings((prior, size), measurement, sampler, sets_of(prior, measurement, w))
            for w in ("in", "out")
        )
        for seed in inside.keys() & out.keys():
            radius = radii.get(f"{prior}_{size}_s{seed}", 0.0)
            if radius > 0:
                means = [np.mean(list(by_person(s[seed]).values())) for s in (inside, out)]
                points.append((math.log2(radius), float(means[0] - means[1])))
    return sorted(points)


def editions(scores: Scores) -> Statement:
    """Question 7: rows of questions 1 to 4, PC by the correct protocol and by that of 2026.

    A row says yes if both have the same decided verdict, no if the verdicts contradict each other,
    and is open otherwise; its estimate is that of 2026.
    """
    correct, original = (first_four(scores, (sampler,)) for sampler in EDITIONS)
    rows = []
    for statement, other in zip(correct, original, strict=True):
        for mine, theirs in zip(statement.rows, other.rows, strict=True):
            if NONE in (mine.verdict, theirs.verdict):
                same = NONE
            elif OPEN in (mine.verdict, theirs.verdict):
                same = OPEN
            else:
                same = YES if mine.verdict == theirs.verdict else NO
            detail = ", ".join(filter(None, [f"question {statement.question}", mine.detail]))
            rows.append(theirs._replace(detail=f"{detail}: {statement.text}", verdict=same))
    remark = (
        "The protocol of 2026 has the raw weights, images clamped to [0, 1], steps of the data as "
        "in its code and no data step at the start; in CT it is warm-started here as the other. "
        "Not run: DPS and Langevin by it, other numbers of levels, TV tuned on validation people."
    )
    text = "PC by the protocol of 2026 says the same of questions 1 to 4"
    return Statement(7, text, "dB", 0.0, tuple(rows), remark)


def nested(scores: Scores) -> list[Statement]:
    """Question 8."""
    pairs = {
        f"{NESTED}_1": (RESNET, "a network of size 1, which has two more blocks at its bottom"),
        f"{NESTED}_4": (FLAT, "the same network trained at that depth alone"),
    }
    found = []
    for size, (other, words) in pairs.items():
        text = f"depth {size[-1]} of a nested network loses less than 0.5 dB against {words}"
        rows = [
            row
            for where in ("in", "out")
            for row in cases(
                scores,
                minus(size, other),
                where,
                threshold=-AS_GOOD,
                samplers=("pnp",),
                domains=[d for d in DOMAINS if d[0] in ("brain", "natural")],
                detail=f"{where} of distribution" if where == "out" else "in distribution",
            )
        ]
        found.append(Statement(8, text, "dB", -AS_GOOD, tuple(rows)))
    return found


def all_statements(scores: Scores, trainings: Sequence[Mapping[str, str]]) -> list[Statement]:
    """The statements of all eight questions in their order."""
    return [
        *first_four(scores, MAIN),
        *smallest(scores),
        *fields_and_numbers(scores, trainings),
        editions(scores),
        *nested(scores),
    ]


def size_means(
    scores: Scores, prior: str, measurement: str, sampler: str, where: str
) -> dict[str, Estimate]:
    """Mean score of a prior at each size that was run, with intervals over people."""
    sets = sets_of(prior, measurement, where)
    found = {
        size: contrast(scores, {(prior, size): 1.0}, measurement, sampler, sets) for size in SIZES
    }
    return {size: e for size, e in found.items() if not math.isnan(e.interval.mean)}


def baseline_mean(scores: Scores, name: str, measurement: str, sets: Sequence[str]) -> float:
    """Mean over people of a baseline; NaN if it was not run."""
    return contrast(scores, {("", ""): 1.0}, measurement, name, sets).interval.mean
