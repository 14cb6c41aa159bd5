"""Parallel work on all items of a data set, with a progress bar."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch
from torch.utils.data import Dataset

from configs.progress import progress_bar
from datasets.sample import DataError, Sample
from datasets.system import cores

T = TypeVar("T")
CHUNK = 16  # number of items read together, so that neighbours open their file only once
FEWEST = 4 * CHUNK  # smallest number of items for which starting processes pays off
MOST_PROCESSES = 8
AHEAD = 4  # largest number of queued chunks per process, to limit memory

_work: Callable[[Sequence[int]], object]  # the function of this worker process


def map_items(
    work: Callable[[Sequence[int]], T],
    count: int,
    *,
    label: str,
    processes: int | None = None,
) -> Iterator[T]:
    """Results of `work` on chunks of the items 0 to `count` - 1, in any order.

    Args:
        work: function of some indices, whose result is pickled.
        count: number of items.
        label: label of the progress bar, which appears only if the work takes long.
        processes: number of processes; None for the number of cores, at most `MOST_PROCESSES`.
            Where the system cannot fork, it is one.

    Raises:
        DataError: a process was killed. Errors of `work` are raised at once.
    """
    chunks = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
    if processes is None:
        processes = min(MOST_PROCESSES, cores()) if count >= FEWEST else 1
    if "fork" not in multiprocessing.get_all_start_methods():  # Windows
        processes = 1
    with progress_bar(count, "image", label=label, delay=2.0) as progress:
        results = map(work, chunks) if processes < 2 else _in_pool(work, chunks, processes)
        for done, result in enumerate(results, start=1):
            progress.update(min(CHUNK, count - progress.n) if done < len(chunks) else 0)
            yield result
        progress.update(count - progress.n)


def _in_pool(work: Callable, chunks: Sequence[range], processes: int) -> Iterator:
    # with fork, `work` and its data set need not be pickled, nor the main module imported again
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes, context, initializer=_start, initargs=(work,))
    waiting = iter(chunks)
    running: set[Future] = set()
    try:
        for chunk in waiting:
            running.add(pool.submit(_call, chunk))
            if len(running) >= AHEAD * processes:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        yield from (future.result() for future in running)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that reads images was killed, probably for want of memory; close other "
            "programs, or take out the largest files"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(work: Callable) -> None:
    global _work
    torch.set_num_threads(1)  # a forked process must not use its parent's OpenMP threads
    _work = work


def _call(chunk: range):
    return _work(chunk)


def read_items(dataset: Dataset, items: Sequence[int]) -> list[Sample | DataError]:
    """Samples of some items; an unreadable item is replaced by its error."""
    try:
        return fetch(dataset, items)
    except DataError:
        return [_read_item(dataset, i) for i in items]


def fetch(dataset: Dataset, items: Sequence[int]) -> list[Sample]:
    """Samples of some items, read together if the data set supports it."""
    together = getattr(dataset, "__getitems__", None)
    return list(together(items)) if together else [dataset[i] for i in items]


def _read_item(dataset: Dataset, i: int) -> Sample | DataError:
    try:
        return dataset[i]
    except DataError as error:
        return error
