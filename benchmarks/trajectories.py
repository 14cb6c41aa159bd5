"""K-space along trajectories: speed of the operator, and a real scan measured again along them.

    python -m benchmarks.trajectories
    python -m benchmarks.trajectories --data=FOLDER --out=results/trajectories

The first prints the time of A and A^H by finufft over that of A^H A by FFTs, and the iterations of
a data step without and with the preconditioner: 256 x 256 pixels, eight coils.

With FOLDER, which holds ``brain_8coil_undersampled.npy`` and ``phantom_spiral_8coil.npz``, it
writes the brain's k-space along trajectories (`TRAJECTORIES`) to npz files in the folder OUT and
reconstructs them, and the phantom, as ``reconstruct.py --config.validate=0.1`` does: coil maps and
noise are estimated. What is measured again is the CG-SENSE image of the scan in its eight coils,
with white noise of the scan's level; PSNR compares magnitudes with that image, whose peak is 1.
"""

import argparse
import math
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import times_in_turns
from configs import load_config
from evaluation.baselines import BASELINES
from evaluation.metrics import psnr
from evaluation.own import open_input
from evaluation.own.folder import reconstruct_file
from evaluation.run.coil_maps import estimate_maps
from operators import BatchGenerator, MultiCoilMRI, NonCartesianMRI
from operators.nufft import Nufft
from operators.simulation import birdcage_maps
from operators.solvers import solve_normal_equations
from operators.trajectories import radial, spiral, spiral_samples

SIDE, COILS = 256, 8
NOISE = 0.012  # of the scan, in its unit
BRAIN, PHANTOM, PHANTOM_SIZE = "brain_8coil_undersampled.npy", "phantom_spiral_8coil.npz", "288,360"
SPIRAL = {"turns": 8.0, "power": 2.0}
TRAJECTORIES = {
    "radial_40": lambda side: radial(40, 2 * side),
    "spiral_8": lambda side: spiral(8, spiral_samples(side, **SPIRAL), **SPIRAL),
}
PENALTY, TOLERANCE = 0.1, 5e-3  # of the data step


class Plain(NonCartesianMRI):
    """The operator without its preconditioner."""

    def normal_inverse(self, regularization: Tensor) -> None:
        """There is none."""


def speed() -> None:
    """Print A^H A, and the iterations of data steps."""
    maps = birdcage_maps(COILS, (SIDE, SIDE))
    rng = BatchGenerator([0])
    for spokes in (20, 40):
        trajectory = radial(spokes, 2 * SIDE)
        operator, plain = NonCartesianMRI(trajectory, maps), Plain(trajectory, maps)
        x = rng.normal_like(torch.empty(1, 1, SIDE, SIDE, dtype=torch.complex64))
        calls = [
            lambda a=operator, x=x: a.adjoint(a.forward(x)),
            lambda a=operator, x=x: a.normal(x),
        ]
        finufft, own = (min(taken) for taken in times_in_turns(calls, "cpu", 20))
        print(
            f"{spokes} spokes: A and A^H {finufft:.3f} s / A^H A {own:.3f} s = {finufft / own:.1f}"
        )
        options = {
            "regularization": PENALTY,
            "x0": x,
            "max_iterations": 300,
            "tolerance": TOLERANCE,
        }
        y = operator.forward(0 * x)
        counts = [
            int(solve_normal_equations(a, y, **options).iterations) for a in (plain, operator)
        ]
        print(f"    iterations of a data step, without and with preconditioner: {counts}")


def measure_again(path: Path, out: Path) -> tuple[np.ndarray, list[Path]]:
    """Image ``(H, W)`` of peak 1 of a scan, and npz files of its k-space along `TRAJECTORIES`."""
    kspace = torch.from_numpy(np.load(path))  # (C, H, W)
    maps = estimate_maps(kspace)
    image = BASELINES["cg_sense"](
        MultiCoilMRI((kspace != 0).any(0), maps), kspace[None], weight=0.01
    )
    coils = maps * image[0]  # (C, H, W)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, positions in TRAJECTORIES.items():
        trajectory = positions(max(kspace.shape[-2:]))
        clean = Nufft(trajectory.flatten(0, 1), coils.shape[-2:]).forward(coils)
        y = clean.unflatten(-1, trajectory.shape[:2])  # (C, L, N)
        y = y + NOISE * BatchGenerator([0]).normal_like(y[None])[0]
        files.append(out / f"brain_{name}.npz")
        np.savez(files[-1], kspace=y.numpy(), trajectory=trajectory, image_shape=coils.shape[-2:])
    size = image[0, 0].abs().numpy()
    return size / size.max(), files


def unexplained(source: Path, image_size: str = "") -> float:
    """Root mean square misfit of the CG-SENSE image, relative to the estimated noise."""
    config = load_config("configs/reconstruct.py")
    config.data.image_size = image_size
    problem = open_input(source, config).problem([0])
    image = BASELINES["cg_sense"](problem.operator, problem.y, weight=1e-3)
    misfit = problem.operator.forward(image) - problem.y
    level = float(misfit.abs().square().mean().sqrt()) / math.sqrt(2)
    return level / float(problem.noise)


def reconstruct(source: Path, out: Path, image_size: str = "") -> tuple[dict, dict]:
    """Summary and images of ``reconstruct.py --config.validate=0.1``."""
    config = load_config("configs/reconstruct.py")
    config.validate, config.data.image_size = 0.1, image_size
    device = "cuda" if torch.cuda.is_available() else "cpu"
    summary = reconstruct_file(config, source, out, device)
    with h5py.File(out / "reconstruction.h5") as file:
        return summary, {name: file[name][0] for name in ("direct", "reconstruction")}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trajectories")
    parser.add_argument("--data", type=Path, help="folder of the two files; none: speed")
    parser.add_argument("--out", type=Path, default=Path("results/trajectories"))
    args = parser.parse_args()
    if args.data is None:
        speed()
        return
    truth, files = measure_again(args.data / BRAIN, args.out)
    found, left = {}, {}
    for source in [*files, args.data / PHANTOM]:
        size = PHANTOM_SIZE if source.name == PHANTOM else ""
        left[source.stem] = unexplained(source, size)
        found[source.stem] = reconstruct(source, args.out / source.stem, size)
    for name, (summary, images) in found.items():
        errors = {m["method"]: m["error"] for m in summary["validation"]["methods"]}
        text = ", ".join(f"{method} {error:.4g}" for method, error in errors.items())
        print(f"{name}: noise {summary['noise']['least']:.4g}; prediction errors: {text}")
        print(f"    of the noise alone {summary['validation']['noise']:.4g}")
        print(f"    misfit of CG-SENSE / noise {left[name]:.2f}")
        if name.startswith("brain"):
            both = {k: psnr(truth, _fitted(image, truth)) for k, image in images.items()}
            print("    PSNR (dB): " + ", ".join(f"{k} {value:.2f}" for k, value in both.items()))


def _fitted(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A magnitude image in the unit of the truth, by least squares."""
    return image * float((image * truth).sum() / (image**2).sum())


if __name__ == "__main__":
    main()
