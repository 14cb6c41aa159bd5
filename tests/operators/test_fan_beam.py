"""Fan beams with flat and curved detectors: geometry, weights, filtered back-projection."""

import numpy as np
import pytest
import torch

from operators import FanBeamCT
from operators.create import create_operator
from operators.ct import few_view_angles
from operators.dual import solve_dual
from operators.fbp import fbp
from operators.redundancy import redundancy_weights

SIDE = 48
FAN = {"source_distance": 100.0, "detector_distance": 60.0}
BINS = {"flat": 170, "curved": 150}
HALF = {"flat": np.arctan(84.5 / 160), "curved": 74.5 / 160}  # of the fan's angle
# height, width, centre (x, y) of Gaussians, in pixels
GAUSSIANS = ((0.7, 7.0, 4.0, -2.0), (0.4, 3.5, -7.0, 8.0))
detectors = pytest.mark.parametrize("detector", ["flat", "curved"])


def smooth_image(gaussians=GAUSSIANS):
    """``(1, 1, SIDE, SIDE)`` float64."""
    y, x = (SIDE - 1) / 2 - np.arange(SIDE)[:, None], np.arange(SIDE) - (SIDE - 1) / 2
    image = sum(
        height * np.exp(-((x - right) ** 2 + (y - up) ** 2) / (2 * width**2))
        for height, width, right, up in gaussians
    )
    return torch.from_numpy(image)[None, None]


def line_integrals(points, directions, gaussians=GAUSSIANS):
    """Of `smooth_image`, in closed form."""
    unit = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    total = 0.0
    for height, width, right, up in gaussians:
        away = (right - points[..., 0]) * unit[..., 1] - (up - points[..., 1]) * unit[..., 0]
        total += height * width * np.sqrt(2 * np.pi) * np.exp(-(away**2) / (2 * width**2))
    return total


def fan(detector, angles, *, bins=None, **geometry):
    bins = bins or BINS[detector]
    return FanBeamCT(SIDE, angles, num_bins=bins, detector=detector, **{**FAN, **geometry})


def reconstruct(operator, gaussians=GAUSSIANS):
    sinogram = line_integrals(*operator._rays(), gaussians).reshape(1, *operator.range_shape)
    return fbp(operator, torch.from_numpy(sinogram))


def fbp_error(operator, gaussians=GAUSSIANS):
    image = smooth_image(gaussians)
    return float((reconstruct(operator, gaussians) - image).norm() / image.norm())


# ------------------------------------------------------------------ geometry


@detectors
@pytest.mark.parametrize("offset", [0.0, -6.5])
def test_line_integrals_of_a_gaussian(detector, offset):
    """Along explicit rays, from the source's place to each bin's."""
    angles, far = np.array([0.0, 25.0, 131.0, -70.0, 300.0]), 160.0
    operator = fan(detector, angles, bins=90, bin_spacing=2.0, centre_offset=offset)
    sinogram = operator.forward(smooth_image())[0, 0].numpy()
    for view, beta in enumerate(np.deg2rad(angles)):
        along = np.array([-np.sin(beta), np.cos(beta)])  # from the source to the centre
        across = np.array([np.cos(beta), np.sin(beta)])
        source = -100.0 * along
        places = 2.0 * (np.arange(90) - 44.5 - offset)[:, None]
        if detector == "flat":
            bins = 60.0 * along + places * across
        else:
            turned = places / far
            bins = source + far * (np.cos(turned) * along + np.sin(turned) * across)
        expected = line_integrals(source, bins - source)
        np.testing.assert_allclose(sinogram[view], expected, atol=1e-2 * expected.max())


def test_shifted_and_turning_backwards_like_astra():
    astra = pytest.importorskip("astra", reason="astra-toolbox, the oracle, is not installed")
    angles, bins, spacing, offset = 40.0 - np.arange(0.0, 240.0, 15.0), 170, 0.9, 11.5
    beta = np.deg2rad(angles)[:, None]
    along = np.hstack([-np.sin(beta), np.cos(beta)])
    across = np.hstack([np.cos(beta), np.sin(beta)])
    middle = 60.0 * along - offset * spacing * across
    vectors = np.hstack([-100.0 * along, middle, spacing * across])
    volume = astra.create_vol_geom(SIDE, SIDE)
    geometry = astra.create_proj_geom("fanflat_vec", bins, vectors)
    projector = astra.create_projector("line_fanflat", geometry, volume)
    matrix = astra.projector.matrix(projector)
    image = smooth_image()
    expected = (astra.matrix.get(matrix) @ image.numpy().ravel()).reshape(len(angles), bins)
    astra.matrix.delete(matrix)
    astra.projector.delete(projector)
    operator = fan("flat", angles, bins=bins, bin_spacing=spacing, centre_offset=offset)
    actual = operator.forward(image)[0, 0].numpy()
    assert np.linalg.norm(actual - expected) <= 1e-2 * np.linalg.norm(expected)


def test_wrong_detectors():
    with pytest.raises(ValueError, match="expected detector as flat or curved, got 'arc'"):
        fan("arc", [0.0], bins=9)
    with pytest.raises(ValueError, match=r"within 90 degrees of the central ray, got 177"):
        fan("curved", [0.0], bins=100, bin_spacing=10.0)


# ------------------------------------------------------------------ filtered back-projection

COMPLETE = {
    "full turn": lambda short: few_view_angles(240, 360.0),
    "last is first": lambda short: np.linspace(0, 360, 241),
    "two turns": lambda short: few_view_angles(360, 720.0),
    "a turn and a quarter": lambda short: few_view_angles(317, 450.0),
    "golden": lambda short: np.arange(240) * 137.508,
    "short scan": lambda short: few_view_angles(170, short),
    "shuffled": lambda short: np.random.default_rng(0).permutation(few_view_angles(170, short)),
    "between": lambda short: few_view_angles(210, 310.0),
}


@detectors
@pytest.mark.parametrize("scan", COMPLETE)
@pytest.mark.parametrize(("start", "sign", "offset"), [(0, 1, 0.0), (77, -1, 7.3)])
def test_fbp_gives_absolute_values(detector, scan, start, sign, offset):
    short = 180 + 2 * np.rad2deg(HALF[detector])
    angles = start + sign * COMPLETE[scan](short)
    assert fbp_error(fan(detector, angles, centre_offset=offset)) <= 0.005


@detectors
@pytest.mark.parametrize("offset", [30.0, -38.0])
def test_fbp_of_a_detector_of_which_one_side_is_missing(detector, offset):
    operator = fan(detector, few_view_angles(240, 360.0), bins=100, centre_offset=offset)
    assert fbp_error(operator) <= 0.005


@detectors
def test_fbp_near_the_source(detector):
    near = {"source_distance": 40.0, "detector_distance": 20.0, "bin_spacing": 0.6}
    operator = fan(detector, few_view_angles(240, end=360.0), bins=240, **near)
    assert fbp_error(operator, [(1.0, 4.0, 14.0, 8.0)]) <= 0.02


@detectors
@pytest.mark.parametrize("end", [20.0, 90.0, 150.0, 185.0])
def test_limited_angles_are_not_inflated(detector, end):
    image = smooth_image()
    operator = fan(detector, few_view_angles(max(1, round(end)), end))
    found = reconstruct(operator)
    assert torch.isfinite(found).all()
    assert found.max() < 1.3 * image.max()
    assert float((found - image).norm()) < float(image.norm())


@detectors
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("bins", [1, 2, 40])
def test_few_views_and_bins_have_finite_weights(detector, count, bins):
    operator = fan(detector, few_view_angles(count, 90.0), bins=bins, centre_offset=0.4)
    for weights in (operator.fbp_weights, operator.view_weights):
        assert np.isfinite(weights).all()
        assert (weights > 0).all()


# ------------------------------------------------------------------ rays measured twice


@pytest.mark.parametrize("end", [40.0, 150.0, 200.0, 225.0, 290.0, 360.0])
@pytest.mark.parametrize("shift", [0, 4])
def test_the_ends_of_a_line_share_its_weight(end, shift):
    """Views and rays a degree apart, so that the other end is a ray, too, if it is measured."""
    views = np.arange(0.0, end) + 0.5
    gamma = np.arange(-22 + shift, 23 + shift) / 1.0
    weights = redundancy_weights(views, np.deg2rad(gamma))
    assert ((weights > 0) & (weights <= 1)).all()
    table = {
        (view % 360, angle): weight
        for view, row in zip(views, weights, strict=True)
        for angle, weight in zip(gamma, row, strict=True)
    }
    for (view, angle), weight in table.items():
        other = table.get(((view + 180 - 2 * angle) % 360, -angle), 0.0)
        assert weight + other == pytest.approx(1.0)
    if end == 360 and not shift:
        np.testing.assert_allclose(weights, 0.5)


def test_a_short_scan_has_nearly_parkers_weights():
    gamma = np.deg2rad(np.arange(-25, 26))
    delta = np.deg2rad(25.5)
    views = np.arange(0.0, 231.0) + 0.5
    weights = redundancy_weights(views, gamma)
    beta = np.deg2rad(views)[:, None]
    rising = np.sin(np.pi / 4 * beta / (delta + gamma)) ** 2
    falling = np.sin(np.pi / 4 * (np.pi + 2 * delta - beta) / (delta - gamma)) ** 2
    parker = np.where(beta < 2 * (delta + gamma), rising, 1.0)
    parker = np.where(beta > np.pi + 2 * gamma, falling, parker)
    assert np.abs(weights - parker).max() <= 0.1
    assert np.abs(weights - parker).mean() <= 0.02


@detectors
def test_a_short_scan_is_solved_as_fast_as_a_full_turn(detector):
    image = smooth_image() + (smooth_image() > 0.3)
    errors = []
    for degrees in (360.0, 250.0):
        operator = fan(detector, few_view_angles(30, degrees))
        y, zero = operator.forward(image), torch.zeros_like(image)
        exact = solve_dual(operator, y, zero, regularization=30.0, max_iterations=40).x
        found = solve_dual(operator, y, zero, regularization=30.0, max_iterations=3).x
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[1] <= 1.4 * errors[0]


# ------------------------------------------------------------------ simulated by name


def simulated(shape=(40, 56), **fields):
    return create_operator({"name": "fan_ct", **fields}, shape, seed=0, keys=())


@detectors
@pytest.mark.parametrize("offset", [0, -3.5])
def test_every_ray_through_the_image_is_measured(detector, offset):
    operator = simulated(num_views=12, keywords=f"detector='{detector}',centre_offset={offset}")
    assert operator.detector == detector
    assert operator.centre_spacing == pytest.approx(1.0)
    corners = torch.tensor([[-28.0, 20.0], [28.0, 20.0], [-28.0, -20.0], [28.0, -20.0]]).double()
    places = torch.stack([operator.bin_of_pixels(view, *corners.T)[0] for view in range(12)])
    assert places.min() >= -0.5
    assert places.max() <= operator.num_bins - 0.5
    assert operator.reach().max(1).min() > 0.9  # and hardly more than that


def test_geometry_of_a_clinical_scanner():
    operator = simulated((512, 512), num_views=4)
    np.testing.assert_allclose(operator.angles_deg, [0, 90, 180, 270])
    pixel = 500 / 512
    assert operator.source_distance * pixel == pytest.approx(595)
    assert operator.detector_distance * pixel == pytest.approx(490)
    assert operator.detector == "curved"
    given = simulated(end_angle=200.0, keywords="source_distance=800,bin_spacing=20,num_bins=30")
    assert given.source_distance == pytest.approx(800 / 500 * 56)
    assert given.bin_spacing == pytest.approx(20 / 500 * 56)
    assert given.num_bins == 30
    assert given.angles_deg.max() < 200
    assert simulated(num_views=7) is simulated(num_views=7)
    for text, message in (
        ("detector='round'", "expected detector as flat or curved, got 'round'"),
        ("source_distance=200", "expected source_distance above"),
        ("field_of_view=0", "expected field_of_view as a positive number of mm, got 0"),
        ("bin_spacing=-1", "expected bin_spacing as a positive number of pixels"),
        ("geometry='fan'", r"fan_ct has no geometry \(operator.keywords\); it has: num_views, end"),
    ):
        with pytest.raises(ValueError, match=message):
            simulated(keywords=text)
