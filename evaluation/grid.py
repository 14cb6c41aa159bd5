"""Run a grid of reconstructions (`evaluation.study.grids`), or one cell of it.

    python -m evaluation.grid mri --dry-run     print the commands, one per line
    python -m evaluation.grid mri --plan        print network calls, hours, and an sbatch command
    python -m evaluation.grid mri --cell=7      run one of them, as a task of a SLURM array does
    python -m evaluation.grid mri               run all in turn; finished cells are skipped

Results go to OUT/DATA/MEASUREMENT/METHOD. Flags ``--config.FIELD`` are passed on to every cell. A
cell that fails does not stop the others; failed cells are listed at the end, with exit code 1.
"""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from configs import check_overrides, clear_errors, load_config, quiet_pipe
from evaluation.study.grids import (
    GRIDS,
    NOISY_GRIDS,
    QUICK_GRIDS,
    QUICK_NOISY_GRIDS,
    QUICK_PRIOR,
    QUICK_TRAINING,
    ROOTS,
    SHIPPED_PRIORS,
    GridCell,
)
from evaluation.study.grids_2026 import GRIDS_2026, QUICK_GRIDS_2026
from evaluation.study.grids_trajectories import QUICK_TRAJECTORY_GRIDS, TRAJECTORY_GRIDS
from evaluation.study.runner import (
    add_variables,
    call,
    create_parser,
    exit_if_failed,
    matching,
    run_commands,
)

CONFIG = "configs/evaluate.py"
AT_ONCE = 8  # cells that an array runs at the same time
ALL = GRIDS | NOISY_GRIDS | TRAJECTORY_GRIDS | GRIDS_2026
ALL_QUICK = QUICK_GRIDS | QUICK_NOISY_GRIDS | QUICK_TRAJECTORY_GRIDS | QUICK_GRIDS_2026


def parse(argv: Sequence[str] | None) -> tuple[Namespace, list[str]]:
    """Parsed arguments, and the ``--config.`` flags that are passed on.

    Raises:
        ConfigError, ValueError: an unknown field or argument.
    """
    parser = create_parser("evaluation.grid", __doc__)
    parser.add_argument("name", choices=ALL)
    parser.add_argument("--cell", type=int, metavar="N", help="the N-th of them, from 0")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--count", action="store_true", help="print how many cells there are")
    what.add_argument("--list", action="store_true", help="print their folders")
    what.add_argument("--dry-run", action="store_true", help="print their commands")
    what.add_argument(
        "--plan",
        action="store_true",
        help="print network calls and hours, and an sbatch command with a time limit that fits",
    )
    parser.add_argument(
        "--tflops", type=positive, metavar="T", help="of --plan: TFLOP/s of a GPU; else measured"
    )
    parser.add_argument(
        "--seconds-per-call", type=positive, metavar="S", help="of --plan: of one slice, instead"
    )
    variables = [
        (
            "out",
            "OUT",
            "",
            "root of the results; default results/grid, quick, grid_2026, quick_2026",
        ),
        ("prior-root", "RUNS", "runs", "folder of the training runs; default %(default)s"),
        ("lists", "LISTS", "", "folder of lists of volumes DATA.txt, one name per line"),
        ("nproc", "NPROC", 1, "processes per cell, one per GPU; default %(default)s"),
    ]
    data = "folder of the data; default %(default)s"
    variables += [(root, root.upper(), folder, data) for root, folder in ROOTS.items()]
    add_variables(parser, variables)
    arguments, overrides = parser.parse_known_args(argv)
    unknown = [text for text in overrides if not text.startswith("--config.")]
    if unknown:
        raise ValueError(f"unknown arguments {' '.join(unknown)}; see --help")
    check_overrides(overrides, load_config(CONFIG))
    return arguments, overrides


def positive(text: str) -> float:
    """A positive number of a flag."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def choose(arguments: Namespace) -> list[GridCell]:
    """Chosen cells in the order of the grid; none if ``--cell`` is beyond the last one.

    Raises:
        ValueError: no cell matches the pattern, or the number is negative.
    """
    cells = (ALL_QUICK if arguments.quick else ALL)[arguments.name]
    if not cells:
        raise ValueError(f"{arguments.name} has no small version; leave --quick out")
    chosen = matching(cells, arguments.only)
    if arguments.cell is None:
        return chosen
    if arguments.cell < 0:
        raise ValueError(f"expected --cell in 0 ... {len(chosen) - 1}, got {arguments.cell}")
    return chosen[arguments.cell : arguments.cell + 1]


def planned(
    arguments: Namespace, cells: dict[str, GridCell], overrides: Sequence[str]
) -> list[str]:
    """Lines of ``--plan``: network calls and hours, and the command that submits the cells.

    Args:
        arguments: of the command line.
        cells: results folder -> cell.
        overrides: the flags that are passed on.
    """
    from evaluation.study import cost  # needs PyTorch, which takes seconds

    costs = {folder: cost.cost_of(cell, overrides) for folder, cell in cells.items()}
    rate = cost.choose_rate(costs, arguments.tflops, arguments.seconds_per_call)
    lines = cost.plan(cells, costs, rate)
    hours = max(map(rate.hours, costs.values()), default=0) / arguments.nproc
    script = f"evaluation/evaluate_{arguments.name}.sh"
    if not Path(script).is_file():
        return lines
    command = ["sbatch", f"--array=0-{len(cells) - 1}%{AT_ONCE}"]
    if hours:
        lines.append(f"longest cell {hours:.2f} h: half as much again and half an hour fit it")
        command.append(f"--time={cost.time_limit(hours)}")
    if arguments.nproc > 1:
        command.append(f"--gpus-per-node={arguments.nproc}")
    command.append(script)
    command += ["--quick"] if arguments.quick else []
    command += [f"--only={arguments.only}"] if arguments.only != "*" else []
    variables = f"NPROC={arguments.nproc} " if arguments.nproc > 1 else ""
    return [*lines, variables + shlex.join([*command, *overrides])]


def python() -> str:
    """Path of this interpreter, relative to the working directory if it is inside."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def command_of(cell: GridCell, arguments: Namespace, overrides: Sequence[str]) -> list[str]:
    """Command line that reconstructs a cell."""
    fields = dict(cell.overrides)
    if cell.prior:
        field = "sampler.checkpoint" if cell.method == "unet" else "prior"
        fields[field] = prior_of(cell, arguments)
    if cell.root:
        fields["data.root"] = getattr(arguments, cell.root)
    volumes = Path(arguments.lists) / f"{cell.data}.txt"
    if arguments.lists and volumes.is_file():
        # the list selects files of any split, and their number unless slices are spread over them
        fields |= {"data.split_list": volumes, "data.split": "test"}
        if not fields.get("spread"):
            fields["limit"] = 0
    launcher = [python()]
    if arguments.nproc > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc-per-node={arguments.nproc}"]
    return [
        *launcher,
        *("-m", "evaluation.evaluate", f"--config={CONFIG}"),
        f"--out={folder_of(cell, arguments)}",
        *(f"--config.{field}={value}" for field, value in fields.items()),
        *overrides,
    ]


def folder_of(cell: GridCell, arguments: Namespace) -> str:
    """Results folder of a cell."""
    name = "quick" if arguments.quick else "grid"
    name += "_2026" if arguments.name in GRIDS_2026 else ""  # their cells have the same names
    return f"{arguments.out or f'results/{name}'}/{cell.folder}"


def prior_of(cell: GridCell, arguments: Namespace) -> str:
    """Prior of a cell as a name or path for `models.checkpoint.load_prior`."""
    by_name = arguments.quick or cell.prior in SHIPPED_PRIORS
    return cell.prior if by_name else f"{arguments.prior_root}/{cell.prior}"


def missing(cells: Sequence[GridCell], arguments: Namespace) -> list[str]:
    """Missing data, lists and priors of the cells, one line each with the remedy."""
    lines = []
    for root in ROOTS:
        users = sorted({cell.data for cell in cells if cell.root == root})
        folder = getattr(arguments, root)
        if users and not Path(folder).is_dir():
            lines.append(
                f"data of {', '.join(users)}: no folder {folder}; "
                f"give --{root}=FOLDER or set {root.upper()}"
            )
    if arguments.lists and not Path(arguments.lists).is_dir():
        lines.append(f"lists: no folder {arguments.lists}; give --lists=FOLDER or set LISTS")
    fitted = [cell for cell in cells if cell.prior and cell.prior not in SHIPPED_PRIORS]
    wanted = [] if arguments.quick else [prior_of(cell, arguments) for cell in fitted]
    absent = [prior for prior in dict.fromkeys(wanted) if not has_checkpoint(Path(prior))]
    if absent:
        lines.append(
            f"priors: no checkpoint in {', '.join(absent)}; fit them (training_scripts/), give "
            "--prior-root=FOLDER or set RUNS, or leave them out with --only=PATTERN"
        )
    return lines


def has_checkpoint(path: Path) -> bool:
    """Whether `load_prior` finds a file, readable or not."""
    found = (any(folder.glob("step_*.pt")) for folder in (path, path / "checkpoints"))
    return path.is_file() or any(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    with clear_errors():
        arguments, overrides = parse(argv)
        cells = choose(arguments)
    folders = [folder_of(cell, arguments) for cell in cells]
    commands = dict(
        zip(folders, (command_of(cell, arguments, overrides) for cell in cells), strict=True)
    )
    if QUICK_TRAINING and any(cell.prior == QUICK_PRIOR for cell in cells):
        commands = {QUICK_PRIOR: [python(), *QUICK_TRAINING]} | commands
    if arguments.count:
        print(len(cells))
    elif arguments.list:
        print("\n".join(folders))
    elif arguments.plan:
        with clear_errors():
            found = dict(zip(folders, cells, strict=True))
            print("\n".join(planned(arguments, found, overrides)))
    elif arguments.dry_run:
        print("\n".join(map(shlex.join, commands.values())))
    else:
        if not cells:  # a SLURM array may have more tasks than there are cells
            print(f"cell {arguments.cell}: nothing to do, there are fewer")
        absent = missing(cells, arguments)
        if absent:
            sys.exit("error: nothing was run, this is missing:\n  " + "\n  ".join(absent))
        failed = run_commands(commands)
        done = [folder for folder in folders if folder not in failed]
        if arguments.quick and done:
            call([python(), "-m", "evaluation.tables", *done])
        exit_if_failed(failed, len(commands))


if __name__ == "__main__":
    with quiet_pipe():
        main()
