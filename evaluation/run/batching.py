"""Work on items in batches: smaller ones where memory does not suffice, one by one past a fault."""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import torch

from configs import is_out_of_memory

CPU_BATCH, GPU_BATCH = 4, 64  # slices at a time by default; halved where memory does not suffice
ALIKE = 3  # slices that fail with one and the same text, before any success, speak for all
log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def choose_size(asked: int, device: str) -> int:
    """Slices at a time: `asked`, or for 0 what suits `device`.

    Raises:
        ValueError: below 0.
    """
    if asked < 0:
        raise ValueError(f"expected batch_size of at least 0, got {asked}")
    return asked or (CPU_BATCH if device == "cpu" else GPU_BATCH)


def unfinished(items: Sequence[Item], size: int, is_finished: Callable[[Item], bool]) -> list[Item]:
    """The items of all batches of `size` that are not finished as a whole.

    The kernels of a network choose by the size of a batch, and so do its last digits: what is left
    of a batch is done in that batch again, and comes out as in a run that was never interrupted.
    """
    batches = [items[i : i + size] for i in range(0, len(items), size)]
    return [item for batch in batches if not all(map(is_finished, batch)) for item in batch]


def in_batches(
    items: Sequence[Item], size: int, work: Callable[[list[Item]], Result]
) -> Iterator[tuple[list[Item], Result | Exception]]:
    """``work(batch)`` on batches of at most `size` items, in their order.

    Out of memory, the batch is halved, and stays so for the rest. After any other exception the
    items of that batch are tried one by one, so that only the faulty ones are lost: items have to
    be independent of the batch that they are in.

    Yields:
        the items of a batch and what `work` gave; for an item that failed alone, the exception
        (without its traceback, whose frames would keep tensors alive).

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {size}")
    pending = deque(items)
    suspects = 0  # at the front of the queue, tried one by one
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
    """Stop where nothing has succeeded yet and it is no single item's fault.

    Args:
        texts: what went wrong, of all items so far.

    Raises:
        ValueError: `ALIKE` of them or more, and all the same.
    """
    if len(texts) >= ALIKE and len(set(texts)) == 1:
        raise ValueError(
            f"the first {len(texts)} slices all failed alike, so it is not one slice's fault: "
            f"{next(iter(texts))}"
        )


def _attempt(work: Callable[[list[Item]], Result], batch: list[Item]) -> Result | Exception:
    try:
        return work(batch)
    except Exception as error:  # whatever a slice does to a method, the others go on
        log.debug("failed: %s", batch, exc_info=True)
        problem = error.with_traceback(None)
        problem.__context__ = problem.__cause__ = None  # their frames hold tensors, too
    if is_out_of_memory(problem) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return problem
