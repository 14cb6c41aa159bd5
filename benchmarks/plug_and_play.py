"""What each choice in plug and play is worth, on validation slices; its defaults were chosen so.

    python -m benchmarks.plug_and_play --slices=2

Mean PSNR of `samplers.pnp` with one keyword changed at a time: momentum, the eight positions, the
first level (as a multiple of the estimated error), the last level. Embedded validation slices,
256 x 256. Test slices are not looked at. No times: the number of network calls is the cost.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping

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
from samplers.start import automatic_start

SIDE = 256
MASKS = {
    "gaussian1d 4x": ("gaussian1d", 4),
    "gaussian1d 8x": ("gaussian1d", 8),
    "poisson 15x": ("poisson", 15),
}
VIEWS = 30
MOMENTA = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, (0.4, 0.8), (0.5, 0.8), (0.4, 0.9))
FACTORS = (2.0, 4.0, 8.0)
ENDS = (0.002, 0.004, 0.008)


def problems(slices: int) -> dict[str, tuple[Tensor, LinearOperator]]:
    """Images ``(n, 1, 256, 256)`` and operator of each measurement."""
    brain = open_samples("val", subset="brain")
    head = open_samples("val", subset="head_ct", image_size=SIDE)
    brains = torch.stack([brain[i].image for i in range(min(slices, len(brain)))])
    heads = torch.stack([head[i].image for i in range(min(slices, len(head)))])
    found: dict[str, tuple[Tensor, LinearOperator]] = {}
    for label, (name, acceleration) in MASKS.items():
        mask = make_mask(
            name, (SIDE, SIDE), seed=0, acceleration=acceleration, center_fraction=0.04
        )
        found[f"MR {label}"] = brains, SingleCoilMRI(mask)
    found[f"CT {VIEWS} views"] = heads, ParallelBeamCT(SIDE, few_view_angles(VIEWS, 180.0))
    return found


def mean_psnr(prior, images: Tensor, operator: LinearOperator, steps: int, options) -> float:
    """Of the reconstructions with these keywords; ``start_factor`` stands for a first level."""
    score, sde = prior
    y = operator.forward(images)
    first = direct(operator, y)
    options = dict(options)
    if "start_factor" in options:
        options["start_sigma"] = automatic_start(
            *(score, sde, operator, y, first),
            factor=options.pop("start_factor"),
            end_sigma=None,
        )
    x = pnp(
        *(score, sde, operator, y),
        rng=BatchGenerator(list(range(len(y)))),
        num_steps=steps,
        initial=first,
        **options,
    )
    return statistics.fmean(
        psnr(a[0].cpu().numpy(), b[0].cpu().numpy()) for a, b in zip(images, x, strict=True)
    )


def table(title: str, variants: Mapping[str, Mapping], measure: Callable, names) -> None:
    """Print a Markdown table: a row a measurement and number of calls, a column a variant."""
    print(f"\n| {title} | calls | {' | '.join(variants)} |")
    print("|---|---:|" + "---:|" * len(variants))
    for name in names:
        for steps in (20, 50):
            values = [f"{measure(name, steps, options):.2f}" for options in variants.values()]
            print(f"| {name} | {steps} | {' | '.join(values)} |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plug_and_play")
    parser.add_argument("--prior", default="natural_small")
    parser.add_argument("--slices", type=int, default=2, help="validation slices a measurement")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prior = load_prior(args.prior, device, autocast=torch.bfloat16)
    found = problems(args.slices)

    def measure(name: str, steps: int, options: Mapping) -> float:
        images, operator = found[name]
        with torch.no_grad():
            return mean_psnr(prior, images.to(device), operator.to(device), steps, options)

    for title, variants in (
        ("momentum", {str(m).strip("()"): {"momentum": m} for m in MOMENTA}),
        ("eight positions", {name: {"turns": on} for name, on in (("off", False), ("on", True))}),
        ("first level / error", {f"{f:g}": {"start_factor": f} for f in FACTORS}),
        ("last level", {f"{e:g}": {"end_sigma": e} for e in ENDS}),
    ):
        table(title, variants, measure, found)


if __name__ == "__main__":
    main()
