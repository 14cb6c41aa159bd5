"""Pictures as they lie on disks: turned, inverted, huge, and with names of old archives."""

import os

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from datasets import DataError
from datasets.check import contact_sheet, describe, inspect_split
from datasets.image_folder import open_image_folder, read_grey

ORIENTATION = 0x112  # tag of EXIF
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_pictures_are_upright(tmp_path, orientation):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(GREY).save(path, exif=exif)
    with Image.open(path) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(read_grey(path), shown)
    assert shown.shape == ((8, 6) if orientation >= 5 else (6, 8))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_bright_is_large_in_tiff_of_both_kinds(tmp_path, dtype):
    full = {"u1": 255, "u2": 65535, "f4": 235}[dtype]  # of floats the largest and smallest there
    for kind, expected in (("minisblack", GREY), ("miniswhite", full - GREY.astype(np.float32))):
        tifffile.imwrite(tmp_path / "a.tif", GREY.astype(dtype), photometric=kind)
        assert np.array_equal(read_grey(tmp_path / "a.tif"), expected)


def test_a_huge_picture_is_not_called_corrupt(tmp_path, monkeypatch):
    for i in range(4):
        Image.fromarray(GREY).save(tmp_path / f"{i}.png")
    Image.fromarray(np.tile(GREY, (4, 4))).save(tmp_path / "panorama.png")
    (tmp_path / "train.txt").write_text("0.png\npanorama.png\n")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    lists = str(tmp_path / "{split}.txt")
    with pytest.raises(DataError, match=r"panorama.*at most 600 pixels.*smaller") as caught:
        open_image_folder(tmp_path, "train", split_list=lists)
    assert "corrupt" not in str(caught.value)
    kept = open_image_folder(tmp_path, "train", split_list=lists, skip_bad=True)
    assert kept.keys == ["0.png"]


def test_a_name_that_is_not_utf8_is_looked_at_like_others(tmp_path):
    for i in range(4):
        Image.fromarray(GREY).save(tmp_path / f"{i}.png")
    os.rename(tmp_path / "3.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    data = {"name": "image_folder", "root": str(tmp_path)}
    reports = {split: inspect_split(data, split, 0) for split in ("train", "val", "test")}
    texts = [describe(split, report) for split, report in reports.items()]
    assert sum(report.read for report in reports.values()) == 4
    assert not any("problems: 1" in text for text in texts)
    assert contact_sheet(reports).size[1] > 0
    assert any("caf\udce9.png" in open_image_folder(tmp_path, split).keys for split in reports)
    reports["train"].problems.append("caf\udce9.png: bad")
    assert r"caf\udce9.png: bad" in describe("train", reports["train"])
