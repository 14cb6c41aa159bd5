"""Hints to the operating system, without effect if it does not support them."""

import os

READ_AHEAD = getattr(os, "POSIX_FADV_WILLNEED", None)  # start reading from the disk
WRITE_BACK = getattr(os, "POSIX_FADV_DONTNEED", None)  # start writing to the disk


def advise(file: int, start: int, length: int, advice: int | None) -> None:
    """Give the advice `READ_AHEAD` or `WRITE_BACK` for a range of bytes of an open file."""
    if advice is not None:
        os.posix_fadvise(file, start, length, advice)


def reserve(file: int, start: int, length: int) -> None:
    """Reserve disk space for a range of bytes of an open file.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, length)
    else:
        os.truncate(file, start + length)


def cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
