"""Images of results folders of `reconstruct.py` as a report's viewer shows them."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from evaluation.metrics import all_metrics
from evaluation.own.result import IMAGE, TRUTH, OwnResult, differing
from evaluation.results.cells import IMAGE_METRICS
from evaluation.show.gallery import Gallery, Shown


def make_gallery(
    results: Sequence[OwnResult], names: Sequence[str], keys: Sequence[str]
) -> Gallery:
    """Truth, if there is one, results, and what was reconstructed without a prior.

    Without a truth, a reconstruction without a prior is what others are compared with.

    Args:
        results: results of one input.
        names: their titles.
        keys: keys of slices that all of them have.
    """
    pose = _normaliser(results[0])
    has_truth = all(TRUTH in result.names for result in results)
    truth = results[0] if has_truth else None
    methods = [
        _shown(name, result, IMAGE, pose, truth)
        for name, result in zip(names, results, strict=True)
    ]
    apart = differing(results, "direct", keys)
    directs = [
        _shown(
            results[i].direct + (f" ({names[i]})" if len(apart) > 1 else ""),
            results[i],
            "direct",
            pose,
            truth,
        )
        for i in apart
    ]
    first = [_shown(TRUTH, results[0], TRUTH, pose, None)] if has_truth else [directs.pop(0)]
    shown = [*first, *methods, *directs]
    samples = all("std" in result.names for result in results)
    return Gallery(
        keys=keys,
        shown=shown,
        unit=_unit(results[0].unit),
        values=pose,
        metrics=IMAGE_METRICS if has_truth else (),
        lead=0 if has_truth else 1,
        left=next(i for i, one in enumerate(shown) if one.is_direct),
        right=1,
        map="std" if samples else "size",
    )


def _shown(
    title: str,
    result: OwnResult,
    name: str,
    pose: Callable[[str], tuple[float, float]],
    truth: OwnResult | None,
) -> Shown:
    """An image of a result, in parts of the range that `pose` tells."""

    def image(key: str) -> np.ndarray:
        factor, offset = pose(key)
        return (result.image(name, key) - offset) / factor

    def spread(key: str) -> dict[str, np.ndarray]:
        factor, offset = pose(key)
        found = result.spread(key) if name == IMAGE else {}
        return {
            what: (values if what == "std" else values - offset) / factor
            for what, values in found.items()
        }

    def metrics(key: str, *_) -> dict[str, float]:
        if truth is None:
            return {}
        target = truth.image(TRUTH, key)
        low, scale = target.min(), target.max() - target.min()
        if not scale > 0:
            return {}
        return all_metrics((target - low) / scale, (result.image(name, key) - low) / scale)

    return Shown(title, image, spread=spread, metrics=metrics, is_direct=name == "direct")


def _normaliser(result: OwnResult) -> Callable[[str], tuple[float, float]]:
    """Function of a key: range and least value of the slice's reconstruction."""
    known: dict[str, tuple[float, float]] = {}

    def pose(key: str) -> tuple[float, float]:
        if key not in known:
            image = result.image(IMAGE, key)
            low, high = float(image.min()), float(image.max())
            known[key] = (high - low) or 1.0, low
        return known[key]

    return pose


def _unit(text: str) -> str:
    """Unit of a result for the legend, such as "unit of the k-space"."""
    short = re.sub(r" \(.*\)", "", text)
    return f"unit {short}" if short.startswith("of ") else short
