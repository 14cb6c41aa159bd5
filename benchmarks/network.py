"""Cost of a call of the prior's network relative to the limit of the machine.

    python -m benchmarks.network

prints milliseconds per slice of 256 x 256 by batch size, achieved operations per second relative to
a large matrix product of the same precision, and peak memory. On a CPU it also measures glibc's
default without `models.allocator`; each variant has its own process, as that setting is permanent.
``--compile`` adds `torch.compile`. Times are medians over rounds that take the variants in turn, so
that other work on the machine affects all alike.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import models.prior_load
from models.checkpoint import load_prior

SIDE = 256
BATCHES = {"cpu": (1, 2, 4, 8), "cuda": (8, 32, 64, 128)}
PRODUCT = {"cpu": 2048, "cuda": 8192}  # side of the matrices
CALLS = 8  # number of calls per round, after two to warm up


def measure(prior: str, device: str, *, low: bool, kept: bool, compiled: bool) -> dict[str, float]:
    """Seconds per slice by batch size, peak ``memory`` in MB, and ``product``.

    ``product`` is the speed of a matrix product in operations per second.
    """
    dtype = torch.bfloat16 if low else torch.float32
    if not kept:
        models.prior_load.keep_freed_memory = lambda: False
    score, _ = load_prior(prior, device, autocast=dtype if low else None, compiled=compiled)
    found = {}
    for batch in BATCHES[device]:
        x = torch.rand(batch, 1, SIDE, SIDE, device=device)
        sigma = torch.full((batch,), 0.1, device=device)
        found[str(batch)] = median_seconds(lambda x=x, sigma=sigma: score(x, sigma)) / batch
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: kB
    if device == "cuda":
        found["memory"] = torch.cuda.max_memory_allocated() / 2**20
    side = PRODUCT[device]
    a = torch.rand(side, side, device=device, dtype=dtype)
    found["product"] = 2 * side**3 / median_seconds(lambda: a @ a)
    return found


@torch.inference_mode()
def median_seconds(call) -> float:
    """Median time of `CALLS` calls in seconds."""
    times = []
    for _ in range(CALLS + 2):
        wait()
        begin = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def operations(prior: str) -> int:
    """Number of floating-point operations per slice."""
    score, _ = load_prior(prior, "cpu")
    with FlopCounterMode(display=False) as counter:
        score(torch.rand(1, 1, SIDE, SIDE), torch.ones(1))
    return counter.get_total_flops()


def variants(device: str, compiled: bool) -> dict[str, dict[str, bool]]:
    """Name of each row -> arguments of `measure`."""
    rows = {}
    for low, name in ((False, "float32"), (True, "bfloat16")):
        if device == "cpu":
            rows[f"{name}, freed memory given back"] = {"low": low, "kept": False}
        rows[name] = {"low": low, "kept": True}
        if compiled:
            rows[f"{name}, torch.compile"] = {"low": low, "kept": True, "compiled": True}
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network")
    parser.add_argument("--prior", default="natural_small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--variant", default="", help=argparse.SUPPRESS)  # a child's
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.variant:
        print(json.dumps(measure(args.prior, device, **json.loads(args.variant))))
        return

    rows = variants(device, args.compile)
    times: dict[str, list[dict]] = {name: [] for name in rows}
    for _ in range(args.rounds):
        for name, variant in rows.items():
            text = json.dumps({"compiled": False, **variant})
            command = [sys.executable, "-m", "benchmarks.network", f"--prior={args.prior}"]
            done = subprocess.run([*command, f"--variant={text}"], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            times[name].append(json.loads(done.stdout.splitlines()[-1]))

    work = operations(args.prior)
    where = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    print(f"{where}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    print(f"{args.prior}: {work / 1e9:.1f} GFLOP a slice of {SIDE} x {SIDE}\n")
    batches = BATCHES[device]
    head = " | ".join(map(str, batches))
    print(f"| ms a slice, batches of | {head} | of a matrix product | peak MB |")
    print(f"|---|{'---:|' * (len(batches) + 2)}")
    for name, rounds in times.items():
        seconds = [statistics.median(r[str(b)] for r in rounds) for b in batches]
        limit = statistics.median(r["product"] for r in rounds)
        cells = " | ".join(f"{1e3 * s:.1f}" for s in seconds)
        memory = statistics.median(r["memory"] for r in rounds)
        print(f"| {name} | {cells} | {work / min(seconds) / limit:.0%} | {memory:.0f} |")


if __name__ == "__main__":
    main()
