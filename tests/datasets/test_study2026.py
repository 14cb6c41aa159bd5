"""The training sets of the study's 2026 edition: which slices, files and pictures, which way up."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import celeba_2026, ct_2026, fastmri_knee_2026, load_config
from datasets import DataError, create_dataset
from datasets.fastmri import PD
from datasets.slices import choose_slices
from tests.helpers.data_writers import write_fastmri, write_lodopab


@pytest.mark.parametrize(
    ("slices", "expected"),
    [("range:0:5:3", [0, 3]), ("range:2:5:1", [2, 3, 4]), ("range:2:5", [2, 3, 4])],
)
def test_every_step_th_slice(slices, expected):
    assert list(choose_slices(slices, 128, Path("x"))) == expected


def test_ct_takes_the_middle_30_of_every_second_slice():
    every_second = range(0, 128, 2)
    expected = [every_second[32 + offset] for offset in range(-15, 15)]
    assert list(choose_slices(ct_2026.get_config().data.slices, 128, Path("x"))) == expected


@pytest.mark.parametrize("slices", ["range:0:5:0", "range:0:5:1:1", "central:3:2"])
def test_other_steps_are_errors(slices):
    with pytest.raises(DataError, match=r"known: .*range:A:B:STEP"):
        choose_slices(slices, 128, Path("x"))


def test_the_first_files_by_name(tmp_path):
    for i in (2, 0, 1):
        write_lodopab(tmp_path / f"ground_truth_train_00{i}.hdf5", slices=4, size=8, seed=i)
    data = {"name": "lodopab", "root": str(tmp_path), "slices": "range:1:4:2"}
    found = create_dataset(data | {"subset": "first:2"}, "train")
    assert found.keys == [
        f"ground_truth_train_00{i}.hdf5:{index}" for i in (0, 1) for index in (1, 3)
    ]
    with pytest.raises(DataError, match=r"at least 4 files .* for data\.subset 'first:4', got 3"):
        create_dataset(data | {"subset": "first:4"}, "train")
    with pytest.raises(DataError, match=r"unknown data\.subset 'last:2'; known: first:N"):
        create_dataset(data | {"subset": "last:2"}, "train")


@pytest.fixture
def pictures(tmp_path):
    for i in range(30):  # by name 10 comes before 2
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / f"{i}.jpg")
    return {"name": "celeba_hq", "root": str(tmp_path)}


def test_the_first_pictures_by_number(pictures):
    splits = {
        split: create_dataset(pictures | {"subset": "first:12"}, split).keys
        for split in ("train", "val", "test")
    }
    assert splits["train"] == [f"{i}.jpg" for i in range(12)]
    others = {*splits["val"], *splits["test"]}
    assert others
    assert others <= {f"{i}.jpg" for i in range(12, 30)}
    assert not {*splits["val"]} & {*splits["test"]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subset": "first:31"}, "at least 31 pictures .* got 30"),
        ({"subset": "first:0"}, "unknown data.subset 'first:0'"),
        ({"subset": "first:3", "split_list": "x"}, "data.subset or data.split_list, got both"),
    ],
)
def test_other_subsets_of_pictures_are_errors(pictures, fields, message):
    with pytest.raises(DataError, match=message):
        create_dataset(pictures | fields, "train")


def test_rows_reversed(tmp_path):
    write_fastmri(tmp_path / "file1.h5", slices=3, size=(16, 16))
    data = {"name": "fastmri", "root": str(tmp_path), "split_list": str(tmp_path / "{split}.txt")}
    (tmp_path / "test.txt").write_text("file1.h5\n")
    stored, turned = (
        create_dataset(data | {"upside_down": flag, "image_size": 8}, "test")
        for flag in (None, True)
    )
    assert stored.keys == turned.keys
    assert torch.equal(turned[1].image, stored[1].image.flip(-2))
    assert not torch.equal(turned[1].image, stored[1].image)
    with pytest.raises(DataError, match=r"magnitude images only.*set data\.mode"):
        create_dataset(data | {"upside_down": True, "mode": "complex"}, "test")
    with pytest.raises(DataError, match=r"'celeba_hq' does not read data\.upside_down"):
        create_dataset({"name": "celeba_hq", "root": "", "upside_down": True}, "test")


def test_the_configs_name_these_sets():
    knee, natural, ct = (m.get_config().data for m in (fastmri_knee_2026, celeba_2026, ct_2026))
    assert (knee.name, knee.acquisition, knee.slices, knee.upside_down) == (
        *("fastmri", PD, "central:15"),
        True,
    )
    assert (natural.name, natural.subset) == ("celeba_hq", "first:7260")
    assert (ct.name, ct.subset) == ("lodopab", "first:242")
    assert 242 * len(choose_slices(ct.slices, 128, Path("x"))) == 7260
    earlier = load_config("configs/fastmri_knee.py:1").data
    assert earlier.upside_down is None  # folders of earlier runs continue
