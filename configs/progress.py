"""How far a long command is: a bar on a terminal, a dated line a minute in a log."""

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
    """A bar with `update`, `set_postfix_str`, `close`, and `n` and `total` that may be set.

    Where `file` is no terminal, dated lines instead, the first after a minute: a batch job's log
    does not grow by the second, and a short job's not at all.

    Args:
        total: units of work.
        unit: what they are, in the singular.
        label: in front.
        initial: units that are done already.
        file: where it is drawn; None: standard error.
        delay: seconds before a bar is drawn at all.
        disable: draw nothing.
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
    """A progress bar's stand-in where there is no terminal; arguments as of `progress_bar`."""

    def __init__(self, total: float, unit: str, *, label: str, initial: float, file: TextIO):
        self.total, self.n, self.unit, self.label, self.file = total, initial, unit, label, file
        self.postfix, self.initial = "", initial
        self.begin = self.last = time.monotonic()

    def update(self, n: float = 1) -> None:
        """`n` more are done."""
        self.n += n
        self.refresh()

    def refresh(self) -> None:
        """Write a line if it is time for one."""
        if time.monotonic() - self.last >= EVERY:
            self._write()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """What stands at the end of the next line."""
        self.postfix = text

    def close(self) -> None:
        """A last line, if there were others."""
        if self.last > self.begin:
            self._write()

    def _write(self) -> None:
        self.last = time.monotonic()
        seconds = self.last - self.begin
        rate = (self.n - self.initial) / seconds
        facts = [f"{self.n:g}/{self.total:g} {self.unit}s", f"{rate:.3g} {self.unit}s/s"]
        if rate:
            left = max(self.total - self.n, 0) / rate
            facts.append(f"{tqdm.format_interval(left)} left" if left else "done")
        text = ", ".join([*facts, *filter(None, [self.postfix])])
        label = f"{self.label}: " if self.label else ""
        print(f"{time.strftime('%F %T')}  {label}{text}", file=self.file, flush=True)

    def __enter__(self) -> "LogLines":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class SliceProgress:
    """Progress of reconstructing slices in batches, which moves with every call of the network.

    Its total is what is expected; from the first finished batch on, what the slices took.

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
            count: slices to reconstruct.
            calls: of the network that a slice is expected to take; 0: none is called, and
                `call` says that one slice is finished.
            done: slices of an earlier run, beside `count`.
        """
        self.count, self.calls, self.done = count, calls, done
        self.finished = self.taken = self.pending = self.size = 0
        unit = "network call" if calls else "slice"
        scale = max(calls, 1)
        total, initial = (count + done) * scale, done * scale
        self.bar = progress_bar(total, unit, initial=initial, disable=not count)
        return self

    def begin(self, size: int) -> None:
        """A batch of `size` slices begins; an earlier one that was not finished is void."""
        self.size, self.pending = size, 0

    def call(self) -> None:
        """The network was called for the batch."""
        self.pending += self.size if self.calls else 1
        self._show()

    def finish(self) -> None:
        """The batch is finished, with whatever calls it took."""
        self.finished += self.size
        self.taken += self.pending if self.calls else self.size
        self.pending = 0
        self._show()

    def _show(self) -> None:
        each = self.taken / self.finished if self.taken else max(self.calls, 1)
        self.bar.total = round(each * (self.done + self.count))
        now = round(each * self.done) + self.taken + self.pending
        self.bar.set_postfix_str(
            f"{self.done + self.finished}/{self.done + self.count} slices", refresh=False
        )
        self.bar.update(min(now, self.bar.total) - self.bar.n)

    def __enter__(self) -> "SliceProgress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
