"""Effect of each keyword of plug and play on validation slices, from which defaults were chosen.

    python -m benchmarks.plug_and_play --slices=2

prints the mean PSNR of `samplers.pnp` with one keyword changed at a time: momentum (also with noisy
data), the eight orientations, the first level (as a multiple of the estimated error), the last
level, and for CT the iterations of the data step. Slices are the embedded validation slices,
256 x 256; test slices are not used. The cost is the number of network calls, not the time.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.embedded import open_samples
from evaluation.baselines import direct
from evaluation.metrics import psnr
from models.checkpoint import load_prior
from operators import BatchGenerator, LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.ct import few_view_angles
from operators.masks import make_mask
from samplers import pnp
from samplers.levels import first_level

SIDE = 256
MASKS = {
    "gaussian1d 4x": ("gaussian1d", 4),
    "gaussian1d 8x": ("gaussian1d", 8),
    "poisson 15x": ("poisson", 15),
}
VIEWS = (30, 60, 10)
NOISES = {  # std of real and imaginary part each; of the sinogram in image units times pixels
    "MR gaussian1d 4x": 0.014,
    "MR poisson 15x": 0.014,
    "CT 30 views": 0.4,
}
MOMENTA = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, (0.4, 0.8), (0.5, 0.8), (0.4, 0.9))
FACTORS = (2.0, 4.0, 8.0)
ENDS = (0.002, 0.004, 0.008)
CG_STEPS = (1, 2, 3, 4, 8, 30)


class Measured(NamedTuple):
    """Images ``(n, 1, 256, 256)``, operator, and standard deviation of the noise."""

    images: Tensor
    operator: LinearOperator
    noise: float = 0.0


def problems(slices: int) -> dict[str, Measured]:
    """Measurements by name."""
    brain = open_samples("val", subset="brain")
    ct = open_samples("val", subset="ct", image_size=SIDE)
    brains = torch.stack([brain[i].image for i in range(min(slices, len(brain)))])
    bodies = torch.stack([ct[i].image for i in range(min(slices, len(ct)))])
    found = {}
    for label, (name, acceleration) in MASKS.items():
        mask = make_mask(
            name, (SIDE, SIDE), seed=0, acceleration=acceleration, center_fraction=0.04
        )
        found[f"MR {label}"] = Measured(brains, SingleCoilMRI(mask))
    for views in VIEWS:
        operator = ParallelBeamCT(SIDE, few_view_angles(views, 180.0))
        found[f"CT {views} views"] = Measured(bodies, operator)
    for name, noise in NOISES.items():
        found[f"{name}, noise"] = found[name]._replace(noise=noise)
    return found


def measure(problem: Measured) -> Tensor:
    """Measurement y, with noise seeded per slice, for MRI only at measured positions."""
    y = problem.operator.forward(problem.images)
    noise = problem.noise * BatchGenerator(list(range(len(y)))).normal_like(y)
    return y + noise * getattr(problem.operator, "mask", 1.0)


def mean_psnr(prior, problem: Measured, steps: int, options) -> float:
    """Mean PSNR of reconstructions; the option ``start_factor`` sets the first level."""
    score, sde = prior
    images, operator, noise = problem
    y = measure(problem)
    first = direct(operator, y)
    options = dict(options)
    if "start_factor" in options:
        options["start_sigma"] = first_level(
            *(score, sde, operator, y, first),
            factor=options.pop("start_factor"),
            end_sigma=None,
        )
    x = pnp(
        *(score, sde, operator, y),
        rng=BatchGenerator(list(range(len(y)))),
        num_steps=steps,
        initial=first,
        sigma_y=noise,
        **options,
    )
    return statistics.fmean(
        psnr(a[0].cpu().numpy(), b[0].cpu().numpy()) for a, b in zip(images, x, strict=True)
    )


def table(title: str, variants: Mapping[str, Mapping], measure: Callable, names) -> None:
    """Print a Markdown table: rows are measurements and numbers of calls, columns variants."""
    print(f"\n| {title} | calls | {' | '.join(variants)} |")
    print("|---|---:|" + "---:|" * len(variants))
    for name in names:
        for steps in (20, 50):
            values = [f"{measure(name, steps, options):.2f}" for options in variants.values()]
            print(f"| {name} | {steps} | {' | '.join(values)} |", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plug_and_play")
    parser.add_argument("--prior", default="natural_small")
    parser.add_argument("--slices", type=int, default=2, help="validation slices a measurement")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prior = load_prior(args.prior, device, autocast=torch.bfloat16)
    found = problems(args.slices)

    def quality(name: str, steps: int, options: Mapping) -> float:
        images, operator, noise = found[name]
        on_device = Measured(images.to(device), operator.to(device), noise)
        with torch.no_grad():
            return mean_psnr(prior, on_device, steps, options)

    usual = [f"MR {label}" for label in MASKS] + ["CT 30 views"]
    noisy = [f"{name}, noise" for name in NOISES]
    tomography = [f"CT {views} views" for views in VIEWS]
    for title, variants, names in (
        ("momentum", {str(m).strip("()"): {"momentum": m} for m in MOMENTA}, usual + noisy),
        ("eight positions", {"off": {"turns": False}, "on": {"turns": True}}, usual),
        ("first level / error", {f"{f:g}": {"start_factor": f} for f in FACTORS}, usual),
        ("last level", {f"{e:g}": {"end_sigma": e} for e in ENDS}, usual),
        ("data step", {str(n): {"cg_steps": n} for n in CG_STEPS}, tomography),
    ):
        table(title, variants, quality, names)


if __name__ == "__main__":
    main()
