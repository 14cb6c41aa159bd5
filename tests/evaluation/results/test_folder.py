"""The results folder: images, rows and temporary files, whole or not at all."""

import multiprocessing
import os
import time

import numpy as np
import pytest

from datasets.files import ABANDONED, locked, remove_abandoned, replacing, write_atomically
from evaluation.results.folder import WRITE_LOCK, Results, read_rows
from evaluation.results.recon_file import NAMES, open_reconstructions, read_images, rewrite
from evaluation.results.volumes import are_neighbours, volume_of
from evaluation.run.shards import Shard


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


def test_a_file_without_quantiles_stays_readable(tmp_path):
    """Made before there were any; more slices are added to it."""
    image = np.ones((2, 3), np.float32)
    new = {name: k * image for k, name in enumerate(NAMES)}
    rewrite(tmp_path, ["a"], lambda key: {"reconstruction": image, "std": 2 * image})
    rewrite(tmp_path, ["a", "b"], lambda key: new if key == "b" else None)
    np.testing.assert_array_equal(read_images(tmp_path)["a"], image)
    np.testing.assert_array_equal(read_images(tmp_path, "std")["b"], new["std"])


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


def test_images_of_a_slice_that_another_process_gathered_meanwhile_are_removed(tmp_path):
    """Of the same slice: images, [gathered], row, which is what whoever gathers removes last."""
    ours, theirs = (Results(tmp_path, "{}", keys=["a"], alone=False) for _ in range(2))
    ours.add("a", np.zeros((2, 2), np.float32), {"psnr": 1.0})
    real = theirs._write_outcome

    def write_outcome(*given):
        real(*given)
        images = next((tmp_path / "parts").glob("*.npz"))
        content = images.read_bytes()
        ours.gather()
        write_atomically(images, content)

    theirs._write_outcome = write_outcome
    theirs.add("a", np.zeros((2, 2), np.float32), {"psnr": 1.0})
    theirs.gather()
    assert not (tmp_path / "parts").exists()
    assert list(read_images(tmp_path)) == ["a"]


def test_rows_are_not_published_while_another_process_gathers(tmp_path):
    """It may have read them before they were gathered, and would then write too few."""
    results = Results(tmp_path, "{}", keys=["a"], alone=False)
    process = multiprocessing.get_context("fork").Process(target=results.publish)
    with locked(tmp_path / WRITE_LOCK):
        process.start()
        process.join(0.3)
        assert process.is_alive()
    process.join(60)
    assert process.exitcode == 0


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


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (range(3, 11), True),
        (range(7), False),  # too few
        ([*range(8), 9], False),  # a gap
        (range(8, 0, -1), False),
    ],
)
def test_neighbours_of_a_volume(numbers, expected):
    assert are_neighbours([f"a:b.h5:{n}" for n in numbers]) == expected
    assert not are_neighbours([f"a{n}.png" for n in numbers])
