"""Data sets: what they give, that splits are disjoint and stable, and that bad input says so."""

import hashlib
import math
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from PIL import Image
from scipy.ndimage import binary_dilation
from torch.utils.data import DataLoader

from datasets import DATASETS, DataError, Sample, collate, create_dataset
from datasets.augment import augment
from datasets.embedded import NATURAL, SAMPLES
from datasets.fastmri import PD, PDFS, open_fastmri
from datasets.image_folder import open_image_folder
from datasets.lodopab import open_lodopab
from datasets.prepare import prepare_dataset
from datasets.slices import choose_slices
from datasets.splits import seeded_split
from evaluation.evaluate import number_people
from tests.helpers.data_writers import (
    overwrite,
    truncate,
    write_fastmri,
    write_lodopab,
    write_picture,
)

SPLITS = ("train", "val", "test")
SUBSETS = ("brain", "ct", "natural")


def samples(subset, split="test", **fields):
    return create_dataset({"name": "samples", "subset": subset, **fields}, split)


def ring(mask, width=3):
    """Pixels around a mask, with a gap of one."""
    return binary_dilation(mask, iterations=width + 1) & ~binary_dilation(mask)


@pytest.fixture
def knee(tmp_path):
    """Folders as the unpacked archives: three training and two validation volumes."""
    for i, acquisition in enumerate((PD, PDFS, PD)):
        name = f"singlecoil_train/file100000{i}.h5"
        write_fastmri(tmp_path / name, acquisition=acquisition, seed=i)
    for i in (3, 4):
        write_fastmri(tmp_path / f"singlecoil_val/file100000{i}.h5", seed=i)
    return tmp_path


# --- what an item is ---------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("subset", SUBSETS)
def test_embedded_items(subset, split):
    data = samples(subset, split)
    assert len(data) == len(data.keys) == len(set(data.keys)) > 1
    for i in range(len(data)):
        item = data[i]
        assert item.key == data.keys[i]
        assert not Path(item.key).is_absolute()
        assert item.image.dtype == torch.float32
        assert item.image.shape[0] == 1
        assert item.image.min() == 0
        assert item.image.max() == 1
        assert item.scale[0] < item.scale[1]
        if subset != "natural":
            side = 320 if subset == "ct" and split != "train" else 256
            assert item.image.shape[1:] == (side, side)


@pytest.mark.parametrize("subset", SUBSETS)
def test_embedded_image_size(subset):
    assert samples(subset, image_size=192)[0].image.shape == (1, 192, 192)
    assert samples(subset, image_size=0)[0].image.shape[1] > 192


def test_embedded_brain_can_be_shrunk():
    whole, small = samples("brain"), samples("brain", fit="resize", image_size=128)
    assert small.keys == whole.keys
    assert small.files == whole.files
    for before, after in zip(whole, small.__getitems__(range(len(small))), strict=True):
        assert after.image.shape == (1, 128, 128)
        assert after.image.dtype == torch.float32
        assert (after.image.min(), after.image.max()) == (0, 1)
        assert after.key == before.key
        low, high = before.scale
        assert low <= after.scale[0] < after.scale[1] <= high
        # in the unit of the file a mean over four pixels stays about what it was
        there, here = (s.image * (s.scale[1] - s.scale[0]) + s.scale[0] for s in (before, after))
        means = torch.nn.functional.avg_pool2d(there, 2)
        assert (means - here).abs().mean() < 0.02 * high
    assert samples("brain", fit="resize")[0].image.shape == (1, 256, 256)


@pytest.mark.parametrize(
    ("subset", "options", "message"),
    [
        ("brain", {"image_size": 257}, "at least 257 pixels a side, got 256"),
        ("ct", {"image_size": 321}, "at least 321 pixels a side, got 320"),
        ("brain", {"fit": "resize", "image_size": 257}, "at least 257 pixels a side, got 256"),
        ("brain", {"fit": "pad"}, r"unknown data\.fit 'pad'.*resize"),
        ("ct", {"fit": "resize"}, r"'ct' is resized anyway; set data\.fit to ''"),
        ("natural", {"fit": "resize"}, "'natural' is resized anyway"),
    ],
)
def test_embedded_options_are_refused_where_it_means_nothing(subset, options, message):
    with pytest.raises(DataError, match=message):
        samples(subset, "test", **options)


@pytest.mark.parametrize("subset", SUBSETS)
def test_embedded_splits_are_disjoint(subset):
    images = [samples(subset, split)[i] for split in SPLITS for i in range(2)]
    assert len({sample.key for sample in images}) == 6
    assert not set(NATURAL["train"]) & {*NATURAL["val"], *NATURAL["test"]}
    assert not set(NATURAL["val"]) & set(NATURAL["test"])


def test_embedded_people_are_in_one_split_each_and_alternate():
    counts = {}
    for subset in ("brain", "ct"):
        seen = []
        for split in SPLITS:
            data = samples(subset, split)
            assert data.people.keys() == set(data.keys)
            people = [data.people[key] for key in data.keys]
            counts[subset, split] = (len(people), len(set(people)))
            assert len(set(people[: len(set(people))])) == len(set(people))
            seen += set(people)
        assert len(seen) == len(set(seen))
    assert list(counts.values()) == [(33, 1), (18, 1), (42, 3), (40, 2), (18, 3), (24, 4)]


def test_embedded_people_are_known_to_the_evaluation():
    prepared = prepare_dataset(
        {"name": "samples", "subset": "ct", "image_size": 64}, "val", limit=6
    )
    people = number_people(prepared.people, prepared.keys)
    assert [*people.values()] == [f"person {i}" for i in (1, 2, 3, 1, 2, 3)]


def test_embedded_files_are_small_and_as_they_were_made():
    sizes = [path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()]
    assert sum(sizes) <= 13e6
    sums = dict(
        line.split("  ")[::-1] for line in (SAMPLES / "SHA256SUMS").read_text().splitlines()
    )
    found = {path.relative_to(SAMPLES).as_posix(): path for path in SAMPLES.rglob("*.h5")}
    assert sums == {n: hashlib.sha256(found[n].read_bytes()).hexdigest() for n in sorted(found)}


def test_embedded_brains_are_upright_and_keep_grey_levels():
    data = samples("brain", "val")
    item = data[data.keys.index("patient03_T1W.h5:3")]
    with h5py.File(SAMPLES / "brain/singlecoil_val/patient03_T1W.h5") as file:
        np.testing.assert_allclose(
            item.image[0] * item.scale[1], file["reconstruction_rss"][3], rtol=1e-6
        )
    rows, columns = (torch.nonzero(item.image[0].sum(1 - axis)) for axis in (0, 1))
    assert rows[-1] - rows[0] > 1.1 * (columns[-1] - columns[0])  # a head is longer than wide


def test_embedded_brains_are_a_folder_of_fastmri():
    for split in SPLITS:
        as_fastmri, data = open_fastmri(SAMPLES / "brain", split), samples("brain", split)
        assert sorted(as_fastmri.keys) == sorted(data.keys)
        first = as_fastmri[as_fastmri.keys.index(data.keys[0])]
        assert torch.equal(first.image, data[0].image)
    assert len(open_fastmri(SAMPLES / "brain", "test", acquisition="AXFLAIR")) == 18


@pytest.mark.parametrize(("split", "slices"), [("train", 1), ("val", 2), ("test", 8)])
def test_embedded_lesions_are_brighter_than_their_surroundings(split, slices):
    found = 0
    for item in samples("brain", split):
        mask = item.extras["lesions"]
        assert mask.dtype == torch.bool
        assert mask.shape == item.image.shape
        if mask.any():
            assert "FLAIR" in item.key
            near = ring(mask[0].numpy())
            assert item.image[0].numpy()[near].mean() < 0.85 * item.image[mask].mean()
            found += 1
    assert found == slices


def test_embedded_lesions_go_along_with_the_image():
    name = "patient09_FLAIR.h5:3"
    items = {}
    for fields in ({}, {"image_size": 192}, {"image_size": 128, "fit": "resize"}):
        data = samples("brain", **fields)
        items[fields.get("image_size")] = data[data.keys.index(name)].extras["lesions"]
    torch.testing.assert_close(items[192], items[None][:, 32:224, 32:224])
    assert items[128].shape == (1, 128, 128)
    assert int(items[128].sum()) == pytest.approx(int(items[None].sum()) / 4, rel=0.1)
    assert not samples("ct")[0].extras


def test_embedded_ct_is_in_hounsfield_units_without_fill_values():
    for split in SPLITS:
        data = samples("ct", split)
        for item in data:
            assert item.scale[0] == -1000  # air is 0
        image = data[0].image[0] * (data[0].scale[1] + 1000) - 1000
        assert image[:2].mean() == pytest.approx(-1000, abs=20)
        soft = (image > -20) & (image < 120)  # water is 0
        assert 0.08 < soft.float().mean() < 0.6
        middle = (image[len(image) // 2] > -500).nonzero()
        assert len(middle) > 0.4 * len(image)  # an axial chest is wide


def test_the_old_name_of_ct_is_understood(caplog):
    assert samples("head_ct").keys == samples("ct").keys
    assert "'head_ct' is now 'ct'" in caplog.text


def test_scale_gives_the_original(knee):
    item = open_fastmri(knee, "val")[1]
    with h5py.File(knee / "singlecoil_val/file1000003.h5") as file:
        original = torch.from_numpy(file["reconstruction_rss"][1])
    assert item.key == "file1000003.h5:1"
    low, high = item.scale
    torch.testing.assert_close(item.image[0] * (high - low) + low, original)


def test_collate():
    data = samples("brain")
    batch = collate([data[0], data[1]])
    assert isinstance(batch, Sample)
    assert batch.image.shape == (2, 1, 256, 256)
    assert batch.scale.shape == (2, 2)
    assert batch.scale[1].tolist() == list(data[1].scale)
    assert batch.key == tuple(data.keys[:2])
    assert batch.extras["lesions"].shape == (2, 1, 256, 256)


def test_collate_names_the_samples_that_do_not_fit():
    camera, coffee = (samples("natural", "val")[i] for i in range(2))
    with pytest.raises(DataError, match=r"camera.*coffee.*image_size"):
        collate([camera, coffee])
    with pytest.raises(DataError, match=r"same extras.*camera.*coffee"):
        collate([camera, coffee._replace(extras={"mask": torch.ones(1)})])
    with pytest.raises(DataError, match="at least one"):
        collate([])


def test_workers_give_the_same_items(knee):
    data = open_fastmri(knee, "train", load_kspace=True)
    data[0]  # a file was opened before the workers are started
    loader = DataLoader(data, batch_size=4, num_workers=2, collate_fn=collate)
    batches = list(loader)
    assert sum((batch.key for batch in batches), ()) == tuple(data.keys)
    images = torch.cat([batch.image for batch in batches])
    assert torch.equal(images, torch.stack([data[i].image for i in range(len(data))]))


# --- fastMRI -----------------------------------------------------------------------------------


def test_fastmri_folders_are_the_splits(knee):
    assert len(open_fastmri(knee, "train")) == 18
    assert {key.split(":")[0] for key in open_fastmri(knee, "val").keys} == {
        "file1000003.h5",
        "file1000004.h5",
    }


def test_fastmri_prefers_single_coil(knee):
    write_fastmri(knee / "multicoil_val/file1000003.h5", slices=9, kspace=False)
    assert len(open_fastmri(knee, "val")) == 12


def test_fastmri_acquisition(knee):
    assert len(open_fastmri(knee, "train", acquisition=PD)) == 12
    assert {k[:11] for k in open_fastmri(knee, "train", acquisition=PDFS).keys} == {"file1000001"}
    with pytest.raises(DataError, match=rf"AXT2.*{PD}.*{PDFS}.*data.acquisition"):
        open_fastmri(knee, "train", acquisition="AXT2")


@pytest.mark.parametrize(
    ("slices", "indices"),
    [
        ("all", range(6)),
        ("central:4", range(1, 5)),
        ("central:3", range(1, 4)),
        ("first:2", (0, 1)),
        ("spread:1", (2,)),
        ("spread:3", range(1, 4)),
    ],
)
def test_fastmri_slice_choice(knee, slices, indices):
    keys = open_fastmri(knee, "val", slices=slices).keys
    assert keys[: len(indices)] == [f"file1000003.h5:{i}" for i in indices]
    assert len(keys) == 2 * len(indices)


def test_fastmri_crop_is_central(knee):
    whole, cropped = (open_fastmri(knee, "val", image_size=size) for size in (None, 16))
    (low, high), (part_low, part_high) = whole[0].scale, cropped[0].scale
    expected = whole[0].image[:, 4:20, 2:18] * (high - low) + low
    torch.testing.assert_close(cropped[0].image * (part_high - part_low) + part_low, expected)


@pytest.mark.parametrize("folder", [".", "singlecoil_train"])
def test_fastmri_without_folders_is_split_by_seed(tmp_path, folder):
    names = [f"file{i}.h5" for i in range(12)]
    for i, name in enumerate(names):
        write_fastmri(tmp_path / folder / name, slices=1, seed=i)
    write_fastmri(tmp_path / folder / "._file0.h5").write_bytes(b"macOS's")  # hidden: ignored
    split = {s: open_fastmri(tmp_path, s).keys for s in SPLITS}
    everything = sorted(key for keys in split.values() for key in keys)
    assert everything == sorted(f"{name}:0" for name in names)
    assert len(split["val"]) == len(split["test"]) == 1
    assert split == {s: open_fastmri(tmp_path, s).keys for s in SPLITS}
    others = [open_fastmri(tmp_path, "test", split_seed=seed).keys for seed in range(1, 9)]
    assert any(keys != split["test"] for keys in others)


def test_seeded_split_never_changes():
    names = [f"{i:02d}" for i in range(20)]
    assert seeded_split(names, "val", 0, Path("x")) == ["13", "18"]
    assert seeded_split(names, "test", 0, Path("x")) == ["05", "14"]


def test_split_list(knee):
    (knee / "lists").mkdir()
    (knee / "lists/val.txt").write_text("# two\nfile1000004\n\nfile1000000.h5  # from train\n")
    template = str(knee / "lists/{split}.txt")
    data = open_fastmri(knee, "val", slices="first:1", split_list=template)
    assert data.keys == ["file1000004.h5:0", "file1000000.h5:0"]
    one = str(knee / "lists/val.txt")
    assert len(open_fastmri(knee, "test", slices="first:1", split_list=one)) == 2
    with pytest.raises(DataError, match=r"every split.*\{split\}"):
        open_fastmri(knee, "train", split_list=one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file1000000\nfile7\nfile8.h5\n", r"names 2 files .*file7, file8.h5; get them"),
        ("# nothing\n", r"empty; correct"),
        ("file1000000\nfile1000000.h5\n", r"file1000000.h5 more than once; correct"),
    ],
)
def test_bad_split_list(knee, text, message):
    (knee / "list.txt").write_text(text)
    with pytest.raises(DataError, match=r"list\.txt.*" + message):
        open_fastmri(knee, "test", split_list=str(knee / "list.txt"))
    with pytest.raises(DataError, match=r"none\.txt.*cannot read the split list"):
        open_fastmri(knee, "test", split_list=str(knee / "none.txt"))


# --- LoDoPaB -----------------------------------------------------------------------------------


def test_lodopab(tmp_path):
    path = write_lodopab(tmp_path / "ground_truth_validation/ground_truth_validation_000.hdf5")
    write_lodopab(path.with_name("ground_truth_validation_001.hdf5"), slices=2, seed=1)
    data = open_lodopab(tmp_path, "val")
    assert len(data) == 5
    assert data.keys[3] == "ground_truth_validation_001.hdf5:0"
    with h5py.File(path) as file:
        stored = file["data"][2]
    low, high = data[2].scale
    restored = data[2].image[0].numpy() * (high - low) + low
    np.testing.assert_allclose(restored, np.rot90(stored, k=-1), atol=1e-6)
    small = open_lodopab(tmp_path, "val", image_size=32)[2].image
    assert small.shape == (1, 32, 32)
    low, high = open_lodopab(tmp_path, "val", image_size=32)[2].scale
    assert high - low < 0.4  # noise averaged away: anti-aliased


# --- folders of pictures -----------------------------------------------------------------------


def test_image_folder_splits_by_seed_without_folders(tmp_path):
    for i, suffix in enumerate(["jpg", "png", "tif", "webp", "bmp", "JPEG"]):
        write_picture(tmp_path / f"sub{i % 2}/{i}.{suffix}", seed=i)
    (tmp_path / "notes.txt").write_text("no picture")
    split = {s: open_image_folder(tmp_path, s).keys for s in SPLITS}
    assert sorted(map(len, split.values())) == [1, 1, 4]
    assert len({key for keys in split.values() for key in keys}) == 6
    for s in SPLITS:
        data = open_image_folder(tmp_path, s, image_size=24)
        assert all(data[i].image.shape == (1, 24, 24) for i in range(len(data)))


def test_image_folder_uses_its_folders(tmp_path):
    for i, folder in enumerate(["train", "train/more", "val"]):
        write_picture(tmp_path / folder / f"{i}.png", seed=i)
    assert open_image_folder(tmp_path, "train").keys == ["train/0.png", "train/more/1.png"]
    assert open_image_folder(tmp_path, "val").keys == ["val/2.png"]
    with pytest.raises(DataError, match=r"folder 'test'.*data\.split_list"):
        open_image_folder(tmp_path, "test")


def test_pictures_become_luma(tmp_path):
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[0, 2], pixels[0, 3] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
    for name in ("a", "b", "c"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    image = open_image_folder(tmp_path, "train")[0].image
    torch.testing.assert_close(image[0, 0, :4], torch.tensor([0.299, 0.587, 0.114, 1.0]))


def test_sixteen_bit_pictures_keep_their_depth(tmp_path):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) + 40000
    for name in ("a", "b", "c"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    item = open_image_folder(tmp_path, "val")[0]
    assert item.scale == (40000, 40063)
    assert item.image.unique().numel() == 64


# --- augmentation ------------------------------------------------------------------------------


def test_augment_is_a_seeded_rearrangement():
    image = torch.arange(64.0).reshape(1, 8, 8)
    before = image.clone()
    seen = set()
    for seed in range(40):
        options = {"flip": True, "rotate": True}
        result = augment(image, torch.Generator().manual_seed(seed), **options)
        assert torch.equal(result, augment(image, torch.Generator().manual_seed(seed), **options))
        assert torch.equal(result.flatten().sort().values, image.flatten())
        seen.add(tuple(result.flatten().tolist()))
    assert len(seen) == 8  # all symmetries of the square
    assert torch.equal(image, before)
    assert torch.equal(augment(image, torch.Generator()), image)


def test_augment_crops_anywhere():
    image = torch.arange(64.0).reshape(1, 8, 8)
    corners = set()
    for seed in range(60):
        crop = augment(image, torch.Generator().manual_seed(seed), crop=6)
        assert crop.shape == (1, 6, 6)
        corners.add(crop[0, 0, 0].item())
    assert corners == {0, 1, 2, 8, 9, 10, 16, 17, 18}


def test_augment_puts_some_images_on_nothing():
    image = torch.full((1, 40, 40), 0.7)
    parts = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        result = augment(image, generator, background=0.5)
        parts.append(float((result > 0.35).float().mean()))
        assert result.max() <= 0.7
        edge = ((result > 0.07) & (result < 0.63)).sum()
        assert parts[-1] == 1 or 0 < edge < 0.3 * 40 * 40  # a sharp outline
    whole = parts.count(1.0)
    assert 18 <= whole <= 42  # 30 +- 3 standard deviations
    assert min(parts) < 0.3
    assert torch.equal(augment(image, torch.Generator(), background=0.0), image)
    with pytest.raises(ValueError, match=r"data.background in \[0, 1\]"):
        augment(image, torch.Generator(), background=-0.1)


def test_augment_turns_the_phase_smoothly_and_keeps_the_magnitude(monkeypatch):
    monkeypatch.setattr("datasets.augment.TWO_TISSUES", 0.0)
    image = torch.rand(1, 40, 30, generator=torch.Generator().manual_seed(0)) + 0.1
    constants, steps = [], []
    for seed in range(60):
        parts = augment(image, torch.Generator().manual_seed(seed), phase=2.0)
        assert parts.shape == (2, 40, 30)
        turned = torch.complex(*parts) / image[0]  # (40, 30), of magnitude 1
        torch.testing.assert_close(turned.abs(), torch.ones(40, 30))
        constants.append(turned.mean().angle())
        steps.append((turned[1:] / turned[:-1]).angle().abs().max())
    assert max(steps) <= 2.0 * 2 * math.pi / 39 + 1e-4  # a wave of one period with amplitude 2
    assert max(steps) > 0.1
    sizes = torch.stack(constants).sort().values
    assert (sizes[1:] - sizes[:-1]).max() < 1.0  # all around the circle
    with pytest.raises(ValueError, match=r"data.phase in \[0, inf\]"):
        augment(image, torch.Generator(), phase=-0.1)


def test_augment_turns_bright_parts_apart_in_half_of_the_images():
    image = torch.full((1, 40, 40), 0.1)
    image[:, 10:30, 10:30] = 1.0  # fat
    image[:, 10:30, 20:22] = 0.5  # fat and water in a pixel
    angles, mixed = [], []
    for seed in range(60):
        parts = augment(image, torch.Generator().manual_seed(seed), phase=1e-6)
        turned = torch.complex(*parts)
        torch.testing.assert_close(turned[15, 15].abs(), torch.tensor(1.0), rtol=0.03, atol=0)
        torch.testing.assert_close(turned[5, 5].abs(), torch.tensor(0.1), rtol=0.03, atol=0)
        angles.append(float((turned[15, 15] / turned[5, 5]).angle().abs()))
        mixed.append(float(turned[15, 21].abs()))
    alike = sum(angle < 1e-2 for angle in angles)
    assert 18 <= alike <= 42  # 30 +- 3 standard deviations
    assert max(angles) > 2.5
    assert min(mixed) < 0.45  # opposed phases cancel
    assert max(mixed) <= 0.5 + 1e-6


def test_augment_changes_contrast_as_said():
    image = torch.linspace(0.05, 0.95, 30).expand(1, 30, 30)

    def variants(**options):
        return [augment(image, torch.Generator().manual_seed(s), **options) for s in range(60)]

    powers = torch.stack([x.log() / image.log() for x in variants(gamma=0.5)])  # (60, 1, 30, 30)
    assert torch.allclose(powers, powers[..., :1, :1].expand_as(powers), atol=1e-4)
    logarithms = powers[:, 0, 0, 0].log()
    assert -0.5 <= logarithms.min() < -0.4 < 0.4 < logarithms.max() <= 0.5
    negatives = [torch.equal(x, 1 - image) for x in variants(invert=0.4)]
    assert 12 <= sum(negatives) <= 36  # 24 +- 3 standard deviations
    assert all(
        n or torch.equal(x, image) for n, x in zip(negatives, variants(invert=0.4), strict=True)
    )
    fields = torch.stack(variants(shading=0.6)) / image  # up to a factor
    ratios = fields.flatten(1).amax(1) / fields.flatten(1).amin(1)
    assert 1 < ratios.min() < 1.3
    assert 1.6 < ratios.max() <= float(torch.tensor(1.2).exp()) * 1.001
    steps = (fields.diff(dim=-1) / fields[..., 1:]).abs().max()
    assert steps < 0.6 * 2 * torch.pi / 29 * 1.1  # smooth: its slope is bounded
    assert torch.stack(variants(shading=0.6)).amax((1, 2, 3)).allclose(torch.ones(60))
    for name in ("gamma", "invert", "shading"):
        with pytest.raises(ValueError, match=f"data.{name} in"):
            augment(image, torch.Generator(), **{name: -0.1})


def test_augment_shrinks_by_random_factors():
    ramp = torch.arange(64.0).expand(1, 64, 64) / 64  # its slope tells the factor
    slopes = []
    for seed in range(200):
        crop = augment(ramp, torch.Generator().manual_seed(seed), crop=16, shrink=0.5)
        assert crop.shape == (1, 16, 16)
        slopes.append(64 * float(crop[0, 8, 9] - crop[0, 8, 8]))
    factors = 1 / torch.tensor(slopes)
    assert factors.min() >= 0.5 - 1e-3
    assert factors.max() <= 1 + 1e-3
    assert abs(factors.mean() - 0.75) < 3 * 0.25 / (3 * 200) ** 0.5  # three standard errors
    # anti-aliased: white noise loses variance; and never below the crop's size
    noise = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    half = augment(noise, torch.Generator().manual_seed(1), crop=16, shrink=0.1)
    assert half.shape == (1, 16, 16)
    assert half.std() < noise.std()


def test_augment_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"data.shrink.*0\.5.*crop=None"):
        augment(torch.zeros(1, 8, 8), torch.Generator(), shrink=0.5)
    with pytest.raises(DataError, match=r"12 x 12.*8 x 16.*crop"):
        augment(torch.zeros(1, 8, 16), torch.Generator(), crop=12)
    with pytest.raises(DataError, match=r"square.*8 x 16.*crop"):
        augment(torch.zeros(1, 8, 16), torch.Generator(), rotate=True)


# --- the config --------------------------------------------------------------------------------


def test_create_dataset_reads_a_config(knee):
    fields = {"name": "fastmri", "root": str(knee), "image_size": 16, "slices": "central:2"}
    config = ConfigDict({**fields, "acquisition": PD, "split_list": "", "flip": True})
    data = create_dataset(config, "train")
    assert len(data) == 4
    assert data[0].image.shape == (1, 16, 16)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        DataError, match=r"'knee'.*fastmri, image_folder, lodopab, rsna_head, samples"
    ):
        create_dataset({"name": "knee"}, "train")
    with pytest.raises(DataError, match=r"'heart'.*brain, ct, natural"):
        samples("heart")
    for name in DATASETS:
        with pytest.raises(DataError, match=r"'validation'.*train, val, test"):
            create_dataset({"name": name, "root": "."}, "validation")


def test_fields_of_another_data_set_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"lodopab.*data\.acquisition.*'CORPD_FBK'.*image_size"):
        create_dataset({"name": "lodopab", "root": str(tmp_path), "acquisition": PD}, "train")
    with pytest.raises(DataError, match="image_size"):
        samples("brain", image_size=-1)
    with pytest.raises(DataError, match=r"'samples' does not read data\.load_kspace"):
        samples("ct", load_kspace=True)


# --- bad input: the message names the file and the remedy ----------------------------------------


@pytest.mark.parametrize("name", ["fastmri", "lodopab", "image_folder"])
def test_missing_and_empty_roots(tmp_path, name):
    for root, message in (
        ("", "data.root"),
        (str(tmp_path / "nowhere"), r"nowhere.*does not exist.*data\.root"),
        (str(tmp_path), re.escape(str(tmp_path)) + r".*got none.*data\.root"),
        (__file__, r"not a folder.*data\.root"),
    ):
        with pytest.raises(DataError, match=message):
            create_dataset({"name": name, "root": root}, "train")


def test_fastmri_wrong_key_and_rank(knee):
    path = knee / "singlecoil_val/file1000004.h5"
    with h5py.File(path, "r+") as file:
        del file["reconstruction_rss"]  # `reconstruction_esc` is still there
    message = r"file1000004.*'reconstruction_rss'.*'reconstruction_esc'.*split 'val'"
    with pytest.raises(DataError, match=message):
        open_fastmri(knee, "val")
    with h5py.File(path, "r+") as file:
        file["reconstruction_rss"] = np.zeros((2, 3, 4, 4), np.float32)
    with pytest.raises(DataError, match=r"file1000004.*\(slices, height, width\).*2, 3, 4, 4"):
        open_fastmri(knee, "val")


def test_fastmri_asks_for_more_than_there_is(knee):
    with pytest.raises(DataError, match=r"file1000003.*at least 320 x 320.*24 x 20.*at most 20"):
        open_fastmri(knee, "val", image_size=320)
    with pytest.raises(DataError, match=r"file1000003.*at least 15 slices.*got 6; ask for fewer"):
        open_fastmri(knee, "val", slices="central:15")
    with pytest.raises(DataError, match=r"file1000003.*at least 8 slices.*'spread:4', got 6"):
        open_fastmri(knee, "val", slices="spread:4")
    with pytest.raises(DataError, match=r"'middle:5'.*all, central:N, first:N"):
        open_fastmri(knee, "val", slices="middle:5")
    for _ in range(2):  # no folder, then an empty one
        with pytest.raises(DataError, match=r"split 'test'.*'train', 'val'.*data\.split_list"):
            open_fastmri(knee, "test")
        (knee / "singlecoil_test").mkdir(exist_ok=True)


def test_fastmri_without_kspace(knee):
    write_fastmri(knee / "singlecoil_val/file1000005.h5", kspace=False)
    assert len(open_fastmri(knee, "val")) == 18
    with pytest.raises(DataError, match=r"file1000005.*'kspace'.*got none.*data\.load_kspace"):
        open_fastmri(knee, "val", load_kspace=True)


def test_too_few_files_to_split(tmp_path):
    write_fastmri(tmp_path / "a.h5")
    with pytest.raises(DataError, match=r"at least 3 files.*got 1.*data\.split_list"):
        open_fastmri(tmp_path, "train")


def test_lodopab_bad_files(tmp_path):
    path = write_lodopab(tmp_path / "ground_truth_test_000.hdf5", size=64)
    with pytest.raises(DataError, match=r"ground_truth_test_000.*at least 320.*64 x 64.*at most"):
        open_lodopab(tmp_path, "test", image_size=320)
    with h5py.File(path, "r+") as file:
        file.move("data", "images")
    with pytest.raises(DataError, match=r"ground_truth_test_000.*'data'.*'images'.*data\.root"):
        open_lodopab(tmp_path, "test")
    write_lodopab(path, size=32)
    write_lodopab(tmp_path / "copy" / path.name, size=32)
    with pytest.raises(DataError, match=r"ground_truth_test_000.*same name.*rename"):
        open_lodopab(tmp_path, "test")


@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.99])
def test_truncated_hdf5(knee, fraction):
    truncate(knee / "singlecoil_val/file1000004.h5", fraction)
    with pytest.raises(DataError, match=r"file1000004\.h5.*intact HDF5.*download it again"):
        open_fastmri(knee, "val")


def test_file_that_goes_bad_after_opening(tmp_path):
    root = tmp_path / "brain"
    shutil.copytree(SAMPLES / "brain", root)
    data = open_fastmri(root, "train")
    path = data.files[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)  # inside a compressed slice
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path.name}.*intact HDF5.*download it again"):
        [data[i] for i in range(len(data))]
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}.*cannot be read.*check that it exists"):
        data[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_slice(knee, value):
    overwrite(knee / "singlecoil_val/file1000003.h5", "reconstruction_rss", (2, 3, 4), value)
    data = open_fastmri(knee, "val")
    data[1]
    with pytest.raises(DataError, match=r"file1000003\.h5:2.*1 NaN or infinite.*repair"):
        data[2]


def test_constant_slice(tmp_path):
    path = write_lodopab(tmp_path / "ground_truth_train_000.hdf5", size=16)
    overwrite(path, "data", 1, 0.25)
    with pytest.raises(DataError, match=r"ground_truth_train_000.hdf5:1.*constant 0.25.*leave"):
        open_lodopab(tmp_path, "train")[1]


def test_bad_pictures(tmp_path):
    for folder in ("train", "val"):
        write_picture(tmp_path / folder / "good.jpg", size=(200, 150))
    half = write_picture(tmp_path / "train/half.jpg", size=(200, 150))
    truncate(half)
    data = open_image_folder(tmp_path, "train")
    with pytest.raises(DataError, match=r"half\.jpg.*decoded.*take it out"):
        data[data.keys.index("train/half.jpg")]
    half.write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"half\.jpg.*decoded.*take it out"):
        open_image_folder(tmp_path, "train")
    write_picture(half, size=(40, 30))
    with pytest.raises(DataError, match=r"half\.jpg.*at least 64.*40 x 30.*data\.image_size"):
        open_image_folder(tmp_path, "train", image_size=64)


@pytest.mark.parametrize(
    ("count", "number", "expected"), [(54, 4, [17, 23, 29, 35]), (8, 4, [2, 3, 4, 5]), (9, 1, [4])]
)
def test_spread_slices_are_even_and_central(count, number, expected):
    chosen = choose_slices(f"spread:{number}", count, Path("x"))
    assert list(chosen) == expected
    assert count / 4 <= min(chosen)
    assert max(chosen) < 3 * count / 4
