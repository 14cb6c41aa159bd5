"""Progress of long commands: a bar on a terminal, a dated line per minute in a log."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

EVERY = 60.0  # seconds between lines


def progress_bar(
    total: float,
    unit: str,
    *,
    label: str = "",
    initial: float = 0,
    file: TextIO | None = None,
    delay: float = 0.0,
    disable: bool = False,
) -> "tqdm | LogLines":
    """Progress bar on a terminal, or dated lines in a log.

    The bar has the methods `update`, `set_postfix_str` and `close`, and the attributes `n` and
    `total`, which may be set. If `file` is not a terminal, it writes at most one line per minute,
    the first after a minute, which keeps the logs of batch jobs short.

    Args:
        total: number of units of work.
        unit: name of a unit in the singular.
        label: text in front of the bar.
        initial: number of units that are already done.
        file: stream to write to; None for standard error.
        delay: seconds before a bar appears.
        disable: whether to write nothing.
    """
    file = file or sys.stderr
    if disable or file.isatty():
        return tqdm(
            desc=label or None,
            total=total,
            initial=initial,
            unit=unit,
            file=file,
            delay=delay,
            disable=disable,
        )
    return LogLines(total, unit, label=label, initial=initial, file=file)


class LogLines:
    """Progress as dated lines, with the methods and attributes of a tqdm bar.

    Args:
        total: number of units of work.
        unit: name of a unit in the singular.
        label: text in front of each line.
        initial: number of units that are already done.
        file: stream to write to.
    """

    def __init__(self, total: float, unit: str, *, label: str, initial: float, file: TextIO):
        self.total, self.n, self.unit, self.label, self.file = total, initial, unit, label, file
        self.postfix, self.initial = "", initial
        self.begin = self.last = time.monotonic()
        self.shown = initial

    def update(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        self.n += n
        self.refresh()

    def refresh(self) -> None:
        """Write a line if the last one is a minute old."""
        if time.monotonic() - self.last >= EVERY:
            self._write()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Set the text at the end of the next line."""
        self.postfix = text

    def close(self) -> None:
        """Write a last line, if there were others, unless it would say the same."""
        if self.last > self.begin and self.n != self.shown:
            self._write()

    def _write(self) -> None:
        self.last, self.shown = time.monotonic(), self.n
        seconds = self.last - self.begin
        rate = (self.n - self.initial) / seconds
        facts = [f"{self.n:g}/{self.total:g} {self.unit}s", f"{rate:.3g} {self.unit}s/s"]
        if rate:
            left = max(self.total - self.n, 0) / rate
            facts.append(f"{tqdm.format_interval(left)} left" if left else "done")
        text = ", ".join([*facts, *filter(None, [self.postfix])])
        label = f"{self.label}: " if self.label else ""
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {label}{text}", file=self.file, flush=True)

    def __enter__(self) -> "LogLines":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class SliceProgress:
    """Progress of reconstructing slices in batches, counted in calls of the network.

    The total is the expected number of calls, and from the first finished batch on an estimate from
    the calls that slices took.

    Use as a context manager::

        with progress.start(len(slices), calls=50):
            for batch in batches:
                progress.begin(len(batch))
                ...  # progress.call() at each call of the network for the whole batch
                progress.finish()
    """

    def start(self, count: int, calls: int, *, done: int = 0) -> "SliceProgress":
        """Draw the bar.

        Args:
            count: number of slices to reconstruct.
            calls: expected number of network calls per slice; 0 if no network is called, and each
                `call` counts one slice.
            done: number of slices finished by an earlier run, in addition to `count`.
        """
        self.count, self.calls, self.done = count, calls, done
        self.finished = self.taken = self.pending = self.size = 0
        unit = "network call" if calls else "slice"
        scale = max(calls, 1)
        total, initial = (count + done) * scale, done * scale
        self.bar = progress_bar(total, unit, initial=initial, disable=not count)
        return self

    def begin(self, size: int) -> None:
        """Begin a batch of `size` slices, discarding an unfinished one."""
        self.size, self.pending = size, 0

    def call(self, samples: int = 1) -> None:
        """Count one call of the network for the batch.

        Args:
            samples: number of samples of each slice that the call was for.
        """
        self.pending += self.size * samples if self.calls else 1
        self._show()

    def finish(self) -> None:
        """Finish the batch."""
        self.finished += self.size
        self.taken += self.pending if self.calls else self.size
        self.pending = 0
        self._show()

    def _show(self) -> None:
        each = self.taken / self.finished if self.taken else max(self.calls, 1)
        self.bar.total = round(each * (self.done + self.count))
        now = round(each * self.done) + self.taken + self.pending
        if self.calls:  # otherwise the bar itself counts slices
            slices = f"{self.done + self.finished}/{self.done + self.count} slices"
            self.bar.set_postfix_str(slices, refresh=False)
        self.bar.update(min(now, self.bar.total) - self.bar.n)

    def __enter__(self) -> "SliceProgress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
