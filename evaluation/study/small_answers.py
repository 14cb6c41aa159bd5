"""What a statement of the study in small is, and the rule by which it was seen or not.

A statement is of the kind "a difference is above a threshold". It is looked at in each row: a prior
and its measurement, a sampler, sometimes a size. A row says yes or no if its whole interval lies on
one side of the threshold, otherwise it is open. By these rows the statement was

- seen: more than half of the rows say yes, and none says no,
- not seen: more than half say no, and none says yes,
- else it cannot be said here.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from evaluation.study.small_model import Estimate

YES, NO, OPEN, NONE = "yes", "no", "open", "not run"
SEEN, NOT_SEEN, UNSAID, NOT_RUN = "seen", "not seen", "cannot be said here", "not run yet"


class Row(NamedTuple):
    """A statement in one case: prior, measurement, sampler, what else, estimate and verdict."""

    prior: str
    measurement: str
    sampler: str
    detail: str
    estimate: Estimate
    verdict: str


class Statement(NamedTuple):
    """A statement with its rows.

    Attributes:
        question: number of its question.
        text: the statement.
        unit: of the estimates.
        threshold: what the estimate has to exceed.
        rows: one for each case.
        remark: a sentence for the summary, or "".
    """

    question: int
    text: str
    unit: str
    threshold: float
    rows: tuple[Row, ...]
    remark: str = ""


def verdict(estimate: Estimate, threshold: float) -> str:
    """What a row says of "the mean is above the threshold"."""
    interval = estimate.interval
    if math.isnan(interval.mean):
        return NONE
    if interval.low > threshold:
        return YES
    return NO if interval.high < threshold else OPEN


def tally(rows: Iterable[Row]) -> tuple[int, int, int]:
    """Numbers of rows that say yes, say no and are open."""
    found = [row.verdict for row in rows]
    return found.count(YES), found.count(NO), found.count(OPEN)


def answer(rows: Iterable[Row]) -> str:
    """Answer to a statement, see the module."""
    yes, no, opened = tally(rows)
    total = yes + no + opened
    if not total:
        return NOT_RUN
    if yes > total / 2 and not no:
        return SEEN
    return NOT_SEEN if no > total / 2 and not yes else UNSAID
