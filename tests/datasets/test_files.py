"""The one writer of files and the locks: whole or not at all, modes, full disks, who waits."""

import errno
import fcntl
import io
import multiprocessing
import os
import stat
import time

import h5py
import numpy as np
import pytest
import torch

from datasets import files
from datasets.files import FolderInUseError, holding, locked, replacing, write_atomically


def fork(target, *arguments):
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


# ---- writing


def fill_disk(monkeypatch, room):
    """Let `os.write` take that many bytes in all, as a disk that gets full."""
    real, left = os.write, room

    def write(descriptor, data):
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(descriptor, bytes(data[:left]))
        left -= done
        return done

    monkeypatch.setattr(files.os, "write", write)


def write_text(path):
    write_atomically(path, "new " * 10_000)


def write_torch(path):
    with replacing(path) as file:
        torch.save({"x": torch.zeros(10_000)}, file)


def write_hdf5(path):
    with replacing(path) as target, h5py.File(target, "w") as file:
        file.create_dataset("x", data=np.random.default_rng(0).random(10_000), chunks=(100,))


WRITERS = [write_text, write_torch, write_hdf5]


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_written_is_whole_and_has_the_umasks_mode(tmp_path, write):
    path = tmp_path / "folder" / "file"  # the folder is made
    old = os.umask(0o027)
    try:
        write(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == ["file"]
    if write is write_torch:
        assert torch.load(path)["x"].shape == (10_000,)
    if write is write_hdf5:
        with h5py.File(path) as file:
            assert file["x"][-1] == np.random.default_rng(0).random(10_000)[-1]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("room", [0, 5_000, 30_000])
def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path, monkeypatch, capfd, write, room):
    path = tmp_path / "file"
    path.write_text("old")
    fill_disk(monkeypatch, room)
    with pytest.raises(OSError, match=r"No space left on device \(an older.*free some") as caught:
        write(path)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    assert capfd.readouterr().err == ""  # HDF5 would print pages


def test_an_error_of_the_content_is_raised_as_it_is(tmp_path):
    with pytest.raises(KeyError), replacing(tmp_path / "file"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_links_are_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "precious").read_text() == "years of work"
    assert (tmp_path / "link").read_text() == "new"


def test_long_names_and_names_that_are_not_utf_8(tmp_path):
    for name in ("x" * 255, "a\udcffb", "n\nl"):
        write_atomically(tmp_path / name, f"of {name}")
        assert files.read_text(tmp_path / name) == f"of {name}"


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write_atomically(tmp_path / "file", "")
    assert caught.value.filename == str(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_new_file_reads_back_and_seeks(tmp_path):
    with replacing(tmp_path / "file") as file:
        file.write(b"0123456789")
        file.seek(3)
        assert file.read(2) == b"34"
        file.truncate(5)
        file.seek(0, io.SEEK_END)
        file.write(memoryview(np.arange(2, dtype=np.uint8)))
    assert (tmp_path / "file").read_bytes() == b"01234\x00\x01"


# ---- locks


def hold(folder, shared, pipe):
    with holding(folder, shared=shared):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def other(tmp_path):
    """A function that starts a process which holds `tmp_path`; gives it, and a pipe to end it."""
    started = []

    def start(shared):
        ours, theirs = multiprocessing.Pipe()
        started.append((fork(hold, tmp_path, shared, theirs), ours))
        assert ours.recv() == "held"
        return started[-1]

    yield start
    for process, _ in started:
        process.kill()
        process.join()


@pytest.mark.parametrize(
    ("theirs", "ours", "both"), [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, True)]
)
def test_a_folder_is_held_alone_or_shared(tmp_path, monkeypatch, other, theirs, ours, both):
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    other(bool(theirs))
    if both:
        with holding(tmp_path, shared=True) as held:
            assert not held.is_last()
    else:
        with (
            pytest.raises(FolderInUseError, match="another process works on this folder"),
            holding(tmp_path, shared=bool(ours)),
        ):
            pass


def test_the_lock_of_a_killed_process_does_not_block(tmp_path, other):
    """Nor that of one whose child lives on, as loader processes may for seconds."""
    process, _ = other(False)
    process.kill()
    process.join(30)
    with holding(tmp_path) as held:
        child = fork(time.sleep, 30)
        assert held.is_last()
    try:
        with holding(tmp_path):
            pass
    finally:
        child.kill()
        child.join()


def test_a_process_that_is_about_to_leave_is_waited_for(tmp_path, other):
    process, pipe = other(False)
    pipe.send("end")
    with holding(tmp_path):
        pass
    process.join(30)
    assert process.exitcode == 0


def test_file_systems_without_locks_go_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with holding(tmp_path) as held, locked(tmp_path / "other"):
        assert not held.is_last()
    assert "has no locks" in caplog.text


def test_a_lock_that_is_a_link_is_refused_and_its_target_left(tmp_path):
    (tmp_path / "precious").write_text("years of work")
    for name in (files.LOCK, "lock"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="got a link; remove it"), holding(tmp_path):
        pass
    with pytest.raises(OSError, match="got a link; remove it"), locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "precious").read_text() == "years of work"


def test_a_folder_that_another_process_removes_is_made_again(tmp_path, monkeypatch):
    real, left = files.NewFile, 3

    def new_file(path):
        nonlocal left
        if left:
            left -= 1
            path.parent.rmdir()  # between making it and the file in it
        return real(path)

    monkeypatch.setattr(files, "NewFile", new_file)
    write_atomically(tmp_path / "parts" / "a.json", "{}")
    assert (tmp_path / "parts" / "a.json").read_text() == "{}"
    left = 100
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "other" / "a.json", "{}")
