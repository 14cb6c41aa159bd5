"""Loader processes: errors come whole, deaths are noticed, and nothing keeps the exit waiting."""

import multiprocessing
import os
import signal

import pytest
import torch
from torch.utils.data import Dataset

from datasets import DataError
from datasets import stream as stream_module
from datasets.sample import Sample
from datasets.stream import TrainingStream, batches

FORK = multiprocessing.get_context("fork")


class Numbers(Dataset):
    """Images of one number each; some of them do something else when they are read."""

    def __init__(self, at: dict[int, object] | None = None):
        self.at = at or {}

    def __len__(self):
        return 40

    def __getitem__(self, i):
        if i in self.at:
            self.at[i]()
        return Sample(torch.full((1, 2, 2), float(i)), (0.0, 1.0), str(i), {})


def fail():
    raise DataError("a.png: cannot be read; take it out")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def signalled():
    """What a scheduler does to each process of a job."""
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), name)


def loader(at=None, stop=20):
    stream = TrainingStream(Numbers(at), seed=0, shuffle=False, crop=0, flip=False, rotate=False)
    return batches(stream, start=0, stop=stop, batch_size=2, num_workers=2)


def in_a_process(work):
    """Exit code of a process that runs `work` and leaves as programs do; None: it hangs."""
    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        return None
    return process.exitcode


def test_an_error_comes_as_it_is_and_at_its_place():
    pieces = loader({9: fail})
    assert len([next(pieces) for _ in range(4)]) == 4
    with pytest.raises(DataError) as caught:
        next(pieces)
    assert str(caught.value) == "a.png: cannot be read; take it out"


@pytest.mark.parametrize("error", [DataError, KeyError, OSError])
def test_an_error_whose_traceback_is_kept_does_not_keep_the_exit_waiting(error):
    """The traceback holds the loader: its processes are there when the main one leaves."""

    def work():
        pieces = loader(stop=10**6)
        try:
            next(pieces)
            raise error("in training")
        except error as kept:
            work.kept = kept, pieces

    assert in_a_process(work) == 0


def test_a_killed_process_is_an_error_where_images_are_awaited():
    def work():
        pieces = loader({20: die}, stop=10**6)
        next(pieces)
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL  # none that raises amid work
        with pytest.raises(DataError, match=r"was killed.*num_workers"):
            list(pieces)
        work.kept = pieces

    assert in_a_process(work) == 0


def test_signals_to_all_processes_are_the_main_ones_matter():
    def work():
        read = torch.cat([images[:, 0, 0, 0] for _, images in loader({6: signalled})])
        assert read.tolist() == list(range(40))

    assert in_a_process(work) == 0


def test_a_full_shared_memory_is_an_error_and_other_faults_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(stream_module, "get_worker_info", lambda: "of a loader process")
    monkeypatch.setattr(torch.Tensor, "share_memory_", fail_to("allocate shared memory(shm)"))
    answers = stream_module._Answers(loader_stream(), stream_module.just_images)
    assert "no place in shared memory" in str(answers.__getitems__([0]))
    monkeypatch.setattr(torch.Tensor, "share_memory_", fail_to("do what it should"))
    with pytest.raises(RuntimeError, match="do what it should"):
        answers.__getitems__([0])


def loader_stream():
    return TrainingStream(Numbers(), seed=0, shuffle=False, crop=0, flip=False, rotate=False)


def fail_to(what):
    def share_memory(_):
        raise RuntimeError(f"unable to {what}")

    return share_memory
