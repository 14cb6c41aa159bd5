"""Trainings of the study in small: how they are run, and what is kept of them."""

import csv
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from configs import load_config
from evaluation.run.receptive_field import SHARES, denoiser_field
from evaluation.study.runner import INTERRUPTED
from evaluation.study.small_cells import QUICK_TRAINING, run_settings, training_fields
from evaluation.study.small_rows import LEVELS, RADII
from models import create_model
from models.checkpoint import load_prior
from models.receptive_field import theoretical_field

ROOT = Path(__file__).parents[2]  # of the checkout
SETS, IMAGES, PIXELS = ("brain_t1", "chest_ct"), 2, 4  # of effective fields: images of each set
PLACES = {"loss_at_half": 0.5, "loss_at_three_quarters": 0.75, "loss": 1.0}  # parts of the steps


class OutOfTimeError(Exception):
    """The time that was given is over."""


def training_folder(run: str, arguments: Namespace) -> Path:
    """Folder of a training."""
    return arguments.prior_root / f"small_study_{run}"


def training_command(run: str, arguments: Namespace) -> list[str]:
    """Command that trains a prior, or continues its training."""
    prior = run.partition("_")[0]
    command = [sys.executable, str(ROOT / "train.py"), f"--config=configs/small_study.py:{run}"]
    command += [f"--workdir={training_folder(run, arguments).absolute()}"]
    command += [f"--config.data.root={(arguments.out / 'inputs' / prior).absolute()}"]
    if arguments.quick:
        quick = QUICK_TRAINING.items()
        command += [f"--config.{name}={value}" for name, value in quick]
        command += ["--config.training.validate_every=1"]
    return command


def call(command: Sequence[str], deadline: float) -> None:
    """Run a training; at the deadline, or if this process is interrupted, it saves and ends.

    Raises:
        OutOfTimeError, subprocess.CalledProcessError: as in `train`.
        KeyboardInterrupt: it was interrupted from outside.
    """
    process = subprocess.Popen(command, cwd=ROOT)
    left = None if deadline == float("inf") else max(deadline - time.monotonic(), 0)
    try:
        code = process.wait(left)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        raise OutOfTimeError from None
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise subprocess.CalledProcessError(code, command)


def describe(run: str, folder: Path, tests: Path, *, quick: bool = False) -> dict[str, str]:
    """Row of a finished training for `small_rows.TRAININGS`.

    Args:
        run: its name.
        folder: its folder.
        tests: folder of the test pictures, on which effective receptive fields are measured.
        quick: whether it has the few steps of a trial.
    """
    config = load_config(f"configs/small_study.py:{run}")
    net = create_model(config)
    batch = training_fields(quick=quick)["training.batch_size"]
    steps, seconds = duration(folder / "log.csv", batch)
    losses = validation_losses(folder / "validation.csv")
    field = theoretical_field(config)
    row = {
        "training": run,
        "parameters": str(sum(p.numel() for p in net.parameters() if p.requires_grad)),
        "field": "all" if field is None else str(field),
        "steps": str(steps),
        "seconds": f"{seconds:.0f}",
        "settings": run_settings(run, quick=quick),
    }
    row |= {name: f"{losses[int(p * len(losses)) - 1]:.5f}" for name, p in PLACES.items()}
    return row | dict(zip(RADII, effective_radii(folder, tests), strict=True))


def duration(log: Path, batch: int) -> tuple[int, float]:
    """Number of steps and seconds of a training, without its pauses, from its `log.csv`."""
    steps, seconds = 0, 0.0
    for row in _rows(log):
        seconds += (int(row["step"]) - steps) * batch / float(row["images_per_second"])
        steps = int(row["step"])
    return steps, seconds


def validation_losses(path: Path) -> list[float]:
    """Loss per pixel of held-out images, averaged over noise levels, by time."""
    by_step: dict[int, list[float]] = {}
    for row in _rows(path):
        by_step.setdefault(int(row["step"]), []).append(float(row["loss_per_pixel"]))
    return [float(np.mean(by_step[step])) for step in sorted(by_step)]


def effective_radii(folder: Path, tests: Path) -> list[str]:
    """Radii in pixels of the discs that hold `SHARES` of the gradient's energy, by noise level."""
    score, _ = load_prior(str(folder))
    images = test_images(tests)
    found = []
    for level in LEVELS:
        field = denoiser_field(score, images, level, pixels=PIXELS, seed=0)
        found += [f"{radius:.2f}" for radius in field.radii]
    assert len(found) == len(LEVELS) * len(SHARES)
    return found


def test_images(tests: Path) -> Tensor:
    """A few test images ``(B, 1, H, W)`` of both modalities, in [0, 1]."""
    paths = [path for name in SETS for path in sorted((tests / name).glob("*.png"))[:IMAGES]]
    arrays = [np.asarray(Image.open(path), dtype=np.float32) / 65535 for path in paths]
    return torch.from_numpy(np.stack(arrays))[:, None]


test_images.__test__ = False  # no test of pytest


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
