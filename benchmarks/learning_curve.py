"""What a training had learnt when: losses by noise level, and PSNR on the validation people.

    python -m benchmarks.learning_curve runs/natural_small --photos=data/photos_cc

prints, for each run, a row for every validation in its log, and one for each of the newest of the
checkpoints that it still has (``--checkpoints``). Hours are steps times the median time of a step,
so that pauses do not count. Logged losses compare within a run (they are of noise that the run's
seed draws); those of checkpoints are computed anew on the same held-out crops and noise for all of
them, and are left out without ``--photos``. PSNR is that of `benchmarks.priors`, whose flags
these are, too.
"""

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from ml_collections import ConfigDict

import configs
from benchmarks.priors import PNP, REAL, folder_name, mean_psnr, table
from datasets import create_dataset
from datasets.stream import TrainingStream
from models import create_model
from models.checkpoint import load, step_of
from sde import create_sde, noise_level_bins, validation_loss

SEED = 42  # of crops, levels and noise
CROPS = 100
SECONDS = 3600


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def hours_a_step(run: Path, batch: int) -> float:
    """Median duration of a step of a run in hours."""
    speeds = [float(row["images_per_second"]) for row in read_csv(run / "log.csv")]
    if not speeds:
        raise ValueError(f"{run}: expected a training run with a log.csv")
    return batch / statistics.median(speeds) / SECONDS


def logged(run: Path, hours: float) -> list[list[str]]:
    """Rows of a run's `validation.csv`: step, hours, loss a pixel of each bin of noise levels."""
    found: dict[int, list[str]] = {}
    for row in read_csv(run / "validation.csv"):
        found.setdefault(int(row["step"]), []).append(f"{float(row['loss_per_pixel']):.4f}")
    return [[str(step), f"{step * hours:.2f}", *losses] for step, losses in found.items()]


def losses(path: Path, photos: str, bins: int) -> list[str]:
    """Loss a pixel of a checkpoint's averaged weights in each bin, on held-out crops."""
    payload = load(path)
    config = ConfigDict(payload["config"])
    net = create_model(config)
    net.load_state_dict(payload["ema"])
    data = {**config.data.to_dict(), "root": photos}
    stream = TrainingStream(
        create_dataset(data, "val"),
        seed=SEED,
        shuffle=False,
        crop=config.data.crop,
        flip=False,
        rotate=False,
        phase=config.data.get("phase", 0.0),
    )
    images = [stream[i] for i in range(CROPS)]
    sde = create_sde(config.sde).ve
    found = validation_loss(net.eval(), images, sde, seed=SEED, bins=bins)
    return [f"{value / (0.5 * images[0].numel()):.4f}" for value in found.tolist()]


def measured(run: Path, hours: float, bins: int, args) -> list[list[str]]:
    """Rows of a run's checkpoints: step, hours, losses, PSNR of each measurement."""
    rows = []
    paths = sorted((run / "checkpoints").glob("step_*.pt"), key=step_of)
    for path in paths[-args.checkpoints :]:
        loss = losses(path, args.photos, bins) if args.photos else [""] * bins
        method = folder_name(str(path.resolve()))
        quality = [
            f"{mean_psnr(row, fields, method, PNP | {'prior': str(path)}, args):.2f}"
            for row, fields in REAL.items()
        ]
        step = step_of(path)
        rows.append([str(step), f"{step * hours:.2f}", *loss, *quality])
        print(f"{path}: {', '.join(rows[-1])}", file=sys.stderr, flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_curve")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of training runs")
    parser.add_argument("--photos", default="", help="folder with the held-out images, val/")
    parser.add_argument("--checkpoints", type=int, default=1, help="newest ones of each run")
    parser.add_argument("--out", type=Path, default=Path("results/priors"))
    parser.add_argument("--limit", type=int, default=3, help="slices a measurement")
    parser.add_argument("--precision", default="bfloat16", help="float32, bfloat16 or float16")
    args = parser.parse_args(argv)
    with configs.clear_errors(), torch.no_grad():
        for run in args.runs:
            if not (run / "config.json").is_file():
                raise ValueError(f"{run}: expected the folder of a training run")
            config = json.loads((run / "config.json").read_text())
            hours, sde = hours_a_step(run, config["training"]["batch_size"]), config["sde"]
            bins = config["training"]["validation_bins"]
            edges = noise_level_bins(create_sde(sde).ve, bins).tolist()
            header = ["step", "hours", *(f"from {edge:.2g}" for edge in edges[:-1])]
            print(f"\n{run.name}, starting from {config['training']['init'] or 'random weights'}")
            print(f"\nlogged:\n\n{table(header, logged(run, hours))}", flush=True)
            rows = measured(run, hours, bins, args)
            print(f"\ncheckpoints:\n\n{table([*header, *REAL], rows)}", flush=True)


if __name__ == "__main__":
    main()
