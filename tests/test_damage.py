"""Damaged, hostile and replaced files: noticed, named, mended where that can be."""

import csv
import gzip
import random
import re
import shutil
import zipfile

import h5py
import nibabel
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from PIL import Image

from configs import ConfigError, load_config
from datasets import DataError, cache
from datasets.coil_maps import _load as load_maps
from datasets.hdf5 import get_array, open_hdf5
from datasets.identity import check_files, check_outside
from datasets.image_folder import read_grey
from datasets.image_series import open_images
from datasets.measured_files import open_measurement
from datasets.prepare import prepare_dataset
from datasets.volume import open_volume
from evaluation.evaluate import check_settings, evaluate
from evaluation.results.cells import read_cell, read_grid
from evaluation.results.files import SUMS
from evaluation.results.folder import Results, read_keys, read_rows
from evaluation.results.recon_file import read_images
from evaluation.run.measurements import with_end_angle
from evaluation.show.cell_images import CellImages
from models import checkpoint
from models.checkpoint import CheckpointError
from models.unet import UNet
from tests.conftest import ROOT
from tests.helpers.data_writers import write_fastmri
from tests.helpers.reconstruct_inputs import write_ismrmrd
from tests.helpers.tiny_prior import write_prior


def flips(path, count, seed=0, start=0):
    """The file with one changed byte, `count` times; as it was afterwards."""
    content, rng = path.read_bytes(), random.Random(seed)
    for _ in range(count):
        damaged = bytearray(content)
        damaged[rng.randrange(start, len(content))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        yield
    path.write_bytes(content)


# ---- checkpoints


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def test_no_flipped_byte_of_a_checkpoint_is_loaded(tmp_path):
    path = tmp_path / "step_00000001.pt"
    checkpoint.save(path, {"w": torch.arange(500.0), "config": {"a": [1, "b"]}, "step": 1})
    good, seen = checkpoint.load(path), 0
    for _ in flips(path, 300):
        try:
            assert same(checkpoint.load(path), good)  # of bytes that mean nothing
        except CheckpointError:
            seen += 1
    assert seen > 200


def test_a_checkpoint_that_claims_more_than_its_size_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10**6))
    with pytest.raises(CheckpointError, match="claims 1000000 bytes in a file of"):
        checkpoint.load(path)


def change_config(**fields):
    def change(payload):
        config = ConfigDict(payload["config"])
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
        payload["config"] = config.to_dict()

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.pop("ema"),
        lambda p: p.pop("config"),
        lambda p: p.update(config=[1]),
        lambda p: p["config"].pop("sde"),
        lambda p: p["config"].pop("data"),
        lambda p: p["config"]["sde"].update(sigma_min="x"),
        change_config(model__nf=0),
        change_config(model__nf=200_000),
        change_config(model__num_res_blocks=10**9),
        lambda p: p.update(ema=[1]),
        lambda p: p.update(ema={"a": 1}),
        lambda p: p.update(ema=dict.fromkeys(p["ema"], 1)),
    ],
)
def test_a_prior_of_any_other_content_is_a_checkpoint_error(tmp_path, change):
    path = write_prior(tmp_path / "prior.pt")
    payload = checkpoint.load(path)
    change(payload)
    checkpoint.save(path, payload)
    with pytest.raises(CheckpointError, match=r"prior\.pt"):
        checkpoint.load_prior(path, "cpu")
    with pytest.raises(CheckpointError, match=r"prior\.pt"):
        checkpoint.export(path, tmp_path / "out.pt")


def test_a_unet_is_no_prior(tmp_path):
    net = UNet(chans=2, num_pool_layers=1)
    payload = {"config": {}, "model": net.state_dict(), "optimizer": {}, "losses": [], "step": 1}
    checkpoint.save(tmp_path / "unet.pt", payload)
    with pytest.raises(CheckpointError, match=r"expected a trained prior.*sampler\.checkpoint"):
        checkpoint.load_prior(tmp_path / "unet.pt", "cpu")


# ---- caches


@pytest.fixture
def knee(tmp_path):
    for i in range(4):
        split = ("train", "val")[i // 2]
        write_fastmri(tmp_path / f"knee/singlecoil_{split}/f{i}.h5", slices=2, seed=i, kspace=False)
    return tmp_path / "knee"


def disk(root, folder):
    data = {"name": "fastmri", "root": str(root), "cache": "disk", "cache_dir": str(folder)}
    return prepare_dataset(data, "train")


def content(dataset):
    return [(s.key, s.scale, s.image.tolist()) for s in map(dataset.__getitem__, range(4))]


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_cache_gives_the_right_images_and_mends(knee, tmp_path, suffix, monkeypatch):
    expected = content(disk(knee, tmp_path / "cache"))
    (path,) = (tmp_path / "cache").rglob(f"*{suffix}")
    whole = path.read_bytes()
    for _ in flips(path, 40):
        assert content(disk(knee, tmp_path / "cache")) == expected
        if suffix == ".npy":
            assert path.read_bytes() == whole
    builds = []
    monkeypatch.setattr(cache, "_build", lambda *_: builds.append(1))
    assert content(disk(knee, tmp_path / "cache")) == expected
    assert not builds


def test_one_folder_has_one_cache_however_it_is_named(knee, tmp_path, monkeypatch):
    expected = content(disk(knee, tmp_path / "cache"))
    (tmp_path / "link").symlink_to(knee)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "_build", None)  # would fail
    for root in ("knee", "link", tmp_path / "link"):
        assert content(disk(root, tmp_path / "cache")) == expected


def test_the_cache_of_somebody_else_is_not_about_space(knee, tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied", "lock")

    monkeypatch.setattr(cache, "replacing", denied)
    with pytest.raises(
        DataError, match=r"Permission denied.*a folder that you may write to"
    ) as got:
        disk(knee, tmp_path / "cache")
    assert "space" not in str(got.value)


def test_damaged_coil_maps_are_made_again(tmp_path):
    path = tmp_path / "0.npz"
    maps = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.complex64)
    np.savez(path, maps=maps)
    for _ in flips(path, 200):
        loaded = load_maps(path, (2, 8, 8))
        assert loaded is None or np.array_equal(loaded, maps)
    assert np.array_equal(load_maps(path, (2, 8, 8)), maps)


# ---- compressed and hostile inputs


def test_no_flipped_byte_of_a_compressed_volume_is_read(tmp_path):
    path = tmp_path / "v.nii.gz"
    volume = np.random.default_rng(0).integers(0, 9, (16, 16, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    (tmp_path / "list.txt").write_text("v\n")
    good = open_images(path).images
    for _ in flips(path, 100, start=10):
        with pytest.raises(DataError, match=r"v\.nii\.gz"):
            open_images(path)
        with pytest.raises(DataError, match=r"v\.nii\.gz"):  # at opening or reading
            open_volume(tmp_path, "test", split_list=str(tmp_path / "list.txt"))[0]
    assert np.array_equal(open_images(path).images, good)


def test_no_flipped_byte_of_a_png_is_read(tmp_path):
    path = tmp_path / "a.png"
    good = np.random.default_rng(0).integers(0, 99, (16, 16), np.uint8)
    Image.fromarray(good).save(path)
    seen = 0
    for _ in flips(path, 300):
        try:
            found = read_grey(path)
        except DataError:
            seen += 1
        else:
            assert np.array_equal(found, good)
    assert seen > 250


def test_a_small_nifti_file_cannot_claim_gigabytes(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / "n.nii")
    content = bytearray((tmp_path / "n.nii").read_bytes())
    content[40:56] = np.array([3, 1024, 1024, 768, 1, 1, 1, 1], np.int16).tobytes()
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"claims 3221225472 bytes in a file of"):
        open_images(tmp_path / "c.nii.gz")


def test_small_hdf5_files_cannot_claim_gigabytes(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = np.ones((2, 8, 8), np.complex64)
        file.create_dataset("mask", shape=(16000, 16000), dtype="u1", chunks=(1000, 1000))
    with pytest.raises(DataError, match=r"'mask'.*claims 256000000 bytes"):
        open_measurement(path)


def test_a_small_ismrmrd_file_cannot_claim_gigabytes(tmp_path):
    path = write_ismrmrd(tmp_path / "a.h5", np.ones((1, 2, 8, 8), np.complex64), np.ones(8))
    with h5py.File(path, "r+") as file:
        text = file["dataset/xml"][0].decode()
        file["dataset/xml"][0] = re.sub("<([xy])>8<", r"<\1>60000<", text, count=2)
    with pytest.raises(DataError, match="claims 57600000000 bytes in a file of"):
        open_measurement(path)


def test_arrays_that_are_not_asked_for_stay_unread(tmp_path):
    kspace = np.ones((2, 8, 8), np.complex64)
    np.savez(tmp_path / "a.npz", kspace=kspace, other=np.ones(10_000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[-5000] ^= 1  # in the other array
    (tmp_path / "a.npz").write_bytes(content)
    assert np.array_equal(open_measurement(tmp_path / "a.npz").read(0), kspace)


def pointing_files(folder):
    """HDF5 files whose data lie in others, by how they do it."""
    (folder / "secret").write_bytes(bytes(range(256)) * 16)
    with h5py.File(folder / "other.h5", "w") as file:
        file["kspace"] = np.ones((2, 8, 8), np.complex64)
    with h5py.File(folder / "external.h5", "w") as file:
        file["ok"] = np.ones(3)
        where = [(str(folder / "secret"), 0, 1024)]
        file.create_dataset("kspace", shape=(2, 8, 8), dtype="c8", external=where)
    with h5py.File(folder / "link.h5", "w") as file:
        file["deep/kspace"] = h5py.ExternalLink("other.h5", "/kspace")
        file["kspace"] = h5py.SoftLink("/deep/kspace")
    with h5py.File(folder / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((2, 8, 8), "c8")
        layout[:] = h5py.VirtualSource("other.h5", "kspace", (2, 8, 8))
        file.create_virtual_dataset("kspace", layout)
    return [folder / f"{name}.h5" for name in ("external", "link", "virtual")]


def test_hdf5_files_that_point_at_others_are_refused(tmp_path):
    for path in pointing_files(tmp_path):
        with pytest.raises(DataError, match=r"in the file itself.*points at other files"):
            open_measurement(path)
    with h5py.File(tmp_path / "soft.h5", "w") as file:  # into itself is fine
        file["deep/kspace"] = np.ones((2, 8, 8), np.complex64)
        file["kspace"] = h5py.SoftLink("/deep/kspace")
    with open_hdf5(tmp_path / "soft.h5") as file:
        assert get_array(file, tmp_path / "soft.h5", "kspace", "").shape == (2, 8, 8)


# ---- results


def config_of(root, **fields):
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    names = sorted(path.name for path in root.glob("*/*.h5"))
    (root.parent / "names.txt").write_text("\n".join(names))
    given = {"data.name": "fastmri", "data.subset": "", "data.root": str(root), "panels": 0}
    given |= {"data.split": "test", "data.split_list": str(root.parent / "names.txt")}
    config.update_from_flattened_dict(given | {"sampler.name": "zero_filled"} | fields)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A config, and what evaluate made of it; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_fastmri(folder / "knee/singlecoil_val/f0.h5", slices=3, kspace=False)
    config = with_end_angle(config_of(folder / "knee"))
    evaluate(config, folder / "out", "cpu")
    return config, folder / "out"


@pytest.fixture
def results(finished, tmp_path):
    """A copy of them."""
    shutil.copytree(finished[1], tmp_path / "out")
    return finished[0], tmp_path / "out"


def test_no_flipped_byte_of_recon_h5_is_read(results):
    _, results = results
    good = read_images(results)
    for _ in flips(results / "recon.h5", 100):
        try:
            found = read_images(results)
        except ConfigError as error:
            assert "recon.h5" in str(error)  # noqa: PT017 not always raised
        else:
            assert found.keys() == good.keys()
            assert all(np.array_equal(found[key], good[key]) for key in good)
    with h5py.File(results / "recon.h5") as file:
        assert file["reconstruction"].fletcher32


@pytest.mark.parametrize("name", ["config.json", "info.json", "keys.txt", "metrics.csv", SUMS])
def test_a_flipped_byte_of_a_text_file_is_named(results, name):
    config, results = results
    assert {"config.json", "keys.txt", "volumes.csv"} <= {
        line.split("  ")[1] for line in (results / SUMS).read_text().splitlines()
    }
    for _ in flips(results / name, 10):
        with pytest.raises(ConfigError, match=name if name != SUMS else "out/"):
            read_cell(results)
        with pytest.raises(ConfigError, match=name if name != SUMS else "out/"):
            check_settings(config, results, None)
    read_cell(results)
    check_settings(config, results, None)


def test_without_checksums_damaged_text_files_are_named_all_the_same(results):
    _, results = results
    (results / SUMS).unlink()
    cases = {
        "config.json": (b"{", b"["),
        "info.json": (b'"', b"\xff"),
        "metrics.csv": (b"\n", b'"'),
    }
    for name, (old, new) in cases.items():
        content = (results / name).read_bytes()
        (results / name).write_bytes(content.replace(old, new, 1))
        with pytest.raises(ConfigError, match=name):
            read_cell(results)
        (results / name).write_bytes(content)


def test_a_damaged_part_is_done_again(tmp_path, caplog):
    keys = [f"f{i}.h5:{k}" for i in range(4) for k in range(2)]
    first = Results(tmp_path / "out", "{}", keys=keys)
    for number, key in enumerate(keys[:3]):
        image = np.full((24, 20), number, np.float32)
        first.add(key, image, {"psnr": 1.0, "measurement_hash": "x"})
    assert Results(tmp_path / "out", "{}", keys=keys).finished == set(keys[:3])
    image, outcome = first._part(keys[0], ".npz"), first._part(keys[1], ".json")
    whole = image.read_bytes()
    image.write_bytes(whole[:999] + bytes([whole[999] ^ 1]) + whole[1000:])
    assert Results(tmp_path / "out", "{}", keys=keys).finished == set(keys[1:3])
    image.write_bytes(whole)
    text = outcome.read_text()
    outcome.write_text(text.replace("1.0", "9.0", 1))
    (tmp_path / "out" / "metrics.csv").unlink()
    again = Results(tmp_path / "out", "{}", keys=keys)
    assert again.finished == {keys[0], keys[2]}
    assert "damaged" in caplog.text


def test_keys_of_any_name_come_back(tmp_path):
    keys = ["plain.png", "n\nl", "c\rr", "\u2028", "\x85", "\x0c", "\udcff", '"quoted"', " a ", "ü"]
    results = Results(tmp_path, "{}", keys=keys)
    for key in keys:
        results.add(key, np.zeros((2, 2), np.float32), {"psnr": 1.0})
    assert read_keys(tmp_path) == keys
    assert {row["key"] for row in csv_rows(tmp_path / "metrics.csv")} == set(keys)
    again = Results(tmp_path, "{}", keys=keys)
    assert again.finished == set(keys)
    again.gather()
    assert list(read_images(tmp_path)) == [row["key"] for row in read_rows(tmp_path)] == keys
    assert len({results.panel(key) for key in ["x" * 300, "x" * 301]}) == 2
    assert len(results.panel("x" * 300).name) < 255


def csv_rows(path):
    with path.open(newline="\n", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


# ---- data that were replaced, results among the data


def test_replaced_data_are_refused_and_repaired_or_moved_ones_are_not(knee, tmp_path):
    config = config_of(knee, limit=5)
    evaluate(config, tmp_path / "out", "cpu")
    (tmp_path / "elsewhere").mkdir()
    knee.rename(tmp_path / "elsewhere" / "knee")
    moved = config_of(tmp_path / "elsewhere" / "knee", limit=6)
    moved.data.split_list = config.data.split_list
    evaluate(moved, tmp_path / "out", "cpu")
    root = tmp_path / "elsewhere" / "knee"
    write_fastmri(root / "singlecoil_val/f3.h5", slices=2, seed=9, kspace=False)  # not used so far
    moved.limit = 7
    evaluate(moved, tmp_path / "out", "cpu")
    write_fastmri(root / "singlecoil_train/f0.h5", slices=2, seed=9, kspace=False)
    moved.limit = 8
    with pytest.raises(DataError, match=r"made of other data.*f0\.h5:0, f0\.h5:1; bring the old"):
        evaluate(moved, tmp_path / "out", "cpu")
    images = CellImages(read_cell(tmp_path / "out"))
    images.config.data.root = str(root)
    with pytest.raises(ValueError, match=r"f0\.h5:0: has changed since"):
        images.target("f0.h5:0")
    assert images.target("f1.h5:0").shape == (24, 20)


def test_files_are_compared_by_content_not_by_time_or_place(knee, tmp_path):
    data = {"name": "fastmri", "root": str(knee)}
    path = tmp_path / "files.csv"
    check_files(path, prepare_dataset(data, "train"), data)
    assert [row["file"] for row in csv_rows(path)] == [f"singlecoil_train/f{i}.h5" for i in (0, 1)]
    knee.rename(tmp_path / "moved")
    data["root"] = str(tmp_path / "moved")
    for kind in ("none", "memory", "disk"):
        how = data | {"cache": kind, "cache_dir": str(tmp_path / "cache")}
        check_files(path, prepare_dataset(how, "train"), data)
    write_fastmri(tmp_path / "moved/singlecoil_train/f1.h5", slices=2, seed=5, kspace=False)
    with pytest.raises(DataError, match=r"files\.csv.*gone: singlecoil_train/f1\.h5; bring"):
        check_files(path, prepare_dataset(data, "train"), data)


def test_results_may_not_lie_in_the_folder_of_the_data(knee, tmp_path):
    data = {"name": "fastmri", "root": str(knee)}
    (tmp_path / "link").symlink_to(knee)
    for folder in (knee, knee / "runs" / "a", tmp_path / "link" / "out"):
        with pytest.raises(DataError, match=r"would become data; choose another --out"):
            check_outside(folder, data, "--out")
    check_outside(tmp_path / "out", data, "--out")
    with pytest.raises(DataError, match="would become data"):
        evaluate(config_of(knee), knee / "out", "cpu")
    assert not (knee / "out").exists()


def test_a_folder_of_results_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "data" / "measurement" / "method").mkdir(parents=True)
    real = type(tmp_path).iterdir

    def iterdir(path):
        if path.name == "measurement":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(type(tmp_path), "iterdir", iterdir)
    with pytest.raises(PermissionError, match="measurement"):
        read_grid([tmp_path])
