"""The public formats beside plain magnitude images: k-space, DICOM, NIfTI, and what goes wrong."""

import sys

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from datasets import DataError, collate, create_dataset
from datasets.dicom import read_dicom
from datasets.fastmri import open_fastmri
from datasets.image_folder import open_celeba_hq, open_image_folder
from datasets.lodopab import open_lodopab
from datasets.rsna_head import open_rsna_head
from datasets.volume import open_volume
from operators import MultiCoilMRI
from operators.fourier import ifft2c
from tests.helpers.data_writers import (
    crop,
    head,
    overwrite,
    truncate,
    write_dicom,
    write_fastmri,
    write_lodopab,
    write_nifti,
    write_picture,
    write_prostate,
    write_series,
)

SIZE = (40, 32)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/score-priors"


@pytest.fixture
def brain(tmp_path, cache):
    """Multi-coil volumes in the public folders."""
    for i, split in enumerate(("train", "val")):
        path = tmp_path / f"brain/multicoil_{split}/file_brain_AXT2_20{i}.h5"
        write_fastmri(path, slices=2, size=SIZE, coils=4, acquisition="AXT2", seed=i)
    return tmp_path / "brain"


# --- fastMRI k-space -----------------------------------------------------------------------------


def test_single_coil_complex_is_the_public_reconstruction(tmp_path):
    for split in ("train", "val"):
        path = write_fastmri(tmp_path / f"singlecoil_{split}/file_{split}.h5", size=SIZE)
    data = open_fastmri(tmp_path, "val", mode="complex")
    item = data[2]
    assert item.image.dtype == torch.complex64
    assert item.image.shape == (1, *SIZE)
    assert item.image.abs().max() == pytest.approx(1, abs=1e-6)
    assert item.scale[0] == 0
    with h5py.File(path) as file:
        expected = torch.from_numpy(file["reconstruction_esc"][2])
    torch.testing.assert_close(item.image[0].abs() * item.scale[1], expected, rtol=1e-4, atol=1e-9)
    assert item.image.angle().std() > 0.1
    assert not item.extras
    cropped = open_fastmri(tmp_path, "val", mode="complex", image_size=16)[2]
    whole = item.image[0].numpy() * item.scale[1]
    np.testing.assert_allclose(
        cropped.image[0].numpy() * cropped.scale[1], crop(whole, (16, 16)), atol=1e-9
    )


def test_multi_coil_fits_the_operator(brain, cache):
    item = open_fastmri(brain, "val", mode="multicoil")[1]
    kspace, maps = item.extras["kspace"], item.extras["sens_maps"]
    assert kspace.shape == maps.shape == (4, *SIZE)
    operator = MultiCoilMRI(torch.ones(SIZE, dtype=torch.bool), maps)
    again = operator.forward(item.image[None])[0]
    assert torch.linalg.norm(again - kspace) < 0.05 * torch.linalg.norm(kspace)
    with h5py.File(brain / "multicoil_val/file_brain_AXT2_201.h5") as file:
        rss = torch.from_numpy(file["reconstruction_rss"][1])
    torch.testing.assert_close(item.extras["rss"][0] * item.scale[1], rss, rtol=1e-4, atol=1e-9)
    inside = rss > 0.2 * rss.max()
    error = item.image[0].abs() * item.scale[1] - rss
    assert error[inside].abs().max() < 0.05 * rss.max()
    batch = collate([item, item])
    assert batch.extras["sens_maps"].shape == (2, 4, *SIZE)


def test_coil_maps_are_estimated_once(brain, cache, monkeypatch):
    first = open_fastmri(brain, "val", mode="multicoil")[0].extras["sens_maps"]
    (stored,) = cache.glob("coil_maps/*/0.npz")
    calls = []
    real = sys.modules["datasets.coil_maps"].espirit_maps

    def counted(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr("datasets.coil_maps.espirit_maps", counted)
    data = open_fastmri(brain, "val", mode="multicoil")
    assert torch.equal(data[0].extras["sens_maps"], first)
    assert not calls
    truncate(stored)  # as no crash can leave it, but a broken disk can
    assert torch.equal(data[0].extras["sens_maps"], first)
    assert len(calls) == 1
    write_fastmri(brain / "multicoil_val/file_brain_AXT2_201.h5", size=SIZE, coils=4, seed=9)
    assert not torch.equal(data[0].extras["sens_maps"], first)


def test_multi_coil_magnitude_and_modes_that_do_not_fit(brain, tmp_path):
    data = open_fastmri(brain, "train", slices="first:1", image_size=32)
    assert data.keys == ["file_brain_AXT2_200.h5:0"]
    assert data[0].image.shape == (1, 32, 32)
    with pytest.raises(DataError, match=r"AXT2_201\.h5.*single-coil.*data\.mode to multicoil"):
        open_fastmri(brain, "val", mode="complex")
    for split in ("train", "val"):
        write_fastmri(tmp_path / f"knee/singlecoil_{split}/{split}.h5")
    with pytest.raises(DataError, match=r"val\.h5.*multi-coil.*data\.mode to complex"):
        open_fastmri(tmp_path / "knee", "val", mode="multicoil")
    with pytest.raises(DataError, match=r"'phase'.*magnitude, complex, multicoil"):
        open_fastmri(brain, "val", mode="phase")
    with pytest.raises(DataError, match=r"val\.h5.*at least 64.*56 x 28|val\.h5.*at least 64"):
        open_fastmri(tmp_path / "knee", "val", mode="complex", image_size=64)
    with pytest.raises(DataError, match=r"data\.normalize to slice"):
        open_fastmri(brain, "val", mode="complex", normalize="volume")


def test_multi_coil_mode_prefers_multi_coil_folders(tmp_path, cache):
    for split in ("train", "val"):
        for coils, kind in ((0, "singlecoil"), (4, "multicoil")):
            write_fastmri(tmp_path / f"knee/{kind}_{split}/a.h5", size=SIZE, coils=coils)
    assert open_fastmri(tmp_path / "knee", "val", mode="multicoil").files[0].parent.name == (
        "multicoil_val"
    )
    assert open_fastmri(tmp_path / "knee", "val").files[0].parent.name == "singlecoil_val"


@pytest.mark.parametrize("coils", [0, 4])
def test_prospective_files_without_target(tmp_path, cache, coils):
    kind = "multicoil" if coils else "singlecoil"
    for split in ("val", "test"):
        write_fastmri(
            tmp_path / f"d/{kind}_{split}/{split}.h5", size=SIZE, coils=coils, test=split == "test"
        )
    mode = "multicoil" if coils else "complex"
    item = open_fastmri(tmp_path / "d", "test", mode=mode)[0]
    mask = item.extras["mask"]
    assert mask.shape == (80, 40)
    assert item.extras["kspace"].shape == (max(coils, 1), 80, 40)
    assert (item.extras["kspace"] != 0)[:, mask].all()
    assert not item.extras["kspace"][:, ~mask].any()
    if not coils:
        torch.testing.assert_close(ifft2c(item.extras["kspace"]), item.image)
    with pytest.raises(DataError, match=r"test\.h5.*'reconstruction_rss'.*mode complex or multi"):
        open_fastmri(tmp_path / "d", "test")
    with pytest.raises(DataError, match=r"test\.h5.*data\.image_size to 0"):
        open_fastmri(tmp_path / "d", "test", mode=mode, image_size=32)


def test_prostate(tmp_path, cache):
    for i, folder in enumerate(("training_T2_1", "validation_T2", "test_T2")):
        path = write_prostate(tmp_path / f"p/{folder}/file_prostate_AXT2_00{i}.h5", seed=i)
    (path.parent / "file_prostate_AXDIFF_001.h5").write_bytes(b"diffusion")
    for i, split in enumerate(("train", "val", "test")):
        assert open_fastmri(tmp_path / "p", split).keys[0] == f"file_prostate_AXT2_00{i}.h5:0"
    item = open_fastmri(tmp_path / "p", "test", mode="multicoil", acquisition="AXT2")[1]
    assert item.image.shape == (1, 32, 32)
    with h5py.File(path) as file:
        rss = torch.from_numpy(file["reconstruction_rss"][1])
    torch.testing.assert_close(item.extras["rss"][0] * item.scale[1], rss, rtol=1e-3, atol=1e-8)
    with h5py.File(path, "r+") as file:
        del file["ismrmrd_header"]
    with pytest.raises(DataError, match=r"AXT2_002.*'ismrmrd_header'.*download it again"):
        open_fastmri(tmp_path / "p", "test", mode="multicoil")


def test_kspace_of_the_wrong_type_or_with_nan(tmp_path):
    path = write_fastmri(tmp_path / "singlecoil_val/a.h5")
    write_fastmri(tmp_path / "singlecoil_train/b.h5")
    overwrite(path, "kspace", (1, 3, 4), np.nan)
    data = open_fastmri(tmp_path, "val", mode="complex")
    data[0]
    with pytest.raises(DataError, match=r"a\.h5:1.*NaN"):
        data[1]
    with h5py.File(path, "r+") as file:
        shape = file["kspace"].shape
        del file["kspace"]
        file["kspace"] = np.zeros(shape, np.float32)
    with pytest.raises(DataError, match=r"a\.h5.*complex.*float32.*data\.mode"):
        open_fastmri(tmp_path, "val", mode="complex")


# --- scaling and slices --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fastmri", "lodopab", "volume"])
def test_normalize_over_the_volume(tmp_path, name):
    if name == "fastmri":
        for split in ("train", "val"):
            path = write_fastmri(tmp_path / f"singlecoil_{split}/{split}.h5")
        with h5py.File(path) as file:
            volume = file["reconstruction_rss"][()]
    elif name == "lodopab":
        path = write_lodopab(tmp_path / "ground_truth_validation_000.hdf5", size=16)
        with h5py.File(path) as file:
            volume = file["data"][()]
    else:
        volume = np.random.default_rng(0).integers(0, 999, (8, 9, 5))
        for split in ("train", "val"):
            write_nifti(tmp_path / f"{split}/a.nii", volume)
    fields = {"name": name, "root": str(tmp_path)}
    data = create_dataset({**fields, "normalize": "volume"}, "val")
    bounds = (float(volume.min()), float(volume.max()))
    assert [data[i].scale for i in range(len(data))] == [bounds] * len(data)
    images = torch.stack([data[i].image for i in range(len(data))])
    assert images.min() == 0
    assert images.max() == 1
    assert create_dataset(fields, "val")[0].scale != bounds
    with pytest.raises(DataError, match=r"'file'.*slice, volume"):
        create_dataset({**fields, "normalize": "file"}, "val")


@pytest.mark.parametrize(
    ("slices", "expected"), [("range:1:3", [1, 2]), ("central:2", [0, 1]), ("", [0, 1, 2])]
)
def test_slice_choices(tmp_path, slices, expected):
    write_lodopab(tmp_path / "ground_truth_test_000.hdf5", size=16)
    keys = create_dataset({"name": "lodopab", "root": str(tmp_path), "slices": slices}, "test").keys
    assert [int(key.split(":")[1]) for key in keys] == expected


@pytest.mark.parametrize(
    "slices", ["central", "range:3", "first:0", "range:2:2", "first:-1", "spread:0", "spread:1:2"]
)
def test_bad_slice_choices(tmp_path, slices):
    write_lodopab(tmp_path / "ground_truth_test_000.hdf5", size=16)
    with pytest.raises(DataError, match=r"data\.slices.*central:N, first:N, range:A:B"):
        open_lodopab(tmp_path, "test", slices=slices)


# --- RSNA ----------------------------------------------------------------------------------------


@pytest.fixture
def rsna(tmp_path):
    """DICOM files as unpacked."""
    for i in range(12):
        write_dicom(tmp_path / f"r/stage_2_train/ID_{i:09x}.dcm", head(seed=i))
    for i in range(12, 15):
        write_dicom(tmp_path / f"r/stage_2_test/ID_{i:09x}.dcm", head(seed=i))
    return tmp_path / "r"


def test_rsna_dicom(rsna):
    split = {s: open_rsna_head(rsna, s).keys for s in ("train", "val", "test")}
    assert {s: len(keys) for s, keys in split.items()} == {"train": 11, "val": 1, "test": 3}
    assert all(key.startswith("stage_2_test/") for key in split["test"])
    assert not set(split["train"]) & set(split["val"])
    item = open_rsna_head(rsna, "test")[0]
    expected = np.clip(head(seed=12), 0, 80) / 80
    np.testing.assert_allclose(item.image[0], expected, atol=1e-6)
    assert item.scale == (0, 80)
    wide = open_rsna_head(rsna, "test", window="0,4000")[0]
    assert wide.scale == (-1000, 1000)
    assert open_rsna_head(rsna, "test", window="0,4000", normalize="volume")[0].scale == (
        -2000,
        2000,
    )
    assert open_rsna_head(rsna, "test", image_size=32)[0].image.shape == (1, 32, 32)
    with pytest.raises(DataError, match=r"data\.window as LEVEL,WIDTH.*'40'"):
        open_rsna_head(rsna, "test", window="40")


def test_rsna_split_list(rsna):
    (rsna / "test.txt").write_text("ID_000000003\nstage_2_test/ID_00000000c.dcm\n")
    data = open_rsna_head(rsna, "test", split_list=str(rsna / "test.txt"))
    assert data.keys == ["stage_2_train/ID_000000003.dcm", "stage_2_test/ID_00000000c.dcm"]


def test_rescale_and_the_wrapped_files(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", head())
    np.testing.assert_array_equal(read_dicom(path), head())
    path = write_dicom(tmp_path / "b.dcm", head(), wrapped=True)
    assert read_dicom(path).max() > 3000
    np.testing.assert_array_equal(read_dicom(path, fix_wrapped=True), head())
    header = pydicom.dcmread(path)
    header.PhotometricInterpretation, header.RescaleSlope = "MONOCHROME1", "2"
    header.save_as(path)
    # how values are shown is no part of them
    np.testing.assert_array_equal(read_dicom(path, fix_wrapped=True), 2.0 * head() + 1000)
    header.RescaleSlope = header.RescaleIntercept = None
    header.save_as(path)
    np.testing.assert_array_equal(read_dicom(path), head() % 4096)


def test_rsna_png_export(tmp_path):
    for i in range(5):
        write_picture(tmp_path / f"ID_{i}.png", mode="L", seed=i)
    assert len(open_rsna_head(tmp_path, "train", image_size=32)) == 3
    with pytest.raises(DataError, match="PNG exports have no window"):
        open_rsna_head(tmp_path, "train", normalize="volume")


@pytest.mark.parametrize("fraction", [0, 0.02, 0.5, 0.99])
def test_truncated_dicom(rsna, fraction):
    truncate(rsna / "stage_2_test/ID_00000000d.dcm", fraction)
    with pytest.raises(DataError, match=r"ID_00000000d\.dcm.*DICOM.*download it again"):
        open_rsna_head(rsna, "test")[1]


@pytest.mark.parametrize(("name", "module"), [("rsna_head", "pydicom"), ("volume", "nibabel")])
def test_missing_optional_dependency(rsna, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"{module}.*not installed.*make venv.*pip install.*io"):
        create_dataset({"name": name, "root": str(rsna)}, "test")


# --- pictures ------------------------------------------------------------------------------------


def test_celeba_hq_takes_the_photographs_only(tmp_path):
    for i in range(6):
        write_picture(tmp_path / f"CelebA-HQ-img/{i}.jpg", seed=i)
        write_picture(tmp_path / f"CelebAMask-HQ-mask-anno/0/0000{i}_skin.png", mode="L")
    keys = [k for s in ("train", "val", "test") for k in open_celeba_hq(tmp_path, s).keys]
    assert sorted(keys) == [f"CelebA-HQ-img/{i}.jpg" for i in range(6)]
    assert open_celeba_hq(tmp_path, "val", image_size=24)[0].image.shape == (1, 24, 24)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits(tmp_path, suffix):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) + 40000
    for name in "abc":
        Image.fromarray(pixels).save(tmp_path / f"{name}.{suffix}")
    item = open_image_folder(tmp_path, "val")[0]
    assert item.scale == (40000, 40063)
    assert item.image.unique().numel() == 64


def test_fit(tmp_path):
    for name in "abc":
        write_picture(tmp_path / f"{name}.png", size=(60, 40), mode="L")
    pixels = np.asarray(Image.open(tmp_path / "a.png"), dtype=float)

    def image(fit):
        low, high = (item := open_image_folder(tmp_path, "val", image_size=20, fit=fit)[0]).scale
        return item.image[0].numpy() * (high - low) + low

    np.testing.assert_allclose(image("crop"), pixels[10:30, 20:40], atol=1e-4)
    assert image("resize").std() < 0.6 * pixels.std()  # anti-aliased
    assert np.ptp(image("pad")[0]) < 1e-3
    with pytest.raises(DataError, match=r"'stretch'.*resize, crop, pad"):
        image("stretch")


# --- volumes -------------------------------------------------------------------------------------


def landmarks():
    """A volume along (right, anterior, superior) whose values tell where they are."""
    x, y, z = np.mgrid[0:7, 0:9, 0:5]
    return 100 * x + 10 * y + z


@pytest.mark.parametrize("flip", [False, True])
def test_volume_orientation(tmp_path, flip):
    volume, affine = landmarks(), np.eye(4)
    if flip:  # stored to the left and front first: the header undoes it
        volume = volume[::-1].transpose(1, 0, 2)
        affine = np.array([[0, -1, 0, 6], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for split in ("train", "val"):
        write_nifti(tmp_path / f"{split}/sub-1/anat/T1.nii.gz", volume, affine)

    def image(axis, i):
        low, high = (item := open_volume(tmp_path, "val", axis=axis)[i]).scale
        return item.image[0].numpy() * (high - low) + low, item.key

    axial, key = image("axial", 2)
    assert key == "val/sub-1/anat/T1.nii.gz:2"
    assert axial.shape == (9, 7)
    np.testing.assert_allclose(axial[[0, 0, -1], [0, -1, 0]], [682, 82, 602], rtol=1e-5)
    coronal, _ = image("coronal", 3)
    np.testing.assert_allclose(coronal[[0, 0, -1], [0, -1, 0]], [634, 34, 630], rtol=1e-5)
    sagittal, _ = image("sagittal", 1)
    np.testing.assert_allclose(sagittal[[0, 0, -1], [0, -1, 0]], [184, 104, 180], rtol=1e-5)


def test_dicom_series(tmp_path):
    for name in ("train", "val"):
        write_series(tmp_path / name / "head", [head(seed=i) + i for i in range(6)])
    data = open_volume(tmp_path, "val", window="40,80", slices="range:2:5")
    assert data.keys == ["val/head:2", "val/head:3", "val/head:4"]
    np.testing.assert_allclose(
        data[0].image[0], np.clip(head(seed=2) + 2, 0, 80) / 80, atol=1e-6
    )  # DICOM stores rows from front to back and columns from the patient's right: upright
    assert len(open_volume(tmp_path, "val", axis="sagittal", slices="central:40")) == 40
    write_series(tmp_path / "val/head", [head()] * 2, series="1.2.4")
    assert sum("#1.2.4" in key for key in open_volume(tmp_path, "val").keys) == 2


def test_volume_windows_and_padding(tmp_path):
    volume = np.random.default_rng(0).normal(500, 50, (12, 20, 4)).round()
    volume[5, 5, 2] = 9000
    for split in ("train", "val"):
        write_nifti(tmp_path / f"{split}/a.nii", volume)
    assert open_volume(tmp_path, "val")[2].scale[1] == 9000
    assert open_volume(tmp_path, "val", percentiles="1,99")[2].scale[1] < 700
    assert open_volume(tmp_path, "val", image_size=20)[2].image.shape == (1, 20, 20)
    assert open_volume(tmp_path, "val", image_size=12, fit="crop")[2].image.shape == (1, 12, 12)
    for fields, message in (
        ({"image_size": 24}, r"a\.nii.*at least 24.*data\.image_size"),
        ({"slices": "first:5"}, r"a\.nii.*at least 5 slices.*got 4"),
        ({"axis": "oblique"}, r"'oblique'.*sagittal, coronal, axial"),
        ({"percentiles": "99,1"}, r"data\.percentiles.*'99,1'"),
    ):
        with pytest.raises(DataError, match=message):
            open_volume(tmp_path, "val", **fields)


def test_bad_volumes(tmp_path):
    for name in ("train", "val"):
        path = write_nifti(tmp_path / f"{name}/a.nii.gz", 100 * landmarks())
    truncate(path, 0.7)
    with pytest.raises(DataError, match=r"a\.nii\.gz.*NIfTI.*download it again"):
        open_volume(tmp_path, "val")[0]
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.nii\.gz.*NIfTI.*download it again"):
        open_volume(tmp_path, "val")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), path)
    with pytest.raises(DataError, match=r"a\.nii\.gz.*\(4, 4, 4, 3\).*series over time"):
        open_volume(tmp_path, "val")
    write_series(tmp_path / "d/train/s", [head()] * 3)
    folder = write_series(tmp_path / "d/val/s", [head()] * 3)
    write_dicom(folder / "x.dcm", head(32), position=(0, 0, 99))
    with pytest.raises(DataError, match=r"x\.dcm.*\(64, 64\).*take it out"):
        open_volume(tmp_path / "d", "val")[0]


# --- permissions, skips --------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["h5py.File", "PIL.Image.open", "pydicom.dcmread"])
def test_unreadable_permissions(tmp_path, monkeypatch, target):
    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    for split in ("train", "val"):
        write_fastmri(tmp_path / f"h/singlecoil_{split}/a_{split}.h5")
        write_picture(tmp_path / f"p/{split}/a_{split}.png")
        write_dicom(tmp_path / f"d/stage_2_test/a_{split}.dcm", head())
    name, folder, file = {
        "h5py.File": ("fastmri", "h", "a_val.h5"),
        "PIL.Image.open": ("image_folder", "p", "a_val.png"),
        "pydicom.dcmread": ("rsna_head", "d", "a_train.dcm"),
    }[target]
    monkeypatch.setattr(target, refuse)
    with pytest.raises(DataError, match=rf"{file}: cannot be read.*Permission.*chmod"):
        create_dataset(
            {"name": name, "root": str(tmp_path / folder)}, "test" if name == "rsna_head" else "val"
        )[0]


def test_skipped_files_are_counted_and_logged(tmp_path, caplog):
    for i in range(5):
        write_fastmri(tmp_path / f"singlecoil_val/f{i}.h5", slices=2 if i == 1 else 6, seed=i)
    write_fastmri(tmp_path / "singlecoil_train/t.h5")
    truncate(tmp_path / "singlecoil_val/f3.h5")
    with h5py.File(tmp_path / "singlecoil_val/f4.h5", "r+") as file:
        del file["reconstruction_rss"]
    fields = {"name": "fastmri", "root": str(tmp_path), "slices": "first:3"}
    with pytest.raises(DataError, match=r"f1\.h5.*at least 3 slices"):
        create_dataset(fields, "val")
    data = create_dataset({**fields, "skip_bad": True}, "val")
    assert {key[:2] for key in data.keys} == {"f0", "f2"}
    assert len(data.skipped) == 3
    for name in ("f1.h5", "f3.h5", "f4.h5"):
        assert name in caplog.text
        assert any(name in reason for reason in data.skipped)


def test_skips_of_every_kind(tmp_path, caplog):
    for i in range(6):
        write_picture(tmp_path / f"p/{i}.png", seed=i)
    truncate(tmp_path / "p/2.png", 0)
    (tmp_path / "list.txt").write_text("".join(f"{i}\n" for i in range(1, 8)))
    data = open_image_folder(
        tmp_path / "p", "test", split_list=str(tmp_path / "list.txt"), skip_bad=True
    )
    assert data.keys == ["1.png", "3.png", "4.png", "5.png"]
    assert len(data.skipped) == 2
    assert "6, 7" in caplog.text
    for part in ("a", "b"):
        write_lodopab(tmp_path / f"l/{part}/ground_truth_test_000.hdf5", size=16)
    lodopab = open_lodopab(tmp_path / "l", "test", skip_bad=True)
    assert len(lodopab) == 3
    assert "the same name" in lodopab.skipped[0]
    for name in ("train/a", "val/b", "val/c"):
        write_nifti(tmp_path / f"v/{name}.nii", landmarks())
    truncate(tmp_path / "v/val/b.nii", 0.2)
    volumes = open_volume(tmp_path / "v", "val", skip_bad=True)
    assert volumes.keys == [f"val/c.nii:{i}" for i in range(5)]
    assert "b.nii" in volumes.skipped[0]


def test_nothing_left_is_an_error(tmp_path):
    for i in range(4):
        write_picture(tmp_path / f"{i}.png")
        truncate(tmp_path / f"{i}.png", 0)
    with pytest.raises(DataError, match=r"every picture was left out.*png"):
        open_image_folder(tmp_path, "train", skip_bad=True)
