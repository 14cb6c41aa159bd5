"""A training script on a real SLURM: killed in the middle, requeued, nothing changes.

One node on the loopback device: munged, slurmctld and slurmd with a configuration of their own in
a temporary folder. Needs Debian's packages slurm-wlm and munge, and root.
"""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import PATIENCE, ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
SBIN = "/usr/sbin:/sbin"  # Debian puts daemons there, outside a user's PATH
STEPS = 1500
FLAGS = (
    "--config.model.nf=8",
    "--config.model.num_res_blocks=1",
    "--config.data.name=image_folder",
    "--config.data.image_size=16",
    "--config.data.num_workers=1",
    "--config.training.batch_size=2",
    f"--config.training.num_steps={STEPS}",
    "--config.training.log_every=1",
    "--config.training.checkpoint_every=40",
    "--config.training.validate_every=500",
    "--config.training.sample_every=0",
    "--config.training.reconstruct_every=0",
)
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=10
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=8 RealMemory=65536 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    path = f"{os.environ['PATH']}:{SBIN}"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "slurmd starts jobs as root only"


pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=str(missing()))]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(what: str, condition, tail=lambda: "") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s for: {what}\n{tail()}"
        time.sleep(0.1)


def end(process: subprocess.Popen) -> None:
    """End a process that this test started, by its id."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Cluster:
    """A running SLURM of one node."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(mode=0o700)
        (folder / "munge" / "key").write_bytes(os.urandom(128))
        (folder / "munge" / "key").chmod(0o400)
        text = CONFIGURATION.format(folder=folder, ports=free_ports(2))
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text("NodeName=localhost Name=gpu File=/dev/null\n")
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:{SBIN}",
        }
        self.processes: list[subprocess.Popen] = []

    def start(self) -> None:
        munge = self.folder / "munge"
        self._start(
            *("munged", "--foreground", "--force", f"--key-file={munge / 'key'}"),
            *(f"--socket={munge / 'socket'}", f"--pid-file={munge / 'pid'}"),
            *(f"--log-file={munge / 'log'}", f"--seed-file={munge / 'seed'}"),
        )
        wait_for("munged", (munge / "socket").exists, self.logs)
        self._start("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        self._start("slurmd", "-D", "-N", "localhost", "-f", str(self.folder / "slurm.conf"))
        wait_for("an idle node", lambda: self.call("sinfo", "-h", "-o", "%T") == "idle", self.logs)

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("w") as out:
            self.processes.append(
                subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
            )

    def stop(self) -> None:
        self.call("scancel", "--signal=KILL", "--full", "--user=root", check=False)
        self.call("scancel", "--user=root", check=False)
        try:
            wait_for("no jobs", lambda: not self.call("squeue", "-h", check=False))
        finally:
            for process in reversed(self.processes):
                end(process)

    def call(self, *command: str, check: bool = True) -> str:
        result = subprocess.run(
            command,
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert not check or result.returncode == 0, f"{command}: {result.stderr}"
        return result.stdout.strip()

    def state(self, job: str) -> str:
        fields = self.call("scontrol", "show", "job", job).split()
        return next(f.partition("=")[2] for f in fields if f.startswith("JobState="))

    def logs(self) -> str:
        return "\n".join(f"{p}:\n{p.read_text()[-1500:]}" for p in self.folder.glob("*.*o*"))


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "slurm"
    folder.mkdir()
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def last_step(log: Path) -> int:
    if not log.is_file():
        return 0
    lines = log.read_text().splitlines()
    return int(lines[-1].partition(",")[0]) if len(lines) > 2 else 0


def pids_of(workdir: Path) -> list[int]:
    """The processes that train in `workdir`: it is on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:  # it has ended since
            continue
        if b"train.py" in arguments and f"--workdir={workdir}".encode() in arguments:
            found.append(int(path.parent.name))
    return found


def curve(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: r[k] for k in r if k not in ("images_per_second", "seconds_per_epoch")} for r in rows
    ]


def test_a_requeued_job_gives_the_curve_of_an_uninterrupted_one(cluster, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(pictures / f"{i}.png")
    script = "training_scripts/train_celeba.sh"
    variables = {
        "DATA_ROOT": str(pictures),
        "PYTHON": sys.executable,
        "PRECISION": "float32",
        "OMP_NUM_THREADS": "1",
    }

    cluster.environment |= variables | {"RUNS": str(tmp_path / "cluster")}
    output = tmp_path / "job.out"
    log = tmp_path / "cluster" / "celeba_1" / "log.csv"
    submitted = cluster.call(
        "sbatch", "--parsable", "--array=0", f"--output={output}", script, "1", *FLAGS
    )
    job = f"{submitted}_0"

    def tail() -> str:
        return (output.read_text()[-3000:] if output.is_file() else "") + cluster.logs()

    def continue_now() -> None:
        """SLURM lets a requeued job wait for two minutes, until old credentials have expired.

        Three seconds do: a new credential has to be younger than the end of the last start.
        """
        wait_for("requeueing", lambda: cluster.state(job) == "PENDING", tail)
        cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now+3")

    # the warning before the time limit: the script saves and puts itself back into the queue
    wait_for("training", lambda: last_step(log) > 100, tail)
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    continue_now()
    first = last_step(log)
    assert 100 < first < STEPS
    # the same from outside, as preemption does it
    wait_for("training", lambda: last_step(log) > first + 100, tail)
    cluster.call("scontrol", "requeue", job)
    continue_now()
    second = last_step(log)
    assert second < STEPS
    # a crash: nothing can be saved, and the job ends as failed
    wait_for("training", lambda: last_step(log) > second + 100, tail)
    for pid in pids_of(log.parent):
        os.kill(pid, signal.SIGKILL)
    wait_for("the end", lambda: cluster.state(job) == "FAILED", tail)
    third = last_step(log)
    assert third < STEPS
    cluster.call("scontrol", "requeue", job)
    continue_now()
    wait_for("completion", lambda: cluster.state(job) == "COMPLETED", tail)

    text = output.read_text()
    assert text.count("== interrupted before the time limit; back into the queue") == 1, text
    assert text.count("interrupted after step") == 2, text
    assert text.count("continuing from") == 3, text

    environment = os.environ | variables | {"RUNS": str(tmp_path / "plain")}
    subprocess.run(
        ["bash", script, "1", *FLAGS], env=environment, cwd=ROOT, check=True, timeout=PATIENCE
    )
    runs = [tmp_path / name / "celeba_1" for name in ("cluster", "plain")]
    for name in ("log.csv", "validation.csv"):
        ours, expected = (curve(run / name) for run in runs)
        assert ours == expected
    states = [
        torch.load(run / "checkpoints" / f"step_{STEPS:08d}.pt", weights_only=True) for run in runs
    ]
    for part in ("model", "ema"):
        for name, weight in states[0][part].items():
            assert torch.equal(weight, states[1][part][name]), name
