"""Parts of evaluation: shards, batches, recon.h5, versions, waiting for each other."""

import hashlib
import multiprocessing
import os
import socket
import subprocess
import time
import weakref

import numpy as np
import pytest
import torch

from configs import is_out_of_memory
from datasets.files import ABANDONED, remove_abandoned, replacing, write_atomically
from evaluation.evaluate import wait_for_others
from evaluation.results.folder import Results, read_rows
from evaluation.results.recon_file import open_reconstructions, read_images, rewrite
from evaluation.results.volumes import volume_of
from evaluation.run.batching import in_batches
from evaluation.run.provenance import ROOT, code_version, fingerprint, peak_memory, sampling
from evaluation.run.shards import WHOLE, Shard, find_shard
from operators import ParallelBeamCT, SingleCoilMRI
from tests.conftest import PATIENCE

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2"}


def array(number, first, last, count):
    values = {"ID": number, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


# ---- shards


@pytest.mark.parametrize("world", [1, 2, 3, 7, 12])
def test_shards_share_everything_out(world):
    parts = [Shard(rank, world).part(range(10)) for rank in range(world)]
    assert sorted(i for part in parts for i in part) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("choice", "environment", "shard"),
    [
        ("auto", {}, WHOLE),
        ("auto", TORCHRUN, Shard(1, 2)),
        ("auto", {"WORLD_SIZE": "4"}, WHOLE),
        ("auto", array(2, 0, 3, 4), WHOLE),  # never unless asked for
        ("2/8", TORCHRUN | array(1, 0, 3, 4), Shard(2, 8)),
        ("0/1", TORCHRUN, WHOLE),
        ("slurm", array(2, 0, 3, 4), Shard(2, 4)),
        ("slurm", array(9, 1, 9, 5), Shard(4, 5)),  # --array=1-9:2
        ("slurm", array(5, 5, 5, 1), WHOLE),
        ("slurm", TORCHRUN | array(2, 0, 3, 4), Shard(5, 8)),
    ],
)
def test_which_shard_a_process_is(choice, environment, shard):
    assert find_shard(choice, environment) == shard


def test_tasks_with_torchrun_in_each_share_everything_out():
    found = [
        find_shard("slurm", {"RANK": str(rank), "WORLD_SIZE": "2"} | array(task, 3, 9, 3))
        for task in (3, 6, 9)
        for rank in range(2)
    ]
    assert sorted(found) == [Shard(rank, 6) for rank in range(6)]


@pytest.mark.parametrize(
    ("choice", "environment", "message"),
    [
        ("4/4", {}, "expected a rank from 0 to 3, got 4"),
        ("1/0", {}, "expected a rank from 0 to -1, got 1"),
        ("-1/4", {}, "expected --shard=auto, slurm or RANK/WORLD"),
        ("half", {}, "expected --shard=auto, slurm or RANK/WORLD such as 0/4, got 'half'"),
        ("slurm", {}, "expected a number in SLURM_ARRAY_TASK_ID, got ''; submit with sbatch"),
        ("slurm", array(1, 0, 4, 3), r"evenly spaced .* got 1 among 3 from 0 to 4; .*=0-2"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "expected a number in RANK, got 'x'"),
    ],
)
def test_unfit_shards_are_errors(choice, environment, message):
    with pytest.raises(ValueError, match=message):
        find_shard(choice, environment)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_processes_of_torchrun_wait_for_the_last_one():
    context = multiprocessing.get_context("fork")
    times = context.SimpleQueue()
    given = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def work(rank):
        os.environ |= given | {"RANK": str(rank), "TORCHELASTIC_RUN_ID": "test"}
        time.sleep(rank)
        arrived = time.monotonic()
        wait_for_others()
        times.put((rank, arrived, time.monotonic()))

    processes = [context.Process(target=work, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0, 0]
    (_, _, left), (_, arrived, _) = sorted(times.get() for _ in range(2))
    assert left >= arrived


# ---- batches


def run_batches(items, size, work):
    return [
        (batch, str(result)) if isinstance(result, Exception) else (batch, result)
        for batch, result in in_batches(items, size, work)
    ]


def test_memory_halves_batches_and_keeps_the_order():
    def work(batch):
        if sum(batch) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sum(batch)

    given = [1, 2, 3, 11, 4, 5, 6]
    assert run_batches(given, 7, work) == [
        ([1, 2, 3], 6),
        ([11], "CUDA out of memory"),
        ([4], 4),
        ([5], 5),
        ([6], 6),
    ]


def test_a_fault_is_found_and_batches_are_as_before():
    sizes = []

    def work(batch):
        sizes.append(len(batch))
        if 3 in batch:
            raise KeyError("three")
        return len(batch)

    assert run_batches(range(9), 4, work) == [
        ([0], 1),
        ([1], 1),
        ([2], 1),
        ([3], "'three'"),
        ([4, 5, 6, 7], 4),
        ([8], 1),
    ]
    assert sizes == [4, 1, 1, 1, 1, 4, 1]
    with pytest.raises(ValueError, match="expected batch_size of at least 1, got 0"):
        list(in_batches([1], 0, work))


def test_an_exception_keeps_no_tensors():
    alive = []

    def work(batch):
        big = torch.zeros(3)
        alive.append(weakref.ref(big))
        try:
            raise KeyError(big)
        except KeyError:
            raise RuntimeError("no") from None

    ((_, error),) = in_batches([1], 1, work)
    assert isinstance(error, RuntimeError)
    assert [reference() for reference in alive] == [None]


def test_what_counts_as_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("out of memory"))


# ---- files


def test_images_of_different_sizes_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 5), "b": (4, 2), "c": (2, 7)}
    images = {key: rng.random(shape, np.float32) for key, shape in shapes.items()}
    std = {key: 1 - image for key, image in images.items()}
    given = {key: {"reconstruction": images[key], "std": std[key]} for key in shapes}
    rewrite(tmp_path, ["b", "c"], given.get)
    rewrite(tmp_path, ["a", "b", "c"], lambda key: given[key] if key == "a" else None)
    found = read_images(tmp_path)
    assert list(found) == ["a", "b", "c"]
    for key, image in images.items():
        np.testing.assert_array_equal(found[key], image)
        np.testing.assert_array_equal(read_images(tmp_path, "std")[key], std[key])
    with open_reconstructions(tmp_path) as stored, pytest.raises(KeyError):
        stored["d"]
    with pytest.raises(FileNotFoundError, match="not there yet; run"):
        read_images(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    write_atomically(path, b"old")

    def fail_halfway():
        with replacing(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "usual").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_only_old_temporary_files_are_removed(tmp_path):
    dead, alive, other = (tmp_path / name for name in (".new-x", ".new-y", ".mine"))
    for path in (dead, alive, other):
        path.write_text("")
    past = time.time() - 2 * ABANDONED
    os.utime(dead, (past, past))
    os.utime(other, (past, past))
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == [other, alive]


def test_rows_stand_in_the_order_of_the_data_set(tmp_path):
    keys = [f"file.h5:{i}" for i in range(12)]
    for rank in (1, 0):
        results = Results(tmp_path, "{}", keys=keys, alone=False)
        for key in Shard(rank, 2).part(keys):
            results.add(key, np.zeros((2, 2), np.float32), {"psnr": 1 / 3})
    assert [row["key"] for row in read_rows(tmp_path)] == keys
    assert {float(row["psnr"]) for row in read_rows(tmp_path)} == {1 / 3}


def test_who_gathers_writes_the_rows_of_all(tmp_path):
    ours, theirs = (Results(tmp_path, "{}", keys=["a", "b"], alone=False) for _ in range(2))
    ours.add("a", np.zeros((2, 2), np.float32), {"psnr": 1.0})
    ours.gather()
    assert not (tmp_path / "recon.h5").exists()
    theirs.add("b", np.ones((2, 2), np.float32), {"psnr": 2.0})
    theirs.gather()
    assert not (tmp_path / "parts").exists()
    assert [(row["key"], row["psnr"]) for row in read_rows(tmp_path)] == [
        ("a", "1.0"),
        ("b", "2.0"),
    ]
    assert {key: image.mean() for key, image in read_images(tmp_path).items()} == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("key", "volume"),
    [
        ("file1000001.h5:12", "file1000001.h5"),
        ("a/b:c.h5:0", "a/b:c.h5"),
        ("faces/1.png", "faces/1.png"),
        ("odd:name.png", "odd:name.png"),
    ],
)
def test_volumes_of_keys(key, volume):
    assert volume_of(key) == volume


# ---- provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_code_version_knows_commit_and_changes(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    assert code_version(project) == {"version": "1.2.3"}
    git(project, "init")
    git(project, "add", ".")
    git(project, "commit", "-m", "first")
    clean = {"version": "1.2.3", "commit": git(project, "rev-parse", "HEAD"), "dirty": False}
    (project / "notes").write_text("untracked files change no number")
    assert code_version(project) == clean
    (project / "pyproject.toml").write_text('[project]\nversion = "1.2.4"\n')
    assert code_version(project) == clean | {"version": "1.2.4", "dirty": True}
    # a copy inside somebody else's repository has no commit of its own
    (project / "copy").mkdir()
    (project / "copy" / "pyproject.toml").write_text('[project]\nversion = "7"\n')
    assert code_version(project / "copy") == {"version": "7"}
    assert code_version(ROOT)["version"]


def test_fingerprints_are_of_the_bytes_in_c_order():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = hashlib.blake2b(x.tobytes(), digest_size=8).hexdigest()
    assert fingerprint(x) == fingerprint(torch.from_numpy(x)) == digest
    assert fingerprint(np.asfortranarray(x)) == digest
    assert fingerprint(x.T) != digest
    assert fingerprint(-x) != digest


def test_what_operators_say_of_their_sampling():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, ::4] = True
    of_mask = {"acceleration": 4.0, "mask_hash": fingerprint(mask)}
    assert sampling(SingleCoilMRI(mask)) == of_mask
    angles = np.array([0.0, 45.0])
    assert sampling(ParallelBeamCT(8, angles)) == {"mask_hash": fingerprint(angles)}


def test_peak_memory_holds_what_was_allocated():
    block = torch.ones(2**26, dtype=torch.uint8)  # 64 MiB
    assert peak_memory("cpu") > block.numel() / 2**20


def test_pictures_of_slices_have_names_of_their_own(tmp_path):
    long = "/".join(["1.3.6.1.4.1.14519.5.2.1." + "2" * 40] * 4)
    keys = [
        "p1/1_1.png",
        "p1_1/1.png",
        "p1/2.png",
        "v.h5:3",
        "P1/2.PNG",
        long,
        f"{long}:1",
        "é" * 150,
    ]
    results = Results(tmp_path, "{}", keys=keys)
    names = [results.panel(key).name for key in keys]
    assert len({name.lower() for name in names}) == len(keys)
    assert max(len(name.encode()) for name in names) < 255
    assert names[3] == "v.h5_3.png"
    for key in keys:
        results.panel(key).write_bytes(b"")
    alone = Results(tmp_path / "alone", "{}", keys=["p1/2.png"])
    assert alone.panel("p1/2.png").name == "p1_2.png.png"
