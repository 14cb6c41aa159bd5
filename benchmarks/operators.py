"""Speed of the forward models, as ratios: ``python -m benchmarks.operators``.

Times are the best of interleaved repetitions, so that other work on the machine affects both sides
of a ratio alike. With a CUDA device, the same rows follow for it.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize
from torch import Tensor

from benchmarks.timing import times_in_turns
from operators import OPERATORS, LinearOperator
from operators.ct import ParallelBeamCT, few_view_angles
from operators.dual import solve_dual
from operators.solvers import solve_normal_equations
from samplers.denoise import CG_STEPS, FILTERED_STEPS

SIZE = 320
FEW_VIEWS, MANY_VIEWS = 30, 180
BATCH = 8
# Prints seconds, and memory in kB before and at the peak (Linux).
BUILD = """
import sys, time
from operators.ct import ParallelBeamCT, few_view_angles
def memory(field):
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith(field))
before, start = memory("VmRSS"), time.perf_counter()
ParallelBeamCT(int(sys.argv[1]), few_view_angles(int(sys.argv[2]))).matrix()
print(time.perf_counter() - start, before, memory("VmHWM"))
"""


def best_times(calls: list[Callable[[], object]], device: str, repeats: int) -> list[float]:
    """Shortest time in seconds of each call, taken in turns."""
    return [min(taken) for taken in times_in_turns(calls, device, repeats)]


def ct_against_skimage() -> None:
    operator = ParallelBeamCT(SIZE, few_view_angles(FEW_VIEWS))
    image = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    x = torch.from_numpy(image)[None, None]

    def skimage_round_trip() -> None:
        sinogram = radon(image, theta=operator.angles_deg, circle=False)
        iradon(
            sinogram,
            theta=operator.angles_deg,
            filter_name=None,
            circle=False,
            output_size=SIZE,
        )

    round_trip = _round_trip(operator, x)
    (ours,) = best_times([round_trip], "cpu", 200)
    (theirs,) = best_times([skimage_round_trip], "cpu", 10)
    row(f"CT {FEW_VIEWS} views, skimage radon + iradon / ours", theirs, ours, "at least 20")


def ct_matrix_build() -> None:
    """Print time and memory of building the matrix, in a process that imports nothing else."""
    command = [sys.executable, "-c", BUILD, str(SIZE), str(MANY_VIEWS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, before, peak = map(float, output.split())
    print(f"CT {MANY_VIEWS} views, building matrix and transpose: {seconds:.2f} s (at most 5 s)")
    print(
        f"    peak memory {(peak - before) / 1024:.0f} MB above that of the imports "
        f"(at most 600 MB); {peak / 1024:.0f} MB with them"
    )


def ct_batches(device: str) -> None:
    operator = ParallelBeamCT(SIZE, few_view_angles(FEW_VIEWS)).to(device)
    x = torch.rand(BATCH, 1, SIZE, SIZE, device=device)
    calls = [_round_trip(operator, x), _round_trip(operator, x[:1])]
    many, one = best_times(calls, device, 100)
    row(f"CT {FEW_VIEWS} views, batch {BATCH} / batch 1", many, one, "below 4")


def mri_against_bare_transforms(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(SIZE, SIZE, generator=generator) < 0.25).to(device)
    for batch in (1, BATCH):
        for real in (True, False):
            dtype = torch.float32 if real else torch.complex64
            x = torch.rand(batch, 1, SIZE, SIZE, dtype=dtype, device=device)
            operator = OPERATORS["mri"](mask.cpu(), real=real).to(device)

            def bare(x: Tensor = x) -> Tensor:
                kspace = torch.fft.fft2(x, norm="ortho") * mask
                return torch.fft.ifft2(kspace, norm="ortho")

            ours, reference = best_times([_round_trip(operator, x), bare], device, 200)
            kind = "real" if real else "complex"
            label = f"MRI {kind}, batch {batch}, ours / two FFTs and a mask"
            row(label, ours, reference, "at most 1.3")


def sparse_product_bandwidth(device: str) -> None:
    """Print the minimal memory traffic of sparse products, relative to the speed of a copy."""
    copy_rate = _copy_rate(device)
    system = ParallelBeamCT(SIZE, few_view_angles(MANY_VIEWS)).to(device).matrix()
    for batch in (1, BATCH):
        x = torch.rand(batch, system.matrix.shape[1], device=device)
        y = torch.rand(batch, system.matrix.shape[0], device=device)
        calls = [lambda x=x: system.multiply(x), lambda y=y: system.multiply_transposed(y)]
        for name, seconds in zip(
            ("forward", "adjoint"), best_times(calls, device, 20), strict=True
        ):
            moved = _stored_bytes(system.matrix) + x.nbytes + y.nbytes
            rate = moved / seconds
            print(
                f"CT {MANY_VIEWS} views, batch {batch}, {name}: {seconds * 1e3:.2f} ms, "
                f"{rate / 1e9:.0f} GB/s = {100 * rate / copy_rate:.0f} % of a copy's "
                f"{copy_rate / 1e9:.0f} GB/s"
            )


def row(label: str, numerator: float, denominator: float, target: str) -> None:
    times = f"{numerator * 1e3:9.3f} ms / {denominator * 1e3:8.3f} ms"
    print(f"{label:52s} {times} = {numerator / denominator:6.2f}  ({target})")


def _round_trip(operator: LinearOperator, x: Tensor) -> Callable[[], Tensor]:
    return lambda: operator.adjoint(operator.forward(x))


def _copy_rate(device: str) -> float:
    """Speed of a copy in bytes per second, read and written."""
    source = torch.empty(2**27, device=device)  # 0.5 GB
    target = torch.empty_like(source)
    (seconds,) = best_times([lambda: target.copy_(source)], device, 20)
    return 2 * source.nbytes / seconds


def _stored_bytes(matrix: Tensor) -> int:
    parts = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    return sum(part.nbytes for part in parts)


def data_step_by_filter() -> None:
    """Print how close few iterations come to the image nearest to 0 that fits a sinogram."""
    operator = ParallelBeamCT(SIZE, few_view_angles(FEW_VIEWS))
    image = torch.from_numpy(resize(shepp_logan_phantom(), (SIZE, SIZE)))[None, None]
    y, zero = operator.forward(image), torch.zeros_like(image)
    exact = solve_dual(operator, y, zero, max_iterations=3000, tolerance=1e-10).x

    def distance(x: Tensor) -> float:
        return float((x - exact).norm() / exact.norm())

    y, zero = y.float(), zero.float()
    solvers = {
        f"{CG_STEPS} of conjugate gradients": lambda: solve_normal_equations(
            operator, y, x0=zero, max_iterations=CG_STEPS
        ),
        f"{FILTERED_STEPS} filtered": lambda: solve_dual(
            operator, y, zero, max_iterations=FILTERED_STEPS
        ),
    }
    for name, solve in solvers.items():
        print(f"CT data step, {name}: relative distance {distance(solve().x):.3f}")
    plain, filtered = best_times(list(solvers.values()), "cpu", 30)
    row("CT data step, conjugate gradients / filtered", plain, filtered, "above 1")


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the forward models, as ratios.")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{SIZE} x {SIZE} pixels, float32; CPU, {arguments.threads} threads")
    ct_against_skimage()
    ct_matrix_build()
    ct_batches("cpu")
    data_step_by_filter()
    mri_against_bare_transforms("cpu")
    sparse_product_bandwidth("cpu")
    if torch.cuda.is_available():
        print(f"\n{torch.cuda.get_device_name()}")
        ct_batches("cuda")
        mri_against_bare_transforms("cuda")
        sparse_product_bandwidth("cuda")


if __name__ == "__main__":
    main()
