"""The study in small: trains its priors, reconstructs its cells, and goes on where it stopped.

    python -m evaluation.small_study --data=FOLDER --hours=2
    python -m evaluation.small_study --list                  cells in their order, and what is done

Results are OUT/rows.csv and OUT/trainings.csv; what the same files in docs/small_study already hold
is not done again. Priors are trained (RUNS/small_study_NAME) when a cell needs them. Several of
these processes share the work, and any of them may be killed at any time: what counts is in the two
files, a training continues from its last checkpoint, a cell from its last batch. A cell that fails
does not stop the others; failed ones are listed at the end, with exit code 1. --hours and --minutes
end the process with code 0 and a line that says what is left.

`evaluation.study.small_summary` makes summary and figure of the two files.
"""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from ml_collections import ConfigDict

from configs import clear_errors, load_config, quiet_pipe
from datasets.files import FolderInUseError, holding, write_atomically
from evaluation.evaluate import choose_device, evaluate
from evaluation.results.folder import read_rows
from evaluation.study import small_cells, small_rows
from evaluation.study.runner import INTERRUPTED, add_variables, create_parser, exit_if_failed
from evaluation.study.small_cells import BATCH, CARRIED, OUT, Cell, choose_slices, make_cells
from evaluation.study.small_inputs import write_inputs
from evaluation.study.small_rows import ROWS, TRAININGS
from evaluation.study.small_trainings import (
    ROOT,
    OutOfTimeError,
    call,
    describe,
    training_command,
    training_folder,
)

FAILED_TRAINING = "its training failed"


def parse(argv: Sequence[str] | None) -> Namespace:
    """Parsed arguments; `deadline` is a time of `time.monotonic`, infinite without a limit."""
    parser = create_parser("evaluation.small_study", __doc__)
    parser.add_argument("--list", action="store_true", help="print the cells")
    parser.add_argument("--list-trainings", action="store_true", help="print their names")
    parser.add_argument("--inputs", action="store_true", help="only write the pictures")
    parser.add_argument("--hours", type=float, default=0.0, metavar="H", help="stop after so many")
    parser.add_argument("--minutes", type=float, default=0.0, metavar="M", help="added to --hours")
    parser.add_argument(
        "--depth-first",
        action="store_true",
        help="all cells of a training at once, for machines that keep no files between runs",
    )
    variables = [
        ("out", "OUT", None, f"root of the results; default {OUT}"),
        ("prior-root", "RUNS", None, "folder of the training runs; default runs"),
        ("data", "DATA", None, "folder of the images"),
        ("carried", "CARRIED", None, f"folder of finished rows; default {CARRIED}"),
    ]
    add_variables(parser, variables, Path)
    arguments = parser.parse_args(argv)
    if arguments.hours < 0 or arguments.minutes < 0:
        parser.error("expected --hours and --minutes of at least 0")
    seconds = 3600 * arguments.hours + 60 * arguments.minutes
    arguments.deadline = time.monotonic() + seconds if seconds else float("inf")
    quick = arguments.quick
    arguments.out = arguments.out or Path(f"{OUT}_quick" if quick else OUT)
    arguments.prior_root = arguments.prior_root or (arguments.out / "runs" if quick else "runs")
    arguments.prior_root = Path(arguments.prior_root)
    if not quick:
        arguments.carried = arguments.carried or ROOT / CARRIED
    return arguments


def choose(arguments: Namespace) -> list[Cell]:
    """The chosen cells in the order of the work.

    Raises:
        ValueError: no cell matches the pattern.
    """
    chosen = [c for c in make_cells() if fnmatchcase("/".join(c.key), arguments.only)]
    if not chosen:
        raise ValueError(f"no cell matches --only='{arguments.only}'; --list shows them")
    if arguments.depth_first:
        order = {run: i for i, run in enumerate(small_cells.runs_of(chosen))}
        chosen.sort(key=lambda c: order[c.network.run] if c.network else -1)
    return chosen


def print_cells(cells: Sequence[Cell], arguments: Namespace) -> None:
    """Print a line a cell: stage, network/measurement/sampler, done or not."""
    done = finished(arguments)
    for cell in cells:
        print(cell.stage, "/".join(cell.key), "done" if cell.key in done else "-")


def finished(arguments: Namespace) -> set[tuple[str, str, str]]:
    """Keys of the cells that are finished, here or in what is carried."""
    folders = filter(None, (arguments.out, arguments.carried))
    found = (small_rows.finished_cells(folder, quick=arguments.quick) for folder in folders)
    return set().union(*found)


def work(cells: Sequence[Cell], arguments: Namespace) -> dict[str, str]:
    """Work the cells off in their order; returns what went wrong by name.

    Cells of a training that another process works on are left to it, and looked at again after
    all others.
    """
    failed: dict[str, str] = {}
    bad: set[str] = set()  # trainings that failed
    while True:
        done = finished(arguments)
        left = [c for c in cells if c.key not in done and "/".join(c.key) not in failed]
        if not left:
            return failed
        worked = 0
        for cell in left:
            with claimed(cell, arguments) as ours:
                if not ours:
                    continue
                worked += 1
                if cell.key in finished(arguments):
                    continue
                check_time(arguments)
                error = finish(cell, arguments, bad)
                if error:
                    failed["/".join(cell.key)] = error
        if not worked:  # others have all that is left
            check_time(arguments)
            time.sleep(1)


@contextmanager
def claimed(cell: Cell, arguments: Namespace) -> Iterator[bool]:
    """Context that tells whether this process may work on a cell's training, and holds it."""
    name = cell.network.run if cell.network else cell.sampler
    try:
        hold = holding(arguments.out / "claims" / name)
        hold.__enter__()
    except FolderInUseError:
        yield False
        return
    try:
        yield True
    finally:
        hold.__exit__(None, None, None)


def check_time(arguments: Namespace) -> None:
    """Raise `OutOfTimeError` if the deadline is past."""
    if time.monotonic() > arguments.deadline:
        raise OutOfTimeError


def finish(cell: Cell, arguments: Namespace, bad: set[str]) -> str:
    """Train what a cell needs, reconstruct it, write its rows; returns what went wrong, or "".

    A training that fails is added to `bad`, and not tried again.
    """
    run = cell.network.run if cell.network else ""
    try:
        if run in bad:
            return FAILED_TRAINING
        if run:
            train(run, arguments)
        check_time(arguments)
        print(f"== {'/'.join(cell.key)}", flush=True)
        folder = arguments.out / "cells" / cell.folder
        evaluate(config_of(cell, arguments), folder, choose_device())
        rows = small_rows.rows_of(cell, read_rows(folder), quick=arguments.quick)
        small_rows.add(arguments.out / ROWS, rows, small_rows.cell_key)
    except subprocess.CalledProcessError:
        bad.add(run)
        return FAILED_TRAINING
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return " ".join(str(error).split())
    return ""


def train(run: str, arguments: Namespace) -> None:
    """Finish a training and write its row; returns at once if that is done.

    Raises:
        OutOfTimeError: the deadline came first; the training has saved a checkpoint.
        subprocess.CalledProcessError: it failed.
    """
    folder = training_folder(run, arguments)
    known = small_rows.finished_trainings(arguments.out, quick=arguments.quick)
    fields = small_cells.training_fields(quick=arguments.quick)
    if (folder / "checkpoints" / f"step_{fields['training.num_steps']:08d}.pt").is_file():
        if run in known:
            return
    else:
        check_time(arguments)
        print(f"== training {run}", flush=True)
        call(training_command(run, arguments), arguments.deadline)
    row = describe(run, folder, arguments.out / "inputs/tests", quick=arguments.quick)
    small_rows.add(arguments.out / TRAININGS, [row], small_rows.training_key)


def config_of(cell: Cell, arguments: Namespace) -> ConfigDict:
    """Evaluation config of a cell; writes the list of its slices."""
    tests = arguments.out / "inputs/tests"
    names = choose_slices(cell.measurement, cell.sampler, tests)
    path = arguments.out / f"inputs/lists/{cell.measurement}_{len(names)}.txt"
    write_atomically(path, "".join(f"{name}\n" for name in names))
    config = load_config("configs/evaluate.py")
    config.update_from_flattened_dict(small_cells.fields_of(cell, quick=arguments.quick))
    if cell.network:
        config.prior = str(training_folder(cell.network.run, arguments))
        config.batch_size = BATCH
    config.data.name = "image_folder"
    config.data.root = str(tests)
    config.data.split = "test"
    config.data.split_list = str(path)
    return config


def terminate(number: int, _frame: object) -> None:
    """Handler of SIGTERM: as Ctrl-C."""
    raise KeyboardInterrupt(number)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    with clear_errors():
        arguments = parse(argv)
        cells = choose(arguments)
        if arguments.list:
            print_cells(cells, arguments)
            return
        if arguments.list_trainings:
            print("\n".join(small_cells.runs_of(cells)))
            return
        if arguments.carried:
            small_rows.carry(arguments.carried, arguments.out, quick=arguments.quick)
        done = finished(arguments)
        if arguments.inputs or any(cell.key not in done for cell in cells):
            write_inputs(arguments.out / "inputs", None if arguments.quick else given(arguments))
        if arguments.inputs:
            return
        signal.signal(signal.SIGTERM, terminate)
        try:
            failed = work(cells, arguments)
        except OutOfTimeError:
            done = finished(arguments)
            left = sum(cell.key not in done for cell in cells)
            print(f"== time is over; {left} of {len(cells)} cells left, the same command continues")
            return
        except KeyboardInterrupt:
            print("== interrupted; the same command continues", flush=True)
            sys.exit(INTERRUPTED)
    exit_if_failed(failed, len(cells))


def given(arguments: Namespace) -> Path:
    """The folder of data.

    Raises:
        ValueError: there is none.
    """
    if arguments.data is None:
        raise ValueError(
            "expected a folder of images, got none; give --data=FOLDER or set DATA "
            "(docs/small_study.md says what is in it), or try --quick on embedded slices"
        )
    return Path(os.path.abspath(arguments.data))


if __name__ == "__main__":
    with quiet_pipe():
        main()
