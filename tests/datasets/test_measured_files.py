"""Measurements and images as files: ISMRMRD, orientation of NIfTI and DICOM."""

import hashlib
import itertools

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import scipy.io

from datasets.array_layout import KSPACE, SINOGRAM
from datasets.dicom import read_dicom
from datasets.export import write_dicom, write_nifti, write_plain_nifti
from datasets.image_series import open_images
from datasets.measured_files import open_measurement
from datasets.sample import DataError
from datasets.volume import open_volume
from tests.helpers.data_writers import head, write_series
from tests.helpers.data_writers import write_dicom as write_source
from tests.helpers.reconstruct_inputs import lines, write_ismrmrd


def random_complex(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


# ------------------------------------------------------------------------------------ measurements


def test_numpy_layouts(tmp_path):
    kspace = random_complex(2, 3, 8, 6)
    for name, array, axis, shape in (
        ("plain", kspace[0, 0], "", (1, 1, 8, 6)),
        ("coils", kspace[0], "", (1, 3, 8, 6)),
        ("slices", kspace[0], "slices", (3, 1, 8, 6)),
        ("both", kspace, "", (2, 3, 8, 6)),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        opened = open_measurement(tmp_path / f"{name}.npy", first_axis=axis)
        assert (opened.kind, opened.shape) == (KSPACE, shape)
        stacked = np.stack([opened.read(i) for i in range(shape[0])])
        np.testing.assert_array_equal(stacked, array.reshape(shape))
    np.savez(tmp_path / "s.npz", sinogram=np.ones((5, 7)), angles=np.arange(5))
    opened = open_measurement(tmp_path / "s.npz")
    assert (opened.kind, opened.shape) == (SINOGRAM, (1, 5, 7))
    assert opened.read(0).dtype == np.float32
    assert list(opened.extras) == ["angles"]
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"], file["mask"] = kspace[0], np.ones(6)
    opened = open_measurement(tmp_path / "k.h5")
    assert opened.shape == (3, 1, 8, 6)  # as in fastMRI's single-coil files
    np.testing.assert_array_equal(opened.read(1)[0], kspace[0, 1])


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".mat"])
def test_arrays_by_other_names_are_not_passed_over(tmp_path, suffix):
    """Without its trajectory k-space would be a Cartesian one, without its angles a half turn."""

    def opened(**arrays):
        path = tmp_path / f"a{suffix}"
        if suffix == ".npz":
            np.savez(path, **arrays)
        elif suffix == ".mat":
            scipy.io.savemat(path, arrays)
        else:
            with h5py.File(path, "w") as file:
                file.update(arrays)
        return lambda **how: open_measurement(path, **how)

    kspace, places = random_complex(8, 6), random_complex(8, 6).real[..., None] * (0.1, 0)
    scan = opened(kspace=kspace, traj=places)
    with pytest.raises(DataError, match=r"under the name 'trajectory', got 'traj'"):
        scan()
    assert scan(trajectory=places).notes == []
    (note,) = opened(kspace=kspace, Maps=kspace)().notes
    assert note == "the file's 'Maps' is not read: is it 'sens_maps'? Then call it so"
    (note,) = opened(sinogram=np.ones((5, 7)), theta=np.arange(5.0))().notes
    assert "'theta' is not read: is it 'angles'?" in note
    assert opened(sinogram=np.ones((5, 7)), angles=np.arange(5.0), theta=np.ones(5))().notes == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.ones((2, 2, 2, 2)), r"expected complex k-space .* got sinogram float64"),
        ("a.npy", np.ones(4, np.complex64), r"of shape \(4,\)"),
        ("a.npy", np.array([{}], dtype=object), "expected an intact NumPy file"),
        ("a.npz", {"p": np.ones((2, 2)), "q": np.ones((2, 2))}, r"the arrays \['p', 'q'\]"),
        ("a.h5", {"image": np.ones((2, 2))}, r"expected a data set 'kspace', got \['image'\]"),
        ("a.h5", {"kspace": np.ones((2, 2))}, "got kspace float64"),
        ("a.dat", b"raw", "unknown kind of file; .* siemens_to_ismrmrd"),
        ("a.h5", b"no", "expected an intact HDF5 file"),
    ],
)
def test_unfit_measurements(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif name.endswith("h5"):
        with h5py.File(path, "w") as file:
            for key, value in content.items():
                file[key] = value
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        open_measurement(path)


def test_nan_is_named(tmp_path):
    kspace = random_complex(2, 1, 4, 4)
    kspace[1, 0, 2, 2] = np.nan
    np.save(tmp_path / "k.npy", kspace)
    opened = open_measurement(tmp_path / "k.npy")
    opened.read(0)
    with pytest.raises(DataError, match=r"k.npy:1: expected finite values, got 1 NaN"):
        opened.read(1)


def test_ismrmrd_is_put_on_its_grid(tmp_path):
    kspace = random_complex(2, 3, 16, 10)
    mask = lines(10, 3, 4)
    opened = open_measurement(write_ismrmrd(tmp_path / "raw.h5", kspace, mask))
    assert opened.shape == kspace.shape
    for z in range(2):
        np.testing.assert_allclose(opened.read(z), kspace[z] * mask, atol=1e-5)
    assert opened.image_shape == (8, 10)  # half the readout's field of view
    assert opened.voxel_size == (2.0, 2.0, 5.0)


def test_ismrmrd_calibration_of_another_scan_is_left_out(tmp_path):
    kspace = random_complex(1, 2, 16, 10)
    mask = lines(10, 3, 4)
    last = np.flatnonzero(mask)[-1]
    for mode, there in (("separate", False), ("embedded", True)):
        path = tmp_path / f"{mode}.mrd"
        write_ismrmrd(path, kspace, mask, calibration=mode, flags=["calibration"])
        assert open_measurement(path).read(0)[..., last].any() == there


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trajectory": "radial"}, "expected a trajectory .kx, ky. with each readout.*'radial'"),
        ({"flags": ["reverse"]}, "reversed readouts"),
        ({"kspace_encode_step_2": 3}, "2 values of 'kspace_encode_step_2'"),
        ({"contrast": 1}, "2 values of 'contrast'"),
        ({"kspace_encode_step_1": 99}, "expected lines within the encoded matrix of 6, got 1 of 6"),
    ],
)
def test_ismrmrd_that_is_no_stack_of_slices(tmp_path, options, message):
    path = write_ismrmrd(tmp_path / "raw.h5", random_complex(1, 1, 8, 6), np.ones(6), **options)
    with pytest.raises(DataError, match=message):
        open_measurement(path)


# ------------------------------------------------------------------------------ NIfTI and DICOM

ORIENTATIONS = ["RAS", "LPS", "PIR", "SLA", "ALS"]


def volume_with(orientation, shape=(5, 6, 7), *, oblique=False):
    """A volume of different numbers, its affine with the given directions."""
    start = nibabel.orientations.axcodes2ornt(orientation)
    back = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt("RAS"))
    affine = nibabel.orientations.inv_ornt_aff(back, shape)
    if oblique:
        c, s = np.cos(0.2), np.sin(0.2)
        affine = np.array([[c, -s, 0, 3], [s, c, 0, -8], [0, 0, 1, 20], [0, 0, 0, 1]]) @ affine
    affine[:3, :3] *= (1.5, 2.0, 3.0)
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return image


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("numbers", [range(1, 4), range(0, 5, 2), range(1, 4, 3)])
def test_nifti_slices_return_to_their_place_in_the_world(tmp_path, oblique, numbers):
    for orientation, axis in itertools.product(ORIENTATIONS, ("axial", "coronal", "sagittal")):
        source = volume_with(orientation, oblique=oblique)
        nibabel.save(source, tmp_path / "in.nii.gz")
        series = open_images(tmp_path / "in.nii.gz", axis=axis)
        images = series.images[list(numbers)]
        write_nifti(tmp_path / "out.nii.gz", images, series.volume, numbers=numbers)
        result = nibabel.load(tmp_path / "out.nii.gz")
        assert int(result.header["sform_code"]) == int(result.header["qform_code"]) == 1
        values = result.get_fdata()
        assert values.size == images.size
        index = np.stack(np.indices(values.shape), -1).reshape(-1, 3)
        world = nibabel.affines.apply_affine(result.affine, index)
        there = nibabel.affines.apply_affine(np.linalg.inv(source.affine), world)
        np.testing.assert_allclose(there, there.round(), atol=1e-4)  # on voxels of the source
        expected = source.get_fdata()[tuple(there.round().astype(int).T)]
        np.testing.assert_array_equal(values.ravel(), expected)
        assert nibabel.aff2axcodes(result.affine) == nibabel.aff2axcodes(source.affine)
        zooms = nibabel.affines.voxel_sizes(result.affine)
        np.testing.assert_allclose(result.header.get_zooms(), zooms, rtol=1e-5)


def test_nifti_slices_look_as_those_of_the_data_set(tmp_path):
    for number in range(3):
        nibabel.save(volume_with("LPS", (6, 6, 6)), tmp_path / f"v{number}.nii.gz")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "test.txt").write_text("v0\n")
    for axis in ("axial", "coronal", "sagittal"):
        data = open_volume(
            tmp_path, "test", axis=axis, split_list=str(tmp_path / "lists/{split}.txt")
        )
        series = open_images(tmp_path / "v0.nii.gz", axis=axis)
        for number, shown in enumerate(series.images):
            sample = data[number]
            low, high = sample.scale
            np.testing.assert_allclose(
                sample.image[0].numpy() * (high - low) + low, shown, atol=1e-3
            )


def test_plain_nifti_claims_no_orientation(tmp_path):
    images = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    write_plain_nifti(tmp_path / "a.nii.gz", images, (2.0, 1.0, 5.0))
    result = nibabel.load(tmp_path / "a.nii.gz")
    assert result.header.get_zooms() == (1.0, 2.0, 5.0)
    assert int(result.header["sform_code"]) == int(result.header["qform_code"]) == 0
    np.testing.assert_array_equal(open_images(tmp_path / "a.nii.gz").images, images)


def checksums(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_dicom_series_returns_with_new_names(tmp_path):
    hu = np.stack([head(16, seed) for seed in range(4)])
    folder = write_series(tmp_path / "source", hu, intercept=-1024)
    before = checksums(folder)
    series = open_images(folder)
    np.testing.assert_array_equal(series.images, hu)
    result = series.images + np.random.default_rng(0).normal(0, 0.3, hu.shape).astype(np.float32)
    for out in ("a", "b"):
        write_dicom(tmp_path / out, result, series.files, description="test", identity="run 1")
    assert checksums(tmp_path / "a") == checksums(tmp_path / "b")
    write_dicom(tmp_path / "c", result, series.files, description="test", identity="run 2")
    assert checksums(folder) == before

    again = open_images(tmp_path / "a")
    span = result.max() - result.min()
    np.testing.assert_allclose(again.images, result, atol=0.51 * span / 65535 + 1e-4)
    uids = set()
    for source, path in zip(series.files, again.files, strict=True):
        old, new = pydicom.dcmread(source), pydicom.dcmread(path)
        assert new.ImagePositionPatient == old.ImagePositionPatient
        assert new.PatientID == old.PatientID
        assert new.StudyInstanceUID == old.StudyInstanceUID
        assert new.SeriesInstanceUID != old.SeriesInstanceUID
        assert list(new.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
        assert max(len(str(new.RescaleSlope)), len(str(new.RescaleIntercept))) <= 16
        uids |= {old.SOPInstanceUID, new.SOPInstanceUID}
    assert len(uids) == 8
    other = pydicom.dcmread(next((tmp_path / "c").iterdir()))
    assert other.SeriesInstanceUID not in {old.SeriesInstanceUID, new.SeriesInstanceUID}


def test_dicom_of_any_range(tmp_path):
    source = write_source(tmp_path / "s.dcm", head(8))
    for low, high in ((-1e-7, 3e-7), (-12345.678, 9.9e6), (5.0, 5.0)):
        images = np.linspace(low, high, 64, dtype=np.float32).reshape(1, 8, 8)
        write_dicom(tmp_path / "o", images, [source], description="", identity="")
        written = read_dicom(tmp_path / "o" / "0000.dcm")
        np.testing.assert_allclose(written, images[0], atol=max((high - low) / 65535, 1e-6 * high))


def test_folders_of_dicom_that_are_not_one_series(tmp_path):
    folder = write_series(tmp_path / "a", np.stack([head(8), head(8)]))
    write_source(folder / "other.dcm", head(8), series="9.9")
    with pytest.raises(DataError, match="expected the files of one DICOM series, got 2 series"):
        open_images(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got 0 series"):
        open_images(tmp_path / "empty")
    write_source(tmp_path / "b" / "1.dcm", head(8))
    write_source(tmp_path / "b" / "2.dcm", head(12), position=(0, 0, 1))
    with pytest.raises(DataError, match=r"expected a slice of \(8, 8\)"):
        open_images(tmp_path / "b")
