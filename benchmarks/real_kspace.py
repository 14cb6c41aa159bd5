"""Real k-space: how well samples that were not given are predicted, beside TV and L1-wavelet.

    python -m benchmarks.real_kspace --data=FOLDER --rows=mprage

FOLDER holds ``brain_8coil_undersampled.npy`` (Poisson disc 8x), ``brain_alias_8coil.npz`` (168 of
256 lines, the head larger than the field of view) and ``brain_mprage_4coil.npz`` (fully measured).
Of the first two a tenth is left out, points or lines outside the centre, five times; of the last
all that a mask leaves out. Nothing is simulated: noise, coils and phase are the scanner's, and coil
maps are estimated from what is given.

Images are what `reconstruct.py` makes of such a file with its defaults. A baseline has, in each
row, the weight that predicts the left-out samples best. Errors are squared and relative to the
energy of these samples, above their noise, whose level is estimated from all of k-space. In
brackets: the part of it beyond the convex hull of what is given, such as the corners that a Poisson
disc leaves empty, where k-space is extrapolated.
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from skimage.morphology import convex_hull_image
from torch import Tensor

from configs.reconstruct import default_prior
from datasets.coil_maps import CALIB_WIDTH
from evaluation.baselines import BASELINES
from evaluation.own.arrays import open_array
from evaluation.own.base import Input
from evaluation.own.engine import choose_sampling, sample, with_noise
from evaluation.own.holdout import HoldOut, choose_positions, hold_out
from evaluation.own.noise_factor import (
    describe_noise_factor,
    find_noise_factor,
    noise_by_held_out,
)
from evaluation.own.validation import FIRST_WEIGHTS, best_weight
from models.checkpoint import load_prior
from operators.kspace_peak import find_peak
from operators.masks import make_mask
from operators.noise import kspace_noise
from sde import Prior

WEIGHTED = {"TV": "tv", "L1-wavelet": "l1_wavelet"}  # baselines with a weight to choose
PART = 0.1
MASKS = {  # of the fully measured brain: mask, acceleration, part of the centre
    "mprage gaussian1d 4x": ("gaussian1d", 4, 0.08),
    "mprage gaussian1d 8x": ("gaussian1d", 8, 0.04),
    "mprage poisson 4x": ("poisson", 4, 0.1),
    "mprage poisson 8x": ("poisson", 8, 0.1),
}
TENTHS = {"brain8": "brain_8coil_undersampled.npy", "alias8": "brain_alias_8coil.npz"}


class Row(NamedTuple):
    """K-space of one slice, and which part of it is to be predicted from which.

    Attributes:
        kspace: complex ``(C, H, W)``.
        given: bool ``(H, W)``, what is reconstructed from.
        left_out: bool ``(H, W)``, what is predicted.
    """

    kspace: Tensor
    given: Tensor
    left_out: Tensor


class Errors(NamedTuple):
    """Prediction error above the noise, over the energy of all that is left out.

    Attributes:
        all: of all that is left out.
        beyond: of the part beyond the convex hull of what is given.
    """

    all: float
    beyond: float


def read_kspace(path: Path) -> Tensor:
    """K-space ``(C, H, W)`` of an array file."""
    found = np.load(path)
    return torch.from_numpy(found if path.suffix == ".npy" else found["kspace"])


def rows_of(name: str, folder: Path, seeds: int) -> Iterator[Row]:
    """The parts to predict of one row of the table, one for each seed."""
    if name in TENTHS:
        kspace = read_kspace(folder / TENTHS[name])
        measured = (kspace != 0).any(0)
        centre, _ = find_peak(kspace)
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(seed)
            held, _ = choose_positions(measured, PART, centre, CALIB_WIDTH, generator)
            yield Row(kspace, measured & ~held, held)
    else:
        kspace = read_kspace(folder / "brain_mprage_4coil.npz")
        mask, acceleration, centre = MASKS[name]
        for seed in range(seeds):
            given = make_mask(
                mask,
                tuple(kspace.shape[-2:]),
                seed=seed,
                acceleration=acceleration,
                center_fraction=centre,
            )
            yield Row(kspace, given, ~given)


def open_row(row: Row) -> tuple[Input, HoldOut, float]:
    """The given part as an input, the part to predict, and the error that its noise causes."""
    opened, _ = open_array(row.kspace * row.given, mask=None, maps=None, angles=None, operator=None)
    problem = opened.problem([0])
    operator = type(problem.operator)(row.left_out[None, None], problem.operator.sens_maps)
    count = 2 * len(row.kspace) * int(row.left_out.sum())
    held = hold_out(problem, operator, (row.kspace * row.left_out)[None], count, "samples")
    return opened, held, noise_energy(row, row.left_out)


def energy_missed(held: HoldOut, image: Tensor, part: Tensor) -> float:
    """Energy of the prediction error at some positions ``(H, W)`` over that of all left out."""
    missed = (held.operator.forward(image) - held.y) * part
    return float(missed.abs().square().sum() / held.y.abs().square().sum())


def noise_energy(row: Row, part: Tensor) -> float:
    """Energy of the noise in some positions ``(H, W)`` over that of all that is left out."""
    noise = float(kspace_noise(row.kspace[None])[0])
    energy = float((row.kspace * row.left_out).abs().square().sum())
    return 2 * len(row.kspace) * int(part.sum()) * noise**2 / energy


def default_image(opened: Input, held: HoldOut, prior: Prior, device: str) -> Tensor:
    """Image ``(1, 1, H, W)`` of the defaults of `reconstruct.py`, in the unit of the problem."""
    sampling = choose_sampling("", num_steps=None, num_samples=1, sigma_y=None, options={})
    if noise_by_held_out("", opened, sampling):
        found = find_noise_factor(opened, prior, way="", seed=0, device=device)
        print(describe_noise_factor(found), flush=True)
        sampling = sampling._replace(noise_factor=found["factor"])
    problem = with_noise(held.problem, sampling).to(device)
    moments, failures = sample(problem, sampling, prior, seed=0, keys=opened.keys)
    if failures:
        raise FloatingPointError(f"no image is usable: {failures}")
    return moments.mean.cpu()


def compare(row: Row, prior: Prior, device: str, baselines: Sequence[str]) -> dict[str, Errors]:
    """Prediction errors by method; `baselines` are keys of `WEIGHTED`."""
    opened, held, noise = open_row(row)
    problem = held.problem
    images = {"pnp": default_image(opened, held, prior, device), "zero-filled": problem.direct}
    for label in baselines:
        name = WEIGHTED[label]

        def baseline(weight: float, name: str = name) -> Tensor:
            return BASELINES[name](problem.operator, problem.y, weight=weight)

        weight, _ = best_weight(lambda w: [held.error(baseline(w))], FIRST_WEIGHTS[name])
        images[label] = baseline(weight)
    beyond = row.left_out & ~torch.from_numpy(convex_hull_image(row.given.numpy()))
    noise_beyond = noise_energy(row, beyond)
    errors = {
        method: Errors(held.error(image) - noise, energy_missed(held, image, beyond) - noise_beyond)
        for method, image in images.items()
    }
    print(f"noise {noise:.4g}", {m: f"{e.all:.4g}" for m, e in errors.items()}, flush=True)
    return errors


def line(
    name: str,
    found: Sequence[dict[str, Errors]],
    methods: Sequence[str],
    baselines: Sequence[str],
) -> str:
    """Line of the table: means over a row's parts, and `pnp` over the best baseline.

    The last column is that ratio of the errors inside the hull.
    """
    means = {
        m: Errors(*(statistics.fmean(part) for part in zip(*(e[m] for e in found), strict=True)))
        for m in methods
    }
    numbers = " | ".join(
        f"{e.all:.4f}" + (f" ({e.beyond:.4f})" if e.beyond else "") for e in means.values()
    )
    ratios = [
        f"{of(means['pnp']) / min((of(means[m]) for m in baselines), default=math.nan):.2f}"
        for of in (lambda e: e.all, lambda e: e.all - e.beyond)
    ]
    return f"| {name} | {numbers} | {' | '.join(ratios)} |"


def main() -> None:
    """Run the command line."""
    names = [*TENTHS, *MASKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_kspace")
    parser.add_argument("--data", type=Path, required=True, help="folder of the three files")
    parser.add_argument("--rows", default="", help="rows whose names begin so; all without")
    parser.add_argument("--seeds", type=int, default=5, help="tenths, or masks, of each row")
    parser.add_argument("--prior", default=default_prior(True), help="name or checkpoint")
    parser.add_argument(
        "--baselines", nargs="*", choices=WEIGHTED, default=[*WEIGHTED], help="none: much faster"
    )
    args = parser.parse_args()
    chosen = [name for name in names if name.startswith(args.rows)]
    if not chosen:
        parser.error(f"--rows: expected the beginning of one of {', '.join(names)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prior = load_prior(args.prior, device)
    lines, methods = [], ("pnp", *args.baselines, "zero-filled")
    for name in chosen:
        found = [
            compare(row, prior, device, args.baselines)
            for row in rows_of(name, args.data, args.seeds)
        ]
        lines.append(line(name, found, methods, args.baselines))
        print(lines[-1], flush=True)
    print("\nprediction error above the noise")
    print(f"| | {' | '.join(methods)} | pnp / best baseline | inside the hull |")
    print("|---|" + "---:|" * (len(methods) + 2))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
