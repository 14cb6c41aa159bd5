"""training_scripts/gpu.sh, rehearsed on the CPU: stages, time, what it leaves."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import natural_small, to_json
from models.checkpoint import FORMAT, load, load_prior
from tests.conftest import ROOT
from training_scripts.gpu import REHEARSED, goes_on, pack, progress, run_until

PRIORS = ("natural_base", "natural_complex_small")


def photographs(folder: Path, count: int = 4, side: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (side, side), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{i}.png")
    return folder


def test_packed_photographs_are_the_same_and_fit(tmp_path, monkeypatch):
    source = photographs(tmp_path / "photos", count=30)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: (tmp_path / "home" / "wheels").mkdir()
    )
    pack(source, tmp_path / "home", megabytes=0.03, python="3.12")
    packed = sorted((tmp_path / "home" / "photos" / "train").iterdir())
    assert 5 < len(packed) < 30
    assert sum(p.stat().st_size for p in packed) < 0.03 * 2**20
    for path in packed:
        before = np.asarray(Image.open(source / "train" / f"{path.stem}.png"))
        assert (np.asarray(Image.open(path).convert("L")) == before).all()


def test_no_photographs_is_an_error(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="train: expected pictures"):
        pack(tmp_path, tmp_path / "home", megabytes=1, python="3.12")


def test_speed_is_read_from_the_log(tmp_path):
    (tmp_path / "config.json").write_text('{"training": {"batch_size": 5}}')
    (tmp_path / "log.csv").write_text("step,images_per_second\n10,30\n20,40\n")
    assert progress(tmp_path / "log.csv") == (20, 8.0)


def test_a_command_is_ended_in_time_and_may_save_first(tmp_path):
    code = (
        "import signal, sys, time; from pathlib import Path\n"
        "def save(*_):\n    Path(sys.argv[1]).write_text('saved'); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save); time.sleep(300)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    assert run_until(command, time.monotonic() + 3) == 75
    assert (tmp_path / "file").read_text() == "saved"
    assert run_until([sys.executable, "-c", "raise SystemExit(3)"], time.monotonic() + 60) == 3


def test_an_unknown_stage_is_refused():
    done = subprocess.run(
        ["bash", "training_scripts/gpu.sh", "--stages=tests,trainings"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "expected --stages out of tests,benchmarks,training, got trainings" in done.stderr


def test_rehearsal(tmp_path):
    """All stages in their order; a prior that was trained, cooled down, and can be loaded."""
    out = tmp_path / "out"
    photos = photographs(tmp_path / "photos")
    environment = os.environ | {"OUT": str(out), "PHOTOS": str(photos), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "training_scripts/gpu.sh", "--rehearse"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stages = [line.split(",")[0] for line in (out / "summary.txt").read_text().splitlines()]
    assert stages[0] == "tests: exit 0"
    assert sorted(stages[1:]) == [f"training-{name}: exit 0" for name in PRIORS]
    for name in PRIORS:
        _, sde = load_prior(out / f"{name}.pt", "cpu")
        assert sde.sigma_min == 0.002
        with (out / f"{name}_log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        steps = [int(row["step"]) for row in rows]
        assert steps == list(range(1, len(steps) + 1))
        assert steps[-1] > REHEARSED
        assert float(rows[-1]["lr"]) < 0.2 * max(float(row["lr"]) for row in rows)
        payload = load(out / f"{name}.pt")
        assert payload["step"] == steps[-1]
        assert payload["config"]["data"]["root"] == ""


def test_only_weights_of_the_same_network_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("training_scripts.gpu.ROOT", tmp_path)
    assert not goes_on("natural_small")
    config = natural_small.get_config()
    (tmp_path / "weights").mkdir()
    for blocks, expected in ((2, 2, 2, 2), True), ((1, 1, 1, 1), False):
        config.model.num_res_blocks = blocks
        payload = {"format": FORMAT, "config": json.loads(to_json(config))}
        torch.save(payload, tmp_path / "weights" / "natural_small.pt")
        assert goes_on("natural_small") is expected
