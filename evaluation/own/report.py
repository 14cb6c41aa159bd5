"""The report on results folders of `reconstruct.py`: what was measured, found, and is not known."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from datasets.files import remove_abandoned
from evaluation.metrics import all_metrics
from evaluation.own.report_sections import (
    count_slices,
    done_html,
    measured_html,
    summary_note,
    summary_table,
    validation_html,
    warnings_html,
)
from evaluation.own.result import OwnResult, check_comparable, differing, folder_names
from evaluation.results.cells import IMAGE_METRICS
from evaluation.run.slices import describe_error
from evaluation.show.gallery import Gallery, Shown
from evaluation.show.report_file import MOST_EMBEDDED, write_page
from evaluation.show.report_page import Around, folded, how_exactly, make_page, sheet
from evaluation.show.report_slices import Store
from evaluation.show.run_settings import settings_html
from evaluation.show.windows import HU

log = logging.getLogger(__name__)

TRUTH = "truth"
ONE = "reconstruction"  # title of the result where there is one folder
MOST_SLICES = 200  # of the page that is written beside the results
VERSIONS = ("code_version", "torch", "prior")  # of summary.json
DIFFERENCES = (
    "Differences are image minus the one that it is compared with; the reconstruction without a "
    "prior is no truth: a difference to it is what the prior and the noise model have changed."
)


def own_report(
    folders: Sequence[Path], *, limit: int = 0, title: str = "", store: Store | None = None
) -> str:
    """HTML text of the report.

    Args:
        folders: finished results folders of one input; the slices that they have in common are
            shown.
        limit: number of slices, evenly spaced; 0 for all.
        title: title of the page; "" for the name of the input.
        store: see `make_page`.

    Raises:
        ValueError: a folder is none of `reconstruct.py`, unfinished or damaged, or they are of
            different inputs.
    """
    results = [OwnResult(folder) for folder in folders]
    keys = check_comparable(results)
    names = [ONE] if len(results) == 1 else folder_names(results)
    gallery = _gallery(results, names, _spaced(keys, limit))
    intro = [
        sheet("summary", "Summary", summary_table(names, results)),
        summary_note(results),
        warnings_html(names, results),
        validation_html(names, results),
    ]
    versions = [{name: result.summary[name] for name in VERSIONS} for result in results]
    settings = settings_html(names, [result.settings for result in results], versions)
    sections = [
        folded("What was measured", measured_html(names, results)),
        folded("What was done", done_html(names, results)),
        folded("Settings and versions", settings),
    ]
    around = Around(
        intro="\n".join(filter(None, intro)),
        sections="\n".join(sections),
        footer=_footer(gallery, len(keys)),
    )
    title = title or f"Reconstruction of {results[0].settings['input']}"
    return make_page(gallery, around, title=title, folders=folders, store=store)


def write_own_report(
    folders: Sequence[Path], out: Path, *, limit: int, title: str = "", files: str = "auto"
) -> list[Path]:
    """Write the report, and where its images are too many for the page, OUT_files beside it.

    Args:
        folders: finished results folders of one input.
        out: path of the page.
        limit: number of slices, 0 for all.
        title: title of the page; "" for the name of the input.
        files: "yes" for a folder of images beside the page, "no" to have them in it, "auto" to
            decide by their size.

    Returns:
        The paths that were written: the page, and the folder if there is one.

    Raises:
        ValueError: see `own_report`.
        OSError: a file cannot be written.
    """

    def make(store: Store | None) -> str:
        return own_report(folders, limit=limit, title=title, store=store)

    beside = files == "yes" or (files == "auto" and _pixels(folders, limit) > MOST_EMBEDDED)
    return write_page(out, make, beside=beside)


def add_report(folder: Path) -> None:
    """Write ``report.html`` into a finished results folder, unless it is there.

    What goes wrong is said and does no harm: the results are complete without it.

    Args:
        folder: the results folder, which no other process works on.
    """
    out = folder / "report.html"
    if out.is_file():
        return
    remove_abandoned(folder, older=0)
    try:
        write_own_report([folder], out, limit=MOST_SLICES)
    except Exception as error:
        log.warning(
            "%s was not written (%s); the results are complete, the same command tries it again",
            out,
            describe_error(error),
        )


def _pixels(folders: Sequence[Path], limit: int) -> int:
    """How many pixels all images have."""
    results = [OwnResult(folder) for folder in folders]
    count = len(check_comparable(results))
    images = sum(len(result.spread(result.keys[0])) for result in results) + len(results) + 1
    return images * int(np.prod(results[0].shape)) * min(count, limit or count)


def _spaced(keys: Sequence[str], limit: int) -> list[str]:
    """`limit` evenly spaced ones of the keys; all for 0."""
    count = min(limit or len(keys), len(keys))
    return [keys[round(place)] for place in np.linspace(0, len(keys) - 1, count)]


def _gallery(results: Sequence[OwnResult], names: Sequence[str], keys: Sequence[str]) -> Gallery:
    """Truth, if there is one, results, and what was reconstructed without a prior.

    Without a truth, a reconstruction without a prior is what others are compared with.
    """
    pose = _normaliser(results[0])
    has_truth = all(TRUTH in result.names for result in results)
    truth = results[0] if has_truth else None
    methods = [
        _shown(name, result, ONE, pose, truth) for name, result in zip(names, results, strict=True)
    ]
    apart = differing(results, "direct", keys[0])
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
        values=lambda key: pose(key)[:2],
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
        shift = {"std": 0.0}
        found = result.spread(key) if name == ONE else {}
        return {n: (values - shift.get(n, offset)) / factor for n, values in found.items()}

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
            image = result.image(ONE, key)
            low, high = float(image.min()), float(image.max())
            known[key] = (high - low) or 1.0, low
        return known[key]

    return pose


def _unit(text: str) -> str:
    """Unit of a result for the legend, such as "unit of the k-space"."""
    short = re.sub(r" \(.*\)", "", text)
    return f"unit {short}" if short.startswith("of ") else short


def _footer(gallery: Gallery, count: int) -> str:
    shown = len(gallery.keys)
    left_out = (
        f", evenly spaced; {count - shown} more are left out (python -m evaluation.report "
        "--limit=0 shows all)"
        if shown < count
        else ""
    )
    values = "in Hounsfield units" if gallery.unit == HU else "in the unit of the result"
    return f"{count_slices(shown)}{left_out}. {how_exactly(values)} {DIFFERENCES}"
