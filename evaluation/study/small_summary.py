"""Summary and figure of the study in small, from its two small files alone.

    python -m evaluation.study.small_summary results/small_study
    python -m evaluation.study.small_summary docs/small_study --out=results/small_study

writes `summary.md` and ``small_study.{png,pdf}`` (mean PSNR by size, in and out of distribution) to
the folder of the files or to `--out`.
"""

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from configs import clear_errors, quiet_pipe
from configs.small_study import SIZES
from datasets.files import write_atomically
from evaluation.results.cells import label
from evaluation.show.intervals import Interval
from evaluation.show.markup import MISSING, Column, Text, markdown
from evaluation.show.style import save
from evaluation.study import small_rows
from evaluation.study.small_answers import NOT_RUN, Row, Statement, answer, tally
from evaluation.study.small_cells import DIRECT, DOMAINS, OUT, SETS, make_cells
from evaluation.study.small_figure import draw_study
from evaluation.study.small_findings import (
    LEVELS_BELOW_1,
    MAIN,
    all_statements,
    baseline_mean,
    size_means,
)
from evaluation.study.small_model import Estimate, Scores
from evaluation.study.small_rows import ROWS, TRAININGS

NAMES = {"jalal": "Jalal", "warm_dds": "warm DDS", "pc_2026": "PC, 2026", "dps": "DPS", "mr": "MR"}
QUESTIONS = {
    1: "Is the ResNet nearly as good in distribution?",
    2: "Is it better out of distribution?",
    3: "Do photographs make the better prior out of distribution?",
    4: "Is it parameters or receptive field?",
    5: "Does the smallest network suffice?",
    6: "Does the effective field predict the loss under shift, does the training set's size?",
    7: "Does it hold by the protocol of 2026?",
    8: "Is a nested network as good as one trained at its depth?",
}
HOW = """PSNR differences in dB, paired by slice, averaged by person. In brackets: the 95 % interval
(Student's t), over people; where sizes of the same prior were trained twice, with the same
measurement, sampler and test sets, also over trainings (`+t`). In parentheses: the number of people
(question 6: of trainings). An interval without `+t` holds for these trainings only. Rows say yes or
no if their whole interval does; no correction for their number. An answer is "seen" if more than
half of the rows say yes and none no, "not seen" if more than half say no and none yes, else "cannot
be said here"."""


def make_summary(folder: Path, out: Path, *, quick: bool = False) -> list[Path]:
    """Write `summary.md` and the figure; returns their paths.

    Args:
        folder: of the two files.
        out: output folder, created if missing.
        quick: whether the files are those of a trial.

    Raises:
        ValueError: there is no finished cell at today's settings.
    """
    everything = small_rows.read(folder / ROWS)
    rows = small_rows.current_rows(everything, quick=quick)
    if not rows:
        raise ValueError(
            f"{folder / ROWS}: expected rows of finished cells, got "
            f"{f'{len(everything)} of other settings' if everything else 'none'}; run "
            "evaluation/small_study.sh"
        )
    trainings = small_rows.current_trainings(small_rows.read(folder / TRAININGS), quick=quick)
    path = out / "summary.md"
    write_atomically(path, summary(rows, trainings, left_out=len(everything) - len(rows)))
    return [path, *save(draw_study(Scores(rows)), out, "small_study")]


def summary(
    rows: Sequence[Mapping[str, str]], trainings: Sequence[Mapping[str, str]], left_out: int = 0
) -> str:
    """The summary with all tables as Markdown.

    Args:
        rows: of `small_rows.ROWS`, at today's settings.
        trainings: of `small_rows.TRAININGS`.
        left_out: number of rows at other settings.
    """
    scores = Scores(rows)
    statements = all_statements(scores, trainings)
    parts = [
        "# The study in small, second edition: summary",
        HOW,
        state(rows, left_out),
        "## Answers",
        answers(statements),
        *(part for number in QUESTIONS for part in question(number, statements)),
        "## Mean PSNR (dB) by size",
        *mean_tables(scores),
        "## Trainings",
        training_table(trainings),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def state(rows: Sequence[Mapping[str, str]], left_out: int) -> str:
    """Sentence on how much is finished."""
    done = set(map(small_rows.cell_key, rows))
    by_stage: dict[int, list[bool]] = {}
    for cell in make_cells():
        by_stage.setdefault(cell.stage, []).append(cell.key in done)
    counts = ", ".join(f"{s}: {sum(d)} of {len(d)}" for s, d in by_stage.items())
    other = f" {left_out} rows of other settings are left out." if left_out else ""
    return f"Finished cells by stage: {counts}; {len(rows)} slices.{other}"


def answers(statements: Iterable[Statement]) -> str:
    """Table of the answers to all statements."""
    header = ["question", "statement", "answer", "yes / no / open"]
    lines = [
        [str(s.question), s.text, answer(s.rows), " / ".join(map(str, tally(s.rows)))]
        for s in statements
    ]
    return table(header, lines, words=3)


def question(number: int, statements: Iterable[Statement]) -> list[str]:
    """Heading and tables of a question."""
    parts = [f"## {number}. {QUESTIONS[number]}"]
    for statement in statements:
        if statement.question != number:
            continue
        found = answer(statement.rows)
        title = f"**{statement.text[0].upper()}{statement.text[1:]}: {found}.**"
        parts.append(" ".join(filter(None, [title, statement.remark])))
        if found != NOT_RUN:
            parts.append(statement_table(statement))
    return parts


def statement_table(statement: Statement) -> str:
    """Table of the rows of a statement that were run."""
    detailed = any(row.detail for row in statement.rows)
    header = ["prior", "measurement", "sampler", *(["case"] if detailed else [])]
    header += [statement.unit, f"above {statement.threshold:g}?"]
    lines = [
        [
            *(row.prior, named(row.measurement), named(row.sampler)),
            *([row.detail] if detailed else []),
            *(estimate(row.estimate), row.verdict),
        ]
        for row in statement.rows
        if ran(row)
    ]
    return table(header, lines, words=len(header) - 2)


def ran(row: Row) -> bool:
    """Whether a row has an estimate."""
    return not math.isnan(row.estimate.interval.mean)


def named(name: str) -> str:
    """Name of a measurement or sampler in words."""
    return NAMES.get(name) or label(name)


def estimate(value: Estimate) -> str:
    """Text such as "+0.31 [+0.10, +0.52] +t (15)"; "+t": for other trainings, too."""
    trainings = " +t" if value.with_trainings else ""
    return f"{interval(value.interval)}{trainings} ({value.people})"


def interval(value: Interval) -> str:
    """Text of mean and ends with signs; unknown ends are left out."""
    if math.isnan(value.mean):
        return MISSING
    text = f"{value.mean:+.2f}"
    return text if math.isnan(value.low) else f"{text} [{value.low:+.2f}, {value.high:+.2f}]"


def mean_tables(scores: Scores) -> list[str]:
    """A table for each domain: mean PSNR over people by sampler and size, in and out."""
    parts = []
    for prior, measurement in DOMAINS:
        lines = []
        for sampler in MAIN:
            for where, words in (("in", "in"), ("out", "out of")):
                found = size_means(scores, prior, measurement, sampler, where)
                if found:
                    means = [f"{found[s].interval.mean:.2f}" if s in found else "" for s in SIZES]
                    lines.append([named(sampler), f"{words} distribution", *means])
        if lines:
            parts.append(f"### {prior}, {named(measurement)}")
            parts.append(table(["sampler", "test people", *map(label, SIZES)], lines, words=2))
    return [*parts, *baseline_table(scores)]


def baseline_table(scores: Scores) -> list[str]:
    """Table of the baselines' mean PSNR on each test set."""
    lines = []
    for measurement, sets in SETS.items():
        for data in sets:
            means = [baseline_mean(scores, n, measurement, (data,)) for n in baselines(measurement)]
            if not all(map(math.isnan, means)):
                texts = [MISSING if math.isnan(mean) else f"{mean:.2f}" for mean in means]
                lines.append([named(measurement), label(data), *texts])
    header = ["measurement", "test set", "zero-filled or FBP", "TV"]
    return ["### Baselines", table(header, lines, words=2)] if lines else []


def baselines(measurement: str) -> tuple[str, str]:
    """Names of the baselines of a measurement."""
    return DIRECT[measurement], "tv"


def training_table(trainings: Sequence[Mapping[str, str]]) -> str:
    """Table of all trainings: size, fields, time, validation loss at three times."""
    header = ["training", "parameters", "field in theory"]
    header += [f"80 % radius at {level:g}" for level in LEVELS_BELOW_1]
    header += ["steps", "minutes", "loss at 1/2", "at 3/4", "at the end"]
    losses = ("loss_at_half", "loss_at_three_quarters", "loss")
    lines = [
        [
            *(row["training"], row["parameters"], row["field"]),
            *(f"{float(row[f'radius_80_at_{level:g}']):.1f}" for level in LEVELS_BELOW_1),
            *(row["steps"], f"{float(row['seconds']) / 60:.1f}"),
            *(f"{float(row[name]):.4f}" for name in losses),
        ]
        for row in trainings
    ]
    return table(header, lines, words=1) if lines else "None is finished."


def table(header: Sequence[str], lines: Sequence[Sequence[str]], *, words: int) -> str:
    """Markdown table whose first `words` columns hold words, and the others numbers."""
    columns = [Column(title, number=i >= words) for i, title in enumerate(header)]
    return markdown(columns, [[Text(text) for text in line] for line in lines])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.study.small_summary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(OUT), help="of the two files")
    parser.add_argument("--out", type=Path, help="output folder (default: that of the files)")
    parser.add_argument("--quick", action="store_true", help="the files are those of --quick")
    arguments = parser.parse_args(argv)
    with clear_errors():
        out = arguments.out or arguments.folder
        paths = make_summary(arguments.folder, out, quick=arguments.quick)
    print(paths[0].read_text())
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    with quiet_pipe():
        main()
