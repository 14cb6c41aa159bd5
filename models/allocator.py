"""Memory of the CPU between one call of a network and the next."""

import ctypes
import os
import sys

# mallopt's names for two settings of glibc (man 3 mallopt)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
DISABLED = -1
ENVIRONMENT = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, for its next allocation.

    glibc gives blocks above 32 MB back to the system at once and takes new ones at the next
    call, page fault by page fault: for the activations of a network a third of its time. The
    process then holds what it once needed most, as PyTorch does on a GPU.

    Returns:
        Whether the setting took effect: it is glibc's, and what the environment says about it
        (`ENVIRONMENT`, ``GLIBC_TUNABLES``) goes first.
    """
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if tuned or any(name in os.environ for name in ENVIRONMENT) or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, DISABLED))
