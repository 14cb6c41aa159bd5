"""The report on results folders of `reconstruct.py`: what was measured, found, and is not known."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.files import remove_abandoned
from evaluation.own.report_gallery import make_gallery
from evaluation.own.report_sections import (
    count_slices,
    done_html,
    measured_html,
    summary_note,
    summary_table,
    validation_html,
    warnings_html,
)
from evaluation.own.result import IMAGE, OwnResult, check_comparable, folder_names
from evaluation.run.slices import describe_error
from evaluation.show.gallery import Gallery
from evaluation.show.report_file import MOST_EMBEDDED, write_page
from evaluation.show.report_page import Around, folded, how_exactly, make_page, sheet
from evaluation.show.report_slices import Store
from evaluation.show.run_settings import settings_html
from evaluation.show.windows import HU

log = logging.getLogger(__name__)

MOST_SLICES = 200  # of the page that is written beside the results
VERSIONS = ("code_version", "torch", "prior", "mask_sha256")  # of summary.json
ERRORS = (
    "Errors are image minus truth, of which the measurement was simulated. Metrics are over the "
    "range of the truth in the slice, whatever the window."
)
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
    names = [IMAGE] if len(results) == 1 else folder_names(results)
    gallery = make_gallery(results, names, _spaced(keys, limit))
    intro = [
        sheet("summary", "Summary", summary_table(names, results)),
        summary_note(results),
        warnings_html(names, results),
        validation_html(names, results),
    ]
    versions = [
        {name: result.summary[name] for name in VERSIONS if name in result.summary}
        for result in results
    ]
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
    try:
        remove_abandoned(folder, older=0)
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


def _footer(gallery: Gallery, count: int) -> str:
    shown = len(gallery.keys)
    left_out = (
        f", evenly spaced; {count - shown} more are left out (python -m evaluation.report "
        "--limit=0 shows all)"
        if shown < count
        else ""
    )
    values = "in Hounsfield units" if gallery.unit == HU else "in the unit of the result"
    compared = ERRORS if gallery.metrics else DIFFERENCES
    return f"{count_slices(shown)}{left_out}. {how_exactly(values)} {compared}"
