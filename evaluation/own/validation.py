"""Prediction of left-out parts of a measurement, to compare methods and choose keywords."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.baselines import BASELINES
from evaluation.own.base import Input
from evaluation.own.engine import Sampling, sample, with_noise
from evaluation.own.holdout import HoldOut
from evaluation.run.keywords import check_options
from samplers import SAMPLERS
from sde import Prior

MOST_SLICES = 3  # evenly chosen
FACTOR = 2.0  # from one weight of a baseline to the next
MOST_WEIGHTS = 12
# first weights of the baselines' penalties; the best one is looked for from there
FIRST_WEIGHTS = {"cg_sense": 0.01, "l1_wavelet": 1e-3, "tv": 5e-4}
LARGEST_PART = 0.5


class Row(NamedTuple):
    """Prediction errors of a method.

    Attributes:
        method: name of the method.
        settings: keyword and value that were chosen, or "".
        errors: prediction error of each slice.
    """

    method: str
    settings: str
    errors: list[float]

    def describe(self, noise: float) -> dict:
        """Means over the slices, for a JSON file.

        Args:
            noise: mean error of a true image, due to noise alone.
        """
        error = float(np.mean(self.errors))
        return {
            "method": self.method,
            "settings": self.settings,
            "error": digits(error),
            "above_noise": digits(error - noise),
        }


def validate(
    opened: Input,
    part: float,
    sampling: Sampling,
    prior: Prior,
    *,
    seed: int,
    device: torch.device | str,
    choices: Mapping[str, Sequence[float]] | None = None,
) -> dict:
    """Leave out a part of a few slices and compare how well methods predict it from the rest.

    For each baseline, the weight that predicts best is chosen on the same samples that it is judged
    by, which flatters the baselines.

    Args:
        opened: input of measured k-space or sinograms.
        part: fraction of the measurement to leave out.
        sampling: choice of the sampler.
        prior: prior of images in about [0, 1].
        seed: seed of the parts and of the sampler.
        device: device of the prior's network.
        choices: values of one of the sampler's keywords to choose from.

    Returns:
        A dict for a JSON file: `part`; what was `left_out` of which `slices`; `noise`, the error of
        a true image; for each of the `methods` its `error` and the difference `above_noise`; and
        `chosen`, the keyword with the value that predicts best.

    Raises:
        ValueError: nothing can be left out.
        FloatingPointError: with each of the choices, a slice became NaN or infinite.
    """
    held, keys = leave_out(opened, part, sampling, seed=seed, device=device)
    noise = float(np.mean([h.noise() for h in held]))
    noise /= max(1.0, sampling.noise_factor) ** 2  # beyond the estimate is misfit of the model

    def predicted(sampling: Sampling) -> list[float]:
        found = []
        for h, key in zip(held, keys, strict=True):
            moments, failures = sample(h.problem, sampling, prior, seed=seed, keys=[key])
            found.append(math.inf if failures else h.error(moments.mean))
        return found

    candidates = [{name: value} for name, values in (choices or {}).items() for value in values]
    candidates = candidates or [{}]
    rows = []
    for options in candidates:
        errors = predicted(sampling._replace(options=sampling.options | options))
        rows.append(Row(sampling.sampler, _text(options), errors))
    best = int(np.argmin([np.mean(row.errors) for row in rows]))
    if not np.isfinite(rows[best].errors).all():
        raise FloatingPointError("the slices to validate with became NaN or infinite")
    rows += _baselines(opened, held)
    return {
        "part": part,
        "left_out": held[0].what,
        "slices": keys,
        "noise": digits(noise),
        "methods": [row.describe(noise) for row in rows],
        "chosen": candidates[best],
    }


def leave_out(
    opened: Input, part: float, sampling: Sampling, *, seed: int, device: torch.device | str
) -> tuple[list[HoldOut], list[str]]:
    """A few slices without a part of their measurement, and their keys.

    Args:
        opened: input of measured k-space or sinograms.
        part: fraction of the measurement to leave out.
        sampling: choice of the sampler; its noise level, if given, holds for the slices.
        seed: seed of the parts.
        device: device of the slices.

    Returns:
        Up to `MOST_SLICES` evenly spaced slices; those that are nothing but zeros are left away.

    Raises:
        ValueError: nothing can be left out, or all slices are zeros.
    """
    numbers = range(len(opened.keys))
    items = sorted({round(i) for i in np.linspace(0, numbers[-1], min(MOST_SLICES, len(numbers)))})
    held = [with_noise(opened.holdout(item, part, seed), sampling).to(device) for item in items]
    used = [k for k, h in enumerate(held) if float(h.y.abs().max()) > 0 and h.problem.scale[0] > 0]
    if not used:
        raise ValueError("expected slices to validate with, got nothing but zeros")
    return [held[k] for k in used], [opened.keys[items[k]] for k in used]


def _baselines(opened: Input, held: Sequence[HoldOut]) -> Iterator[Row]:
    """Rows of the direct reconstruction, and of the other baselines at their best weights."""
    yield Row(opened.direct, "", [h.error(h.problem.direct) for h in held])
    for name, first in FIRST_WEIGHTS.items():
        if name == "cg_sense" and not opened.is_complex:
            continue
        weight, errors = best_weight(_errors(name, held), first)
        yield Row(name, f"weight={weight:.2g}", errors)


def _errors(name: str, held: Sequence[HoldOut]) -> Callable[[float], list[float]]:
    """Prediction errors of a baseline as a function of its weight."""

    def errors(weight: float) -> list[float]:
        def image(h: HoldOut) -> Tensor:
            return BASELINES[name](h.problem.operator, h.problem.y, weight=weight)

        return [h.error(image(h)) for h in held]

    return errors


def best_weight(errors: Callable[[float], list[float]], first: float) -> tuple[float, list[float]]:
    """Weight with the smallest mean error among `first` times powers of `FACTOR`.

    The search goes downhill from `first`; the error is assumed to have a single minimum.

    Args:
        errors: weight -> errors of the slices.
        first: weight to start from.

    Returns:
        The weight and its errors.
    """
    known = {0: errors(first)}

    def mean(power: int) -> float:
        if power not in known:
            known[power] = errors(first * FACTOR**power)
        return float(np.mean(known[power]))

    step = 1 if mean(1) < mean(0) else -1
    at = max(step, 0)
    while len(known) < MOST_WEIGHTS and mean(at + step) < mean(at):
        at += step
    return first * FACTOR**at, known[at]


def read_choices(text: str, sampling: Sampling) -> dict[str, tuple[float, ...]]:
    """Keyword and values of a text such as "strength=0.1,0.23,1".

    Args:
        text: ``config.choose``; "" for no choices.
        sampling: choice of the sampler, for the error.

    Raises:
        ValueError: another form.
    """
    if not text:
        return {}
    keyword, _, values = text.partition("=")
    try:
        numbers = tuple(int(v) if v.strip().isdecimal() else float(v) for v in values.split(","))
    except ValueError:
        numbers = ()
    if not (keyword.isidentifier() and numbers):
        raise ValueError(
            f"expected choose as KEYWORD=VALUE,VALUE,... of {sampling.sampler}, such as "
            f"strength=0.1,0.23,1, got {text!r}"
        )
    return {keyword: numbers}


def check_part(part: float, choices: Mapping[str, Sequence], sampling: Sampling) -> None:
    """Raise a ValueError for a part that cannot be left out, or choices that cannot be made.

    Args:
        part: fraction to leave out; 0 for no validation.
        choices: values by keyword.
        sampling: choice of the sampler.
    """
    if not 0 <= part <= LARGEST_PART:
        raise ValueError(f"expected validate from 0 (off) to {LARGEST_PART}, got {part}")
    if choices and not part:
        raise ValueError(
            "expected validate, such as 0.1, beside choose: the value is chosen that predicts best "
            "what is left out"
        )
    if choices and sampling.calibrated:
        raise ValueError(
            "expected choose without sampler.calibrated, whose scales are of a sampler's defaults"
        )
    if len(choices) > 1 or any(len(values) == 0 for values in choices.values()):
        raise ValueError(f"expected one keyword with values to choose from, got {dict(choices)}")
    for name in choices:
        check_options(SAMPLERS[sampling.sampler], {name: None})
        if name in sampling.options:
            raise ValueError(f"{name} is given, so that it cannot be chosen; leave one of them out")


def table(found: Mapping) -> list[str]:
    """Lines of text that show the result of `validate`."""
    lines = [
        f"left out and predicted: {100 * found['part']:g} % of the {found['left_out']} of "
        f"{len(found['slices'])} slices; squared error over energy, noise alone {found['noise']:g}",
        f"{'':32}{'error':>10}{'above the noise':>18}",
    ]
    for row in found["methods"]:
        name = f"{row['method']} {row['settings']}".strip()
        error, above = (
            "failed" if row[k] is None else f"{row[k]:.4g}" for k in ("error", "above_noise")
        )
        lines.append(f"{name:32}{error:>10}{above:>18}")
    if found["chosen"]:
        lines.append(f"chosen: {_text(found['chosen'])}")
    return lines


def find_own(found: Mapping, sampler: str) -> dict:
    """Row of the sampler itself, with the keyword that was chosen, of what `validate` found.

    Args:
        found: result of `validate`.
        sampler: name of the sampler.
    """
    chosen = _text(found["chosen"])
    rows = (row for row in found["methods"] if row["method"] == sampler)
    return next(row for row in rows if row["settings"] == chosen)


def in_a_line(found: Mapping) -> str:
    """The errors that `validate` found, as a line of text."""
    errors = ", ".join(f"{m['method']} {_number(m['error'])}" for m in found["methods"])
    return (
        f"error of predicting {100 * found['part']:g} % of the {found['left_out']}, left out: "
        f"{errors}; noise alone {found['noise']:.3g}"
    )


def _number(error: float | None) -> str:
    return "failed" if error is None else f"{error:.3g}"


def _text(options: Mapping) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in options.items())


def digits(value: float) -> float | None:
    """The value with four significant digits; None if it is not finite, as JSON has no infinity."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
