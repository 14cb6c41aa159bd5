"""Keywords of samplers and baselines: which they take, which values are valid, what they mean."""

import inspect
import math
from collections.abc import Callable

from evaluation.baselines import BASELINES
from samplers import FROM_POINT, POINT_ESTIMATES, SAMPLERS

ROUNDING = 1e-9  # so that a mean_error of 0.1 takes 100 samples, not 101


def check_options(function: Callable, options: dict) -> None:
    """Raise a ValueError, which lists the known keywords, if `function` lacks one of `options`."""
    taken = {"rng", "num_steps", "device", "callback", "initial", "after_step"}
    parameters = inspect.signature(function).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - taken
    unknown = options.keys() - known
    if unknown:
        raise ValueError(
            f"{function.__name__} has no {', '.join(f'sampler.{u}' for u in sorted(unknown))}; "
            f"it has: {', '.join(sorted(known)) or 'none'}; leave the others at None"
        )


def check_num_samples(name: str, num_samples: int) -> None:
    """Raise a ValueError for fewer than one sample, or for several of a deterministic method."""
    if num_samples < 1:
        raise ValueError(f"expected sampler.num_samples of at least 1, got {num_samples}")
    if num_samples > 1 and (name in POINT_ESTIMATES or name in BASELINES):
        random = ", ".join(sorted(SAMPLERS.keys() - set(POINT_ESTIMATES)))
        raise ValueError(
            f"expected sampler.num_samples of 1 for {name}, a point estimate, got {num_samples}; "
            f"samples differ with {random}"
        )


def check_noise(name: str, options: dict) -> None:
    """Raise a ValueError for a noise level that is negative, not finite, or not used."""
    if "sigma_y" not in options:
        return
    if not 0 <= options["sigma_y"] < math.inf:
        raise ValueError(f"expected sampler.sigma_y of 0 or more, got {options['sigma_y']}")
    if not uses_noise(name, options):
        raise ValueError(f"{name} uses sampler.sigma_y with sampler.likelihood=gaussian only")


def takes(name: str, keyword: str) -> bool:
    """Whether the sampler `name` has the keyword `keyword`."""
    return keyword in inspect.signature(SAMPLERS[name]).parameters


def uses_noise(name: str, options: dict) -> bool:
    """Whether a sampler with the keywords `options` uses the noise level of the measurement."""
    ignored = name == "annealed_langevin" and options.get("likelihood") != "gaussian"
    return takes(name, "sigma_y") and not ignored


def shares(name: str) -> bool:
    """Whether samples of a measurement share a first image, which `sample_source` makes once."""
    return name in FROM_POINT


def starts_warm(name: str, options: dict) -> bool:
    """Whether a sampler with the keywords `options` starts from the direct reconstruction."""
    # the predictor-corrector starts from the prior unless a start level is given
    cold = name == "predictor_corrector" and not {"start_level", "start_sigma"} & options.keys()
    return takes(name, "initial") and not cold and not shares(name)


def enough_samples(most: int, mean_error: float | None) -> int:
    """Number of samples after which their mean is known well enough.

    Samples of a measurement are independent, so that the Monte Carlo error of their mean is
    std / sqrt(n) at every pixel, and the part of the standard deviation that it is is known before
    any of them is drawn. At least two are drawn of several.

    Args:
        most: largest number of samples.
        mean_error: part of the standard deviation that the mean's error may be; None for `most`.

    Raises:
        ValueError: `mean_error` is not between 0 and 1, or there is one sample.
    """
    if mean_error is None:
        return most
    if not 0 < mean_error < 1:
        raise ValueError(f"expected sampler.mean_error between 0 and 1, got {mean_error}")
    if most == 1:
        raise ValueError(
            "expected sampler.num_samples above 1 beside sampler.mean_error, the largest number of "
            "samples to draw; or leave mean_error at None"
        )
    return min(most, max(2, math.ceil(mean_error**-2 * (1 - ROUNDING))))


def expected_calls(name: str, num_steps: int, num_samples: int, options: dict) -> int:
    """Approximate number of network calls per slice, for a progress bar; 0 for a baseline."""
    if name in BASELINES:
        return 0
    parameters = inspect.signature(SAMPLERS[name]).parameters
    repeated = {"corrector_steps": 1, "inner_steps": 0}  # in addition to so many predictor steps
    calls = 1
    for keyword, beside in repeated.items():
        if keyword in parameters:
            calls = options.get(keyword, parameters[keyword].default) + beside

    def value(keyword: str, without: int) -> int:
        default = parameters[keyword].default if keyword in parameters else without
        return options.get(keyword, default)

    calls *= value("order", 1) * value("particles", 1)
    each = max(num_steps * calls, 1) + value("start_steps", 0)
    return each * num_samples + (value("point_steps", 0) if shares(name) else 0)
