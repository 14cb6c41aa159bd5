"""Quality against cost of all samplers on the embedded test slices.

    python -m benchmarks.reconstruction --out=results/reconstruction

Measurements are brain MR at gaussian1d 4x and CT at 30 views, 256 x 256, with one prior
(``--prior``) and the samplers' defaults. The reference is Chung & Ye's predictor-corrector with the
study's 500 levels (1000 calls). `points.csv` has one row per sampler, number of steps and
measurement: network calls, seconds per slice, mean PSNR and SSIM; `samplers.png` shows them; the
goals are printed at the end. Running the same command again continues. Seconds are comparable only
within one run on an idle machine.
"""

import argparse
import csv
import io
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from ml_collections import ConfigDict

import configs
from datasets.files import write_atomically
from evaluation.evaluate import evaluate
from evaluation.results.folder import read_rows
from evaluation.show.style import write_figure
from models import create_model
from models.checkpoint import load, load_prior, resolve_prior

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MEASUREMENTS = {
    "MR gaussian1d 4x": {"data.subset": "brain"},
    "CT 30 views": {"data.subset": "ct", "data.image_size": 256, "operator.name": "ct"},
}
REFERENCE = ("predictor_corrector", 500)  # Chung & Ye with the study's number of levels
FAST = "pnp"
# sampler -> numbers of steps
RUNS = {
    "pnp": (10, 20, 50, 100),
    "dds": (20, 50, 100),
    "diffpir": (20, 50),
    "dps": (50,),
    "predictor_corrector": (100, 500),
    "annealed_langevin": (50,),
}
REACH = 12.0  # dB below the best that the figure shows
COLUMNS = ("measurement", "sampler", "steps", "precision", "calls", "seconds", "psnr", "ssim")
STYLES = {
    "pnp": ("#0072B2", "o"),
    "dds": ("#D55E00", "s"),
    "diffpir": ("#009E73", "^"),
    "dps": ("#CC79A7", "v"),
    "predictor_corrector": ("#000000", "D"),
    "annealed_langevin": ("#E69F00", "P"),
}


class Point(NamedTuple):
    """Means over the slices of one run."""

    measurement: str
    sampler: str
    steps: int
    precision: str
    calls: int
    seconds: float
    psnr: float
    ssim: float


def run(out: Path, measurement: str, sampler: str, steps: int, precision: str, args) -> Point:
    """Evaluate one sampler, or read existing results."""
    config = configs.load_config("configs/evaluate.py")
    fields = {
        "prior": args.prior,
        "precision": precision,
        "batch_size": args.batch_size,
        "limit": args.limit,
        "panels": 1,
        "sampler.name": sampler,
        "sampler.num_steps": steps,
        **MEASUREMENTS[measurement],
    }
    config.update_from_flattened_dict(fields)
    folder = out / f"{measurement} {sampler} {steps} {precision}".replace(" ", "_")
    evaluate(config, folder, args.device)
    rows = read_rows(folder)

    def mean(name: str) -> float:
        return statistics.fmean(float(row[name]) for row in rows)

    calls = round(mean("nfe"))
    return Point(
        measurement, sampler, steps, precision, calls, mean("seconds"), mean("psnr"), mean("ssim")
    )


def network_calls_a_second(args, dtype: torch.dtype | None) -> float:
    """Number of slices per second through the network, at the batch size of the runs."""
    score, _ = load_prior(args.prior, args.device, autocast=dtype)
    x = torch.rand(args.batch_size, 1, 256, 256, device=args.device)
    sigma = torch.full((len(x),), 0.1, device=args.device)
    times = []
    with torch.inference_mode():
        for _ in range(12):
            _synchronise(args.device)
            begin = time.perf_counter()
            score(x, sigma)
            _synchronise(args.device)
            times.append(time.perf_counter() - begin)
    return len(x) / statistics.median(times[2:])


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def draw(points: list[Point], path: Path) -> None:
    """Plot PSNR against network calls and seconds per slice, with one row per measurement.

    Axes show what is within `REACH` dB of the best; what is worse is written at the lower edge.
    """
    names = list(dict.fromkeys(p.measurement for p in points))
    figure, axes = plt.subplots(
        len(names), 2, figsize=(7, 2.6 * len(names)), sharey="row", squeeze=False
    )
    for row, measurement in zip(axes, names, strict=True):
        best = max(p.psnr for p in points if p.measurement == measurement)
        for axis, (field, label) in zip(
            row, (("calls", "network calls"), ("seconds", "seconds a slice")), strict=True
        ):
            for sampler, (colour, marker) in STYLES.items():
                line = [
                    p
                    for p in points
                    if (p.measurement, p.sampler, p.precision) == (measurement, sampler, "float32")
                ]
                near = [p for p in line if p.psnr >= best - REACH]
                axis.plot(
                    [getattr(p, field) for p in near],
                    [p.psnr for p in near],
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linewidth=1,
                    label=sampler.replace("_", " "),
                )
                for p in line:
                    if p not in near:
                        place, edge = (getattr(p, field), 0.0), axis.get_xaxis_transform()
                        look = {"xycoords": edge, "textcoords": "offset points", "color": colour}
                        look |= {"arrowprops": {"arrowstyle": "->", "color": colour}}
                        axis.annotate(
                            f"{p.psnr:.1f} dB", place, (0, 18), ha="center", fontsize=8, **look
                        )
            axis.set_xscale("log")
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
        lowest, highest = row[0].get_ylim()  # both have the same
        row[0].set_ylim(lowest - 0.3 * (highest - lowest), highest)
        row[0].set_ylabel(f"{measurement}\nPSNR (dB)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.set_layout_engine("constrained")
    write_figure(figure, path, dpi=150)
    plt.close(figure)


def judge(points: list[Point]) -> bool:
    """Print each goal with the measured values; returns whether all are met."""
    found = {(p.measurement, p.sampler, p.steps, p.precision): p for p in points}
    good = True

    def goal(text: str, met: bool) -> None:
        nonlocal good
        good &= met
        print(f"{'met' if met else 'NOT MET'}: {text}")

    for m in dict.fromkeys(p.measurement for p in points):
        study = found[m, *REFERENCE, "float32"]
        fifty, twenty = found[m, FAST, 50, "float32"], found[m, FAST, 20, "float32"]
        low = found[m, FAST, 50, "bfloat16"]
        goal(
            f"{m}: {fifty.calls} calls {fifty.psnr:.2f} dB, at least {study.calls} calls' "
            f"{study.psnr:.2f} dB",
            fifty.psnr >= study.psnr and fifty.calls <= 50,
        )
        goal(
            f"{m}: {twenty.calls} calls {twenty.psnr:.2f} dB, at most 0.3 dB less",
            twenty.psnr >= study.psnr - 0.3 and twenty.calls <= 20,
        )
        ratio = study.seconds / fifty.seconds
        goal(f"{m}: {ratio:.1f} times as fast, at least 15", ratio >= 15)
        goal(
            f"{m}: bfloat16 {low.psnr - fifty.psnr:+.3f} dB, at most 0.05",
            abs(low.psnr - fifty.psnr) <= 0.05,
        )
    return good


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reconstruction")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default="natural_small")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--limit", type=int, default=12, help="slices, people alternate; 0: all")
    parser.add_argument("--quick", action="store_true", help="only what the goals need")
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.out.mkdir(parents=True, exist_ok=True)

    net = create_model(ConfigDict(load(resolve_prior(args.prior))["config"]))
    print(f"{args.prior}: {sum(p.numel() for p in net.parameters()):,} parameters, {args.device}")
    for dtype in (None, torch.bfloat16):
        speed = network_calls_a_second(args, dtype)
        name = "float32" if dtype is None else "bfloat16"
        print(f"network alone, {name}: {speed:.1f} calls of 256 x 256 a second", flush=True)

    chosen = {FAST: (20, 50), REFERENCE[0]: (REFERENCE[1],)} if args.quick else RUNS
    work = [(s, n, "float32") for s, steps in chosen.items() for n in steps]
    work.append((FAST, 50, "bfloat16"))
    points = []
    for measurement in MEASUREMENTS:
        for sampler, steps, precision in work:
            point = run(args.out, measurement, sampler, steps, precision, args)
            points.append(point)
            print(
                f"{measurement}: {sampler} {steps} {precision}: {point.calls} calls, "
                f"{point.seconds:.2f} s, {point.psnr:.2f} dB, SSIM {point.ssim:.4f}",
                flush=True,
            )
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *points])
    write_atomically(args.out / "points.csv", text.getvalue())
    draw(points, args.out / "samplers.png")
    sys.exit(0 if judge(points) else 1)


if __name__ == "__main__":
    main()
