"""The small files that hold all results of the study in small, so that they can be carried along.

``rows.csv`` has a row for each reconstructed slice, ``trainings.csv`` one for each training. A cell
that has rows is finished, and a training with a row is needed only for unfinished cells: both files
alone are enough to go on elsewhere, or to write the summary.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from configs import ConfigError
from datasets.files import locked, to_csv, write_atomically
from evaluation.results.files import read_csv
from evaluation.study.small_cells import Cell, make_cells, run_settings, runs_of, settings

ROWS, TRAININGS = "rows.csv", "trainings.csv"
COLUMNS = ("network", "measurement", "sampler", "set", "person", "slice", "psnr", "ssim")
COLUMNS += ("settings",)
LEVELS, SHARES = (0.03, 0.1, 0.3, 1.0), (50, 80, 95)
RADII = tuple(f"radius_{share}_at_{level:g}" for level in LEVELS for share in SHARES)
TRAINING_COLUMNS = (
    *("training", "parameters", "field", "steps", "seconds"),
    *("loss_at_half", "loss_at_three_quarters", "loss", "settings"),
    *RADII,
)
KINDS = {ROWS: COLUMNS, TRAININGS: TRAINING_COLUMNS}

Row = Mapping[str, str]


def read(path: Path) -> list[dict[str, str]]:
    """Rows of one of the two files; none if it does not exist.

    Raises:
        ConfigError: the file has other columns.
    """
    if not path.is_file():
        return []
    rows = read_csv(path)
    if rows and tuple(rows[0]) != KINDS[path.name]:
        raise ConfigError(
            f"{path}: expected the columns {', '.join(KINDS[path.name])}, got "
            f"{', '.join(rows[0])}; move it away"
        )
    return rows


def add(path: Path, rows: Iterable[Row], key: Callable[[Row], object]) -> None:
    """Add rows to a file, in place of those with an equal key; a kill leaves the old or new file.

    Args:
        path: of the file; other processes may write to it, too.
        rows: the new rows.
        key: what tells groups of rows apart, which are replaced as a whole.
    """
    new = [dict(row) for row in rows]
    with locked(path.with_suffix(".lock")):
        replaced = {key(row) for row in new}
        kept = [row for row in read(path) if key(row) not in replaced]
        write_atomically(path, to_csv([*kept, *new], KINDS[path.name]))


def cell_key(row: Row) -> tuple[str, str, str]:
    """`Cell.key` of a row."""
    return row["network"], row["measurement"], row["sampler"]


def training_key(row: Row) -> str:
    """Name of the training of a row."""
    return row["training"]


def carry(source: Path, out: Path, *, quick: bool = False) -> None:
    """Bring what is finished in the folder `source` and missing in `out` to `out`."""
    for name, current, key in (
        (ROWS, current_rows, cell_key),
        (TRAININGS, current_trainings, training_key),
    ):
        there = {key(row) for row in current(read(out / name), quick=quick)}
        new = [r for r in current(read(source / name), quick=quick) if key(r) not in there]
        if new:
            add(out / name, new, key)


def current_rows(rows: Sequence[Row], *, quick: bool = False) -> list[Row]:
    """The rows of today's cells at today's settings."""
    wanted = {cell.key: settings(cell, quick=quick) for cell in make_cells()}
    return [row for row in rows if wanted.get(cell_key(row)) == row["settings"]]


def current_trainings(rows: Sequence[Row], *, quick: bool = False) -> list[Row]:
    """The rows of trainings at today's settings."""
    wanted = {run: run_settings(run, quick=quick) for run in runs_of(make_cells())}
    return [row for row in rows if wanted.get(row["training"]) == row["settings"]]


def finished_cells(out: Path, *, quick: bool = False) -> set[tuple[str, str, str]]:
    """Keys of the finished cells."""
    return {cell_key(row) for row in current_rows(read(out / ROWS), quick=quick)}


def finished_trainings(out: Path, *, quick: bool = False) -> set[str]:
    """Names of the trainings whose facts are known."""
    return set(map(training_key, current_trainings(read(out / TRAININGS), quick=quick)))


def rows_of(cell: Cell, metrics: Iterable[Row], *, quick: bool = False) -> list[dict[str, str]]:
    """Rows of a finished cell out of those of its `metrics.csv`."""
    network, measurement, sampler = cell.key
    shared = {"network": network, "measurement": measurement, "sampler": sampler}
    found = []
    for row in metrics:
        folder, _, name = row["key"].removesuffix(".png").partition("/")
        person, _, number = name.partition("_")
        place = {"set": folder, "person": person, "slice": number}
        values = {"psnr": f"{float(row['psnr']):.3f}", "ssim": f"{float(row['ssim']):.4f}"}
        found.append({**shared, **place, **values, "settings": settings(cell, quick=quick)})
    return found
