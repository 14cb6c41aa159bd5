"""CT against closed forms, ASTRA and scikit-image."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import iradon, radon

from operators.batch import dot
from operators.ct import ParallelBeamCT, few_view_angles
from operators.ct_study import StudyParallelBeamCT
from operators.fan_beam import FanBeamCT
from operators.fbp import fbp
from operators.ramp import angular_weights
from tests.conftest import ROOT

# Value added, semi-axes, centre (x to the right, y up), in halves of the image's side, and
# rotation in degrees. Shepp and Logan, IEEE Trans. Nucl. Sci. 21 (1974); Toft's values.
MODIFIED_SHEPP_LOGAN = np.array(
    [
        [1.0, 0.69, 0.92, 0.0, 0.0, 0.0],
        [-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0],
        [-0.2, 0.11, 0.31, 0.22, 0.0, -18.0],
        [-0.2, 0.16, 0.41, -0.22, 0.0, 18.0],
        [0.1, 0.21, 0.25, 0.0, 0.35, 0.0],
        [0.1, 0.046, 0.046, 0.0, 0.1, 0.0],
        [0.1, 0.046, 0.046, 0.0, -0.1, 0.0],
        [0.1, 0.046, 0.023, -0.08, -0.605, 0.0],
        [0.1, 0.023, 0.023, 0.0, -0.606, 0.0],
        [0.1, 0.023, 0.046, 0.06, -0.605, 0.0],
    ]
)
SHEPP_LOGAN = MODIFIED_SHEPP_LOGAN.copy()
SHEPP_LOGAN[:, 0] = [2.0, -0.98, -0.02, -0.02, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]


def _rasterise(ellipses, size, supersampling=8):
    """The mean over each pixel, ``(size, size)``."""
    x = (np.arange(size * supersampling) + 0.5) / supersampling * 2 / size - 1
    y = -x[:, None]
    image = np.zeros((len(x), len(x)), np.float32)
    for value, a, b, centre_x, centre_y, degrees in ellipses:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        u = (x - centre_x) * c + (y - centre_y) * s
        v = -(x - centre_x) * s + (y - centre_y) * c
        image += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    blocks = image.reshape(size, supersampling, size, supersampling)
    return blocks.mean((1, 3), dtype=np.float64)


def _line_integrals(ellipses, size, rays, shift=0.0):
    """Closed form along each ray, moved sideways by `shift` pixels, in pixels."""
    directions = rays.directions / np.linalg.norm(rays.directions, axis=1, keepdims=True)
    dx, dy = directions.T
    px, py = (rays.points + shift * np.stack([-dy, dx], axis=1)).T
    total = np.zeros(len(px))
    for value, *lengths, degrees in ellipses:
        a, b, centre_x, centre_y = np.array(lengths) * size / 2
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        u = ((px - centre_x) * c + (py - centre_y) * s) / a
        v = (-(px - centre_x) * s + (py - centre_y) * c) / b
        du, dv = (dx * c + dy * s) / a, (-dx * s + dy * c) / b
        square, product = du**2 + dv**2, u * du + v * dv
        chord = np.sqrt(np.maximum(product**2 - square * (u**2 + v**2 - 1), 0))
        total += value * 2 * chord / square
    return total


def _closed_form(ellipses, operator, shift=0.0):
    integrals = _line_integrals(ellipses, operator.size[0], operator._rays(), shift)
    return integrals.reshape(operator.range_shape[1:])


def _bin_means(ellipses, operator):
    """Closed form averaged over the width of a bin of one pixel."""
    shifts = (np.arange(8) + 0.5) / 8 - 0.5
    return np.mean([_closed_form(ellipses, operator, s) for s in shifts], axis=0)


def _project(operator, image):
    return operator.forward(torch.as_tensor(image)[None, None])[0, 0].numpy()


def _relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def operator_320():
    return ParallelBeamCT(320, few_view_angles(180))


@pytest.fixture(scope="module")
def astra():
    return pytest.importorskip("astra", reason="astra-toolbox, the oracle, is not installed")


def _astra_matrix(astra, projector, geometry, size):
    volume = astra.create_vol_geom(*size)
    identity = astra.create_projector(projector, geometry, volume)
    matrix = astra.projector.matrix(identity)
    sparse = astra.matrix.get(matrix).copy()
    astra.matrix.delete(matrix)
    astra.projector.delete(identity)
    return sparse


# ------------------------------------------------------------------ closed forms


def test_default_detector_at_320(operator_320):
    assert operator_320.range_shape == (1, 180, 453)


@pytest.mark.parametrize(
    ("ellipses", "expected"),
    [
        pytest.param(SHEPP_LOGAN, _closed_form, id="shepp-logan-rays"),
        # The thin bright skull of the modified phantom, averaged over pixels, is wider than the
        # ideal one seen by rays of no width (1.1 %); bins as wide as pixels see the same.
        pytest.param(MODIFIED_SHEPP_LOGAN, _bin_means, id="modified-bins"),
    ],
)
def test_shepp_logan_closed_form(operator_320, ellipses, expected):
    image = _rasterise(ellipses, 320).astype(np.float32)
    assert _relative(_project(operator_320, image), expected(ellipses, operator_320)) <= 0.01


@pytest.mark.parametrize("detector", ["flat", "curved"])
def test_fan_beam_closed_form(detector):
    operator = FanBeamCT(
        320,
        few_view_angles(60, end=360.0),
        source_distance=600.0,
        detector_distance=300.0,
        num_bins=700,
        detector=detector,
    )
    image = _rasterise(SHEPP_LOGAN, 320)
    assert _relative(_project(operator, image), _closed_form(SHEPP_LOGAN, operator)) <= 0.01


@pytest.mark.parametrize("size", [(40, 40), (31, 48), (1, 5)])
def test_every_view_sees_the_whole_mass(size):
    angles = few_view_angles(7)
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    views = ParallelBeamCT(size, [0.0, 90.0]).forward(image).sum(-1)
    torch.testing.assert_close(views, image.sum().expand(1, 1, 2))
    views = ParallelBeamCT(size, angles, num_bins=1001, bin_spacing=0.1).forward(image).sum(-1)
    torch.testing.assert_close(views * 0.1, image.sum().expand(1, 1, 7), rtol=0.02, atol=0)


# ------------------------------------------------------------------ conventions


def test_columns_at_0_and_rows_upwards_at_90_degrees():
    image = torch.arange(15.0).reshape(1, 1, 3, 5)
    sinogram = ParallelBeamCT((3, 5), [0.0], num_bins=5).forward(image)
    torch.testing.assert_close(sinogram[0, 0, 0], image[0, 0].sum(0))
    sinogram = ParallelBeamCT((3, 5), [90.0], num_bins=3).forward(image)
    torch.testing.assert_close(sinogram[0, 0, 0], image[0, 0].sum(1).flip(0))


def test_half_a_turn_mirrors_the_detector():
    image = torch.rand(1, 1, 12, 9, dtype=torch.float64)
    sinogram = ParallelBeamCT((12, 9), [25.0, 205.0]).forward(image)[0, 0]
    torch.testing.assert_close(sinogram[0], sinogram[1].flip(0))


def test_turns_like_skimage():
    size, angles = 101, [0.0, 30.0, 75.0, 120.0]  # odd: the same centre of rotation
    ellipses = np.array([[1.0, 0.3, 0.1, 0.4, 0.25, 20.0], [0.5, 0.15, 0.2, -0.2, -0.4, 0.0]])
    image = _rasterise(ellipses, size)
    expected = radon(image, theta=angles, circle=True).T
    actual = _project(ParallelBeamCT(size, angles, num_bins=size), image)
    assert _relative(actual, expected) <= 0.02  # skimage rotates the image with interpolation


@pytest.mark.parametrize("size", [(64, 64), (33, 48), (50, 21)])
@pytest.mark.parametrize("spacing", [1.0, 1.7])
def test_parallel_beam_is_astra_linear(astra, size, spacing):
    angles = np.array([0.0, 20.0, 45.0, 60.0, 90.0, 135.0, 170.0, -30.0, 225.0, 300.0])
    operator = ParallelBeamCT(size, angles, bin_spacing=spacing)
    geometry = astra.create_proj_geom("parallel", spacing, operator.num_bins, np.deg2rad(angles))
    matrix = _astra_matrix(astra, "linear", geometry, size)
    image = np.random.default_rng(0).random(size)
    expected = (matrix @ image.ravel()).reshape(operator.range_shape[1:])
    assert _relative(_project(operator, image), expected) <= 1e-4


def test_320_is_astra_linear(astra, operator_320):
    geometry = astra.create_proj_geom("parallel", 1.0, 453, np.deg2rad(few_view_angles(180)[::12]))
    matrix = _astra_matrix(astra, "linear", geometry, (320, 320))
    image = np.random.default_rng(0).random((320, 320), dtype=np.float32)
    expected = (matrix @ image.ravel()).reshape(15, 453)
    assert _relative(_project(operator_320, image)[::12], expected) <= 1e-4


def test_fan_beam_agrees_with_astra(astra):
    # ASTRA's CPU fan projectors weigh pixels by the length of the ray in each (line) or by the
    # area of a strip: other discretisations, which a smooth image hardly tells apart.
    size, angles = (60, 80), np.arange(0.0, 360.0, 20.0)
    operator = FanBeamCT(
        size, angles, source_distance=150.0, detector_distance=90.0, num_bins=240, bin_spacing=0.9
    )
    y, x = np.mgrid[:60, :80]
    image = np.exp(-(((x - 45) / 14) ** 2) - ((y - 27) / 10) ** 2)
    geometry = astra.create_proj_geom("fanflat", 0.9, 240, np.deg2rad(angles), 150.0, 90.0)
    for projector in ("line_fanflat", "strip_fanflat"):
        matrix = _astra_matrix(astra, projector, geometry, size)
        expected = (matrix @ image.ravel()).reshape(operator.range_shape[1:])
        assert _relative(_project(operator, image), expected) <= 5e-3


# ------------------------------------------------------------------ adjoints and sums


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    angles=st.lists(st.floats(-720, 720), min_size=1, max_size=4),
    num_bins=st.integers(1, 20),
    spacing=st.floats(0.3, 3.0),
    batch=st.sampled_from([1, 2, 5]),
)
def test_adjoint_of_any_geometry(size, angles, num_bins, spacing, batch):
    operator = ParallelBeamCT(size, angles, num_bins=num_bins, bin_spacing=spacing)
    x = torch.rand(batch, *operator.domain_shape, dtype=torch.float64)
    y = torch.rand(batch, *operator.range_shape, dtype=torch.float64)
    left, right = dot(operator.forward(x), y), dot(x, operator.adjoint(y))
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_adjoint_at_320(operator_320):
    x, y = torch.rand(2, 1, 320, 320), torch.rand(2, 1, 180, 453)
    left, right = dot(operator_320.forward(x), y), dot(x, operator_320.adjoint(y))
    assert ((left - right).abs() <= 1e-5 * left.abs()).all()


def test_sums_are_products_with_ones():
    operator = ParallelBeamCT((6, 9), [10.0, 80.0], num_bins=20)
    ones_x, ones_y = torch.ones(1, *operator.domain_shape), torch.ones(1, *operator.range_shape)
    torch.testing.assert_close(operator.row_sums(), operator.forward(ones_x))
    torch.testing.assert_close(operator.column_sums(), operator.adjoint(ones_y))
    assert operator.row_sums(torch.float64).dtype == torch.float64


def test_correct_is_normalised_and_leaves_unseen_pixels():
    operator = ParallelBeamCT(16, [0.0], num_bins=5)  # the outer columns are in no ray
    x = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    y = torch.rand(2, 1, 1, 5, dtype=torch.float64)
    corrected = operator.correct(x, y, weight=0.5)
    sums = operator.normal(torch.ones(1, 1, 16, 16, dtype=torch.float64))
    seen = sums > 0
    assert not seen.all()
    assert torch.isfinite(corrected).all()
    seen = seen.expand_as(x)
    assert torch.equal(corrected[~seen], x[~seen])
    step = 0.5 * operator.adjoint(y - operator.forward(x)) / sums
    torch.testing.assert_close(corrected[seen], (x + step)[seen])


def test_pickle_holds_no_matrix(operator_320):
    operator_320.matrix()
    data = pickle.dumps(operator_320)
    assert len(data) < 10_000
    assert pickle.loads(data).range_shape == operator_320.range_shape


def test_study_adjoint_is_skimage_unfiltered():
    operator = ParallelBeamCT(33, few_view_angles(12), num_bins=47)
    sinogram = torch.rand(2, 1, 12, 47, dtype=torch.float64)
    actual = operator.study_adjoint(sinogram)
    for i in range(2):
        expected = iradon(
            sinogram[i, 0].numpy().T,
            theta=operator.angles_deg,
            filter_name=None,
            circle=False,
            output_size=33,
        )
        np.testing.assert_allclose(actual[i, 0].numpy(), expected, rtol=1e-10, atol=1e-12)
    # Hence its name: it is neither the adjoint nor a multiple of it.
    adjoint = operator.adjoint(sinogram)
    scale = dot(actual, adjoint) / dot(adjoint, adjoint)
    assert _relative(scale[0] * adjoint[0], actual[0]) > 0.01


def test_the_studys_step_is_normalised_by_its_own_back_projection():
    operator = StudyParallelBeamCT(24, few_view_angles(10))
    x = torch.rand(2, 1, 24, 24, dtype=torch.float64)
    y = torch.rand(2, *operator.range_shape, dtype=torch.float64)
    ones = operator.forward(torch.ones(1, 1, 24, 24, dtype=torch.float64))
    step = operator.study_adjoint(y - operator.forward(x)) / operator.study_adjoint(ones)
    torch.testing.assert_close(operator.correct(x, y, 0.7), x + 0.7 * step)


# ------------------------------------------------------------------ filtered back-projection


@pytest.mark.parametrize(
    ("filter", "tolerance"),
    # skimage samples the Hann window with both ends at zero, one frequency off.
    [("ramp", 1e-9), ("shepp-logan", 1e-9), ("cosine", 1e-9), ("hann", 1e-2)],
)
def test_fbp_is_skimage(filter, tolerance):
    operator = ParallelBeamCT(65, few_view_angles(30), num_bins=93)
    sinogram = np.random.default_rng(0).random((30, 93))
    expected = iradon(
        sinogram.T,
        theta=operator.angles_deg,
        filter_name=filter,
        circle=False,
        output_size=65,
    )
    actual = fbp(operator, torch.from_numpy(sinogram)[None, None], filter=filter)[0, 0].numpy()
    assert _relative(actual, expected) <= tolerance


def _smooth_disc(size):
    """A disc with a soft edge: FBP of many views is as good as its interpolation."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return 0.7 / (1 + np.exp((np.hypot(x - 6, y + 3) - size / 4) / 2))


FULL_COVERAGE = {
    "half-turn": few_view_angles(160),
    "full-turn": few_view_angles(320, end=360.0),
    "unequal": np.cumsum(np.tile([0.75, 1.5], 80)),
    "shuffled": np.random.default_rng(0).permutation(few_view_angles(160)) + 33.0,
    "golden": np.arange(200) * 111.246,
}


@pytest.mark.parametrize("angles", FULL_COVERAGE.values(), ids=FULL_COVERAGE.keys())
def test_fbp_gives_absolute_values(angles):
    image = torch.from_numpy(_smooth_disc(64))[None, None]
    operator = ParallelBeamCT(64, angles)
    assert _relative(fbp(operator, operator.forward(image)), image) <= 0.01


def test_fbp_spacing_does_not_change_the_scale():
    image = torch.from_numpy(_smooth_disc(64))[None, None]
    operator = ParallelBeamCT(64, few_view_angles(160), bin_spacing=0.6)
    assert _relative(fbp(operator, operator.forward(image)), image) <= 0.01


def test_fan_beam_fbp_gives_absolute_values():
    image = torch.from_numpy(_smooth_disc(64))[None, None]
    operator = FanBeamCT(
        64,
        few_view_angles(320, end=360.0),
        source_distance=200.0,
        detector_distance=120.0,
        num_bins=300,
        bin_spacing=1.1,
    )
    assert _relative(fbp(operator, operator.forward(image)), image) <= 0.01


def test_fan_beam_fbp_near_the_source():
    """Rays that diverge strongly: what is near the source is weighted with D^2 / U^2."""
    y, x = np.mgrid[:64, :64] - 31.5
    blob = np.exp(-((x - 20) ** 2 + (y + 12) ** 2) / 30)
    image = torch.from_numpy(blob)[None, None]
    operator = FanBeamCT(
        64,
        few_view_angles(320, end=360.0),
        source_distance=60.0,
        detector_distance=30.0,
        num_bins=330,
        bin_spacing=0.8,
    )
    assert _relative(fbp(operator, operator.forward(image)), image) <= 0.02


def test_a_view_stands_for_half_its_gaps():
    """Missing wedges count as a usual gap, and views at one angle share it."""
    one = np.deg2rad(1.2)
    limited = angular_weights(few_view_angles(100, end=120.0), 180.0)
    np.testing.assert_allclose(limited, one)
    shared = angular_weights(np.append(few_view_angles(150), [12.0, 192.0]), 180.0)
    np.testing.assert_allclose(shared[[10, -2, -1]], one / 3)
    np.testing.assert_allclose(shared.sum(), np.pi)


def test_fbp_of_a_limited_angle_is_not_inflated():
    # A third of the directions is missing, and no view is blown up to stand for them.
    image = torch.from_numpy(_smooth_disc(64))[None, None]
    operator = ParallelBeamCT(64, few_view_angles(100, end=120.0))
    ratio = fbp(operator, operator.forward(image)).max() / image.max()
    assert 0.6 < ratio < 1.2


def test_fbp_of_shepp_logan(operator_320):
    image = _rasterise(MODIFIED_SHEPP_LOGAN, 320).astype(np.float32)
    sinogram = _closed_form(MODIFIED_SHEPP_LOGAN, operator_320).astype(np.float32)
    result = fbp(operator_320, torch.from_numpy(sinogram)[None, None])[0, 0].numpy()
    inside = np.s_[140:180, 150:170]  # flat brain
    assert abs(result[inside].mean() - image[inside].mean()) <= 2e-3
    assert _relative(result, image) <= 0.15  # ringing at the skull
    assert result.dtype == np.float32


def test_fbp_errors():
    operator = ParallelBeamCT(8, [0.0, 90.0])
    sinogram = torch.zeros(1, *operator.range_shape)
    with pytest.raises(ValueError, match=r"expected a filter of ramp, .*got 'hamming'"):
        fbp(operator, sinogram, filter="hamming")
    with pytest.raises(ValueError, match=r"fbp: expected shape \(B, 1, 2, 12\)"):
        fbp(operator, sinogram[..., 1:])
    with pytest.raises(TypeError, match="expected ParallelBeamCT or FanBeamCT, got"):
        fbp(None, sinogram)


# ------------------------------------------------------------------ arguments


def test_few_view_angles():
    np.testing.assert_allclose(few_view_angles(4), [0.0, 45.0, 90.0, 135.0])
    np.testing.assert_allclose(few_view_angles(3, end=90.0), [0.0, 30.0, 60.0])
    with pytest.raises(ValueError, match="expected at least 1 view, got 0"):
        few_view_angles(0)
    with pytest.raises(ValueError, match="expected a positive end angle"):
        few_view_angles(3, end=float("nan"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "expected size as a positive integer"),
        ({"size": (4, 5, 6)}, "expected size as a positive integer"),
        ({"size": 4.5}, "expected size as a positive integer"),
        ({"angles_deg": []}, r"expected angles_deg of shape \(num_views,\)"),
        (
            {"angles_deg": [[0.0]]},
            r"expected angles_deg of shape \(num_views,\).*got shape \(1, 1\)",
        ),
        ({"angles_deg": [0.0, float("nan")]}, "expected finite angles"),
        ({"num_bins": 0}, "expected num_bins as an integer of 1 or more, got 0"),
        ({"num_bins": 4.0}, "expected num_bins as an integer"),
        ({"bin_spacing": 0.0}, "expected bin_spacing as a positive number"),
        ({"bin_spacing": float("inf")}, "expected bin_spacing as a positive number"),
    ],
)
def test_wrong_geometry(arguments, message):
    with pytest.raises(ValueError, match=message):
        ParallelBeamCT(**{"size": 8, "angles_deg": [0.0], **arguments})
    fan = {"source_distance": 20.0, "detector_distance": 5.0, "num_bins": 9}
    with pytest.raises(ValueError, match=message):
        FanBeamCT(**{"size": 8, "angles_deg": [0.0], **fan, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source_distance": 5.0}, "expected source_distance above 5.7 pixels"),
        ({"source_distance": -1.0}, "expected source_distance as a positive number"),
        ({"detector_distance": -1.0}, "expected detector_distance of 0 pixels or more"),
    ],
)
def test_wrong_fan(arguments, message):
    fan = {"source_distance": 20.0, "detector_distance": 5.0, "num_bins": 9}
    with pytest.raises(ValueError, match=message):
        FanBeamCT(8, [0.0], **{**fan, **arguments})


def test_too_many_entries():
    with pytest.raises(ValueError, match="expected at most 2147483647 matrix entries"):
        ParallelBeamCT(4000, few_view_angles(1000)).matrix()


def test_products_may_read_past_the_end_of_the_matrix(operator_320):
    system = operator_320.matrix()
    for matrix in (system.matrix, system.transposed):
        for array in (matrix.col_indices(), matrix.values()):
            end = (array.storage_offset() + array.numel()) * array.itemsize
            assert array.untyped_storage().nbytes() - end >= 64


def test_thirty_views_of_one_slice_at_320_do_not_crash():
    """Did so in MKL, where the indices ended just before a page that was not the process's."""
    script = (
        "import torch\n"
        "from operators.ct import ParallelBeamCT, few_view_angles\n"
        "operator = ParallelBeamCT(320, few_view_angles(30))\n"
        "y = operator.forward(torch.ones(1, 1, 320, 320))\n"
        "operator.adjoint(y)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
