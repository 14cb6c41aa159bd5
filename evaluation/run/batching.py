"""Processing of items in batches, which shrink when memory runs out or an item fails."""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import torch

from configs import is_out_of_memory

CPU_BATCH, GPU_BATCH = 4, 64  # default batch sizes, halved when memory runs out
ALIKE = 3  # number of first slices with the same error that stops the run
log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def choose_size(asked: int, device: str) -> int:
    """Batch size: `asked`, or, if that is 0, the default for `device`.

    Raises:
        ValueError: `asked` is negative.
    """
    if asked < 0:
        raise ValueError(f"expected batch_size of at least 0, got {asked}")
    return asked or (CPU_BATCH if device == "cpu" else GPU_BATCH)


def unfinished(items: Sequence[Item], size: int, is_finished: Callable[[Item], bool]) -> list[Item]:
    """The items of all batches of `size` that are not completely finished.

    The kernels of a network, and with them the last digits, depend on the batch size. Repeating a
    whole batch therefore gives the same numbers as a run that was not interrupted.
    """
    batches = [items[i : i + size] for i in range(0, len(items), size)]
    return [item for batch in batches if not all(map(is_finished, batch)) for item in batch]


def in_batches(
    items: Sequence[Item], size: int, work: Callable[[list[Item]], Result]
) -> Iterator[tuple[list[Item], Result | Exception]]:
    """Results of ``work(batch)`` on batches of at most `size` items, in their order.

    If memory runs out, the batch size is halved, also for later batches. After any other exception
    the items of the batch are tried one by one, so that only the faulty ones are lost. Results of
    items must not depend on their batch.

    Yields:
        The items of a batch and the result of `work`; for an item that failed alone, the exception
        (without its traceback, whose frames would keep tensors alive).

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {size}")
    pending = deque(items)
    suspects = 0  # number of items at the front of the queue to try one by one
    while pending:
        batch = [pending.popleft() for _ in range(1 if suspects else min(size, len(pending)))]
        result = _attempt(work, batch)
        if isinstance(result, Exception) and len(batch) > 1:
            pending.extendleft(reversed(batch))
            if is_out_of_memory(result):
                size = len(batch) // 2
                log.warning("out of memory with %d slices at a time; on with %d", len(batch), size)
            else:
                suspects = len(batch)
            continue
        suspects = max(suspects - 1, 0)
        yield batch, result


def check_alike(texts: Collection[str]) -> None:
    """Raise an error if the first slices all failed for the same reason.

    Args:
        texts: error messages of all slices so far, none of which succeeded.

    Raises:
        ValueError: there are at least `ALIKE` messages, and all are equal.
    """
    if len(texts) >= ALIKE and len(set(texts)) == 1:
        raise ValueError(
            f"the first {len(texts)} slices all failed alike, so it is not one slice's fault: "
            f"{next(iter(texts))}"
        )


def _attempt(work: Callable[[list[Item]], Result], batch: list[Item]) -> Result | Exception:
    try:
        return work(batch)
    except Exception as error:  # any error of a slice must not stop the others
        log.debug("failed: %s", batch, exc_info=True)
        failure = error.with_traceback(None)
        failure.__context__ = failure.__cause__ = None  # their frames also hold tensors
    if is_out_of_memory(failure) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return failure
