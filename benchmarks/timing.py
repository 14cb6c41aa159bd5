"""Times of calls that are taken in turns, so that other work on the machine affects all alike."""

import time
from collections.abc import Callable

import torch


def times_in_turns(
    calls: list[Callable[[], object]], device: str, repeats: int
) -> list[list[float]]:
    """Times in seconds of each call, `repeats` of each, after one that warms up.

    Args:
        calls: the calls.
        device: their device, whose work is waited for.
        repeats: how often each call is timed.
    """
    times = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, taken in zip(calls, times, strict=True):
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            taken.append(time.perf_counter() - start)
    return [taken[1:] for taken in times]


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
