"""Which process does which slices: shards, torchrun, who waits for whom."""

import multiprocessing
import os
import socket
import time

import pytest

from evaluation.evaluate import wait_for_others
from evaluation.run.shards import WHOLE, Shard, find_shard
from tests.conftest import PATIENCE

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2"}


def array(number, first, last, count):
    values = {"ID": number, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


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
