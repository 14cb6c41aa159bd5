"""Caches, the check of every item, the training stream, and `python -m datasets.check`."""

import errno
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from absl import flags
from PIL import Image

import datasets.cache
from configs import load_config
from datasets import DataError, create_dataset
from datasets import check as inspection
from datasets.cache import DiskCache, open_cache
from datasets.prepare import prepare_dataset
from datasets.stream import TrainingStream, batches
from tests.conftest import PATIENCE, ROOT
from tests.helpers.data_writers import (
    overwrite,
    truncate,
    write_dicom,
    write_fastmri,
    write_lodopab,
    write_picture,
)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def knee(tmp_path):
    """Two volumes of three slices in each of two splits."""
    for i in range(4):
        split = ("train", "val")[i // 2]
        write_fastmri(tmp_path / f"knee/singlecoil_{split}/f{i}.h5", slices=3, seed=i)
    return tmp_path / "knee"


def fields(root, cache_dir="", **more):
    return {"name": "fastmri", "root": str(root), "cache_dir": str(cache_dir), **more}


def disk(root, cache_dir, **more):
    return prepare_dataset(fields(root, cache_dir, cache="disk", **more), "train")


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")


def stream(dataset, **more):
    options = {"seed": 3, "shuffle": True, "crop": 0, "flip": False, "rotate": False} | more
    return TrainingStream(dataset, **options)


# --- the disk cache ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["magnitude", "complex"])
def test_the_cache_gives_the_same_items(knee, cache, mode):
    data = create_dataset(fields(knee, mode=mode), "train")
    cached = disk(knee, cache, mode=mode)
    assert isinstance(cached, DiskCache)
    assert cached.keys == data.keys
    for i in range(len(data)):
        expected, item = data[i], cached[i]
        assert torch.equal(item.image, expected.image)
        assert (item.key, item.scale) == (expected.key, expected.scale)
    path, index = files(cache)[1], json.loads(files(cache)[0].read_text())
    assert np.load(path, mmap_mode="r").shape == tuple(index["shape"]) == (6, 1, 24, 20)
    assert torch.equal(cached.images([5, 0]), torch.stack([data[5].image, data[0].image]))
    assert torch.equal(pickle.loads(pickle.dumps(cached))[1].image, data[1].image)
    assert len(pickle.dumps(cached)) < 4000


def test_parallel_building_gives_the_same(tmp_path, cache):
    for i in range(3):
        write_lodopab(tmp_path / f"d/ground_truth_train_00{i}.hdf5", slices=40, size=16, seed=i)
    data = {"name": "lodopab", "root": str(tmp_path / "d"), "cache": "disk", "image_size": 8}
    one = prepare_dataset({**data, "cache_dir": str(cache / "1")}, "train", processes=1)
    two = prepare_dataset({**data, "cache_dir": str(cache / "2")}, "train", processes=2)
    assert one.keys == two.keys
    assert len(one) == 120
    assert torch.equal(one.images(range(120)), two.images(range(120)))


def test_the_cache_is_built_once_and_again_when_a_source_changes(knee, cache, monkeypatch):
    builds = []
    real = datasets.cache._build
    monkeypatch.setattr("datasets.cache._build", lambda *a: builds.append(1) or real(*a))
    first = disk(knee, cache)[4].image
    assert torch.equal(disk(knee, cache)[4].image, first)
    assert len(builds) == 1
    overwrite(knee / "singlecoil_train/f1.h5", "reconstruction_rss", (1, 3, 3), 1.0)
    changed = disk(knee, cache)
    assert len(builds) == 2
    assert changed[4].scale[1] == 1.0
    assert len(files(cache)) == 2  # the old one is gone
    os.utime(knee / "singlecoil_train/f0.h5", ns=(1, 1))
    disk(knee, cache)
    write_fastmri(knee / "singlecoil_train/f9.h5", slices=3)
    assert len(disk(knee, cache)) == 9
    disk(knee, cache, image_size=16)
    assert len(builds) == 5
    assert len(files(cache)) == 4  # other settings lie beside


def test_a_half_built_cache_is_never_read(knee, cache, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("datasets.cache._write_items", die)
    with pytest.raises(KeyboardInterrupt):
        disk(knee, cache)
    assert not files(cache)
    monkeypatch.undo()
    monkeypatch.setattr("datasets.cache.write_atomically", die)  # array there, index not
    with pytest.raises(KeyboardInterrupt):
        disk(knee, cache)
    monkeypatch.undo()
    expected = [sample.image for sample in map(disk(knee, cache).__getitem__, range(6))]
    index, array = files(cache)
    for damage in (lambda: truncate(array), lambda: truncate(index), array.unlink, index.unlink):
        damage()
        again = disk(knee, cache)
        assert all(torch.equal(again[i].image, expected[i]) for i in range(6))


def _build_slowly(root, cache_dir, queue):
    real = datasets.cache._build

    def build(*args):
        queue.put("build")
        time.sleep(0.3)
        real(*args)

    datasets.cache._build = build
    queue.put(float(disk(root, cache_dir)[0].image.sum()))


def test_only_one_of_several_processes_builds(knee, cache):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_build_slowly, args=(knee, cache, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    got = [queue.get(timeout=PATIENCE) for _ in range(4)]
    assert got.count("build") == 1
    assert len({x for x in got if x != "build"}) == 1


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk(knee, cache, monkeypatch, call):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(DataError, match=r"No space left.*free some space.*data\.cache_dir"):
        disk(knee, cache)
    assert not files(cache)


def test_where_the_cache_may_lie(knee, tmp_path, monkeypatch):
    before = files(knee)
    with pytest.raises(DataError, match=r"lies in the data's folder.*data\.cache_dir"):
        disk(knee, knee / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    disk(knee, "")
    assert files(tmp_path / "xdg/score-priors/images")
    assert files(knee) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the cache.*data\.cache_dir"):
        disk(knee, tmp_path / "file/below")


def test_what_the_disk_cache_cannot_hold(tmp_path, cache):
    for i in range(5):
        write_picture(tmp_path / f"p/{i}.png", size=(30 + i, 30))
    data = {"name": "image_folder", "root": str(tmp_path / "p"), "cache": "disk"}
    with pytest.raises(DataError, match=r"png.*expected an image of.*data\.image_size"):
        prepare_dataset({**data, "cache_dir": str(cache)}, "train")
    for split in ("train", "val"):
        write_fastmri(tmp_path / f"f/singlecoil_{split}/f{split}.h5")
    knee = {"name": "fastmri", "root": str(tmp_path / "f"), "load_kspace": True, "cache": "disk"}
    with pytest.raises(DataError, match=r"holds images alone, not kspace.*none or memory"):
        prepare_dataset({**knee, "cache_dir": str(cache)}, "val")
    with pytest.raises(DataError, match=r"'ram'.*none, memory, disk"):
        prepare_dataset({**data, "cache": "ram"}, "train")


@pytest.mark.parametrize("limit", [0, 9])
def test_lesion_masks_stay_where_they_are(cache, limit):
    brain = {"name": "samples", "subset": "brain"}
    source = create_dataset(brain, "test")
    for _ in range(2):  # built, opened
        data = prepare_dataset(
            {**brain, "cache": "disk", "cache_dir": str(cache)}, "test", limit=limit, processes=1
        )
        assert len(data) == limit or len(source)
        for i in (4, 7):
            assert torch.equal(data[i].image, source[i].image)
            assert torch.equal(data[i].extras["lesions"], source[i].extras["lesions"])
        assert data[4].extras["lesions"].any()


def test_a_killed_worker_is_an_error(tmp_path, cache):
    class Deadly(torch.utils.data.Dataset):
        keys, files, skipped = [str(i) for i in range(99)], [], []

        def __len__(self):
            return 99

        def __getitem__(self, i):
            if i == 50:
                os._exit(9)
            return create_dataset({"name": "samples", "subset": "ct"}, "val")[0]

    with pytest.raises(DataError, match=r"was killed.*memory"):
        open_cache(Deadly(), settings={}, cache_dir=str(cache), processes=2)
    assert not files(cache)


# --- bad items -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_bad_items_are_found_before_training(knee, cache, kind, caplog):
    overwrite(knee / "singlecoil_train/f0.h5", "reconstruction_rss", (1, 2, 2), np.nan)
    overwrite(knee / "singlecoil_train/f1.h5", "reconstruction_rss", 0, 7.0)
    data = fields(knee, cache, cache=kind)
    with pytest.raises(DataError, match=r"f0\.h5:1.*NaN"):
        prepare_dataset(data, "train")
    for _ in range(2):
        prepared = prepare_dataset({**data, "skip_bad": True}, "train")
        assert prepared.keys == ["f0.h5:0", "f0.h5:2", "f1.h5:1", "f1.h5:2"]
        assert [prepared[i].key for i in range(len(prepared))] == prepared.keys
        assert len(prepared.skipped) == 2
        assert "left out 2, kept 4" in caplog.text
        caplog.clear()
    assert len(prepare_dataset({**data, "skip_bad": True}, "train", limit=2)) == 1


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_nothing_left(knee, cache, kind):
    for i in range(2):
        overwrite(knee / f"singlecoil_train/f{i}.h5", "reconstruction_rss", slice(None), 7.0)
    with pytest.raises(DataError, match=r"every image|none of the"):
        prepare_dataset(fields(knee, cache, cache=kind, skip_bad=True), "train")


def test_corrupt_pictures_are_found_before_training(tmp_path):
    for i in range(8):
        write_picture(tmp_path / f"{i}.jpg", size=(200, 150), seed=i)
    for i in range(8):
        truncate(tmp_path / f"{i}.jpg")
    with pytest.raises(DataError, match=r"\.jpg.*decoded"):
        prepare_dataset({"name": "image_folder", "root": str(tmp_path)}, "train")


def test_images_that_cannot_be_augmented_or_batched_are_found_before_training(tmp_path):
    root = tmp_path / "p"
    root.mkdir()
    for i in range(40):
        side = {4: 12, 9: 10}.get(i, 24)
        pixels = np.random.default_rng(i).integers(0, 255, (side, 24), np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02d}.png")
    (tmp_path / "train.txt").write_text("".join(f"{i:02d}.png\n" for i in range(40)))
    data = {"name": "image_folder", "root": str(root)}
    data["split_list"] = str(tmp_path / "{split}.txt")
    for kind in ("none", "memory"):
        with pytest.raises(DataError, match=r"04\.png.*at least 16 x 16 to crop from, got 12 x 24"):
            prepare_dataset({**data, "cache": kind, "crop": 16}, "train")
        kept = prepare_dataset({**data, "cache": kind, "crop": 16, "skip_bad": True}, "train")
        assert len(kept) == 38
    with pytest.raises(DataError, match=r"04\.png.*expected a square image to rotate"):
        prepare_dataset({**data, "rotate": True}, "train")
    with pytest.raises(DataError, match=r"04\.png.*one size.*\(12, 24\) beside \(24, 24\) of 00"):
        prepare_dataset(data, "train", same_size=True)
    assert len(prepare_dataset(data, "train")) == 40
    disk = {
        **data,
        "image_size": 8,
        "cache": "disk",
        "cache_dir": str(tmp_path / "cache"),
        "crop": 16,
    }
    with pytest.raises(DataError, match=r"at least 16 x 16"):
        prepare_dataset(disk, "train")


# --- the training stream -------------------------------------------------------------------------


AUGMENTATIONS = [
    {},
    {"crop": 12, "flip": True, "rotate": True},
    {"crop": 12, "shrink": 0.8, "gamma": 0.5, "background": 0.5},
]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_every_cache_and_number_of_workers_gives_the_same_stream(knee, cache, augmentation):
    got = []
    for kind in ("none", "memory", "disk"):
        data = prepare_dataset(fields(knee, cache, cache=kind), "train")
        for workers in (0, 2):
            loader = batches(
                stream(data, **augmentation), start=1, stop=7, batch_size=2, num_workers=workers
            )
            numbers, images = zip(*loader, strict=True)
            assert numbers[0] == range(2, 4)
            got.append(torch.cat(images))
    assert all(torch.equal(got[0], other) for other in got)
    single = stream(prepare_dataset(fields(knee), "train"), **augmentation)
    assert torch.equal(got[0][3], single[5])


@pytest.mark.parametrize(
    ("augmentation", "elsewhere"), list(zip(AUGMENTATIONS, (0, 0, 1), strict=True))
)
def test_images_in_memory_are_augmented_elsewhere_where_that_takes_long(
    knee, cache, augmentation, elsewhere
):
    data = prepare_dataset(fields(knee, cache, cache="memory"), "train")
    here = os.getpid()

    def finish(numbers, images):
        return images, torch.tensor([os.getpid() != here] * len(numbers))

    for workers in (0, 1):
        loader = batches(
            stream(data, **augmentation),
            start=0,
            stop=2,
            batch_size=2,
            num_workers=workers,
            finish=finish,
        )
        for _, (images, away) in loader:
            assert images.shape[0] == 2
            assert away.tolist() == [bool(workers and elsewhere)] * 2


def test_the_order_depends_on_seed_and_epoch_only(knee):
    data = prepare_dataset(fields(knee), "train")

    def order(seed, epoch):
        return [stream(data, seed=seed)._index(epoch, p) for p in range(6)]

    assert sorted(order(0, 0)) == list(range(6))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    torch.rand(3)
    np.random.default_rng()
    assert [stream(data, shuffle=False)._index(e, 4) for e in (0, 7)] == [4, 4]


def test_images_of_several_sizes_need_a_crop(tmp_path):
    for i in range(5):
        write_picture(tmp_path / f"{i}.png", size=(30 + i, 30))
    data = prepare_dataset({"name": "image_folder", "root": str(tmp_path)}, "train")
    assert stream(data, crop=20).__getitems__([0, 1, 2]).shape == (3, 1, 20, 20)
    with pytest.raises(DataError, match=r"one size.*data\.crop"):
        stream(data).__getitems__([0, 1, 2])


def test_memory_stays_flat(tmp_path, cache):
    """A tenth of the benchmark's epochs; what a leak of an image a batch would show."""
    write_lodopab(tmp_path / "d/ground_truth_train_000.hdf5", slices=60, size=128)
    data = {
        "name": "lodopab",
        "root": str(tmp_path / "d"),
        "cache": "disk",
        "cache_dir": str(cache),
    }
    training = stream(prepare_dataset(data, "train"))

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def epochs(number):
        for _ in batches(training, start=0, stop=15 * number, batch_size=4, num_workers=0):
            pass

    epochs(2)
    before = resident()
    epochs(20)
    assert resident() - before < 4e6  # 20 epochs hold 79 MB


# --- inspect -------------------------------------------------------------------------------------


def test_inspect(knee, tmp_path, capsys):
    overwrite(knee / "singlecoil_val/f2.h5", "reconstruction_rss", (1, 2, 2), np.nan)
    truncate(knee / "singlecoil_val/f3.h5")
    config = load_config(str(ROOT / "configs/fastmri_knee.py"))
    config.data.update({"root": str(knee), "image_size": 0, "slices": ""})
    reports = inspection.inspect(config, tmp_path / "sheet.png", 0)
    text = capsys.readouterr().out
    assert reports["train"].items == reports["train"].read == 6
    assert "train: 6 images in 2 files" in text
    assert "24 x 20 float32 (6)" in text
    assert "f2.h5:1: expected finite" in text
    assert "f3.h5: expected an intact HDF5" in text
    assert "split 'test'" in text
    with h5py.File(knee / "singlecoil_train/f0.h5") as file:
        assert reports["train"].low <= file["reconstruction_rss"][:].min()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] == 1280
        assert np.asarray(sheet).std() > 5
    assert not list(knee.rglob("*.png"))


def test_the_command_inspects(tmp_path):
    command = [sys.executable, "-m", "datasets.check", "--config=configs/demo.py"]
    sheet = tmp_path / "sheet.png"
    done = subprocess.run(
        [*command, f"--sheet={sheet}"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "problems: none" in done.stdout
    assert sheet.is_file()


def test_inspect_says_when_nothing_is_there(tmp_path):
    config = load_config(str(ROOT / "configs/ct.py"))
    (tmp_path / "empty").mkdir()
    config.data.root = str(tmp_path / "empty")
    with pytest.raises(DataError, match="no split"):
        inspection.inspect(config, tmp_path / "sheet.png", 10)
    with pytest.raises(DataError, match="would become data; choose another --sheet"):
        inspection.inspect(config, tmp_path / "empty" / "sheet.png", 10)
    assert "sheet" not in flags.FLAGS  # only the command defines flags


CONFIGS = [p for p in sorted((ROOT / "configs").glob("*.py")) if "def get_config(" in p.read_text()]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_names_a_data_set_and_its_fields(path, tmp_path, knee):
    if path.stem in ("__init__", "base", "reconstruct", "sample"):  # without a data set to name
        return
    data = load_config(str(path)).data
    if data.name == "samples":
        assert len(create_dataset(data, "test")) > 0
        return
    data.root = str(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"got none.*data\.root"):
        create_dataset(data, "train")


def test_rsna_through_the_disk_cache(tmp_path, cache):
    hu = np.random.default_rng(0).integers(0, 80, (32, 32))
    for i in range(4):
        write_dicom(tmp_path / f"r/ID_{i}.dcm", hu + i)
    data = {"name": "rsna_head", "root": str(tmp_path / "r"), "cache": "disk", "image_size": 16}
    assert prepare_dataset({**data, "cache_dir": str(cache)}, "train")[0].image.shape[-1] == 16
