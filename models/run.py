"""What training runs share: signals, logs that continue, the checkpoints of a run's folder."""

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path

from models import checkpoint

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: "temporary failure; the user is invited to retry"


def catch_signals() -> Callable[[], bool]:
    """Only note SIGTERM and SIGUSR1 (SLURM's warning) from now on; says whether one came."""
    received = []
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has no SIGUSR1
            signal.signal(getattr(signal, name), lambda number, frame: received.append(number))
    return lambda: bool(received)


def open_csv(path: Path, columns: tuple[str, ...], start: int) -> csv.DictWriter:
    """Open a CSV file to append to, without rows after step `start` or cut off by a crash.

    Args:
        path: the file; made with a header if missing.
        columns: the first of them is "step".
        start: number of finished steps.
    """
    rows = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if row["step"].isdigit() and int(row["step"]) <= start and None not in row.values()
            ]
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)
    # a buffer of one line: every row is in the file as soon as it is written
    return csv.DictWriter(path.open("a", newline="", buffering=1), columns)


def checkpoint_path(workdir: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return workdir / "checkpoints" / f"step_{step:08d}.pt"


def save_checkpoint(workdir: Path, payload: dict, *, keep: int) -> None:
    """Write the checkpoint of ``payload["step"]``, then remove all but the `keep` newest ones."""
    checkpoint.save(checkpoint_path(workdir, payload["step"]), payload)
    written = sorted((workdir / "checkpoints").glob("step_*.pt"), key=checkpoint.step_of)
    for path in written[: -max(keep, 1)]:
        path.unlink()
