"""One volume on several processes that share a results folder.

    python -m benchmarks.processes --slices=192 --processes=1,2

writes k-space of a volume (ellipsoids, 64 x 64 pixels a slice) and runs ``reconstruct.py --shard``
on it, one thread a process. Efficiency is the time of one process over that of n, times 1 / n. On a
machine that others use it says little: "work" is then the better number, the processor seconds of
all processes over those of one. The start of Python and PyTorch, and what is found of the volume
before its first slab, are done by each process; the slices beside a slab, which are computed twice,
are the same however many processes there are.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from evaluation.own.slabs import slabs
from operators.masks import make_mask

SIDE, STEPS, NOISE = 64, 20, 0.01
ROOT = Path(__file__).resolve().parent.parent


def write_volume(path: Path, count: int) -> None:
    """K-space ``(count, 1, SIDE, SIDE)`` and masks ``(count, SIDE, SIDE)`` of ellipsoids."""
    z = np.linspace(-1, 1, count)[:, None, None]
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    volume = 0.4 * (x**2 / 0.6 + y**2 / 0.8 + 0.5 * z**2 < 1)
    volume = volume + 0.3 * ((x - 0.3 * z) ** 2 + y**2 + z**2 / 2 < 0.1)
    how = {"acceleration": 4, "center_fraction": 0.1}
    masks = [make_mask("gaussian1d", (SIDE, SIDE), seed=k, **how).numpy() for k in range(count)]
    axes = (-2, -1)
    kspace = np.fft.fft2(np.fft.ifftshift(volume, axes=axes), norm="ortho")
    rng = np.random.default_rng(0)
    white = rng.standard_normal((2, *kspace.shape))
    kspace = np.fft.fftshift(kspace, axes=axes) + NOISE * (white[0] + 1j * white[1])
    with h5py.File(path, "w") as file:
        file["kspace"] = (kspace * np.stack(masks)).astype(np.complex64)[:, None]
        file["mask"] = np.stack(masks)


def seconds(source: Path, out: Path, processes: int) -> tuple[float, float]:
    """Time until the last process has written the results, and processor seconds of all."""
    command = [
        *(sys.executable, str(ROOT / "reconstruct.py"), f"--input={source}", f"--out={out}"),
        *("--config.volume.weight=0.667", f"--config.sampler.num_steps={STEPS}"),
    ]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    begin, before = time.perf_counter(), _processor_seconds()
    running = [
        subprocess.Popen(
            [*command, f"--shard={rank}/{processes}"],
            env=one_thread,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(processes)
    ]
    codes = [process.wait() for process in running]
    if any(codes) or not (out / "reconstruction.h5").is_file():
        raise RuntimeError(f"a process failed: exit codes {codes}")
    return time.perf_counter() - begin, _processor_seconds() - before


def _processor_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes")
    parser.add_argument("--slices", type=int, default=192)
    parser.add_argument("--processes", default="1,2", help="numbers of processes, 1 first")
    args = parser.parse_args()
    print(f"{args.slices} slices in {len(slabs(args.slices))} slabs")
    print("| processes | seconds | efficiency | processor seconds | work | load before |")
    print("|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "volume.h5")
        write_volume(source, args.slices)
        one = float("nan"), float("nan")
        for run, count in enumerate(map(int, args.processes.split(","))):
            load = os.getloadavg()[0]
            taken, work = seconds(source, Path(folder, f"results_{run}"), count)
            if count == 1:  # the last run of one process is what the others are compared with
                one = taken, work
            row = f"{taken:.0f} | {one[0] / taken / count:.2f} | {work:.0f} | {work / one[1]:.2f}"
            print(f"| {count} | {row} | {load:.1f} |", flush=True)


if __name__ == "__main__":
    main()
