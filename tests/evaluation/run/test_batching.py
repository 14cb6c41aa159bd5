"""Batches that shrink when memory runs out or a slice fails."""

import weakref

import pytest
import torch

from configs import is_out_of_memory
from evaluation.run.batching import in_batches


def run_batches(items, size, work):
    return [
        (batch, str(result)) if isinstance(result, Exception) else (batch, result)
        for batch, result in in_batches(items, size, work)
    ]


def test_memory_halves_batches_and_keeps_the_order():
    def work(batch):
        if sum(batch) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sum(batch)

    given = [1, 2, 3, 11, 4, 5, 6]
    assert run_batches(given, 7, work) == [
        ([1, 2, 3], 6),
        ([11], "CUDA out of memory"),
        ([4], 4),
        ([5], 5),
        ([6], 6),
    ]


def test_a_fault_is_found_and_batches_are_as_before():
    sizes = []

    def work(batch):
        sizes.append(len(batch))
        if 3 in batch:
            raise KeyError("three")
        return len(batch)

    assert run_batches(range(9), 4, work) == [
        ([0], 1),
        ([1], 1),
        ([2], 1),
        ([3], "'three'"),
        ([4, 5, 6, 7], 4),
        ([8], 1),
    ]
    assert sizes == [4, 1, 1, 1, 1, 4, 1]
    with pytest.raises(ValueError, match="expected batch_size of at least 1, got 0"):
        list(in_batches([1], 0, work))


def test_an_exception_keeps_no_tensors():
    alive = []

    def work(batch):
        big = torch.zeros(3)
        alive.append(weakref.ref(big))
        try:
            raise KeyError(big)
        except KeyError:
            raise RuntimeError("no") from None

    ((_, error),) = in_batches([1], 1, work)
    assert isinstance(error, RuntimeError)
    assert [reference() for reference in alive] == [None]


def test_what_counts_as_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("out of memory"))
