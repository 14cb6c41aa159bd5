"""The commands without what only Unix has, as on Windows, simulated here: training, evaluation,
reconstruction and grids go through, and say that there are no locks.

What this does not show: paths with backslashes, files that cannot be replaced while they are open.
"""

import csv
import os
import signal
import subprocess
import sys

import pytest
import torch
from torch.utils.data._utils import signal_handling

from datasets.sample import Sample
from datasets.stream import TrainingStream, batches
from tests.conftest import PATIENCE, ROOT
from tests.helpers.tiny_prior import write_prior

SITE = """
import importlib.abc, multiprocessing, multiprocessing.context, os, signal, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in ("fcntl", "resource"):
    sys.modules.pop(name, None)
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP"):
    delattr(signal, name)
for name in ("fork", "sched_getaffinity", "posix_fadvise", "posix_fallocate", "O_NOFOLLOW"):
    delattr(os, name)
for name in [n for n in vars(os) if n.startswith("POSIX_FADV")]:
    delattr(os, name)
contexts = multiprocessing.context._concrete_contexts
for name in ("fork", "forkserver"):
    contexts.pop(name, None)
multiprocessing.get_all_start_methods = lambda: ["spawn"]
multiprocessing.set_start_method("spawn")
"""


@pytest.fixture
def run(tmp_path):
    """Runs a command where Python begins with `SITE`."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])

    def call(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return call


def test_the_simulation_takes_it_away(run):
    code = "import signal, os; print(hasattr(signal, 'SIGUSR1'), hasattr(os, 'fork'))"
    assert run("-c", code).strip() == "False False"
    assert hasattr(signal, "SIGUSR1")
    with pytest.raises(AssertionError, match="No module named 'fcntl'"):
        run("-c", "import fcntl")


def test_training_with_loader_processes(run, tmp_path):
    fields = {"model.nf": 4, "data.crop": 16, "data.gamma": 0.1, "data.num_workers": 1}
    fields |= {"training.batch_size": 2, "training.num_steps": 2, "training.validate_every": 0}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    flags += ["--config.training.sample_every=0"]
    said = run("train.py", "--config=configs/demo.py", f"--workdir={tmp_path / 'run'}", *flags)
    assert "the file system has no locks" in said
    assert (tmp_path / "run" / "checkpoints" / "step_00000002.pt").is_file()


def test_loader_processes_without_sigchld(monkeypatch):
    """PyTorch asks for the system's name before it sets a handler; this is our part."""
    monkeypatch.setattr(signal_handling, "IS_WINDOWS", True)
    monkeypatch.delattr(signal, "SIGCHLD")
    images = [Sample(torch.full((1, 4, 4), float(i)), (0, 1), f"{i}", {}) for i in range(3)]
    stream = TrainingStream(images, seed=0, shuffle=False, crop=0, flip=False, rotate=False)
    found = list(batches(stream, start=0, stop=2, batch_size=1, num_workers=1))
    assert [float(batch.mean()) for _, batch in found] == [0, 1]


def test_evaluation(run, tmp_path):
    prior = write_prior(tmp_path / "prior.pt")
    fields = {"prior": prior, "data.image_size": 32, "data.fit": "resize", "limit": 2, "panels": 1}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    flags += ["--config.sampler.name=pnp", "--config.sampler.num_steps=3"]
    run("-m", "evaluation.evaluate", f"--out={tmp_path / 'out'}", *flags)
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(float(row["psnr"]) > 0 for row in rows)
    assert {row["memory_mib"] for row in rows} == {"nan"}
    assert "psnr" in run("-m", "evaluation.tables", str(tmp_path / "out"), "--format=csv").lower()
    assert len(list((tmp_path / "out" / "panels").iterdir())) == 1


def test_reconstruction(run, tmp_path):
    code = (
        "import numpy as np; rng = np.random.default_rng(0); y, x = np.mgrid[:32, :32] - 16;"
        "image = (x**2 + y**2 < 100) + 0j; k = np.fft.fftshift(np.fft.fft2(image));"
        f"k[:, ::3] = 0; np.save({str(tmp_path / 'kspace.npy')!r}, k)"
    )
    run("-c", code)
    given = [f"--input={tmp_path / 'kspace.npy'}", f"--out={tmp_path / 'out'}"]
    run("reconstruct.py", *given, "--config.sampler.num_steps=3")
    assert (tmp_path / "out" / "reconstruction.h5").is_file()
    assert (tmp_path / "out" / "preview.png").is_file()


def test_many_images_are_read_and_cells_run(run, tmp_path):
    many = (
        "from datasets.parallel import map_items;"
        "print(sum(map(sum, map_items(list, 999, label=''))))"
    )
    assert run("-c", many).strip() == str(sum(range(999)))
    cells = {"a": [sys.executable, "-c", "print('in a cell')"]}
    code = f"from evaluation.study.runner import run_commands; print(run_commands({cells}))"
    said = run("-c", code)
    assert "== 1/1 a" in said
    assert "in a cell" in said
    assert "{}" in said  # nothing failed
