"""K-space along trajectories in files: shapes, units, and the same scan in every format."""

import h5py
import numpy as np
import pytest
import scipy.io

from datasets import bart
from datasets.measured_files import open_measurement
from datasets.sample import DataError
from datasets.trajectory import read_trajectory
from operators.trajectories import radial, spiral
from tests.helpers.reconstruct_inputs import write_ismrmrd

SPOKES = radial(7, 16).numpy()  # (7, 16, 2), cycles per pixel


def scan(slices=2, coils=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (slices, coils, 7, 16)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def of_complex(places):
    return places[..., 0] + 1j * places[..., 1]


@pytest.mark.parametrize(
    ("array", "swapped"),
    [
        (SPOKES, False),
        (SPOKES.swapaxes(0, 1), True),
        (of_complex(SPOKES), False),
        (of_complex(SPOKES).T, True),
        (np.moveaxis(SPOKES, -1, 0), False),
        (np.concatenate([SPOKES, 0 * SPOKES[..., :1]], -1), False),
        (2 * np.pi * SPOKES, False),
        (16 * SPOKES, False),
    ],
)
def test_every_form_and_unit_of_a_trajectory(array, swapped):
    found = read_trajectory("k", array)
    assert found.swapped == swapped
    np.testing.assert_allclose(found.positions, SPOKES, atol=1e-12)
    assert (found.image_shape == (16, 16)) == (np.abs(array).max() > 4)


def test_one_line_and_long_arms():
    arm = spiral(1, 300, turns=3).numpy()
    assert read_trajectory("k", arm[0]).positions.shape == (1, 300, 2)
    arms = spiral(3, 300, turns=3).numpy()
    assert read_trajectory("k", arms.swapaxes(0, 1)).swapped
    wide = read_trajectory("k", 10 * SPOKES, (20, 40))  # of a field of view of 20 x 40 pixels
    np.testing.assert_allclose(wide.positions, 10 * SPOKES / (20, 40))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (SPOKES * 3.0, "cycles per pixel .* radians per pixel .* cycles per field of view"),
        (SPOKES * 900.0, "got positions up to 450 in steps of 56"),  # 1/m
        (SPOKES * np.nan, "NaN"),
        (SPOKES * 0, "got zeros"),
        (SPOKES[..., :1], "expected a trajectory complex"),
        (np.ones((4, 5, 3)), "third is not 0"),
        (np.array(["a"]), "expected a trajectory complex"),
    ],
)
def test_trajectories_that_fit_no_unit(array, message):
    with pytest.raises(DataError, match=message):
        read_trajectory("k", array)
    with pytest.raises(DataError, match=r"set data\.image_size to 16 or more"):
        read_trajectory("k", 16 * SPOKES, (8, 8))


def test_the_same_scan_in_every_format(tmp_path):
    kspace = scan()
    np.savez(tmp_path / "a.npz", kspace=kspace, trajectory=SPOKES, density=SPOKES[..., 0])
    swapped = {"kspace": kspace.swapaxes(-1, -2), "trajectory": of_complex(SPOKES).T}
    np.savez(tmp_path / "b.npz", **swapped)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["kspace"], file["trajectory"], file["image_shape"] = kspace, SPOKES, (16, 16)
    scipy.io.savemat(tmp_path / "d.mat", {"scan": {"kspace": kspace, "trajectory": SPOKES}})
    write_ismrmrd(
        tmp_path / "e.h5", kspace.swapaxes(-1, -2), np.ones(7), trajectory="radial", places=SPOKES
    )
    for name in ("a.npz", "b.npz", "c.h5", "d.mat", "e.h5"):
        opened = open_measurement(tmp_path / name)
        assert opened.shape == (2, 3, 7, 16), name
        np.testing.assert_allclose(opened.trajectory, SPOKES, atol=1e-6)
        np.testing.assert_array_equal(opened.read(1), kspace[1])
    assert open_measurement(tmp_path / "c.h5").image_shape == (16, 16)

    bart.write_cfl(tmp_path / "k.cfl", bart.kspace_to_bart(kspace, along=True))
    bart.write_cfl(tmp_path / "t.cfl", bart.trajectory_to_bart(SPOKES, (16, 16)))
    assert (tmp_path / "k.hdr").read_text().split("\n")[1].split()[:5] == ["1", "16", "7", "3", "1"]
    places = bart.trajectory_from_bart(tmp_path / "t", bart.read_cfl(tmp_path / "t.hdr"))
    opened = open_measurement(tmp_path / "k.cfl", trajectory=places)
    np.testing.assert_allclose(opened.trajectory, SPOKES, atol=1e-6)
    assert opened.image_shape == (16, 16)
    np.testing.assert_array_equal(opened.read(1), kspace[1])


@pytest.mark.parametrize(
    ("shape", "axis", "wanted"),
    [
        ((7, 16), "", (1, 1, 7, 16)),
        ((4, 7, 16), "", (1, 4, 7, 16)),
        ((4, 7, 16), "slices", (4, 1, 7, 16)),
    ],
)
def test_axes_in_front_of_the_lines(tmp_path, shape, axis, wanted):
    kspace = np.arange(np.prod(shape)).reshape(shape).astype(np.complex64)
    np.savez(tmp_path / "a.npz", kspace=kspace, trajectory=SPOKES)
    opened = open_measurement(tmp_path / "a.npz", first_axis=axis)
    assert opened.shape == wanted
    stacked = np.stack([opened.read(i) for i in range(wanted[0])])
    np.testing.assert_array_equal(stacked, kspace.reshape(wanted))


def test_kspace_that_is_not_along_the_trajectory(tmp_path):
    np.savez(tmp_path / "a.npz", kspace=scan()[0][..., :9], trajectory=SPOKES)
    with pytest.raises(DataError, match=r"\(coils, 7, 16\) along the trajectory.*\(3, 7, 9\)"):
        open_measurement(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", kspace=np.moveaxis(scan()[0], 0, -1), trajectory=SPOKES)
    with pytest.raises(DataError, match="move the coils forward"):
        open_measurement(tmp_path / "b.npz")
    write_ismrmrd(tmp_path / "c.h5", scan().swapaxes(-1, -2), np.ones(7), trajectory="spiral")
    with pytest.raises(DataError, match=r"a trajectory \(kx, ky\) with each readout"):
        open_measurement(tmp_path / "c.h5")
