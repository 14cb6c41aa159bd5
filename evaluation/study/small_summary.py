"""Tables and the figure of the study in small.

    python -m evaluation.study.small_summary results/small_study

writes `summary.md` and ``sizes.{png,pdf}`` (mean PSNR against size, in and out of distribution) to
the folder of the results or to `--out`.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from configs import clear_errors, quiet_pipe
from configs.small_study import PRIORS, SIZES
from datasets.files import write_atomically
from evaluation.results.cells import CellResults, label, read_grid
from evaluation.show.intervals import Interval
from evaluation.show.markup import MISSING, Column, Text, markdown
from evaluation.show.plots import SizePanel, draw_sizes
from evaluation.show.study_table import is_finished, rows_of
from evaluation.show.style import save
from evaluation.study import small_findings as findings
from evaluation.study.small_cells import (
    ALIKE,
    CT,
    DIRECT,
    DOMAINS,
    MEASURED,
    MRI,
    OUT,
    OWN,
    STUDIED,
    outside,
)
from evaluation.study.small_findings import Estimate, Scores

UNSURE = f"""Differences are paired by slice, in dB. In brackets: the 95 % interval (Student's t),
over volumes where there are {findings.FEWEST_VOLUMES} or more, else over slices; in parentheses:
slices / volumes. **Slices of one volume are not independent**: intervals over slices are too narrow
for a claim about other people. Training
was done once a prior: how much another seed would change is not in the intervals. A verdict follows
from its interval alone, without a correction for the number of rows. "As good" is: worse by less
than {findings.AS_GOOD} dB."""
LAST = SIZES[-1]


def make_summary(root: Path, out: Path) -> list[Path]:
    """Write `summary.md` and the figure; returns their paths.

    Args:
        root: root folder of results DATA/MEASUREMENT/METHOD.
        out: output folder, created if missing.

    Raises:
        ValueError: no method with a prior has a finished slice.
    """
    cells = [c for c in read_grid([root]) if c.rows and c.data in MEASURED]
    if not any(cell.method.prior for cell in cells):
        raise ValueError(f"{root}: no finished slice of a prior; run evaluation/small_study.sh")
    path = out / "summary.md"
    write_atomically(path, summary(cells))
    return [path, *save(draw_sizes(size_panels(Scores(cells))), out, "sizes")]


def summary(cells: Sequence[CellResults]) -> str:
    """The summary with all tables as Markdown."""
    scores = Scores(cells)
    sizes, natural = findings.size_findings(scores), findings.natural_findings(scores)
    parts = [
        "# The study in small",
        UNSURE,
        *unfinished(cells),
        "## At a glance",
        overview(sizes, natural),
        "## Findings 1 and 2: what a larger network gains over the smallest",
        size_table(sizes),
        "## Finding 3: natural minus medical prior of the same size",
        natural_table(natural),
        "## Mean PSNR (dB)",
        *mean_tables(scores),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def unfinished(cells: Sequence[CellResults]) -> list[str]:
    """Warning that names the cells which lack slices of others; empty if there are none."""
    bad = [
        f"{cell.data}/{cell.measurement}/{cell.folder.name}"
        for row in rows_of(cells)
        for cell in row
        if not is_finished(cell, row, findings.METRIC)
    ]
    return [f"**Not finished, lacking slices:** {', '.join(bad)}"] if bad else []


def overview(
    sizes: Sequence[findings.SizeFinding], natural: Sequence[findings.NaturalFinding]
) -> str:
    """Table of the verdicts on each finding, over all rows and for the largest network."""
    lines = []
    for title, rows, judge in (
        ("1: in distribution the smallest is as good", sizes, findings.small_is_as_good),
        ("2: out of it the smallest is better", sizes, findings.small_is_better_outside),
        ("2: size helps less out of it than in it", sizes, findings.size_helps_less_outside),
        (
            "3: out of distribution natural is better",
            natural,
            findings.natural_is_better_outside,
        ),
        (
            "3: in the medical prior's own it is as good",
            natural,
            findings.natural_is_as_good_inside,
        ),
    ):
        largest = [row for row in rows if row.size == LAST]
        lines.append([title, _tally(rows, judge), _tally(largest, judge)])
    return table(["finding", "all sizes", f"size {label(LAST)}"], lines, words=1) + (
        "\n(yes / no / not decided, rows of the tables below)"
    )


def _tally(rows: Sequence, judge: Callable[..., str]) -> str:
    return " / ".join(map(str, findings.count([judge(row) for row in rows])))


def size_table(rows: Sequence[findings.SizeFinding]) -> str:
    """Table of findings 1 and 2 row by row."""
    header = ["prior", "measurement", "sampler", "size"]
    header += ["in distribution", "smallest as good?", "out of distribution", "smallest better?"]
    header += ["out minus in", "helps less?"]
    lines = [
        [
            *_kind(row),
            difference(row.inside),
            findings.small_is_as_good(row),
            difference(row.outside),
            findings.small_is_better_outside(row),
            interval(row.drop),
            findings.size_helps_less_outside(row),
        ]
        for row in rows
    ]
    return table(header, lines, words=4)


def natural_table(rows: Sequence[findings.NaturalFinding]) -> str:
    """Table of finding 3 row by row."""
    header = ["medical prior", "measurement", "sampler", "size"]
    header += ["out of its distribution", "natural better?", "in it", "natural as good?"]
    lines = [
        [
            *_kind(row),
            difference(row.outside),
            findings.natural_is_better_outside(row),
            difference(row.inside),
            findings.natural_is_as_good_inside(row),
        ]
        for row in rows
    ]
    return table(header, lines, words=4)


def _kind(row: findings.SizeFinding | findings.NaturalFinding) -> list[str]:
    return [row.prior, label(row.measurement), label(row.sampler), label(row.size)]


def difference(value: Estimate) -> str:
    """Text such as "+0.31 [+0.10, +0.52] (16 / 4)", with numbers of slices and volumes."""
    if not value.slices:
        return MISSING
    return f"{interval(value.interval)} ({value.slices} / {value.volumes})"


def interval(value: Interval) -> str:
    """Text of mean and ends with signs; unknown ends are left out."""
    if math.isnan(value.mean):
        return MISSING
    text = f"{value.mean:+.2f}"
    return text if math.isnan(value.low) else f"{text} [{value.low:+.2f}, {value.high:+.2f}]"


def mean_tables(scores: Scores) -> list[str]:
    """Tables of mean PSNR per measurement and sampler: rows are sets, columns priors by size."""
    parts = []
    for measurement, samplers in STUDIED.items():
        for sampler in samplers:
            methods = [f"{prior}_{size}_{sampler}" for prior in PRIORS for size in SIZES]
            columns = [DIRECT[measurement], "tv", *methods]
            titles = [label(name) for name in columns[:2]]
            titles += [f"{prior} {label(size)}" for prior in PRIORS for size in SIZES]
            found = {
                label(data): [_mean(scores.of([data], measurement, m)) for m in columns]
                for data in MEASURED
            }
            lines = [[name, *means] for name, means in found.items() if set(means) != {MISSING}]
            if lines:
                parts += [
                    f"### {label(measurement)}, {label(sampler)}",
                    table(["data", *titles], lines, words=1),
                ]
    return parts


def _mean(values: dict[str, float]) -> str:
    return f"{np.mean(list(values.values())):.2f}" if values else MISSING


def table(header: Sequence[str], lines: Sequence[Sequence[str]], *, words: int) -> str:
    """Markdown table whose first `words` columns hold words, and the others numbers."""
    columns = [Column(title, number=i >= words) for i, title in enumerate(header)]
    return markdown(columns, [[Text(text) for text in line] for line in lines])


def size_panels(scores: Scores) -> list[SizePanel]:
    """Axes of the figure: columns in and out of distribution of each medical prior."""
    panels = []
    for prior, measurement in DOMAINS:
        if prior == "natural":
            continue
        kind = {MRI: "MR", CT: "CT"}[measurement]
        for where, sets in (("in", [OWN[prior]]), ("out of", outside(prior, measurement))):
            title = f"{kind}, {where} distribution\nof the {prior} prior"
            for sampler in STUDIED[measurement]:
                lines = findings.prior_means(scores, sets, measurement, sampler)
                tv = list(scores.of(sets, measurement, "tv").values())
                panels.append(
                    SizePanel(
                        column=title,
                        row=_row_title(sampler),
                        lines=lines,
                        known=frozenset(p for p in PRIORS if where == "out of" and OWN[p] in sets),
                        reference=float(np.mean(tv)) if tv else math.nan,
                    )
                )
    return panels


def _row_title(sampler: str) -> str:
    """Names of the sampler and of those that replace it for other measurements."""
    return " / ".join(label(name) for name in ALIKE.get(sampler, (sampler,)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.study.small_summary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", nargs="?", type=Path, default=Path(OUT), help="root of the results")
    parser.add_argument("--out", type=Path, help="output folder (default: that of the results)")
    arguments = parser.parse_args(argv)
    with clear_errors():
        paths = make_summary(arguments.root, arguments.out or arguments.root)
    print(paths[0].read_text())
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    with quiet_pipe():
        main()
