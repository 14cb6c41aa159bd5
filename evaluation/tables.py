r"""Tables of results folders.

    python -m evaluation.tables results/* --format=markdown

prints one row per folder: mean and standard deviation over the slices (of lesions: over the slices
that have one). Other paths, and folders without a finished slice, are skipped with a note.

    python -m evaluation.tables --grid results/mri results/ct --format=latex --metrics=psnr,ssim
    python -m evaluation.tables --grid results/mri --compare natural_1_pc knee_1_pc

print the study's combined table of folders ROOT/DATA/MEASUREMENT/METHOD, and the paired differences
between two methods, with intervals and tests by volume.

    python -m evaluation.tables --grid results/mri --share natural knee

prints in how many cells a prior is better than another of the same size with the same sampler, and
the mean difference with its interval over people.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs import clear_errors, quiet_pipe
from evaluation.results.cells import (
    IMAGE_METRICS,
    LESION_METRICS,
    METRICS,
    CellResults,
    describe_measurement,
    read_cell,
    read_grid,
)
from evaluation.results.folder import read_rows
from evaluation.run.keywords import enough_samples
from evaluation.show.comparison_table import comparison_table
from evaluation.show.markup import (
    MISSING,
    SPREADS,
    Column,
    Text,
    latex,
    markdown,
    mean_std,
    number,
    write_csv,
)
from evaluation.show.share_table import share_table
from evaluation.show.study_table import study_table

STYLES = ("markdown", "latex", "csv")
HEADER = ("data", "measurement", "acceleration", "method", "calls", "slices")
SECONDS = "seconds"


def make_table(folders: list[Path], style: str, *, spread: str = "std") -> str:
    """Table of results folders as text, one row per folder.

    Args:
        folders: results folders, in the order of the rows.
        style: "markdown", "latex" (booktabs), or "csv" (means and standard deviations in separate
            columns).
        spread: "std" over slices, "ci" for the 95 % interval of the mean by volume, or "both".

    Raises:
        ValueError: a path is not a results folder, or has no finished slice.
    """
    cells = [read_cell(folder) for folder in folders]
    for cell in cells:
        if not cell.rows:
            raise ValueError(f"{cell.folder}: no slice is finished yet")
    if style == "csv":
        return _csv(cells)
    return (markdown if style == "markdown" else latex)(*flat_table(cells, spread))


def flat_table(cells: Sequence[CellResults], spread: str) -> tuple[list[Column], list[list[Text]]]:
    """Columns and rows of the table with one row per folder."""
    names = _metrics(cells)
    titles = [METRICS[name].title for name in (*names, SECONDS)]
    columns = [Column(name, number=False) for name in HEADER] + [Column(t) for t in titles]
    return columns, [[Text(text) for text in _texts(cell, names, spread)] for cell in cells]


def _metrics(cells: Sequence[CellResults]) -> list[str]:
    """Metrics of the table: those of images, and those of lesions where there are some."""
    there = {name for cell in cells for row in cell.rows.values() for name in row}
    return [*IMAGE_METRICS, *(name for name in LESION_METRICS if name in there)]


def _labels(cell: CellResults) -> list[str]:
    """Texts of a cell for the columns of `HEADER`."""
    data, sampler = cell.config["data"], cell.config["sampler"]["name"]
    prior = Path(cell.config["prior"]).name
    protocol = cell.config["protocol"]
    depth = cell.config.get("depth")
    details = [prior, f"depth {depth}" if depth else "", protocol if protocol != "correct" else ""]
    details = ", ".join(filter(None, [*details, *_samples(cell)]))
    calls = sorted({int(count) for count in cell.values("nfe").values()})
    return [
        " ".join(filter(None, [data["name"], data["subset"], data["acquisition"]])),
        *describe_measurement(cell.config, cell.info),
        f"{sampler} ({details})" if details else sampler,
        "-".join(map(str, calls)),
        str(len(cell.rows)),
    ]


def _samples(cell: CellResults) -> list[str]:
    """What images of a cell are the mean of, and the factor that its spread was given."""
    sampler, scale = cell.config["sampler"], cell.info.get("spread_scale")
    count = enough_samples(sampler.get("num_samples") or 1, sampler.get("mean_error"))
    means = f"mean of {count}" if count > 1 else ""
    return [means, f"spread x {scale:g}" if scale else ""]


def _texts(cell: CellResults, names: Sequence[str], spread: str) -> list[str]:
    seconds = mean_std(list(cell.values(SECONDS).values()))[0]
    return [
        *_labels(cell),
        *(_number(cell, name, spread) for name in names),
        f"{seconds:.{METRICS[SECONDS].digits}f}",
    ]


def _number(cell: CellResults, name: str, spread: str) -> str:
    """Mean and spread of a metric, with the number of slices if some lack it."""
    values = _values(cell, name)
    if not values:
        return MISSING
    complete = name in LESION_METRICS or len(values) == len(cell.rows)
    lacking = "" if complete else f" ({len(values)} of {len(cell.rows)})"
    return number(values, METRICS[name], spread, cell.unit) + lacking


def _values(cell: CellResults, name: str) -> dict[str, float]:
    """Values of a metric by slice; none of lesions where the data have none."""
    there = any(name in row for row in cell.rows.values())
    return cell.values(name) if there or name not in LESION_METRICS else {}


def _mean_std(values: Mapping[str, float]) -> tuple[float | str, float | str]:
    return mean_std(list(values.values())) if values else ("", "")


def _csv(cells: list[CellResults]) -> str:
    names = (*_metrics(cells), SECONDS)
    header = [*HEADER, *(f"{name}_{part}" for name in names for part in ("mean", "std"))]
    lines = [
        _labels(cell) + [v for name in names for v in _mean_std(_values(cell, name))]
        for cell in cells
    ]
    return write_csv([header, *lines])


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="*", type=Path, help="results folders, one row each")
    parser.add_argument("--grid", nargs="+", type=Path, default=[], metavar="ROOT")
    parser.add_argument("--compare", nargs=2, metavar="METHOD", help="folder names, with --grid")
    parser.add_argument("--share", nargs=2, metavar="PRIOR", help="two priors, with --grid")
    parser.add_argument("--format", choices=STYLES, default="markdown")
    parser.add_argument(
        "--metrics", default=",".join(IMAGE_METRICS), help="with --grid (default: %(default)s)"
    )
    parser.add_argument(
        "--spread",
        choices=SPREADS,
        default="std",
        help="over slices, or the mean's 95 %% interval by volume",
    )
    parser.add_argument(
        "--per", choices=("slice", "volume"), default="slice", help="unit of metrics, with --grid"
    )
    arguments = parser.parse_args(argv)
    metrics = arguments.metrics.split(",")
    unknown = ", ".join(name for name in metrics if name not in METRICS)
    if unknown:
        parser.error(f"unknown metric {unknown}; known: {', '.join(METRICS)}")
    if bool(arguments.folders) == bool(arguments.grid):
        parser.error("expected results folders, or --grid ROOT")
    for name in ("compare", "share"):
        if getattr(arguments, name) and not arguments.grid:
            parser.error(f"--{name} needs --grid ROOT")
    if arguments.compare and arguments.share:
        parser.error("expected --compare or --share, got both")
    with clear_errors():
        print(_table(arguments, metrics), end="")


def _with_rows(paths: list[Path]) -> list[Path]:
    """The results folders with a finished slice among `paths`; prints a note for each other path.

    Raises:
        ValueError: there is none.
    """
    reasons = {path: _reason_against(path) for path in paths}
    notes = [f"{path}: {reason}" for path, reason in reasons.items() if reason]
    chosen = [path for path in paths if not reasons[path]]
    if not chosen:
        raise ValueError("\n  ".join(["no finished slices:", *notes]))
    for note in notes:
        print(f"passed over {note}", file=sys.stderr)
    return chosen


def _reason_against(path: Path) -> str:
    """Why a path has no row in a table; "" if it has one."""
    parts = (path / "metrics.csv", path / "keys.txt")
    if not (path / "config.json").is_file() or not any(part.is_file() for part in parts):
        hint = f"; it holds a grid: --grid {path}" if any(path.glob("*/*/*/config.json")) else ""
        return f"not a results folder of evaluation.evaluate{hint}"
    return "" if read_rows(path) else "no slice is finished yet"


def _table(arguments: argparse.Namespace, metrics: list[str]) -> str:
    style = arguments.format
    if arguments.folders:
        return make_table(_with_rows(arguments.folders), style, spread=arguments.spread)
    cells = read_grid(arguments.grid, per=arguments.per)
    if arguments.compare:
        return comparison_table(cells, *arguments.compare, style, metrics=metrics)
    if arguments.share:
        return share_table(cells, *arguments.share, style, metrics=metrics)
    return study_table(cells, style, metrics=metrics, spread=arguments.spread)


if __name__ == "__main__":
    with quiet_pipe():
        main()
