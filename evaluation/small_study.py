"""Reconstruct all cells of the study in small, in turn in this process.

    python -m evaluation.small_study --list
    python -m evaluation.small_study --mri=FOLDER --natural=FOLDER
    python -m evaluation.small_study --part=0/2      one half; --part=1/2 the other, in parallel

Results go to OUT/DATA/MEASUREMENT/METHOD, where `evaluation.tables`, `figures` and `report` can
read them. Running the same command again continues. A cell that fails does not stop the others;
failed cells are listed at the end, with exit code 1. `evaluation.study.small_summary` makes the
tables and the figure.
"""

import argparse
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from configs import clear_errors, load_config, quiet_pipe
from evaluation.evaluate import choose_device, evaluate
from evaluation.study.grids import GridCell
from evaluation.study.runner import add_variables, create_parser, exit_if_failed, matching, run
from evaluation.study.small_cells import OUT, TestSets, make_cells, priors_of
from models.checkpoint import find_latest

CONFIG = "configs/evaluate.py"


def parse(argv: Sequence[str] | None) -> Namespace:
    """Parsed arguments."""
    parser = create_parser("evaluation.small_study", __doc__)
    parser.add_argument("--list", action="store_true", help="print the folders of the cells")
    parser.add_argument("--part", default="0/1", metavar="I/N", type=parse_part, help="every N-th")
    variables = [
        ("out", "OUT", OUT, "root of the results; default %(default)s"),
        ("prior-root", "RUNS", "runs", "folder of the training runs; default %(default)s"),
        ("mri", "MRI", None, "folder of chris_PD, MR_Gd and spm152.nii.gz"),
        ("natural", "NATURAL", None, "folder of photographs, with folders train and val"),
    ]
    add_variables(parser, variables, Path)
    return parser.parse_args(argv)


def parse_part(text: str) -> tuple[int, int]:
    """I and N of the text ``I/N`` with 0 <= I < N; an argparse error for another form."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = map(int, match.groups()) if match else (1, 0)
    if part >= parts:
        raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N - 1, got {text!r}")
    return part, parts


def choose(arguments: Namespace) -> list[GridCell]:
    """Chosen cells; prints a line for each test set that is left out.

    Raises:
        FileNotFoundError: a folder of data does not exist.
        ValueError: no cell matches the pattern.
    """
    for folder in filter(None, (arguments.mri, arguments.natural)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; check --mri and --natural")
    sets = TestSets(arguments.out, mri=arguments.mri, natural=arguments.natural)
    for label, remedy in sets.absent.items():
        print(f"without {label}: {remedy}", file=sys.stderr)
    chosen = matching(make_cells(sets.found, quick=arguments.quick), arguments.only)
    part, parts = arguments.part
    return chosen[part::parts]


def check_priors(cells: Sequence[GridCell], root: Path) -> None:
    """Raise a FileNotFoundError that lists the training runs without a checkpoint."""
    absent = [p for p in priors_of(cells) if find_latest(root / p / "checkpoints") is None]
    if absent:
        raise FileNotFoundError(
            f"no checkpoint in {', '.join(str(root / prior) for prior in absent)}; run "
            "training_scripts/train_small_study.sh, give --prior-root=FOLDER or set RUNS, or "
            "choose cells with --only=PATTERN"
        )


def config_of(cell: GridCell, root: Path) -> ConfigDict:
    """Evaluation config of a cell; `root` is the folder of the training runs."""
    config = load_config(CONFIG)
    prior = {"prior": str(root / cell.prior)} if cell.prior else {}
    config.update_from_flattened_dict({**cell.overrides, **prior})
    return config


def reconstruct_cell(cell: GridCell, arguments: Namespace) -> str:
    """Reconstruct a cell in this process; returns the error message, "" if all went well."""
    config = config_of(cell, arguments.prior_root)
    try:
        evaluate(config, arguments.out / cell.folder, choose_device())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return " ".join(str(error).split())
    return ""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    with clear_errors():
        arguments = parse(argv)
        cells = choose(arguments)
        if arguments.list:
            print("\n".join(cell.folder for cell in cells))
            return
        check_priors(cells, arguments.prior_root)
        failed = run({cell.folder: partial(reconstruct_cell, cell, arguments) for cell in cells})
    exit_if_failed(failed, len(cells))


if __name__ == "__main__":
    with quiet_pipe():
        main()
