"""Runs the cells of a grid in turn: which ones, what failed, and what an interruption does.

`evaluation.grid` runs each cell in a process of its own, `evaluation.small_study` in this one.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial

from evaluation.study.grids import GridCell

INTERRUPTED = 75  # exit code as in train.py: the same command continues

Job = Callable[[], str]  # runs a cell; returns what went wrong, or ""


def create_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Parser of a command line with the flags ``--quick``, ``--only`` and ``--list``.

    Args:
        module: name of the module that is run.
        description: its docstring.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="small version, on embedded slices")
    parser.add_argument(
        "--only", metavar="PATTERN", default="*", help="cells such as 'brain*/*/natural_1_*'"
    )
    return parser


def add_variables(
    parser: argparse.ArgumentParser,
    flags: Iterable[tuple[str, str, object, str]],
    kind: Callable | None = None,
) -> None:
    """Add flags that an environment variable may also set.

    Args:
        parser: parser of the command line.
        flags: (name of the flag, name of the variable, default, help) of each.
        kind: conversion of the values; None: the type of the default.
    """
    for flag, variable, default, text in flags:
        value = os.environ.get(variable) or default
        parser.add_argument(
            f"--{flag}",
            default=value,
            type=kind or type(default),
            metavar="N" if isinstance(default, int) else "FOLDER",
            help=f"{text}; also ${variable}",
        )


def matching(cells: Iterable[GridCell], pattern: str) -> list[GridCell]:
    """The cells whose folder matches a pattern such as ``*/*/tv``.

    Raises:
        ValueError: there are none.
    """
    chosen = [cell for cell in cells if fnmatchcase(cell.folder, pattern)]
    if not chosen:
        raise ValueError(f"no cell matches --only='{pattern}'; --list shows them")
    return chosen


def run(jobs: Mapping[str, Job]) -> dict[str, str]:
    """Run jobs in turn, also after one that fails; returns what went wrong by name."""
    failed = {}
    for number, (name, job) in enumerate(jobs.items(), start=1):
        print(f"== {number}/{len(jobs)} {name}", flush=True)
        error = job()
        if error:
            failed[name] = error
    return failed


def exit_if_failed(failed: Mapping[str, str], total: int) -> None:
    """Raise a SystemExit that lists what failed out of `total` jobs, if anything did."""
    if failed:
        lines = "".join(f"\n  {name}: {error}" for name, error in failed.items())
        sys.exit(f"error: {len(failed)} of {total} failed; the same command tries again:{lines}")


class Interruption:
    """Handler of the signals that end a grid: raises KeyboardInterrupt, except while held."""

    def __init__(self):
        self.is_held, self.pending = False, 0

    def __call__(self, number: int, _frame: object) -> None:
        """Record the signal, and raise KeyboardInterrupt unless held."""
        self.pending = number
        if not self.is_held:
            raise KeyboardInterrupt(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Context that delays the effect of a signal to its end."""
        self.is_held = True
        yield
        self.is_held = False
        if self.pending:
            raise KeyboardInterrupt(self.pending)


interruption = Interruption()


def call(command: Sequence[str]) -> int:
    """Run a command and return its exit code; an interruption terminates it."""
    process = None
    try:
        with interruption.held():  # a signal here would leave the new process running
            process = subprocess.Popen(command)
        return process.wait()
    except KeyboardInterrupt:
        if process is not None:
            process.terminate()
            process.wait()
        raise


def run_commands(commands: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Run commands in turn, each in a process of its own; returns what went wrong by name.

    A signal terminates the running command and exits with code `INTERRUPTED`; SIGUSR1, SLURM's
    warning before the time limit, also puts the job back into the queue.
    """

    def job(command: Sequence[str]) -> str:
        code = call(command)
        return f"exit code {code}" if code else ""

    warning = getattr(signal, "SIGUSR1", None)  # Windows has none, nor SLURM
    for number in filter(None, (signal.SIGINT, signal.SIGTERM, warning)):
        signal.signal(number, interruption)
    try:
        return run({name: partial(job, command) for name, command in commands.items()})
    except KeyboardInterrupt as interrupted:
        slurm = os.environ.get("SLURM_JOB_ID")
        if interrupted.args[0] == warning and slurm:  # the time limit is near
            print("== interrupted before the time limit; back into the queue", flush=True)
            subprocess.run(["scontrol", "requeue", slurm], check=True)
        else:
            print("== interrupted; the same command continues", flush=True)
        sys.exit(INTERRUPTED)
