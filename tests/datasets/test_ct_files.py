"""CT as scanners and archives write it: rescale in frames, padding, people, headers that lack."""

import logging

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, SecondaryCaptureImageStorage

from configs.reconstruct import get_config
from datasets import DataError
from datasets.dicom import read_dicom
from datasets.export import check_sources, write_dicom
from datasets.lodopab import open_lodopab
from datasets.prepare import prepare_dataset
from datasets.rsna_head import open_rsna_head
from evaluation.own import open_input
from tests.helpers import data_writers as writers
from tests.helpers.data_writers import head, write_lodopab


def change(path, drop=(), meta=(), **elements):
    """Change a DICOM file's elements in place."""
    file = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(file, name, value)
        if name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            file[name].VR = "SS"
    for name in drop:
        delattr(file, name)
    for name in meta:
        delattr(file.file_meta, name)
    pydicom.dcmwrite(path, file, enforce_file_format=False)
    return path


def enhanced(path, *, frames="SharedFunctionalGroupsSequence", slope="2", intercept="-1024"):
    """An enhanced CT file of one frame."""
    item, group = Dataset(), Dataset()
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = slope, intercept, "HU"
    group.PixelValueTransformationSequence = [item]
    writers.write_dicom(path, head(), intercept=-1024)
    elements = {frames: [group], "NumberOfFrames": 1, "SOPClassUID": EnhancedCTImageStorage}
    return change(path, drop=("RescaleSlope", "RescaleIntercept"), **elements)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["Shared", "PerFrame"])
def test_enhanced_files_have_their_rescale_in_the_frames_groups(tmp_path, where):
    path = enhanced(tmp_path / "a.dcm", frames=f"{where}FunctionalGroupsSequence")
    stored = head() + 1024
    np.testing.assert_array_equal(read_dicom(path), 2.0 * stored - 1024)
    image = read_dicom(path)
    write_dicom(tmp_path / "out", image[None], [path], description="x", identity="y")
    out = tmp_path / "out/0000.dcm"
    assert np.abs(read_dicom(out) - image).max() < np.ptp(image) / 60000
    groups = pydicom.dcmread(out)[f"{where}FunctionalGroupsSequence"].value[0]
    assert groups.PixelValueTransformationSequence[0].RescaleType == "HU"


@pytest.mark.parametrize("limit", [None, -1500])
def test_padding_is_no_measurement(tmp_path, limit):
    hu = head()
    outside = np.hypot(*(np.mgrid[: len(hu), : len(hu)] - (len(hu) - 1) / 2)) > len(hu) / 2
    padded = np.where(outside, -2000 if limit is None else -1700, hu)
    path = writers.write_dicom(tmp_path / "a.dcm", padded, intercept=0)
    change(path, PixelPaddingValue=-2000)
    if limit is not None:
        change(path, PixelPaddingRangeLimit=limit)
    image = read_dicom(path)
    np.testing.assert_array_equal(image[~outside], hu[~outside])
    assert (image[outside] == hu[~outside].min()).all()
    change(path, Modality="MR")  # zeros of an MR image may be padding and image
    assert read_dicom(path).min() == padded.min()


# --- what cannot be written is known before the work ---------------------------------------------


def test_headers_that_lack_what_a_result_needs(tmp_path):
    path = writers.write_dicom(tmp_path / "d/a.dcm", head())
    for drop, meta in (
        (("SOPClassUID",), ()),
        (("SOPInstanceUID",), ()),
        (("SOPClassUID", "SOPInstanceUID"), ("MediaStorageSOPClassUID",)),
    ):
        writers.write_dicom(path, head())
        change(path, drop, meta)
        check_sources([path])
        write_dicom(tmp_path / "out", read_dicom(path)[None], [path], description="", identity="z")
        written = pydicom.dcmread(tmp_path / "out/0000.dcm")
        assert written.SOPClassUID == written.file_meta.MediaStorageSOPClassUID
        assert ("SourceImageSequence" in written) == (not drop)
    assert written.SOPClassUID == SecondaryCaptureImageStorage


def test_a_header_that_cannot_be_written_is_known_when_the_input_is_opened(tmp_path, monkeypatch):
    path = writers.write_dicom(tmp_path / "d/a.dcm", head())

    def refuse(*_, **__):
        raise ValueError("no such encoding")

    monkeypatch.setattr(pydicom, "dcmwrite", refuse)
    with pytest.raises(DataError, match=r"a\.dcm: its header cannot be written .*no such encoding"):
        open_input(path, get_config())


# --- people --------------------------------------------------------------------------------------


def test_slices_of_a_patient_are_in_one_split(tmp_path, caplog):
    for i in range(60):
        path = writers.write_dicom(tmp_path / f"stage_2_train/ID_{i:03d}.dcm", head(16, seed=i))
        change(path, PatientID=f"P{i % 15}")
    split = {s: open_rsna_head(tmp_path, s) for s in ("train", "val", "test")}
    people = {s: set(data.people.values()) for s, data in split.items()}
    assert sum(len(data) for data in split.values()) == 60
    assert all(len(data.people) == len(data) for data in split.values())
    assert not people["train"] & (people["val"] | people["test"])
    assert not people["val"] & people["test"]
    # with the archive's own test folder train and val are by patient, and a patient of both is said
    path = writers.write_dicom(tmp_path / "stage_2_test/ID_999.dcm", head(16, seed=99))
    change(path, PatientID="P3")
    with caplog.at_level(logging.WARNING):
        val, train = (open_rsna_head(tmp_path, s) for s in ("val", "train"))
    assert not set(val.people.values()) & set(train.people.values())
    assert "1 patients are in the archive's training and test folders" in caplog.text


def test_lodopab_patients_by_the_archives_list(tmp_path):
    for i in range(2):
        write_lodopab(tmp_path / f"test/ground_truth_test_00{i}.hdf5", slices=3, size=8, seed=i)
    assert open_lodopab(tmp_path, "test").people == {}
    numbers = [*[7] * 100, *[8] * 28, 8, 8, 9]
    (tmp_path / "patient_ids_rand_test.csv").write_text("".join(f"{n}\n" for n in numbers))
    people = open_lodopab(tmp_path, "test").people
    assert [people[f"ground_truth_test_000.hdf5:{i}"] for i in range(3)] == ["patient 7"] * 3
    assert people["ground_truth_test_001.hdf5:1"] == "patient 8"
    assert people["ground_truth_test_001.hdf5:2"] == "patient 9"
    data = {"name": "lodopab", "root": str(tmp_path)}
    for kind in ("none", "memory"):
        assert prepare_dataset({**data, "cache": kind}, "test", limit=4).people == people
    (tmp_path / "patient_ids_rand_test.csv").write_text("1\n" * 129)
    with pytest.raises(DataError, match=r"a number for each slice, got 129, none for .*001.hdf5:1"):
        open_lodopab(tmp_path, "test")
