"""What SDE and levels of the training are worth at the demo's size (docs/priors.md).

    python -m benchmarks.parametrisations                three trainings of minutes on two cores
    python -m benchmarks.parametrisations --only=vp      those whose name begins so

Trains the demo's network and length (configs/demo.py, embedded photographs) in each way, and
reconstructs six validation slices of the embedded brain: 128 x 128 pixels, gaussian1d 4x, noise of
0.02, 20 steps. Mean PSNR in dB. Results go to OUT/NAME; running the same command again continues.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

import configs
import train
from benchmarks.priors import table
from evaluation.evaluate import evaluate
from evaluation.results.folder import read_rows

# name -> fields of configs/demo.py
WAYS = {
    "ve": {},
    "vp": {"sde.name": "vp"},
    "vp_log_normal": {"sde.name": "vp", "training.levels": "log_normal"},
}
SAMPLERS = ("pnp", "dds")
MEASUREMENT = {
    "data.subset": "brain",
    "data.split": "val",
    "data.image_size": 128,
    "data.fit": "resize",
    "limit": 6,
    "panels": 0,
    "noise.sigma": 0.02,
    "sampler.num_steps": 20,
}


def measure(name: str, out: Path, device: str, num_steps: int) -> list[str]:
    """A row: the training's name, and the mean PSNR of each sampler with its prior.

    Args:
        name: a key of `WAYS`.
        out: folder of the training and the results.
        device: of the networks.
        num_steps: of the training; 0 for the demo's.
    """
    config = configs.load_config("configs/demo.py")
    config.update_from_flattened_dict(WAYS[name])
    if num_steps:
        config.training.num_steps = num_steps
    train.train(config, out / "run", device)
    cells = [f"`{name}`"]
    for sampler in SAMPLERS:
        evaluation = configs.load_config("configs/evaluate.py")
        own = {"prior": str(out / "run"), "sampler.name": sampler}
        evaluation.update_from_flattened_dict({**MEASUREMENT, **own})
        evaluate(evaluation, out / sampler, device)
        found = statistics.fmean(float(row["psnr"]) for row in read_rows(out / sampler))
        cells.append(f"{found:.2f} dB")
    return cells


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parametrisations")
    parser.add_argument("--only", default="", help="trainings whose name begins so")
    parser.add_argument("--out", type=Path, default=Path("results/parametrisations"))
    parser.add_argument("--num_steps", type=int, default=0, help="of the trainings; 0: the demo's")
    args = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = [name for name in WAYS if name.startswith(args.only)]
    with configs.clear_errors():
        rows = [measure(name, args.out / name, device, args.num_steps) for name in names]
    print(table(["training", *SAMPLERS], rows))


if __name__ == "__main__":
    main()
