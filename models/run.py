"""Signals, resumable logs and checkpoints of training runs."""

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
# SLURM's warning before its time limit, its end, Ctrl-C, a closed terminal
ENDS = ("SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP")
READER_GONE = (errno.EPIPE, errno.EIO)  # errors of a closed pipe and of a closed terminal


def catch_signals() -> Callable[[], bool]:
    """Record requests to end this process instead of ending it.

    Requests are the signals `ENDS`, and a closed standard output or error (``| head``, a closed
    terminal). Signals that the process already ignores, as under `nohup` or after a shell's ``&``,
    stay ignored. A second Ctrl-C ends the process at once.

    Returns:
        A function that tells whether there was a request.
    """
    received = []

    def note(number, frame):
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    for name in ENDS:
        number = getattr(signal, name, None)  # Windows does not have all of them
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, note)
    sys.stdout, sys.stderr = (Lasting(s, received.append) for s in (sys.stdout, sys.stderr))
    return lambda: bool(received)


class Lasting:
    """Text stream that discards its output once its reader is gone, and reports that.

    Args:
        stream: the wrapped stream.
        tell: called with the error number when the reader is gone.
    """

    def __init__(self, stream: TextIO, tell: Callable[[int], None]):
        self._stream, self._tell = stream, tell

    def write(self, text: str) -> int:
        """Write `text`; returns its length."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            if error.errno not in READER_GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # also discards what is in its buffer
            os.close(nowhere)
            self._tell(error.errno)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def due(every: int, done: int, last: bool) -> bool:
    """Whether an action that is due every `every` steps (0: never) and at the last step is due."""
    return every > 0 and (done % every == 0 or last)


def write_if_changed(path: Path, text: str) -> None:
    """Write a text file, unless it already holds the same text."""
    if not path.is_file() or read_text(path) != text:
        write_atomically(path, text)


class CsvLog:
    """CSV log of a training run, to which rows are appended; one column is "step".

    When it is opened, rows after step `start` and a last row cut off by a crash are dropped. If
    other rows are damaged, they are dropped with a warning and the file is kept as
    ``NAME.damaged``.

    Args:
        path: the file; created with a header if missing.
        columns: names of the columns.
        start: number of finished steps.
        names: columns that hold names instead of numbers.
    """

    def __init__(
        self, path: Path, columns: tuple[str, ...], start: int, names: tuple[str, ...] = ()
    ):
        self.path, self.columns = path, columns
        rows = _good_rows(path, names) if path.is_file() else []
        kept = [row for row in rows if int(row["step"]) <= start]
        write_atomically(path, to_csv(kept, columns))

    def write(self, rows: Iterable[Mapping]) -> None:
        """Append rows to the file at once.

        Args:
            rows: mappings from the columns' names to values.
        """
        with naming(self.path), self.path.open("a", newline="") as file:
            file.write(to_csv(rows, self.columns, header=False))


def _good_rows(path: Path, names: tuple[str, ...]) -> list[dict[str, str]]:
    """The readable rows of a log; see `CsvLog`."""
    text = read_text(path)
    whole = text[: text.rfind("\n") + 1]  # a crash may have cut off the last row
    try:
        rows = list(csv.DictReader(io.StringIO(whole)))
    except csv.Error:
        rows = [{}]
    good = [row for row in rows if _is_good(row, names)]
    if len(good) < len(rows) or (text and not whole):
        kept = path.with_name(f"{path.name}.damaged")
        write_atomically(kept, path.read_bytes())
        lost = len(rows) - len(good)
        warnings.warn(f"{path}: {lost} damaged rows are left out, see {kept.name}", stacklevel=4)
    return good


def _is_good(row: Mapping, names: tuple[str, ...]) -> bool:
    with suppress(TypeError, ValueError):
        numbers = [float(row[name]) for name in row if name not in names and row[name] != ""]
        return row.get("step", "").isdigit() and None not in row and bool(numbers)
    return False


def checkpoint_path(workdir: Path, step: int) -> Path:
    """Path of the checkpoint of `step` in the folder of a run."""
    return workdir / "checkpoints" / f"step_{step:08d}.pt"


def checkpoints_of(workdir: Path) -> list[Path]:
    """Checkpoints of a run, readable or not, the newest last."""
    found = (workdir / "checkpoints").glob("step_*.pt")
    return sorted((p for p in found if checkpoint.step_of(p) >= 0), key=checkpoint.step_of)


def find_newest(workdir: Path) -> Path | None:
    """Newest readable checkpoint to resume a run from; None for a new run.

    Damaged newer checkpoints are renamed to ``NAME.damaged``, so that they do not count among those
    to keep, and half-written files are removed. Only the process that holds the folder may call
    this.

    Args:
        workdir: folder of the run.

    Raises:
        CheckpointError: there are checkpoints, but none can be read. Starting anew would discard
            them and the log.
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
    """Content of a checkpoint to resume training from.

    Args:
        path: the checkpoint.
        device: device of its tensors.
        entries: names of the entries that it has to have.

    Raises:
        CheckpointError: the checkpoint is unreadable or lacks one of `entries`.
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
    """Write the checkpoint of ``payload["step"]``, then remove all but the newest ones.

    Args:
        workdir: folder of the run.
        payload: content of the checkpoint, with "step".
        keep: number of checkpoints to keep, at least 1.
    """
    checkpoint.save(checkpoint_path(workdir, payload["step"]), payload)
    for path in checkpoints_of(workdir)[: -max(keep, 1)]:
        path.unlink()
