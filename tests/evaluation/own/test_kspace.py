"""k-space as it comes from scanners and scripts: peaks, axes, masks, maps and headers."""

import re

import h5py
import numpy as np
import pytest
import torch

from configs import load_config
from datasets.array_layout import KSPACE
from datasets.measured_files import open_measurement
from datasets.sample import DataError
from evaluation.own import open_input
from operators.inverse_problem import mri_problem
from operators.kspace_peak import PROMINENT, centre_peak, find_peak
from tests.conftest import ROOT
from tests.helpers.data_writers import coil_sensitivities
from tests.helpers.reconstruct_inputs import image, kspace_of, lines, phase, write_ismrmrd


def config(**changes):
    made = load_config(str(ROOT / "configs" / "reconstruct.py"))
    made.update_from_flattened_dict(changes)
    return made


def opened(path, array, **changes):
    np.save(path, array)
    return open_input(path, config(**changes))


def noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def complex_image(shape=(32, 32), seed=0):
    return (image(shape, seed) * phase(shape)).astype(np.complex64)


def coil_images(coils=4, shape=(32, 32), seed=0):
    return coil_sensitivities(coils, *shape) * complex_image(shape, seed)


# ------------------------------------------------------------------------------------- its peak


@pytest.mark.parametrize("shape", [(32, 32), (33, 28)])
@pytest.mark.parametrize("shift", [(0, 0), (5, 0), (-7, 3)])
@pytest.mark.parametrize("coils", [1, 3])
def test_a_shifted_echo_is_a_phase_and_changes_no_magnitude(shape, shift, coils):
    maps = torch.from_numpy(coil_sensitivities(coils, *shape)).to(torch.complex64)[None]
    whole = torch.from_numpy(kspace_of(maps.numpy() * complex_image(shape)))
    moved = torch.roll(whole, shift, (-2, -1))
    mask = torch.ones(1, 1, *shape, dtype=torch.bool)
    centred, shifted = (mri_problem(k, mask, maps) for k in (whole, moved))
    # what the prior sees is the same, and as real as without the shift
    torch.testing.assert_close(shifted.direct, centred.direct, atol=2e-5, rtol=0)
    assert float(shifted.direct.imag.abs().max()) < 0.2
    restored = kspace_of(maps.numpy() * shifted.restore(shifted.direct).numpy())
    np.testing.assert_allclose(restored, moved.numpy(), atol=1e-5)


def test_each_slice_has_its_own_peak(tmp_path):
    kspace = np.stack([np.roll(kspace_of(complex_image(seed=n)), 4 * n, 0) for n in range(3)])
    made = opened(tmp_path / "k.npy", kspace, **{"data.first_axis": "slices"})
    directs = made.problem([0, 1, 2]).direct
    for n in range(3):
        expected = made.problem([n]).direct
        assert torch.equal(directs[n : n + 1], expected)
        assert float(expected.imag.abs().max()) < 0.2
    assert any(re.search("up to [789] rows and [01] columns beside", note) for note in made.notes)


def test_calibration_follows_the_peak(tmp_path):
    """All that ESPIRiT needs lies around the peak, 20 rows beside the middle here."""
    kspace = kspace_of(coil_images(4, (64, 64))) + 0.02 * noise(4, 64, 64)
    maps = []
    for name, array in (("a", kspace), ("b", np.roll(kspace, 20, 1))):
        made = opened(tmp_path / f"{name}.npy", array.astype(np.complex64))
        measured = torch.from_numpy(made.measured.read(0))
        maps.append(made._maps(measured, 0))
    truth = coil_sensitivities(4, 64, 64)
    inside = image((64, 64)) > 0.2
    for found in maps:
        along = np.abs((found.numpy().conj() * truth).sum(0))[inside]
        assert along.mean() > 0.98


def test_noise_has_no_peak_and_images_have():
    for seed in range(20):
        peak, prominence = find_peak(torch.from_numpy(noise(1, 64, 64, seed=seed)))
        assert prominence < PROMINENT / 2
    kspace = torch.from_numpy(kspace_of(image()))[None]
    spike = kspace.clone()
    spike[0, 3, 4] = 1.1 * kspace.abs().max()
    for k in (kspace, spike):
        peak, prominence = find_peak(k)
        assert peak == (16, 16)
        assert prominence > PROMINENT
    assert find_peak(centre_peak(torch.roll(kspace, (3, -9), (-2, -1)), (19, 7)))[0] == (16, 16)
    assert find_peak(0 * kspace) == ((16, 16), 0.0)


@pytest.mark.parametrize("axes", [(-2, -1), (-2,), (-1,)])
@pytest.mark.parametrize("drawn", ["", "gaussian1d"])
@pytest.mark.parametrize("shape", [(32, 32), (33, 35)])
def test_unshifted_kspace_is_refused_whatever_the_mask(tmp_path, axes, drawn, shape):
    kspace = np.fft.ifftshift(kspace_of(complex_image(shape)), axes=axes)
    which = {(-2, -1): "rows and columns", (-2,): "of the rows;", (-1,): "of the columns;"}[axes]
    with pytest.raises(DataError, match=rf"k\.npy:0.*{which}.*numpy\.fft\.fftshift"):
        opened(tmp_path / "k.npy", kspace, **{"operator.mask": drawn})


def test_slices_of_air_are_no_fault(tmp_path):
    for seed in range(6):
        kspace = 0.01 * noise(4, 32, 32, seed=seed)
        kspace[1:3] += kspace_of(complex_image())
        made = opened(
            tmp_path / f"{seed}.npy", kspace.astype(np.complex64), **{"data.first_axis": "slices"}
        )
        assert not any("peak" in note for note in made.notes)
    made = opened(tmp_path / "n.npy", noise(32, 32).astype(np.complex64))
    assert any("no peak" in note for note in made.notes)


# --------------------------------------------------------------------------------- its axes, masks


@pytest.mark.parametrize("suffix", ["npy", "h5"])
@pytest.mark.parametrize("slices", [0, 3])
def test_coils_after_rows_and_columns_are_moved(tmp_path, suffix, slices):
    shape = (4, 32, 28)
    kspace = kspace_of(coil_images(*shape[:1], shape[1:]))
    kspace = np.stack([kspace] * slices) if slices else kspace
    last = np.moveaxis(kspace, -3, -1)
    path = tmp_path / f"k.{suffix}"
    if suffix == "npy":
        np.save(path, last)
    else:
        with h5py.File(path, "w") as file:
            file["kspace"] = last
    measured = open_measurement(path)
    assert measured.shape == (slices or 1, *shape)
    np.testing.assert_array_equal(measured.read(0), kspace[0] if slices else kspace)
    assert any("4 coils" in note for note in measured.notes)


@pytest.mark.parametrize("shape", [(3, 40, 32, 8), (1, 16, 32, 12)])
def test_many_coils_and_few_columns_are_no_coils_last(tmp_path, shape):
    """(slices, coils, H, W) with fewer columns than coils and rows, some coils being silent."""
    kspace = kspace_of(coil_images(shape[1], shape[2:]))
    kspace[::2] = 0
    np.save(tmp_path / "k.npy", np.stack([kspace] * shape[0]))
    measured = open_measurement(tmp_path / "k.npy")
    assert measured.shape == shape
    assert not measured.notes


def test_the_name_tells_kspace_not_the_type(tmp_path):
    kspace = kspace_of(complex_image())
    np.savez(tmp_path / "a.npz", kspace=np.stack([kspace.real, kspace.imag]))
    with pytest.raises(DataError, match=r"complex k-space.*float32.*axis 0.*1j \* imaginary"):
        open_measurement(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", sinogram=kspace)
    with pytest.raises(DataError, match="sinogram complex64"):
        open_measurement(tmp_path / "b.npz")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["kspace"], file["sinogram"] = kspace, kspace.real
    with pytest.raises(DataError, match="got both"):
        open_measurement(tmp_path / "c.h5")


@pytest.mark.parametrize("suffix", [".dat", "", ".h5"])
def test_the_content_tells_the_format(tmp_path, suffix):
    kspace = kspace_of(complex_image())
    with h5py.File(tmp_path / "h", "w") as file:
        file["kspace"] = kspace
    np.save(tmp_path / "n.npy", kspace)
    np.savez(tmp_path / "z.npz", kspace=kspace)
    for name in ("h", "n.npy", "z.npz"):
        path = (tmp_path / name).rename(tmp_path / f"scan{suffix}")
        assert open_measurement(path).kind == KSPACE


def test_a_mask_with_its_origin_in_the_corner_is_refused(tmp_path):
    y, x = np.mgrid[-16:16, -16:16]
    mask = (np.random.default_rng(0).random((32, 32)) < 0.2) | (np.hypot(y, x) < 5)
    for measured in (np.ones_like(mask), mask):  # the file is full, or undersampled itself
        kspace = kspace_of(complex_image()) * measured
        for good, name in ((mask, "m"), (np.fft.ifftshift(mask), "c")):
            np.save(tmp_path / f"{name}.npy", good)
        assert (
            opened(tmp_path / "k.npy", kspace, **{"data.mask": str(tmp_path / "m.npy")})
            .masks[0]
            .equal(torch.from_numpy(mask))
        )
        with pytest.raises(DataError, match=r"numpy\.fft\.fftshift"):
            opened(tmp_path / "k.npy", kspace, **{"data.mask": str(tmp_path / "c.npy")})


def test_masks_that_contradict_the_zeros(tmp_path):
    mask = np.random.default_rng(0).random((32, 32)) < 0.25
    mask[14:18, 14:18] = True
    kspace = kspace_of(complex_image()) * mask
    for wrong, remedy in ((mask.T, "its transpose fits"), (~mask, "complement")):
        np.save(tmp_path / "m.npy", wrong)
        with pytest.raises(DataError, match=rf"k-space 0 in \d+ % of it; .*{remedy}"):
            opened(tmp_path / "k.npy", kspace, **{"data.mask": str(tmp_path / "m.npy")})


@pytest.mark.parametrize("axis", [0, 1])
def test_lines_of_a_square_are_those_that_were_measured(tmp_path, axis):
    full = np.broadcast_to(lines()[None] if axis else lines()[:, None], (32, 32))
    np.save(tmp_path / "m.npy", lines().astype(np.float32))
    fields = {"data.mask": str(tmp_path / "m.npy")}
    made = opened(tmp_path / "k.npy", kspace_of(complex_image()) * full, **fields)
    assert made.masks[0].equal(torch.from_numpy(full.copy()))
    assert any("taken as rows" in note for note in made.notes) == (axis == 0)
    # nothing says otherwise: columns
    made = opened(tmp_path / "k.npy", kspace_of(complex_image()), **fields)
    assert made.masks[0][0].equal(torch.from_numpy(lines()))


def test_a_mask_without_the_peak_is_noted(tmp_path):
    mask = np.ones((32, 32), bool)
    mask[15:18, 15:18] = False
    np.save(tmp_path / "m.npy", mask)
    made = opened(
        tmp_path / "k.npy", kspace_of(complex_image()), **{"data.mask": str(tmp_path / "m.npy")}
    )
    assert any("leaves out the peak" in note for note in made.notes)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda maps: maps, None),
        (lambda maps: maps[::-1], "are coils in another order"),
        (
            lambda maps: np.fft.fftshift(maps, axes=(-2, -1)),
            "fftshift of their last",
        ),
        (lambda maps: maps.conj(), "complex conjugate would"),
    ],
)
def test_maps_that_do_not_explain_the_coils_are_noted(tmp_path, change, note):
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    turns = np.exp(3j * np.arange(4)[:, None, None] * (x + 0.5 * y))
    maps = (coil_sensitivities(4, 32, 32) * turns).astype(np.complex64)
    np.save(tmp_path / "maps.npy", np.ascontiguousarray(change(maps)))
    kspace = kspace_of(maps * complex_image())
    made = opened(tmp_path / "k.npy", kspace, **{"data.sens_maps": str(tmp_path / "maps.npy")})
    assert [note in text for text in made.notes if "maps explain" in text] == [True] * bool(note)
    np.save(tmp_path / "maps.npy", np.moveaxis(maps, 0, -1))
    with pytest.raises(DataError, match=r"numpy\.moveaxis\(maps, -1, -3\)"):
        opened(tmp_path / "k.npy", kspace, **{"data.sens_maps": str(tmp_path / "maps.npy")})


def test_no_image_is_larger_than_its_kspace(tmp_path):
    for size in ("2000", "32,33"):
        with pytest.raises(ValueError, match=rf"at most 32,32.*got '{size}'"):
            opened(tmp_path / "k.npy", kspace_of(complex_image()), **{"data.image_size": size})
    made = opened(tmp_path / "k.npy", kspace_of(complex_image()), **{"data.image_size": "24"})
    assert made.image_shape == (24, 24)


# ----------------------------------------------------------------------------- ISMRMRD, headers


def edit(path, **fields):
    """Change fields of each readout's head: arrays (readouts, ...) or numbers."""
    with h5py.File(path, "r+") as file:
        records = file["dataset/data"][()]
        for name, value in fields.items():
            records["head"][name] = value
        file["dataset/data"][...] = records
    return path


def test_oversampling_that_the_header_does_not_count(tmp_path):
    """Denser samples are a larger field of view; the image is cropped to the header's."""
    whole = np.zeros((64, 24), np.complex64)
    whole[16:48] = complex_image((32, 24))
    path = write_ismrmrd(tmp_path / "a.h5", kspace_of(whole)[None, None], np.ones(24))
    with h5py.File(path, "r+") as file:
        text = file["dataset/xml"][0].decode()
        text = text.replace("<x>64</x>", "<x>32</x>").replace("<x>128.0</x>", "<x>64.0</x>")
        file["dataset/xml"][0] = text
    measured = open_measurement(path)
    assert measured.shape == (1, 1, 64, 24)
    assert measured.image_shape == (32, 24)
    assert measured.voxel_size[:2] == (2.0, 2.0)
    assert "oversampled" in measured.notes[0]
    np.testing.assert_allclose(measured.read(0)[0], kspace_of(whole), atol=1e-5)


def test_the_last_measurement_with_images_is_read(tmp_path):
    scan = kspace_of(complex_image((16, 12)))[None, None]
    path = write_ismrmrd(tmp_path / "a.h5", scan, np.ones(12))
    other = write_ismrmrd(
        tmp_path / "b.h5", kspace_of(complex_image((8, 8)))[None, None], np.ones(8)
    )
    with h5py.File(tmp_path / "c.h5", "w") as file, h5py.File(path) as a, h5py.File(other) as b:
        b.copy("dataset", file, "dataset_2")  # an adjustment
        a.copy("dataset", file, "dataset_10")  # the scan
        a.copy("dataset", file, "dataset_11")  # noise alone
        records = file["dataset_11/data"][()]
        records["head"]["flags"] = 1 << 18
        file["dataset_11/data"][...] = records
    measured = open_measurement(tmp_path / "c.h5")
    assert measured.shape == (1, 1, 16, 12)
    assert "read is 'dataset_10'" in measured.notes[0]


def test_slices_lie_where_their_readouts_say(tmp_path):
    kspace = np.stack([kspace_of(complex_image((16, 12), seed=n))[None] for n in range(3)])
    path = write_ismrmrd(tmp_path / "a.h5", kspace, np.ones(12))
    with h5py.File(path) as file:
        counter = file["dataset/data"]["head"]["idx"]["slice"]
    place = np.zeros((len(counter), 3))
    place[:, 2] = np.array([0.0, 14.0, 7.0])[counter]  # interleaved
    edit(path, position=place)
    measured = open_measurement(path)
    assert measured.voxel_size[2] == pytest.approx(7.0)  # not the thickness, 5
    assert "order of their positions" in measured.notes[0]
    for z, n in enumerate((0, 2, 1)):
        np.testing.assert_allclose(measured.read(z), kspace[n], atol=1e-5)
    edit(path, position=np.where(counter[:, None] == 0, 0.0, place[:, ::-1]))
    edit(path, slice_dir=np.eye(3)[counter])
    with pytest.raises(DataError, match="several orientations"):
        open_measurement(path)


def test_few_lines_beyond_the_matrix_are_left_out(tmp_path):
    kspace = kspace_of(complex_image((16, 32)))[None, None]
    path = write_ismrmrd(tmp_path / "a.h5", kspace, np.ones(32), kspace_encode_step_1=33)
    measured = open_measurement(path)
    assert measured.shape == (1, 1, 16, 32)
    assert "1 lines beyond" in measured.notes[0]
    assert not measured.read(0)[..., -1].any()


def test_headers_without_namespace_or_content(tmp_path):
    kspace = kspace_of(complex_image((32, 24)))[None]
    size = "<matrixSize><x>{}</x><y>24</y></matrixSize>"
    bare = f"<h><encoding><encodedSpace>{size.format(32)}</encodedSpace><reconSpace>"
    bare += f"{size.format(16)}</reconSpace></encoding></h>"
    for header, shape in ((b"", None), (b"<h", None), (bare.encode(), (16, 24))):
        with h5py.File(tmp_path / "k.h5", "w") as file:
            file["kspace"], file["ismrmrd_header"] = kspace, header
        measured = open_measurement(tmp_path / "k.h5")
        assert measured.image_shape == shape
        assert bool(measured.notes) == (shape is None)
