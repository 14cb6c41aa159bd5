"""Memory that is freed and taken again is not faulted in anew."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from models.allocator import keep_freed_memory
print(keep_freed_memory() if {keep} else None)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # until the heap has settled
    torch.zeros({size})
before = faults()
for _ in range(5):
    torch.zeros({size})
print(faults() - before)
"""
SIZE = 16 * 2**20  # 64 MiB: 16 384 pages of 4 kB, 32 of 2 MB


def run(keep: bool, **environment: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(keep=keep, size=SIZE)],
        env={"PYTHONPATH": ":".join(sys.path)} | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_kept_for_the_next_call():
    kept, faults = run(keep=True)
    assert kept == "True"
    given_back = int(run(keep=False)[1])
    assert int(faults) < given_back / 10


def test_a_setting_of_the_environment_goes_first():
    assert run(keep=True, MALLOC_MMAP_MAX_="65536")[0] == "False"
    assert run(keep=True, GLIBC_TUNABLES="glibc.malloc.mmap_max=65536")[0] == "False"
