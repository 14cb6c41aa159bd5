"""Sections of the report on results folders of `reconstruct.py`: tables, warnings, facts."""

from collections.abc import Mapping, Sequence
from html import escape

from evaluation.own.last_level import describe_last_level
from evaluation.own.noise_factor import describe_noise_factor
from evaluation.own.result import OwnResult, facts
from evaluation.own.validation import find_own, in_a_line
from evaluation.own.volume import describe_volume
from evaluation.results.cells import IMAGE_METRICS, METRICS
from evaluation.show.markup import MISSING, Column, Text, html
from evaluation.show.report_page import folded, note, wide
from evaluation.show.run_settings import tree_table
from evaluation.show.sampling_picture import figure

SUMMARY = (
    "Noise: standard deviation that the measurement was taken to have, in its own unit (of complex "
    "numbers, of each part). A column's title sorts by it."
)
PREDICTED = (
    "Prediction: squared error, over the energy, of what was left out of the measurement and "
    "predicted from the rest; above the noise: without what the noise alone makes."
)
FOUND = {  # of summary.json -> its words
    "last_level": describe_last_level,
    "noise_level": describe_noise_factor,
    "volume": describe_volume,
}


def summary_table(names: Sequence[str], results: Sequence[OwnResult]) -> str:
    """Table with a row a folder."""
    truth = any("metrics" in result.summary for result in results)
    validated = any("validation" in result.summary for result in results)
    columns = [Column(t, number=False) for t in ("name", "result", "prior")]
    columns += [Column("noise"), Column("s/slice")]
    columns += [Column(METRICS[name].title) for name in IMAGE_METRICS] if truth else []
    columns += [Column("prediction error"), Column("above the noise")] if validated else []
    rows = []
    for name, result in zip(names, results, strict=True):
        summary = result.summary
        row = [name, summary["result"].partition(";")[0], summary["prior"]]
        row += [_noise(summary["noise"]), f"{summary['seconds_a_slice']:.3g}"]
        row += _metrics(summary) if truth else []
        row += _predicted(summary) if validated else []
        rows.append([Text(text) for text in row])
    return html(columns, rows)


def summary_note(results: Sequence[OwnResult]) -> str:
    """What the columns of `summary_table` are."""
    validated = any("validation" in result.summary for result in results)
    return note(f"{SUMMARY} {PREDICTED}" if validated else SUMMARY)


def _noise(noise: Mapping) -> str:
    if "least" not in noise:
        return noise["origin"]
    ends = dict.fromkeys(f"{noise[name]:.3g}" for name in ("least", "most"))
    return f"{' to '.join(ends)} ({noise['origin'].partition(':')[0]})"


def _metrics(summary: Mapping) -> list[str]:
    values = summary.get("metrics", {}).get("reconstruction", {})
    return [_number(values.get(name), f".{METRICS[name].digits}f") for name in IMAGE_METRICS]


def _predicted(summary: Mapping) -> list[str]:
    found = summary.get("validation")
    row = find_own(found, summary["sampler"]) if found else {}
    return [_number(row.get(name), ".4g") for name in ("error", "above_noise")]


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else f"{value:{form}}"


def warnings_html(names: Sequence[str], results: Sequence[OwnResult]) -> str:
    """List of what was unusual about the measurement; "" if nothing was."""
    of: dict[str, list[str]] = {}
    for name, result in zip(names, results, strict=True):
        for text in result.summary["notes"]:
            of.setdefault(text, []).append(name)
    if not of:
        return ""
    lines = [
        text if len(those) == len(names) else f"{', '.join(those)}: {text}"
        for text, those in of.items()
    ]
    items = [f"<li>{escape(line)}</li>" for line in lines]
    return f'<ul class="warnings" aria-label="Warnings">{"".join(items)}</ul>'


def validation_html(names: Sequence[str], results: Sequence[OwnResult]) -> str:
    """Prediction errors of what was left out, a table for each folder that was validated."""
    parts = []
    for name, result in zip(names, results, strict=True):
        found = result.summary.get("validation")
        if not found:
            continue
        columns = [Column("method", number=False), Column("settings", number=False)]
        columns += [Column("error"), Column("above the noise")]
        rows = [
            [
                Text(row["method"]),
                Text(row["settings"]),
                *(Text(_number(row[k], ".4g")) for k in ("error", "above_noise")),
            ]
            for row in found["methods"]
        ]
        line = in_a_line(found) if len(results) == 1 else f"{name}: {in_a_line(found)}"
        text = (
            f"Of {count_slices(len(found['slices']))}. Baselines have the weights that predict "
            "best. What is left out is noisy, too: no method has less than the noise but by chance."
        )
        parts.append(folded(line, wide(line, html(columns, rows)) + note(text), level=3))
    return "\n".join(parts)


def count_slices(count: int) -> str:
    """A number of slices, in words."""
    return "1 slice" if count == 1 else f"{count} slices"


def done_html(names: Sequence[str], results: Sequence[OwnResult]) -> str:
    """What was done, what was found on the way, and what each image is, in words."""
    trees = []
    for result in results:
        summary = result.summary
        found = {
            name.replace("_", " "): words(summary[name])
            for name, words in FOUND.items()
            if name in summary
        }
        trees.append(
            {
                "noise": summary["noise"]["origin"],
                **found,
                **summary["outputs"],
                "unit of the images": result.unit,
                "across the slices": summary.get("metrics_across", {}),
            }
        )
    return tree_table("What was done", names, trees)


def measured_html(names: Sequence[str], results: Sequence[OwnResult]) -> str:
    """Properties of the measurement, and its sampling as pictures, each once."""
    pictures = dict.fromkeys(filter(None, (result.sampling() for result in results)))
    table = tree_table("Measurement", names, [facts(result.summary) for result in results])
    shown = "\n".join(figure(picture) for picture in pictures)
    return f'<div id="sampling">{shown or note("No picture of the sampling.")}</div>\n{table}'
