"""Do samples of real k-space spread as widely as they are wrong? Tested on what was not given.

    python -m benchmarks.real_spread --data=FOLDER --samplers warm_mmps warm_dds

FOLDER and rows are those of `benchmarks.real_kspace`: measured k-space of which a part is left out
and predicted, coil maps and noise being estimated from what is given. A true image is not known,
and not needed: each sample predicts what was left out, and with samples of the posterior the error
of their mean, above the noise of the data, has the energy of their variance times 1 + 1/N.

A line for each row and sampler: that error, relative to the energy of what was left out, beside
that of `pnp`; the energy of the spread; and the root of spread over error, 1 for samples of the
posterior. Means over the tenths or masks of a row.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.priors import table
from benchmarks.real_kspace import MASKS, TENTHS, Row, default_image, open_row, rows_of
from configs.reconstruct import default_prior
from evaluation.own.engine import Sampling, choose_sampling, with_noise
from evaluation.own.holdout import HoldOut
from evaluation.own.noise_factor import find_noise_factor, noise_by_held_out
from evaluation.run.posterior_samples import sample_source
from models.checkpoint import load_prior
from operators.inverse_problem import InverseProblem
from sde import Prior


class Found(NamedTuple):
    """Energies over that of what is left out: errors above the noise, and the samples' spread."""

    point: float
    error: float
    spread: float


def images_of(
    problem: InverseProblem, sampling: Sampling, prior: Prior, keys: Sequence[str], together: int
) -> Tensor:
    """Samples ``(N, 1, H, W)`` of one slice, in the unit of the problem."""
    source, failures = sample_source(
        sampling.sampler,
        *prior,
        problem.operator,
        problem.y,
        num_steps=sampling.num_steps,
        num_samples=sampling.num_samples,
        seed=0,
        keys=keys,
        initial=None,
        options={"sigma_y": problem.noise},
        together=together,
    )
    found = torch.cat([source(n) for n in range(sampling.num_samples)])
    if failures:
        raise FloatingPointError(f"no image is usable: {failures}")
    return found


def energies(held: HoldOut, images: Tensor) -> tuple[float, float]:
    """Error of the mean of samples ``(N, 1, H, W)``, and (1 + 1/N) times their variance.

    Both of what is predicted of the left-out part, over the energy of that.
    """
    predicted = torch.cat([held.operator.forward(image[None]) for image in images])
    mean = predicted.mean(0, keepdim=True)
    whole = held.y.abs().square().sum()
    variance = (predicted - mean).abs().square().sum() / (len(images) - 1)
    spread = (1 + 1 / len(images)) * variance / whole
    return float((mean - held.y).abs().square().sum() / whole), float(spread)


def measure(row: Row, sampling: Sampling, prior: Prior, device: str, together: int) -> Found:
    """Errors and spread of one tenth or mask."""
    opened, held, noise = open_row(row)
    if noise_by_held_out("", opened, sampling):
        found = find_noise_factor(opened, prior, way="", seed=0, device=device)
        sampling = sampling._replace(noise_factor=found["factor"])
    problem = with_noise(held.problem, sampling).to(device)
    point = held.error(default_image(opened, held, prior, device))
    images = images_of(problem, sampling, prior, opened.keys, together).cpu()
    error, spread = energies(held, images)
    return Found(point - noise, error - noise, spread)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    names = [*TENTHS, *MASKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_spread")
    parser.add_argument("--data", type=Path, required=True, help="folder of the three files")
    parser.add_argument("--rows", default="", help="rows whose names begin so; all without")
    parser.add_argument("--samplers", nargs="+", default=["warm_mmps", "warm_dds"])
    parser.add_argument("--seeds", type=int, default=1, help="tenths, or masks, of each row")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--together", type=int, default=4, help="samples in a batch")
    given = parser.parse_args(argv)
    chosen = [name for name in names if name.startswith(given.rows)]
    if not chosen:
        parser.error(f"--rows: expected the beginning of one of {', '.join(names)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prior = load_prior(default_prior(True), device)
    lines = []
    for name in chosen:
        for sampler in given.samplers:
            sampling = choose_sampling(
                sampler, num_steps=None, num_samples=given.samples, sigma_y=None, options={}
            )
            found = [
                measure(row, sampling, prior, device, given.together)
                for row in rows_of(name, given.data, given.seeds)
            ]
            point, error, spread = (statistics.fmean(part) for part in zip(*found, strict=True))
            ratio = f"{(spread / error) ** 0.5:.2f}" if error > 0 else "-"
            lines.append([name, sampler, *(f"{v:.4f}" for v in (point, error, spread)), ratio])
            print(lines[-1], flush=True)
    print(table(["", "sampler", "`pnp`", "mean", "spread", "ratio"], lines))


if __name__ == "__main__":
    main()
