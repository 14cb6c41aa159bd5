"""The Python half of gpu.sh: what to bring to the machine with the GPU, and training by the clock.

python -m training_scripts.gpu pack PHOTOS .gpu
python -m training_scripts.gpu train natural_base results/gpu --seconds=300 --photos=.gpu/photos
"""

import argparse
import csv
import importlib
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from configs import to_json
from models.checkpoint import load

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
# what a Python with PyTorch and the usual scientific packages still lacks
WHEELS = ("ml_collections", "sigpy", "PyWavelets")
CONSTANT = 0.65  # of the time at a constant learning rate; it falls to zero over the rest
MARGIN = 0.85  # of the steps that the rest of the time would be enough for
ON_GPU = {  # what a config made for CPUs is changed in
    name: (
        "--config.training.batch_size=64",
        "--config.training.channels_last=auto",
    )
    for name in ("natural_small", "natural_complex_small")
}
REHEARSED = 12  # steps of a rehearsal's first phase at most
TINY = (  # a rehearsal on a CPU
    "--config.model.nf=1",
    "--config.training.batch_size=2",
    "--config.training.validation_images=2",
    "--config.training.log_every=1",
    "--config.training.compile=off",
    "--config.data.crop=32",
    "--config.optim.warmup=1",
)


def pack(photos: Path, home: Path, *, megabytes: float, python: str) -> None:
    """Photographs as lossless WebP, evenly chosen to fit, and wheels, below `home`.

    Args:
        photos: folder with `train` and `val`.
        home: the folder to make, with `photos` and `wheels` in it.
        megabytes: room for photographs.
        python: version of the Python that the wheels are for, such as "3.12".

    Raises:
        FileNotFoundError: no pictures in a split.
    """
    room = {"train": 0.95 * megabytes * 2**20, "val": 0.05 * megabytes * 2**20}
    for split, most in room.items():
        files = sorted(p for p in (photos / split).iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise FileNotFoundError(f"{photos / split}: expected pictures, found none")
        target = home / "photos" / split
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        used = 0
        # a permutation that spreads over the whole list, so that any beginning of it is even
        for i in sorted(range(len(files)), key=lambda i: (i * 0.6180339887) % 1):
            path = target / f"{files[i].stem}.webp"
            Image.open(files[i]).convert("L").save(path, lossless=True, method=3)
            used += path.stat().st_size
            if used > most:
                path.unlink()
                break
        print(f"{target}: {len(list(target.iterdir()))} of {len(files)} pictures")
    wheels = home / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(wheels)]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    for glibc in ("2_28", "2_27", "2_17"):
        command.append(f"--platform=manylinux_{glibc}_{platform.machine()}")
    command.append(f"--platform=manylinux2014_{platform.machine()}")
    subprocess.run(
        [*command, *WHEELS, "--constraint", str(ROOT / "constraints.txt")], check=True, cwd=ROOT
    )
    print(f"{wheels}: {', '.join(sorted(p.name for p in wheels.iterdir()))}")


def run_until(command: list[str], deadline: float) -> int:
    """Run a command, ended by SIGTERM at `deadline` (`time.monotonic`); returns its exit code."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait(max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # train.py saves and ends
        return process.wait()


def train(
    prior: str, out: Path, *, seconds: float, photos: Path, workers: int, rehearse: bool
) -> None:
    """Train a prior for so long, the learning rate falling to zero at the end, and export it.

    Starts with the weights of that name in `weights/`, where there are some of the same network.
    The run's folder is `out/run/PRIOR`; `out` gets `PRIOR.pt`, the averaged weights in float16,
    `PRIOR_log.csv` and `PRIOR_validation.csv`.

    Args:
        prior: name of a config, of the exported file, and of the weights to go on from.
        out: folder.
        seconds: in all, with starts and export.
        photos: folder with `train` and `val`.
        workers: number of loader processes.
        rehearse: a tiny network instead.

    Raises:
        SystemExit: training failed.
    """
    begin = time.monotonic()
    run = out / "run" / prior
    command = [sys.executable, "train.py", f"--config=configs/{prior}.py", f"--workdir={run}"]
    command += [f"--config.data.root={photos}", "--config.training.keep_checkpoints=1"]
    command += [f"--config.data.num_workers={0 if rehearse else workers}"]
    command += TINY if rehearse else ("--config.training.log_every=50", *ON_GPU.get(prior, ()))
    if not rehearse and goes_on(prior):
        command.append(f"--config.training.init={prior}")

    def phase(steps: int, cooldown: int, deadline: float) -> None:
        limits = [f"--config.training.num_steps={steps}", f"--config.optim.cooldown={cooldown}"]
        code = run_until([*command, *limits], deadline)
        if code not in (0, 75):
            raise SystemExit(f"train.py ended with exit code {code}")

    phase(REHEARSED if rehearse else 10**9, 0, begin + CONSTANT * seconds)
    done, speed = progress(run / "log.csv")
    now = time.monotonic()
    start = now - begin - done / speed  # what the next phase needs as well before its first step
    left = begin + seconds - now - start
    more = min(max(int(MARGIN * speed * left), 1), REHEARSED if rehearse else 10**9)
    print(f"{prior}: {done} steps, {speed:.1f} a second; {more} more at a falling rate", flush=True)
    phase(done + more, more, begin + seconds)
    for name in ("log.csv", "validation.csv"):
        if (run / name).is_file():
            shutil.copy(run / name, out / f"{prior}_{name}")
    export = [sys.executable, "-m", "models.checkpoint", "export", str(run)]
    subprocess.run([*export, str(out / f"{prior}.pt"), "--half"], check=True, cwd=ROOT)


def goes_on(prior: str) -> bool:
    """Whether `weights/` has a prior of this name with the network of its config."""
    path = ROOT / "weights" / f"{prior}.pt"
    if not path.is_file():
        return False
    config = importlib.import_module(f"configs.{prior}").get_config()
    # a config in a file has lists for tuples
    return json.loads(to_json(config))["model"] == load(path)["config"]["model"]


def progress(log: Path) -> tuple[int, float]:
    """Number of finished steps and steps a second, from a training run's log."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise SystemExit(f"{log}: no step was finished in the time")
    batch = read_batch_size(log.parent / "config.json")
    return int(rows[-1]["step"]), float(rows[-1]["images_per_second"]) / batch


def read_batch_size(path: Path) -> int:
    """`training.batch_size` of a run's config."""
    return int(json.loads(path.read_text())["training"]["batch_size"])


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training_scripts.gpu")
    commands = parser.add_subparsers(dest="command", required=True)
    packer = commands.add_parser(
        "pack", help="photographs and wheels for a machine without network"
    )
    packer.add_argument("photos", type=Path)
    packer.add_argument("home", type=Path)
    packer.add_argument("--megabytes", type=float, default=40.0)
    packer.add_argument("--python", default="3.12")
    trainer = commands.add_parser("train", help="train for a given time")
    trainer.add_argument("prior")
    trainer.add_argument("out", type=Path)
    trainer.add_argument("--seconds", type=float, required=True)
    trainer.add_argument("--photos", type=Path, required=True)
    trainer.add_argument("--workers", type=int, default=6)
    trainer.add_argument("--rehearse", type=int, default=0)
    a = parser.parse_args(argv)
    if a.command == "pack":
        pack(a.photos, a.home, megabytes=a.megabytes, python=a.python)
    else:
        train(
            a.prior,
            a.out,
            seconds=a.seconds,
            photos=a.photos,
            workers=a.workers,
            rehearse=bool(a.rehearse),
        )


if __name__ == "__main__":
    main()
