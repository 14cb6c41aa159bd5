"""Sinograms as measured: shifted, cut off, noisy where much is absorbed, in other units."""

import math

import numpy as np
import pytest
import torch
from scipy.io import savemat

from configs.reconstruct import get_config
from datasets import DataError
from evaluation.own import open_input
from operators import FanBeamCT, ParallelBeamCT
from operators.fbp import fbp
from operators.noise import sinogram_noise
from operators.sinogram import find_fan_shift, find_shift, find_unit_fault, is_full_turn

SIDE, BINS = 32, 48
FAN = {"source_distance": 90.0, "detector_distance": 40.0, "num_bins": 90, "bin_spacing": 1.0}


def disks(side=SIDE):
    """Attenuation ``(side, side)``: a disc off the centre with a smaller, denser one in it."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    wide = np.hypot(x - 2, y + 1) < 0.36 * side
    return (0.02 * wide + 0.03 * (np.hypot(x + 3, y - 4) < 0.1 * side)).astype(np.float32)


def project(operator, image):
    return operator.forward(torch.from_numpy(image)[None, None])[0, 0].numpy()


def parallel(views=30, end=180.0, *, bins=BINS, image=None, **geometry):
    """A sinogram and its angles."""
    image = disks() if image is None else image
    angles = np.linspace(0, end, views, endpoint=False)
    return project(ParallelBeamCT(len(image), angles, num_bins=bins, **geometry), image), angles


def opened(tmp_path, sinogram, angles=None, **fields):
    """The input that a file of it is, with fields of `operator` or, as text, of `data`."""
    extras = {} if angles is None else {"angles": angles}
    np.savez(tmp_path / "s.npz", sinogram=np.asarray(sinogram, np.float32), **extras)
    config = get_config()
    for name, value in fields.items():
        of_data = isinstance(value, str) and name not in ("geometry", "detector")
        (config.data if of_data else config.operator)[name] = value
    return open_input(tmp_path / "s.npz", config)


# --- the centre of rotation ----------------------------------------------------------------------


@pytest.mark.parametrize(("views", "end"), [(6, 180.0), (30, 180.0), (30, 120.0), (40, 360.0)])
def test_the_shift_is_found_to_a_fraction_of_a_bin(views, end):
    """By rolling bins, and by the operator's own keyword, which has to mean the same."""
    sinogram, angles = parallel(views, end)
    for shift in (-4, 0, 3):
        found = find_shift(np.roll(sinogram, shift, axis=1), angles, full_turn=end == 360)
        assert found.bins == pytest.approx(shift, abs=0.05)
        assert found.is_clear == (shift != 0)
    sinogram, angles = parallel(views, end, centre_offset=1.5)
    assert find_shift(sinogram, angles, full_turn=end == 360).bins == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("shift", [0.0, -2.5])
def test_the_shift_of_a_fan_beam_over_a_full_turn(shift):
    angles = np.linspace(0, 360, 60, endpoint=False)
    sinogram = project(FanBeamCT(SIDE, angles, **FAN, centre_offset=shift), disks())
    assert find_shift(sinogram, angles, full_turn=True).bins == pytest.approx(shift, abs=0.05)


@pytest.mark.parametrize("angles", [np.linspace(0, 360, 61), np.append(np.arange(0, 720, 6), 0.0)])
def test_views_that_are_there_twice_are_a_full_turn_and_shift_nothing(tmp_path, angles):
    far = np.roll(np.pad(disks(), 8), (0, 8), (0, 1))  # what is seen twice is beside the centre
    sinogram = project(FanBeamCT(SIDE + 16, angles, **FAN), far)
    assert is_full_turn(angles)
    assert find_shift(sinogram, angles, full_turn=True).bins == pytest.approx(0, abs=0.05)
    fields = {"geometry": "fan", "source_distance": 90.0, "detector_distance": 40.0}
    assert opened(tmp_path, sinogram, angles, **fields).operator.centre_offset == 0
    shifted = np.roll(sinogram, 3, axis=1)
    found = opened(tmp_path, shifted, angles, **fields).operator.centre_offset
    assert found == pytest.approx(3, abs=0.1)


def test_what_is_no_full_turn():
    for angles in ([0.0], np.arange(0, 350, 10), np.arange(0, 240, 4), [0, 90, 180, 271]):
        assert not is_full_turn(angles)
    single = np.linspace(0, 360, 721).astype(np.float32)  # 360 is 0, to the precision
    assert is_full_turn(np.append(single, np.float32(359.99997)))


@pytest.mark.parametrize("detector", ["flat", "curved"])
@pytest.mark.parametrize("angles", [20 + np.arange(0, 240, 8.0), -np.arange(0, 200, 2.0)])
def test_the_shift_of_a_short_scan(tmp_path, detector, angles):
    """Rays that are measured from both ends agree at the right one only, with noise, too."""
    rng, fields = np.random.default_rng(0), {"geometry": "fan", "detector": detector}
    fields |= {"source_distance": 90.0, "detector_distance": 40.0}
    for shift in (0.0, -2.5, 6.0):

        def operator_at(offset):
            return FanBeamCT(SIDE, angles, **FAN, centre_offset=offset, detector=detector)

        sinogram = project(operator_at(shift), disks())
        noisy = sinogram + 0.05 * sinogram.max() * rng.normal(size=sinogram.shape)
        for y, error in ((sinogram, 0.05), (noisy, 0.2)):
            found = find_fan_shift(y, operator_at)
            assert found.bins == pytest.approx(shift, abs=error)
            assert found.is_clear == (shift != 0)
        used = opened(tmp_path, sinogram, angles, **fields).operator
        assert used.centre_offset == pytest.approx(shift, abs=0.05)
        assert used.detector == detector


def test_a_limited_angle_does_not_tell_the_shift(tmp_path):
    angles = np.arange(0.0, 90.0)
    sinogram = project(FanBeamCT(SIDE, angles, **FAN, centre_offset=4.0), disks())
    assert find_fan_shift(sinogram, lambda s: FanBeamCT(SIDE, angles, **FAN)) is None
    fields = {"geometry": "fan", "source_distance": 90.0, "detector_distance": 40.0}
    assert opened(tmp_path, sinogram, angles, **fields).operator.centre_offset == 0


def test_detectors_by_name(tmp_path):
    sinogram, angles = parallel()
    fan = {"geometry": "fan", "source_distance": 90.0, "detector_distance": 40.0}
    assert opened(tmp_path, sinogram, angles, **fan).operator.detector == "flat"
    curved = opened(tmp_path, sinogram, angles, **fan, detector="curved").operator
    assert curved.detector == "curved"
    corner = math.degrees(curved.ray_angles[-1]) * BINS / (BINS - 1)
    assert corner == pytest.approx(math.degrees(BINS / 2 / 130))
    with pytest.raises(ValueError, match="expected detector as flat or curved, got 'arc'"):
        opened(tmp_path, sinogram, angles, **fan, detector="arc")
    with pytest.raises(
        ValueError, match=r"operator\.detector=curved has no effect: the beam is par"
    ):
        opened(tmp_path, sinogram, angles, detector="curved")


def test_noise_of_a_centred_object_is_no_shift():
    sinogram, angles = parallel(20)
    rng = np.random.default_rng(0)
    for _ in range(50):
        noisy = sinogram + 0.1 * sinogram.max() * rng.normal(size=sinogram.shape)
        found = find_shift(noisy, angles, full_turn=False)
        assert found is None or not found.is_clear


def test_where_a_shift_cannot_be_told():
    sinogram, angles = parallel(4)
    assert find_shift(sinogram, angles, full_turn=False) is None
    assert find_shift(0 * sinogram, angles, full_turn=False) is None


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_filtered_back_projection_takes_the_offset_into_account(kind):
    angles = np.linspace(0, 360, 90, endpoint=False)
    errors = []
    for shift in (0.0, 2.0):
        if kind == "fan":
            operator = FanBeamCT(SIDE, angles, **FAN, centre_offset=shift)
        else:
            operator = ParallelBeamCT(SIDE, angles, num_bins=BINS, centre_offset=shift)
        y = operator.forward(torch.from_numpy(disks())[None, None])
        errors.append(float((fbp(operator, y)[0, 0] - torch.from_numpy(disks())).square().mean()))
    assert errors[1] < 1.2 * errors[0]
    with pytest.raises(ValueError, match="centre_offset as a finite number of bins, got nan"):
        ParallelBeamCT(SIDE, angles, centre_offset=math.nan)


def test_a_clear_shift_is_used_and_said_and_the_option_comes_first(tmp_path):
    sinogram, angles = parallel()
    shifted = np.roll(sinogram, 2, axis=1)
    found = opened(tmp_path, shifted, angles, image_size=str(SIDE))
    assert found.operator.centre_offset == pytest.approx(2, abs=0.02)
    assert found.facts["centre_offset"] == pytest.approx(2, abs=0.02)
    assert any("centre of rotation: +2.0" in note for note in found.notes)
    given = opened(tmp_path, shifted, angles, centre_offset=-1.0)
    assert (given.operator.centre_offset, given.notes) == (-1.0, [])
    plain = opened(tmp_path, sinogram, angles, image_size=str(SIDE))
    assert (plain.operator.centre_offset, plain.notes) == (0.0, [])


def test_the_centre_of_what_is_cut_off_is_not_estimated(tmp_path):
    cut = parallel()[0][:, : BINS - 14]  # looks shifted by 7 bins, and may be
    assert opened(tmp_path, cut).operator.centre_offset == 0


# --- rays that see more than the image -----------------------------------------------------------


@pytest.mark.parametrize("asked", ["12", "13", "8,20"])
def test_the_grid_holds_all_that_rays_meet(tmp_path, asked):
    sinogram, angles = parallel()
    found = opened(tmp_path, sinogram, angles, image_size=asked)
    shape = tuple(map(int, (asked + f",{asked}").split(",")[:2]))
    assert found.image_shape == shape
    grid = found.operator.size
    assert all(g > s and (g - s) % 2 == 0 for g, s in zip(grid, shape, strict=True))
    # no ray that misses the grid carries anything
    assert sinogram[found.operator.reach() > 1 + 2 / min(grid)].max() < 0.1 * sinogram.max()
    image = torch.arange(float(np.prod(grid))).reshape(1, 1, *grid)
    rows, columns = ((g - s) // 2 for g, s in zip(grid, shape, strict=True))
    centre = image[..., rows : rows + shape[0], columns : columns + shape[1]]
    assert torch.equal(found.finish(image), centre)
    assert "reconstructed on" in found.notes[0]


def test_an_image_that_holds_the_object_stays_as_asked(tmp_path):
    sinogram, angles = parallel(bins=64)
    found = opened(tmp_path, sinogram, angles, image_size=str(SIDE))
    assert (found.operator.size, found.notes) == ((SIDE, SIDE), [])
    full, angles = parallel(image=np.ones((SIDE, SIDE), np.float32), bins=None)
    found = opened(tmp_path, full, angles, image_size=str(SIDE))  # up to the corners
    assert found.operator.size == (SIDE, SIDE)


def test_an_object_beyond_the_detector_has_room(tmp_path):
    sinogram, angles = parallel(bins=20)
    found = opened(tmp_path, sinogram, angles)
    assert found.image_shape == (20, 20)
    assert found.operator.size == (30, 30)


def test_reach_is_1_at_the_edge_of_the_image():
    operator = ParallelBeamCT((10, 20), [0.0, 90.0, 45.0], num_bins=41)
    reach = operator.reach()
    assert reach.shape == (3, 41)
    bins = np.abs(np.arange(41) - 20.0)
    expected = [bins / 10, bins / 5, bins / (math.sqrt(0.5) * 15)]
    np.testing.assert_allclose(reach, expected, atol=1e-12)
    touched = operator.row_sums()[0, 0].numpy() > 0
    assert (touched == (reach < 1.05))[:2].all()


# --- noise, units, angles ------------------------------------------------------------------------


def test_air_beside_the_object_does_not_change_the_noise():
    """Photon counts: the logarithm's variance is 1 / counts, least in air."""
    image, found = 4 * disks(64), []
    for bins in (46, 160):
        y = parallel(60, bins=bins, image=image)[0]
        counts = np.random.default_rng(1).poisson(2000 * np.exp(-y))
        measured = -np.log(np.maximum(counts, 1) / 2000)
        found.append(float(sinogram_noise(torch.from_numpy(measured)[None, None])))
    inside = y > 0.05 * y.max()
    typical = float(np.median(np.sqrt(np.exp(y[inside]) / 2000)))
    assert found[0] == pytest.approx(found[1], rel=0.1)
    assert found[1] == pytest.approx(typical, rel=0.15)


def test_other_units_are_refused_with_the_remedy(tmp_path):
    y, angles = parallel()
    counts = np.random.default_rng(0).poisson(300 * np.exp(-y))
    intensities = r"got intensities: at both ends .*-log\(I / I0\), here with I0 = "
    for values, text in (
        (np.exp(-y), intensities + "1 "),
        (counts, intensities + r"(29|30)\d"),
        (-y, r"wrong sign, log\(I / I0\).*change the sign"),
    ):
        with pytest.raises(DataError, match=text):
            opened(tmp_path, values, angles)


def test_line_integrals_are_no_intensities():
    y, _ = parallel()
    noisy = y + 0.2 * y.max() * np.random.default_rng(0).normal(size=y.shape)
    cut = parallel(bins=12)[0]
    ring = np.hypot(*(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2)) > 0.3 * SIDE
    hollow = parallel(image=(disks() + 0.02) * ring)[0]  # denser at its rim, air at the ends
    corners = parallel(image=np.ones((SIDE, SIDE), np.float32), bins=20)[0]
    for values in (y, noisy, y + 0.1, cut, hollow, corners):
        assert find_unit_fault(values) == ""


@pytest.mark.parametrize("views", [3, 8, 30])
def test_radians_are_noticed_with_few_views(tmp_path, views):
    y, angles = parallel(views)
    assert any("radians" in note for note in opened(tmp_path, y, np.deg2rad(angles)).notes)
    assert not any("radians" in note for note in opened(tmp_path, y, angles).notes)


def test_the_geometry_of_a_file_is_used_where_flags_leave_it_open(tmp_path):
    angles = np.arange(0, 360, 12.0)
    parameters = {
        "distanceSourceOrigin": 9.0,
        "distanceSourceDetector": 13.0,
        "distanceUnit": "cm",
        "angles": angles,
        "pixelSize": 0.2,
    }
    sinogram = np.outer(np.ones(30), np.hanning(40))
    savemat(tmp_path / "a.mat", {"CtData": {"sinogram": sinogram, "parameters": parameters}})
    config = get_config()
    config.data.image_size = "16"
    opened = open_input(tmp_path / "a.mat", config)
    assert (opened.facts["geometry"], opened.facts["views"]) == ("fan", 30)
    assert opened.pixel_size == pytest.approx(2.0 * 9 / 13)  # of the detector, at the axis
    assert opened.operator.source_distance == pytest.approx(90 / opened.pixel_size)
    assert "fan beam, source 90 mm" in opened.notes[0]
    config.operator.pixel_size = 1.5
    config.operator.source_distance = 100.0
    opened = open_input(tmp_path / "a.mat", config)
    assert opened.operator.source_distance == pytest.approx(100 / 1.5)
    assert config.operator.geometry == "parallel"  # the caller's is as it was
