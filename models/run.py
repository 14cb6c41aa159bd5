"""What training runs share: signals, logs that continue, the checkpoints of a run's folder."""

import csv
import errno
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import torch

from datasets.files import naming, read_text, remove_abandoned, to_csv, write_atomically
from models import checkpoint
from models.checkpoint import CheckpointError

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: "temporary failure; the user is invited to retry"
# SLURM's warning, its end, Ctrl-C, a terminal that is closed
ENDS = ("SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP")
READER_GONE = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal


def catch_signals() -> Callable[[], bool]:
    """Only note from now on what asks this process to end; says whether something did.

    These are the signals `ENDS`, and that nobody reads standard output or error any more
    (``| head``, a closed terminal). What `nohup` or a shell's ``&`` have made the process ignore
    stays ignored. A second Ctrl-C ends at once.
    """
    received = []

    def note(number, frame):
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    for name in ENDS:
        number = getattr(signal, name, None)  # Windows has not all
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, note)
    sys.stdout, sys.stderr = (Lasting(s, received.append) for s in (sys.stdout, sys.stderr))
    return lambda: bool(received)


class Lasting:
    """A text stream that goes on, to nowhere, when nobody reads it any more, and tells it."""

    def __init__(self, stream: TextIO, tell: Callable[[int], None]):
        self._stream, self._tell = stream, tell

    def write(self, text: str) -> int:
        """As of the stream."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """As of the stream."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            if error.errno not in READER_GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is in its buffer goes there, too
            os.close(nowhere)
            self._tell(error.errno)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


class CsvLog:
    """A CSV file with a row a step, to which rows are appended; the first column is "step".

    Rows after step `start`, or cut off by a crash, are dropped first. If other rows are damaged
    the file is kept as ``NAME.damaged``, with a warning.

    Args:
        path: the file; made with a header if missing.
        columns: names.
        start: number of finished steps.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], start: int):
        self.path, self.columns = path, columns
        rows = _good_rows(path) if path.is_file() else []
        kept = [row for row in rows if int(row["step"]) <= start]
        write_atomically(path, to_csv(kept, columns))

    def write(self, rows: Iterable[Mapping]) -> None:
        """Append rows; they are in the file at once."""
        with naming(self.path), self.path.open("a", newline="") as file:
            file.write(to_csv(rows, self.columns, header=False))


def _good_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log that can be read; see `CsvLog`."""
    text = read_text(path)
    whole = text[: text.rfind("\n") + 1]  # a kill may have cut off the last row
    try:
        rows = list(csv.DictReader(io.StringIO(whole)))
    except csv.Error:
        rows = [{}]
    good = [row for row in rows if _is_good(row)]
    if len(good) < len(rows) or (text and not whole):
        kept = path.with_name(f"{path.name}.damaged")
        write_atomically(kept, path.read_bytes())
        lost = len(rows) - len(good)
        warnings.warn(f"{path}: {lost} damaged rows are left out, see {kept.name}", stacklevel=4)
    return good


def _is_good(row: Mapping) -> bool:
    with suppress(TypeError, ValueError):
        numbers = [float(value) for value in row.values() if value != ""]
        return row.get("step", "").isdigit() and None not in row and bool(numbers)
    return False


def checkpoint_path(workdir: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return workdir / "checkpoints" / f"step_{step:08d}.pt"


def checkpoints_of(workdir: Path) -> list[Path]:
    """The checkpoints of a run, the newest last, readable or not."""
    found = (workdir / "checkpoints").glob("step_*.pt")
    return sorted((p for p in found if checkpoint.step_of(p) >= 0), key=checkpoint.step_of)


def find_newest(workdir: Path) -> Path | None:
    """The newest readable checkpoint of a run that is to go on from there; None for a new run.

    Newer ones that are damaged are renamed to ``NAME.damaged``: they would count among those to be
    kept. So are files that a kill left half-written removed. For the one process that holds the
    folder.

    Raises:
        CheckpointError: there are checkpoints, but none can be read: a start from the beginning
            would throw away the run's log and the rest of them.
    """
    remove_abandoned(workdir / "checkpoints", older=0)
    there = checkpoints_of(workdir)
    newest = checkpoint.find_latest(workdir / "checkpoints")
    if there and newest is None:
        raise CheckpointError(
            f"{workdir / 'checkpoints'}: none of {len(there)} checkpoints can be read; bring one "
            "back from a copy, or move the folder away to start anew"
        )
    for path in there:
        if checkpoint.step_of(path) > checkpoint.step_of(newest):
            path.rename(path.with_name(f"{path.name}.damaged"))
    return newest


def load_state(path: Path, device: str | torch.device, entries: Iterable[str]) -> dict:
    """A checkpoint to go on from.

    Raises:
        CheckpointError: unreadable, or without one of `entries`.
    """
    state = checkpoint.load(path, device)
    missing = sorted(set(entries) - state.keys())
    if missing:
        raise CheckpointError(
            f"{path}: expected a checkpoint that training can go on from, got one without "
            f"{', '.join(missing)}; choose another --workdir"
        )
    return state


def save_checkpoint(workdir: Path, payload: dict, *, keep: int) -> None:
    """Write the checkpoint of ``payload["step"]``, then remove all but the `keep` newest ones."""
    checkpoint.save(checkpoint_path(workdir, payload["step"]), payload)
    for path in checkpoints_of(workdir)[: -max(keep, 1)]:
        path.unlink()
