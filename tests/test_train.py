"""train.py: exact resume, interruption, many processes, bad input."""

import csv
import errno
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from PIL import Image

import configs
import train as module
from datasets import DataError
from models import checkpoint, create_model
from models.run import CsvLog, Lasting, catch_signals
from models.training_log import COLUMNS
from sde import (
    VESDE,
    create_sde,
    draw_levels,
    edm_weight,
    noise_level_bins,
    score_matching_loss,
    validation_loss,
)
from tests.conftest import PATIENCE, ROOT
from tests.helpers.data_writers import write_nifti
from train import REQUEUE, train

TIMING = ("images_per_second", "seconds_per_epoch")
TINY = (
    "--config.model.nf=4",
    "--config.data.crop=8",
    "--config.data.num_workers=0",
    "--config.training.batch_size=4",
    "--config.training.log_every=3",
    "--config.training.sample_every=0",
    "--config.training.validate_every=0",
)


pytestmark = pytest.mark.usefixtures("one_thread")


def command(workdir: Path, *more: str, launcher: tuple[str, ...] = ()) -> list[str]:
    arguments = ("train.py", "--config=configs/demo.py", f"--workdir={workdir}", *TINY, *more)
    return [sys.executable, *launcher, *arguments]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | more


def run(workdir: Path, *more: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(workdir, *more, **options),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def rows(workdir: Path, name: str = "log.csv") -> list[dict[str, str]]:
    """A CSV file without the columns that depend on the machine's speed."""
    with (workdir / name).open(newline="") as file:
        return [{k: r[k] for k in r if k not in TIMING} for r in csv.DictReader(file)]


def last_state(workdir: Path) -> dict:
    return checkpoint.load(checkpoint.find_latest(workdir / "checkpoints"))


def assert_same_state(ours: dict, expected: dict) -> None:
    """Weights, average, optimiser and counters, bit for bit."""

    def compare(a, b, where: str) -> None:
        assert type(a) is type(b), where
        if isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                compare(a[key], b[key], f"{where}.{key}")
        elif isinstance(a, list | tuple):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(x, y, f"{where}.{i}")
        else:
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where

    compare(
        {name: value for name, value in ours.items() if name != "config"},
        {name: value for name, value in expected.items() if name != "config"},
        "checkpoint",
    )


def copy(config: ConfigDict, **training) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.training.update(training)
    return config


# ---- what a run leaves


def test_a_run_leaves_config_log_validation_samples_and_a_prior(tiny_config, tmp_path):
    config = copy(tiny_config, validate_every=2, validation_images=3, sample_every=2)
    config.training.sample_steps = 4
    config.training.precision = "bfloat16"
    path = train(config, tmp_path, "cpu")
    assert path == tmp_path / "checkpoints" / "step_00000004.pt"
    assert configs.to_json(config) == (tmp_path / "config.json").read_text()
    log = rows(tmp_path)
    assert [row["step"] for row in log] == ["1", "2", "3", "4"]
    assert (tmp_path / "log.csv").read_text().startswith("step,loss,")
    assert set(log[0]) | set(TIMING) == set(COLUMNS)
    assert float(log[0]["loss"]) == pytest.approx(0.5 * 16**2, rel=0.2)  # of a silent network
    assert float(log[0]["loss_per_pixel"]) == pytest.approx(1, rel=0.2)
    bins = config.training.validation_bins
    assert [row["step"] for row in rows(tmp_path, "validation.csv")] == ["2"] * bins + ["4"] * bins
    assert (tmp_path / "samples" / "step_00000004.png").is_file()
    assert list((tmp_path / "tensorboard").glob("events*"))
    state = checkpoint.load(path)
    assert state["versions"]["torch"] == torch.__version__
    assert {"optimizer", "ema", "ema_updates", "scheduler", "step"} <= state.keys()
    assert all(weight.dtype == torch.float32 for weight in state["model"].values())
    score, _ = checkpoint.load_prior(tmp_path, device="cpu")
    assert score(torch.rand(1, 1, 16, 16), torch.ones(1)).isfinite().all()


def test_a_finished_run_is_left_alone(tiny_config, tmp_path, capsys):
    path = train(tiny_config, tmp_path, "cpu")

    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*") if p.is_file()}

    before = times()
    assert train(tiny_config, tmp_path, "cpu") == path
    assert "is finished: 4 of 4 steps; raise training.num_steps" in capsys.readouterr().out
    assert times() == before


# ---- nothing changes by stopping


def test_a_continued_run_equals_an_uninterrupted_one(tiny_config, tmp_path):
    config = copy(tiny_config, num_steps=7, log_every=3, checkpoint_every=2, validate_every=3)
    config.model.dropout = 0.1
    train(config, tmp_path / "whole", "cpu")
    # it leaves after step 5, between the log's rows at 3 and 6
    interrupted = tmp_path / "interrupted"
    with pytest.raises(SystemExit) as stop:
        train(config, interrupted, "cpu", lambda: len(list(interrupted.rglob("*04.pt"))) > 0)
    assert stop.value.code == REQUEUE == 75
    assert last_state(interrupted)["step"] == 5
    train(config, interrupted, "cpu")
    assert rows(interrupted) == rows(tmp_path / "whole")
    assert rows(interrupted, "validation.csv") == rows(tmp_path / "whole", "validation.csv")
    assert_same_state(last_state(interrupted), last_state(tmp_path / "whole"))


def test_rows_after_the_checkpoint_and_cut_off_ones_are_dropped(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,lr\n1,2.5,1\n2,2.25,1\n3,2,1\n4,1.")
    CsvLog(path, ("step", "loss", "lr"), 2).write([{"step": 3, "loss": 7, "lr": 1}])
    assert path.read_text().split() == ["step,loss,lr", "1,2.5,1", "2,2.25,1", "3,7,1"]


def test_an_unreadable_checkpoint_is_named_and_passed_over(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "run", "cpu")
    expected = last_state(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step_00000004.pt"
    tiny_config.training.keep_checkpoints = 2
    train(tiny_config, tmp_path / "two", "cpu")
    newest = tmp_path / "two" / "checkpoints" / "step_00000004.pt"
    newest.write_bytes(newest.read_bytes()[:-500])
    with pytest.warns(UserWarning, match="passed over .*step_00000004.pt"):
        train(tiny_config, tmp_path / "two", "cpu")
    assert_same_state(last_state(tmp_path / "two"), expected)


def test_with_damaged_checkpoints_only_nothing_is_thrown_away(tiny_config, tmp_path):
    config = copy(tiny_config, keep_checkpoints=1)
    path = train(config, tmp_path, "cpu")
    path.write_bytes(path.read_bytes()[:-500])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(checkpoint.CheckpointError, match="none of 1 checkpoints can be read; bring"),
    ):
        train(config, tmp_path, "cpu")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_damaged_newest_checkpoint_does_not_count_as_kept(tiny_config, tmp_path):
    config = copy(tiny_config, num_steps=6, keep_checkpoints=3)
    newest = train(config, tmp_path, "cpu")
    newest.write_bytes(newest.read_bytes()[:-500])
    (tmp_path / "checkpoints" / "step_best.pt").write_bytes(b"mine")
    config = copy(config, num_steps=5, keep_checkpoints=1)
    with pytest.warns(UserWarning, match="passed over .*step_00000006.pt"):
        last = train(config, tmp_path, "cpu")
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == [last.name, f"{newest.name}.damaged", "step_best.pt"]


def test_damaged_rows_of_a_log_are_named_and_kept_aside(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"step,loss\n1,2.5\n\xff,2\n3,\x00\n4,nan\n5,")
    with pytest.warns(UserWarning, match=r"log\.csv: 2 damaged rows.*log\.csv\.damaged"):
        CsvLog(path, ("step", "loss"), 9)
    assert path.read_text() == "step,loss\n1,2.5\n4,nan\n"
    assert b"\xff" in (tmp_path / "log.csv.damaged").read_bytes()


def last_row(log: Path) -> int:
    """The last step in a log that is being written, 0 before there is one."""
    lines = log.read_text().split("\n")[1:-1] if log.is_file() else []
    return int(lines[-1].partition(",")[0]) if lines else 0


def train_quietly(config: dict, folder: Path) -> None:
    """What a process of the next test does."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    train(ConfigDict(config), folder, "cpu")


def test_kill_9_at_random_points_changes_nothing(tiny_config, tmp_path):
    config = copy(tiny_config, num_steps=360, log_every=3, checkpoint_every=10)
    config.model.nf, config.data.crop = 4, 8
    # each process starts as a copy of one that has imported everything
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["train", __name__])

    def start_training(folder: Path) -> multiprocessing.Process:
        process = fresh.Process(target=train_quietly, args=(config.to_dict(), folder))
        process.start()
        return process

    rng, folder = random.Random(0), tmp_path / "killed"
    log = folder / "log.csv"
    for i in range(7):
        process, start = start_training(folder), time.monotonic()
        point = 45 * i + rng.randint(5, 40)
        while last_row(log) < point:
            assert process.is_alive()
            assert time.monotonic() - start < PATIENCE
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "finished before it was killed: too few steps"
    assert 0 < last_state(folder)["step"] < 360
    for path in (folder, tmp_path / "whole"):
        process = start_training(path)
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert rows(folder) == rows(tmp_path / "whole")
    assert_same_state(last_state(folder), last_state(tmp_path / "whole"))
    assert not list((folder / "checkpoints").glob(".*"))  # no remains of interrupted saving


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP"])
def test_a_signal_saves_and_exits_with_the_code_to_requeue(tmp_path, name):
    flags = ("--config.training.num_steps=100000", "--config.training.checkpoint_every=100000")
    # loader processes get the signal, too, as SLURM sends it to all
    process = subprocess.Popen(
        command(tmp_path, *flags, "--config.data.num_workers=1"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # under nohup, or behind a shell's &, the tests would hand down that they are ignored
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),
    )
    log, start = tmp_path / "log.csv", time.monotonic()
    while not log.is_file() or log.read_text().count("\n") < 3:
        assert process.poll() is None
        assert time.monotonic() - start < PATIENCE
        time.sleep(0.02)
    os.killpg(process.pid, getattr(signal, name))
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == REQUEUE
    step = last_state(tmp_path)["step"]
    assert f"interrupted after step {step}; the same command continues" in output


def test_a_reader_that_has_gone_is_an_interruption():
    """As in ``| head``, and as in a terminal that is closed."""
    reader, writer = os.pipe()
    stream, told = os.fdopen(writer, "w"), []
    lasting = Lasting(stream, told.append)
    lasting.write("read")
    lasting.flush()
    assert os.read(reader, 10) == b"read"
    assert lasting.name == stream.name
    os.close(reader)
    lasting.write("gone")
    lasting.flush()
    assert told == [errno.EPIPE]
    for _ in range(3):  # goes nowhere, and fails no more
        lasting.write("x" * 10_000)
    stream.close()
    assert told == [errno.EPIPE]


def test_what_is_ignored_stays_ignored_and_a_second_ctrl_c_ends(monkeypatch):
    """Of `nohup`, and of a shell's ``&``."""
    handlers = {signal.SIGHUP: signal.SIG_IGN}
    monkeypatch.setattr(signal, "getsignal", lambda number: handlers.get(number))
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # both are put back
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    interrupted = catch_signals()
    assert handlers[signal.SIGHUP] == signal.SIG_IGN
    assert not interrupted()
    handlers[signal.SIGINT](signal.SIGINT, None)
    assert interrupted()
    assert handlers[signal.SIGINT] is signal.default_int_handler


def test_a_second_run_on_the_same_folder_is_refused(tiny_config, tmp_path):
    """And takes nothing from the first one, whose log it would have cut."""
    config = copy(tiny_config, num_steps=100_000)
    process = multiprocessing.get_context("fork").Process(
        target=train_quietly, args=(config.to_dict(), tmp_path)
    )
    process.start()
    try:
        while last_row(tmp_path / "log.csv") < 3:
            time.sleep(0.01)
        before = (tmp_path / "log.csv").stat().st_ino
        with pytest.raises(ValueError, match="another process works on this folder"):
            train(config, tmp_path, "cpu")
        assert (tmp_path / "log.csv").stat().st_ino == before
        assert process.is_alive()
    finally:
        process.kill()
        process.join()
    train(copy(config, num_steps=2), tmp_path, "cpu")  # nothing blocks


# ---- the number of processes and pieces


def test_two_processes_and_accumulation_equal_one(tmp_path):
    flags = ("--config.training.num_steps=8", "--config.training.log_every=1")
    one = run(tmp_path / "one", *flags)
    assert one.returncode == 0, one.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}")
    two = run(tmp_path / "two", *flags, "--config.training.accumulation=2", launcher=launcher)
    assert two.returncode == 0, two.stderr
    for ours, expected in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        for name in ("loss", "grad_norm", "lr"):
            assert float(ours[name]) == pytest.approx(float(expected[name]), rel=1e-5)
    states = last_state(tmp_path / "two"), last_state(tmp_path / "one")
    for part in ("model", "ema"):
        for name, weight in states[0][part].items():
            torch.testing.assert_close(weight, states[1][part][name], rtol=1e-5, atol=1e-5)
    assert states[0]["step"] == states[1]["step"] == 8


def test_a_training_script_runs_without_slurm_on_two_processes(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(6):
        Image.fromarray(np.eye(16, dtype=np.uint8) * 40 * (i + 1)).save(pictures / f"{i}.png")
    variables = {"DATA_ROOT": str(pictures), "RUNS": str(tmp_path), "PYTHON": sys.executable}
    flags = ("model.nf=4", "model.num_res_blocks=1", "data.image_size=16", "data.num_workers=0")
    flags += ("data.name=image_folder", "training.batch_size=2", "training.num_steps=2")
    flags += ("training.sample_every=0", "training.reconstruct_every=0")
    result = subprocess.run(
        ["bash", "training_scripts/train_celeba.sh", "1", *(f"--config.{f}" for f in flags)],
        cwd=ROOT,
        env=environment(NPROC="2", **variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    assert last_state(tmp_path / "celeba_1")["config"]["training"]["precision"] == "bfloat16"
    assert [row["step"] for row in rows(tmp_path / "celeba_1")] == ["2"]


def test_a_batch_that_does_not_divide_is_an_error(tiny_config, tmp_path):
    with pytest.raises(configs.ConfigError, match=r"multiple of 1 processes x .*=3, got 2"):
        train(copy(tiny_config, accumulation=3), tmp_path, "cpu")


# ---- where training begins, and what it weighs


def first_step(config: ConfigDict, net) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses ``(B,)`` and noise levels of a run's first batch for `net`."""
    stream, count = module.create_stream(config), config.training.batch_size
    images = torch.stack([stream[i] for i in range(count)])
    sde = VESDE(config.sde.sigma_min, config.sde.sigma_max)
    _, sigma, noise = module.with_noise(range(count), images, seed=config.seed, sde=sde)
    return score_matching_loss(net, images, sigma, noise), sigma


def test_a_run_may_begin_with_a_prior(tiny_config, tmp_path):
    prior = checkpoint.load(train(tiny_config, tmp_path / "prior", "cpu"))
    assert not torch.equal(prior["model"]["output.weight"], prior["ema"]["output.weight"])
    config = copy(tiny_config, init=str(tmp_path / "prior"), num_steps=1)
    config.seed = 7
    train(config, tmp_path / "tuned", "cpu")
    net = create_model(config)
    net.load_state_dict(prior["ema"])
    expected = first_step(config, net)[0].mean().item()
    assert float(rows(tmp_path / "tuned")[0]["loss"]) == pytest.approx(expected, rel=1e-5)
    config.optim.lr = 0.0  # weights stay as they were loaded
    train(config, tmp_path / "still", "cpu")
    state = last_state(tmp_path / "still")
    for part in ("model", "ema"):
        for name, weight in prior["ema"].items():
            assert torch.equal(state[part][name], weight), (part, name)


def test_a_prior_to_begin_with_has_to_fit(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "prior", "cpu")
    config = copy(tiny_config, init=str(tmp_path / "prior"))
    config.model.num_res_blocks = 2
    with pytest.raises(checkpoint.CheckpointError, match=r"step_00000004\.pt: .* architecture"):
        train(config, tmp_path / "run", "cpu")
    with pytest.raises(FileNotFoundError, match="nothing: expected a checkpoint file, a folder"):
        train(copy(tiny_config, init="nothing"), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


def test_a_continued_run_does_not_begin_again(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "prior", "cpu")
    config = copy(tiny_config, init=str(tmp_path / "prior"))
    train(config, tmp_path / "whole", "cpu")
    train(copy(config, num_steps=2), tmp_path / "pieces", "cpu")
    (tmp_path / "prior").rename(tmp_path / "gone")  # nor is the prior needed any more
    train(config, tmp_path / "pieces", "cpu")
    assert_same_state(last_state(tmp_path / "pieces"), last_state(tmp_path / "whole"))


def test_a_complex_prior_takes_images_with_a_phase(tiny_config, tmp_path):
    config = copy(tiny_config, num_steps=1)
    config.model.num_channels = 2
    with pytest.raises(configs.ConfigError, match=r"got model.num_channels=2 and data.phase=0"):
        train(config, tmp_path / "real", "cpu")
    config.data.phase = 3.0
    train(config, tmp_path / "run", "cpu")
    score, _ = checkpoint.load_prior(tmp_path / "run", "cpu")
    x = torch.ones(2, 1, 16, 16, dtype=torch.complex64)
    assert score(x, torch.ones(2)).shape == x.shape


@pytest.mark.parametrize("weight_sigma", [0.0, 0.25])
def test_noise_levels_are_weighted_in_the_gradient_and_not_in_the_log(
    tiny_config, tmp_path, weight_sigma
):
    config = copy(tiny_config, num_steps=1, weight_sigma=weight_sigma)
    train(config, tmp_path, "cpu")
    net = module.create_network(config)
    losses, sigma = first_step(config, net)
    weights = 1 + sigma / weight_sigma if weight_sigma else torch.ones_like(sigma)
    (losses * weights).mean().backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
    row = rows(tmp_path)[0]
    assert float(row["loss"]) == pytest.approx(losses.mean().item(), rel=1e-5)
    assert float(row["grad_norm"]) == pytest.approx(norm.item(), rel=1e-4)


def test_a_weight_below_zero_is_an_error(tiny_config, tmp_path):
    for wrong in (-0.1, float("nan")):
        with pytest.raises(
            configs.ConfigError, match=r"weight_sigma of at least 0, got (-0\.1|nan)"
        ):
            train(copy(tiny_config, weight_sigma=wrong), tmp_path, "cpu")


# ---- what goes wrong on the way


def test_bad_steps_are_skipped_and_counted(tiny_config, tmp_path, monkeypatch):
    calls = []

    def bad_at_second(*arguments, depth):
        calls.append(1)
        losses = real(*arguments, depth=depth)
        return losses * float("nan") if len(calls) == 2 else losses

    real = module.score_matching_loss
    monkeypatch.setattr(module, "score_matching_loss", bad_at_second)
    train(copy(tiny_config), tmp_path, "cpu")
    assert [row["skipped_steps"] for row in rows(tmp_path)] == ["0", "1", "1", "1"]
    assert [row["loss"] == "nan" for row in rows(tmp_path)] == [False, True, False, False]
    state = last_state(tmp_path)
    assert state["skipped"] == 1
    assert int(state["optimizer"]["state"][0]["step"]) == 3
    assert all(weight.isfinite().all() for weight in state["model"].values())


def test_many_bad_steps_in_a_row_end_the_run_with_the_last_good_checkpoint(
    tiny_config, tmp_path, monkeypatch
):
    config = copy(tiny_config, num_steps=20, max_bad_steps=4, keep_checkpoints=1)
    train(copy(config, num_steps=2), tmp_path, "cpu")
    good = last_state(tmp_path)
    real = module.score_matching_loss
    monkeypatch.setattr(module, "score_matching_loss", lambda *a, depth: real(*a) * float("inf"))
    with pytest.raises(FloatingPointError, match=r"4 steps in a row, the last of them 6; .*02\.pt"):
        train(config, tmp_path, "cpu")
    assert_same_state(last_state(tmp_path), good)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small tmpfs")
def test_a_full_disk_while_saving_leaves_the_old_checkpoint(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mount is not permitted: {mounted.stderr.strip()}")
    try:
        flags = ("--config.training.num_steps=10", "--config.training.keep_checkpoints=99")
        result = run(disk / "run", *flags, "--config.training.checkpoint_every=1")
        assert result.returncode == 1
        assert result.stderr.strip().splitlines()[-1].startswith("error: ")
        assert "No space left on device" in result.stderr
        assert "Traceback" not in result.stderr
        folder = disk / "run" / "checkpoints"
        kept = sorted(folder.iterdir())
        assert kept
        assert [path.name for path in kept if path.name.startswith(".")] == []
        for path in kept:
            checkpoint.load(path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_training_goes_on_without_a_compiler(tiny_config, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(module.torch, "compile", broken)
    config = copy(tiny_config, compile="on")
    with pytest.warns(UserWarning, match=r"without torch\.compile, which failed: no compiler here"):
        train(config, tmp_path / "on", "cpu")
    train(copy(config, compile="off"), tmp_path / "off", "cpu")
    assert rows(tmp_path / "on") == rows(tmp_path / "off")


# ---- validation


def test_validation_tells_noise_levels_apart():
    sde = VESDE(0.01, 10.0)
    edges = noise_level_bins(sde, 4)
    assert edges.shape == (5,)
    assert edges[-1] == pytest.approx(10.0)
    images = [torch.rand(1, 8, 8), torch.rand(1, 4, 6)]
    seen = []

    class Silent(torch.nn.Linear):
        def forward(self, x, sigma):
            seen.append(sigma)
            return torch.zeros_like(x)

    losses = validation_loss(Silent(1, 1), images, sde, seed=1, bins=4)
    assert losses.shape == (4,)
    for sigma in seen:
        assert ((edges[:-1] <= sigma) & (sigma <= edges[1:])).all()
    again = validation_loss(Silent(1, 1), images, sde, seed=1, bins=4)
    assert torch.equal(losses, again)
    assert losses.sum() == pytest.approx(4 * 0.5 * (64 + 24) / 2, rel=0.4)


def test_bfloat16_is_close_and_keeps_the_first_and_last_layer(tiny_config):
    torch.manual_seed(0)
    net = create_model(tiny_config).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x, sigma = torch.rand(2, 1, 16, 16), torch.tensor([0.01, 3.0])
    low = copy(tiny_config, precision="bfloat16")
    with torch.no_grad():
        exact, rounded = (module.autocast(net, c, x, sigma) for c in (tiny_config, low))
    assert rounded.dtype == torch.float32
    assert 0 < ((rounded - exact).norm() / exact.norm()) < 0.02


# ---- bad input: one clear line before any work


def test_a_missing_data_root_is_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "empty").mkdir()
    for root, message in ((tmp_path / "absent", "absent"), (tmp_path / "empty", "pictures")):
        flags = ("--config.data.name=image_folder", "--config.data.subset=")
        flags += (f"--config.data.root={root}",)
        result = run(tmp_path / "run", *flags)
        assert result.returncode == 1
        assert result.stderr.strip().splitlines()[-1].startswith("error: ")
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "run").exists()


def test_an_unknown_field_names_those_like_it(tmp_path):
    result = run(tmp_path / "run", "--config.training.batchsize=3")
    assert result.returncode == 1
    line = result.stderr.strip()
    assert line.startswith("error: unknown config field 'training.batchsize'; did you mean")
    assert "training.batch_size" in line
    assert "--help explains all" in line


def test_errors_about_the_config_come_first(tiny_config, tmp_path):
    config = copy(tiny_config)
    config.data.name = "imagenet"
    with pytest.raises(DataError, match=r"unknown data set 'imagenet'; known: .*fastmri"):
        train(config, tmp_path, "cpu")
    config = copy(tiny_config)
    config.model.ch_mult = (1, 2, 2, 2)
    config.data.crop = 20
    with pytest.raises(ValueError, match=r"multiples of 8 .* got 20 x 20"):
        train(config, tmp_path, "cpu")
    with pytest.raises(configs.ConfigError, match=r"precision out of float32, bfloat16, got 'x'"):
        train(copy(tiny_config, precision="x"), tmp_path, "cpu")
    with pytest.raises(configs.ConfigError, match=r"training\.log_every of at least 1, got 0"):
        train(copy(tiny_config, log_every=0), tmp_path, "cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_want_of_memory_is_one_line_that_says_what_to_do():
    with (
        pytest.raises(SystemExit, match=r"^error: out of memory; set training\.accumulation"),
        configs.clear_errors(module.MEMORY),
    ):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 7 bytes")
    with pytest.raises(RuntimeError, match="shapes"), configs.clear_errors():
        raise RuntimeError("shapes do not fit")  # the program's own fault
    with pytest.raises(KeyError), configs.clear_errors():
        raise KeyError("x")
    with pytest.raises(SystemExit) as ended, configs.clear_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130


def test_replaced_data_and_a_run_among_its_data_are_refused(tiny_config, tmp_path):
    for i in range(4):
        image = np.random.default_rng(i).integers(0, 255, (16, 16), np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    config = copy(tiny_config, num_steps=2)
    root = str(tmp_path / "pictures")
    config.data.update({"name": "image_folder", "subset": "", "root": root, "crop": 0})
    config.data.image_size = 16
    with pytest.raises(DataError, match="would become data; choose another --workdir"):
        train(config, tmp_path / "pictures" / "run", "cpu")
    train(config, tmp_path / "run", "cpu")
    kept = (tmp_path / "run" / "files.csv").read_text().split("\n")[1].split(",")[0]
    Image.fromarray(image[::-1]).save(tmp_path / "pictures" / kept)
    with pytest.raises(DataError, match=rf"run was made of other data.*gone: {kept}; bring"):
        train(copy(config, num_steps=4), tmp_path / "run", "cpu")


def test_missing_held_out_images_say_what_to_set(tiny_config, tmp_path, monkeypatch):
    config = copy(tiny_config, validate_every=1)
    real = module.prepare_dataset

    def no_validation(data, split, **options):
        if split == "val":
            raise DataError("nothing there")
        return real(data, split, **options)

    monkeypatch.setattr(module, "prepare_dataset", no_validation)
    with pytest.raises(DataError, match=r"nothing there \(set training\.validate_every=0"):
        train(config, tmp_path, "cpu")


def test_a_folder_of_another_config_names_the_fields(tiny_config, tmp_path):
    train(tiny_config, tmp_path, "cpu")
    config = copy(tiny_config, batch_size=1, log_every=2)
    config.optim.lr = 1.0
    with pytest.raises(configs.ConfigError) as error:
        train(config, tmp_path, "cpu")
    assert "optim.lr: 0.002 there, 1.0 now" in str(error.value)
    assert "training.batch_size: 2 there, 1 now" in str(error.value)
    assert "log_every" not in str(error.value)


def test_a_checkpoint_of_another_architecture_is_refused(tiny_config, tmp_path):
    train(tiny_config, tmp_path, "cpu")
    (tmp_path / "config.json").unlink()
    tiny_config.model.num_res_blocks = 2
    with pytest.raises(checkpoint.CheckpointError, match="of another architecture"):
        train(tiny_config, tmp_path, "cpu")


def test_a_failing_write_is_not_hidden(tiny_config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(copy(tiny_config), tmp_path, "cpu")


def test_the_learning_rate_warms_up_stays_and_cools_down():
    config = configs.load_config("configs/demo.py")
    config.optim.update({"lr": 1.0, "warmup": 4, "cooldown": 3})
    config.training.num_steps = 12
    rates = [module.learning_rate(config, step) for step in range(12)]
    assert rates == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    config.optim.cooldown = 0
    assert [module.learning_rate(config, step) for step in range(3, 12)] == [1.0] * 9


def native(config: ConfigDict, root: Path, sizes) -> ConfigDict:
    """For volumes of one slice each, at the size that they are stored in."""
    for i, size in enumerate(sizes):
        for split in ("train", "val"):
            volume = np.random.default_rng(i).integers(0, 99, (*size, 2))
            write_nifti(root / f"{split}/{i}.nii", volume)
    config.data.update({"name": "volume", "root": str(root), "subset": "", "num_workers": 0})
    config.data.update({"crop": 0, "image_size": 0, "shrink": 1.0, "rotate": False})
    config.training.update({"num_steps": 2, "batch_size": 1, "validate_every": 2})
    return config


def test_images_can_be_trained_on_at_their_own_size(tmp_path, tiny_config):
    config = native(tiny_config, tmp_path / "d", [(24, 16), (24, 16)])
    config.model.ch_mult = (1, 2)
    path = train(config, tmp_path / "run", "cpu")
    assert checkpoint.load(path)["step"] == 2
    config.model.ch_mult = (1, 1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"multiples of 16 .* got 16 x 24"):
        train(config, tmp_path / "deep", "cpu")
    assert not (tmp_path / "deep").exists()


# ---- other SDEs and preconditionings


def vp_loss(net, x, sigma, noise, label):
    """Song et al. 2021, of the VP-SDE and, with its own std, the sub-VP-SDE."""
    integral = 0.1 * label / 999 + 19.9 * (label / 999) ** 2 / 2
    scale = torch.exp(-integral / 2)[:, None, None, None]
    std = scale * 2 * sigma[:, None, None, None]
    error = net(scale * (2 * x - 1) + std * noise, label) - noise
    return 0.5 * error.square().flatten(1).sum(1)


def edm_loss(net, x, sigma, noise):
    """Karras et al. 2022, equations 2 and 8, table 1, times half; images in [-1, 1]."""
    level, clean = 2 * sigma[:, None, None, None], 2 * x - 1
    total = level**2 + 0.25
    noisy = clean + level * noise
    inner = net(noisy / total.sqrt(), (2 * sigma).log() / 4)
    denoised = 0.25 / total * noisy + 0.5 * level / total.sqrt() * inner
    error = (denoised - clean).square() * total / (0.5 * level) ** 2
    return 0.5 * error.flatten(1).sum(1)


@pytest.mark.parametrize(
    "fields",
    [
        {"sde.name": "vp"},
        {"sde.name": "subvp"},
        {"sde.precondition": "edm", "training.levels": "log_normal"},
        {"sde.name": "vp", "sde.precondition": "edm"},
    ],
)
def test_training_by_other_sdes(tiny_config, tmp_path, fields):
    config = copy(tiny_config, num_steps=1, validate_every=1, validation_images=1, sample_every=1)
    config.training.sample_steps, config.optim.lr = 2, 0.0
    config.data.crop = 8
    config.update_from_flattened_dict(fields)
    path = train(config, tmp_path, "cpu")
    prior = checkpoint.load_prior(path, "cpu")

    # the loss of the first batch by the papers' formulas, with the network itself
    net = module.create_network(config)
    net.load_state_dict(checkpoint.load(path)["model"])
    stream = module.create_stream(config)
    images = torch.stack([stream[0], stream[1]])
    sde = create_sde(config.sde)
    spread = module.log_normal(config)
    _, sigma, noise = module.with_noise(range(2), images, seed=42, sde=sde, log_normal=spread)
    with torch.no_grad():
        losses = score_matching_loss(net, images, sigma, noise)
        assert float(rows(tmp_path)[0]["loss"]) == pytest.approx(losses.mean().item(), rel=1e-4)
        x = torch.rand(1, 1, 8, 8)
        torch.testing.assert_close(prior.score(x, sigma[:1]), net.eval()(x, sigma[:1]))
        for parameter in net.parameters():  # the last layer begins at 0
            torch.nn.init.normal_(parameter, std=0.2)
        losses = score_matching_loss(net, images, sigma, noise)
        if "sde.precondition" in fields:
            expected, weight = edm_loss(net.net, images, sigma, noise), edm_weight(sigma)
        else:
            expected, weight = vp_loss(net.net, images, sigma, noise, 999 * sde.time(sigma)), 1
    torch.testing.assert_close(losses * weight, expected, rtol=1e-4, atol=1e-4)

    assert prior.sde == sde.ve
    bins = rows(tmp_path, "validation.csv")
    assert float(bins[0]["sigma_from"]) == pytest.approx(sde.ve.sigma_min, rel=0.01)
    assert float(bins[-1]["sigma_to"]) == pytest.approx(sde.ve.sigma_max, rel=0.01)


def test_log_normal_levels_have_the_said_distribution():
    generators = [torch.Generator().manual_seed(n) for n in range(2000)]
    logs = (2 * draw_levels(generators, VESDE(), (-1.2, 0.7))).log()
    assert logs.mean().item() == pytest.approx(-1.2, abs=4 * 0.7 / 2000**0.5)
    assert logs.std().item() == pytest.approx(0.7, rel=0.08)
    again = draw_levels([torch.Generator().manual_seed(7)], VESDE(), (-1.2, 0.7))
    assert again[0] == logs[7].exp() / 2  # a sample's level does not depend on the others


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sde.name": "vpp"}, "expected sde.name out of ve, vp, subvp, got 'vpp'"),
        ({"sde.precondition": "vp"}, "expected sde.precondition '' or 'edm', got 'vp'"),
        ({"sde.name": "vp", "sde.beta_max": 0.05}, "expected 0 < beta_min < beta_max"),
        ({"training.levels": "normal"}, "expected training.levels out of sde, log_normal"),
        ({"training.levels": "log_normal", "training.level_std": 0.0}, "level_std above 0"),
    ],
)
def test_unfit_sdes_are_errors_before_training(tiny_config, tmp_path, fields, message):
    config = copy(tiny_config)
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run", "cpu")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_network_without_labels_trains_by_the_ve_sde_only(tiny_config, tmp_path):
    config = copy(tiny_config)
    config.model.name = "bias_free_unet"
    config.sde.name = "vp"
    with pytest.raises(ValueError, match=r"expected model\.name='ncsnpp'"):
        train(config, tmp_path, "cpu")
