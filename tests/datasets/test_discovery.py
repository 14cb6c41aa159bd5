"""Which files are found, of which split and person they are, and which make a volume."""

import os
import shutil

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian

from datasets import DataError, create_dataset
from datasets.dicom import read_dicom
from datasets.discovery import find_files
from datasets.export import write_dicom as export_dicom
from datasets.fastmri import open_fastmri
from datasets.image_folder import open_image_folder
from datasets.image_series import open_images
from datasets.splits import folder_of_split, known_people, read_split_list, seeded_split
from datasets.volume import open_volume
from tests.helpers.data_writers import (
    head,
    write_dicom,
    write_fastmri,
    write_nifti,
    write_picture,
    write_series,
)

SPLITS = ("train", "val", "test")


def change(path, **elements):
    """Set elements of a DICOM file."""
    file = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(file, name, value)
    file.save_as(path)
    return path


# ------------------------------------------------------------------------------------------- files


def test_links_are_followed_once_and_hidden_folders_left_out(tmp_path):
    root, disk = tmp_path / "data", tmp_path / "disk"
    for path in (root / "a/1.h5", root / "a/.snapshot/1.h5", root / ".git/2.h5", disk / "b/3.H5"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (root / "folder.h5").mkdir()
    (root / "val").symlink_to(disk / "b")
    (root / "again").symlink_to(disk / "b")  # the same files by another name
    (root / "a/loop").symlink_to(root)
    assert find_files(root, (".h5",)) == ["a/1.h5", "again/3.H5"]
    (root / "again").unlink()
    (root / "chosen").mkdir()
    (root / "chosen/one.h5").symlink_to("../a/1.h5")
    assert find_files(root, (".h5",)) == ["chosen/one.h5", "val/3.H5"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"closed: the folder cannot be read.*chmod \+rx"):
        find_files(tmp_path)


def test_a_split_may_lie_on_another_disk(tmp_path):
    for i in range(3):
        write_fastmri(tmp_path / f"knee/singlecoil_train/t{i}.h5", slices=1, kspace=False)
    write_fastmri(tmp_path / "disk/singlecoil_val/v.h5", slices=1, kspace=False)
    (tmp_path / "knee/singlecoil_val").symlink_to(tmp_path / "disk/singlecoil_val")
    assert open_fastmri(tmp_path / "knee", "val").keys == ["v.h5:0"]
    assert len(open_fastmri(tmp_path / "knee", "train")) == 3


def test_datalad_clones(tmp_path):
    """Files are links into .git/annex, and links to nothing until they are fetched."""
    for i in range(6):
        key = write_nifti(tmp_path / f"ds/.git/annex/objects/{i}/{i}.nii.gz", head(8)[..., None])
        link = tmp_path / f"ds/sub-{i:02d}/anat/T1w.nii.gz"
        link.parent.mkdir(parents=True)
        link.symlink_to(os.path.relpath(key, link.parent))
    keys = [key for split in SPLITS for key in open_volume(tmp_path / "ds", split).keys]
    assert sorted(keys) == [f"sub-{i:02d}/anat/T1w.nii.gz:0" for i in range(6)]
    for content in (None, b"/annex/objects/MD5E-s9--ab.nii.gz\n"):  # a link, or unlocked
        link.unlink()
        link.symlink_to("gone") if content is None else link.write_bytes(content)
        with pytest.raises(DataError, match=r"sub-05.*datalad get"):
            [open_volume(tmp_path / "ds", split) for split in SPLITS]
    link.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"sub-05.*git lfs pull"):
        [open_volume(tmp_path / "ds", split) for split in SPLITS]


def test_hdf5_that_another_program_writes_is_not_called_corrupt(tmp_path, monkeypatch):
    for name in "abc":
        path = write_fastmri(tmp_path / f"{name}.h5", slices=1)
    error = BlockingIOError(11, "Unable to synchronously open file (unable to lock file, errno 11)")

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(DataError, match=r"is locked.*HDF5_USE_FILE_LOCKING") as caught:
        open_fastmri(path.parent, "train")
    assert "corrupt" not in str(caught.value)


# ------------------------------------------------------------------------------------------ splits


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("knee_singlecoil_train",), ("singlecoil", "train")),
        (("data", "brain_multicoil_val_batch_3"), ("multicoil", "val")),
        (("multicoil_test_full",), ("multicoil", "test")),
        (("validation_T2",), ("", "val")),
        (("DIV2K_valid_HR",), ("", "val")),
        (("my_training_data", "singlecoil_val"), ("singlecoil", "val")),
        (("contrast", "latest", "trainer"), ("", "")),
    ],
)
def test_folders_of_splits(folders, expected):
    assert folder_of_split(folders) == expected


def test_folders_named_after_archives_are_the_splits(tmp_path):
    for split in ("train", "val"):
        for i in range(2):
            path = tmp_path / f"fm/knee_singlecoil_{split}/{split}{i}.h5"
            write_fastmri(path, slices=1, kspace=False)
        write_nifti(tmp_path / f"nii/OASIS/{split}ing/{split}.nii", head(8)[..., None])
        write_picture(tmp_path / f"p/DIV2K_{split}_HR/{split}.png")
    shutil.move(tmp_path / "nii/OASIS/valing", tmp_path / "nii/OASIS/Validation")
    for name, root in (("fastmri", "fm"), ("volume", "nii"), ("image_folder", "p")):
        data = create_dataset({"name": name, "root": str(tmp_path / root)}, "val")
        assert all(path.name.startswith("val") for path in data.files)
        with pytest.raises(DataError, match=r"'test'.*data\.split_list"):
            create_dataset({"name": name, "root": str(tmp_path / root)}, "test")


@pytest.mark.parametrize(
    "pattern", ["sub-{}/ses-{}/T1w.nii", "patient{}_study{}_T1.nii", "Subject 0{}/{}.nii"]
)
def test_all_scans_of_a_person_are_in_one_split(tmp_path, pattern):
    names = {pattern.format(p, scan): p for p in range(1, 13) for scan in range(3)}
    split = {s: seeded_split(list(names), s, 0, tmp_path) for s in SPLITS}
    assert sorted(name for s in SPLITS for name in split[s]) == sorted(names)
    people = [{names[name] for name in split[s]} for s in SPLITS]
    assert [len(found) for found in people] == [10, 1, 1]
    assert len(set.union(*people)) == 12
    with pytest.raises(DataError, match=r"at least 3 people.*got 2"):
        seeded_split(list(names)[:6], "train", 0, tmp_path)


def test_people_of_fastmri_and_dicom_headers(tmp_path):
    for i in range(8):
        path = write_fastmri(tmp_path / f"k/file{i}.h5", slices=1, kspace=False)
        with h5py.File(path, "r+") as file:
            file.attrs["patient_id"] = f"{i // 2:064x}1"
        for z in range(2):
            path = write_dicom(tmp_path / f"d/{i}/{z}.dcm", head(8), position=(0, 0, z))
            change(path, PatientID=f"P{i // 2}")
    for name, root in (("fastmri", "k"), ("volume", "d")):
        people = []
        for split in SPLITS:
            keys = create_dataset({"name": name, "root": str(tmp_path / root)}, split).keys
            people += {int(key.removeprefix("file")[0]) // 2 for key in keys}
        assert sorted(people) == [0, 1, 2, 3]


def test_placeholders_are_no_people(caplog):
    assert known_people({"a": "0" * 64, "b": " ", "c": "p"}, "x") == {"c": "identity p"}
    assert known_people({"a": "anon", "b": "anon"}, "x") == {}
    assert "taken as a placeholder" in caplog.text


def test_names_in_split_lists(tmp_path):
    path = tmp_path / "list.txt"
    files = ["p#1.7.0", "p#1.7.1", ".", "sub/a.nii.gz", "b #2.h5"]
    path.write_text("\ufeffp#1.7.1 # one series\n.\n#no\nb #2.h5\nsub/a.nii\n", encoding="utf-8")
    assert read_split_list(str(path), "test", files) == ["p#1.7.1", ".", "b #2.h5", "sub/a.nii.gz"]
    path.write_text("p#1.7")  # of two series: no guess
    with pytest.raises(DataError, match=r"not below data\.root: p#1\.7"):
        read_split_list(str(path), "test", files)


def test_split_lists_of_dicom_stacks(tmp_path):
    for series in "123":
        for z in range(2):
            name = f"{series}{z}.dcm"
            write_dicom(
                tmp_path / "two/p" / name, head(8), position=(0, 0, z), series=f"1.{series}"
            )
    write_series(tmp_path / "one", [head(8)] * 2)
    for root, name in (("two", "p#1.2"), ("one", ".")):
        (tmp_path / "list.txt").write_text(name)
        data = open_volume(tmp_path / root, "test", split_list=str(tmp_path / "list.txt"))
        assert data.keys == [f"{name}:0", f"{name}:1"]


# ------------------------------------------------------------------------------------------ stacks


def write_mr(path, value, *, position=0.0, orientation=(1, 0, 0, 0, 1, 0), **elements):
    """A slice of the constant `value` but for a bright row, on its place along the normal."""
    image = np.full((8, 8), value, np.int16)
    image[0] = 1000
    normal = np.cross(orientation[:3], orientation[3:])
    write_dicom(path, image, intercept=0, position=normal * position, orientation=orientation)
    return change(path, Modality="MR", **elements)


@pytest.fixture
def lists(tmp_path):
    """A split list of all that is found."""
    (tmp_path / "{split}.txt").touch()

    def names(root):
        found = {}
        for split in SPLITS:
            data = open_volume(root, split)
            found |= {key.rpartition(":")[0]: data for key in data.keys}
        return found

    return names


def test_orientations_echoes_and_repetitions_are_stacks_of_their_own(tmp_path, lists):
    planes = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
    for n, plane in enumerate(planes):
        for z in range(2):
            jitter = np.array(plane) + 1e-4 * z
            write_mr(tmp_path / f"local/{n}{z}", n, position=z, orientation=jitter)
    assert set(lists(tmp_path / "local")) == {".#axial", ".#coronal", ".#sagittal"}
    for echo in (20, 80, 140):
        for z in range(2):
            write_mr(tmp_path / f"echo/{echo}{z}", echo, position=3 * z, EchoTime=echo + 0.01 * z)
    found = lists(tmp_path / "echo")
    assert set(found) == {".#te20", ".#te80", ".#te140"}
    for name, data in found.items():
        values = [data[i].scale[0] for i, key in enumerate(data.keys) if key.startswith(name + ":")]
        assert values == [int(name.removeprefix(".#te"))] * 2
    for time in range(3):
        for z in range(2):
            number = 2 * time + z
            write_mr(tmp_path / f"time/{number}", time, position=z, InstanceNumber=number)
    found = lists(tmp_path / "time")
    assert set(found) == {".#1", ".#2", ".#3"}
    assert [found[f".#{n}"][0].scale[0] for n in (1, 2, 3)] == [0, 1, 2]
    write_mr(tmp_path / "time/9", 9, position=1, InstanceNumber=9)
    with pytest.raises(DataError, match=r"equally many, got 4 here.*folder of their own"):
        open_volume(tmp_path / "time", "train")


@pytest.mark.parametrize(
    "phase",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
        {"ComplexImageComponent": "PHASE"},
    ],
)
def test_phase_images_are_no_magnitudes(tmp_path, caplog, phase):
    for person in range(3):
        for z in range(2):
            write_mr(tmp_path / f"{person}/m{z}", 1, position=z)
            write_mr(tmp_path / f"{person}/p{z}", 2, position=z, **phase)
    for split in SPLITS:
        data = open_volume(tmp_path, split)
        assert [data[i].scale[0] for i in range(len(data))] == [1, 1]
    assert "2 slices of the phase" in caplog.text
    with pytest.raises(DataError, match=r"2 stacks of a series: 2 files magnitude.*2 files phase"):
        open_images(tmp_path / "0")


def test_copies_of_a_file_count_once(tmp_path):
    folder = write_series(tmp_path / "s", [head(8)] * 3)
    shutil.copy(folder / "000.dcm", folder / "000 (1).dcm")
    assert len(open_images(folder).images) == 3


def test_dicom_without_its_ending(tmp_path):
    for person in range(3):
        for z in range(2):
            write_dicom(tmp_path / f"{person}/MR.1.2.{z}", head(8), position=(0, 0, z))
        (tmp_path / f"{person}/README").write_text("no image")
    assert sum(len(open_volume(tmp_path, split)) for split in SPLITS) == 6
    assert len(open_images(tmp_path / "1").images) == 2


# ------------------------------------------------------------------------ what a file may look like


def test_big_endian_dicom_is_written_back(tmp_path):
    source = write_dicom(tmp_path / "little.dcm", head(8), intercept=0)
    file = pydicom.dcmread(source)
    pixels = file.pixel_array
    file.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    file.add_new((0x0019, 0x1010), "OW", np.array([1, 258], ">u2").tobytes())
    file.PixelData = pixels.astype(">i2").tobytes()
    pydicom.dcmwrite(tmp_path / "big.dcm", file, implicit_vr=False, little_endian=False)
    image = read_dicom(tmp_path / "big.dcm")
    np.testing.assert_array_equal(image, head(8))
    export_dicom(
        tmp_path / "out", image[None], [tmp_path / "big.dcm"], description="d", identity="i"
    )
    np.testing.assert_allclose(read_dicom(tmp_path / "out/0000.dcm"), image, atol=0.02)
    written = pydicom.dcmread(tmp_path / "out/0000.dcm")
    assert written.PixelSpacing == file.PixelSpacing
    np.testing.assert_array_equal(np.frombuffer(written[0x0019, 0x1010].value, "<u2"), [1, 258])


def test_values_do_not_depend_on_how_they_are_shown(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", head(8))
    change(path, PhotometricInterpretation="MONOCHROME1", RescaleIntercept=None, RescaleSlope=None)
    image = read_dicom(path)
    np.testing.assert_array_equal(image, head(8) + 1024)
    export_dicom(tmp_path / "o", image[None], [path], description="", identity="")
    assert pydicom.dcmread(tmp_path / "o/0000.dcm").PhotometricInterpretation == "MONOCHROME1"


def test_a_nifti_file_of_two_axes_is_one_slice(tmp_path):
    image = np.arange(80, dtype=np.int16).reshape(10, 8)
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii.gz")
    series = open_images(tmp_path / "a.nii.gz")
    assert series.images.shape == (1, 8, 10)
    np.testing.assert_array_equal(series.volume.array(series.images)[..., 0], image)
    np.testing.assert_array_equal(series.volume.shift(range(1)), np.eye(4))
    for name in "bc":
        shutil.copy(tmp_path / "a.nii.gz", tmp_path / f"{name}.nii.gz")
    assert open_volume(tmp_path, "train")[0].image.shape == (1, 8, 10)


@pytest.mark.parametrize(
    ("array", "name", "remedy"),
    [
        (np.zeros((4, 4, 4, 2), np.float32), "a.nii", r"slicer\[\.\.\., 0\]"),
        (np.ones((4, 4, 4), np.complex64), "a.nii", "save the magnitude"),
        (np.ones((4, 4, 4), np.float32), "a.nii.gz", r"rename it to \.nii\.gz"),
    ],
)
def test_sound_nifti_files_are_not_called_corrupt(tmp_path, array, name, remedy):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / name)
    path = (tmp_path / name).rename(tmp_path / "a.nii")
    (tmp_path / "list.txt").write_text("a.nii")
    for read in (
        lambda: open_images(path),
        lambda: open_volume(tmp_path, "test", split_list=str(tmp_path / "list.txt")),
    ):
        with pytest.raises(DataError, match=rf"a\.nii.*{remedy}") as caught:
            read()
        assert "corrupt" not in str(caught.value)


def test_multi_frame_dicom_is_not_called_corrupt(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", head(8))
    file = pydicom.dcmread(path)
    file.NumberOfFrames, file.PixelData = 3, file.PixelData * 3
    file.save_as(path)
    with pytest.raises(DataError, match=r"got 3 frames.*dcm2niix") as caught:
        read_dicom(path)
    assert "corrupt" not in str(caught.value)


def test_pictures_of_one_person_are_in_one_split(tmp_path):
    for person in range(4):
        for n in range(2):
            write_picture(tmp_path / f"patient_{person}/{n}.png", seed=n)
    found = [{k.split("/")[0] for k in open_image_folder(tmp_path, s).keys} for s in SPLITS]
    assert sorted(map(len, found)) == [1, 1, 2]
    assert len(set.union(*found)) == 4
