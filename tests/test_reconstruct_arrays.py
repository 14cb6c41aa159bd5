"""reconstruct() from arrays to arrays: kinds, axes, units, noise, and what it refuses."""

import pickle
import warnings

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from configs import load_config
from evaluation.own.engine import choose_sampling
from evaluation.own.folder import reconstruct_file
from evaluation.run.calibrated import SCALES
from operators import (
    FanBeamCT,
    FunctionOperator,
    LinearOperator,
    MultiCoilMRI,
    ParallelBeamCT,
    SingleCoilMRI,
)
from operators.batch import expand
from reconstruct import Prior, reconstruct
from samplers import NUM_STEPS
from sde import VESDE, score_function
from tests.conftest import ROOT
from tests.helpers.data_writers import coil_sensitivities
from tests.helpers.reconstruct_inputs import image, kspace_of, lines, phase, write_prior

UNIT = 3e4  # far from 1
SIDE = 32


def shrink(x, sigma):
    """The denoiser of white images; keeps what is measured, and is fast."""
    return x * 0.09 / (0.09 + expand(sigma, x) ** 2)


PRIOR = Prior.from_denoiser(shrink, sigma_min=0.01, sigma_max=2.0)
FEW = {"prior": PRIOR, "num_steps": 4, "sigma_y": 0.0}


def images(count):
    stack = np.stack([image((SIDE, SIDE), seed) for seed in range(count)])
    return (UNIT * stack * phase((SIDE, SIDE))).astype(np.complex64)


def close(result, truth):
    return np.linalg.norm(result - truth) <= 2e-3 * np.linalg.norm(truth)


@pytest.fixture(autouse=True)
def _quiet():
    """k-space without a zero is noted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="kspace has no zeros")
        yield


# ------------------------------------------------------------------------------- shapes and kinds


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("axes", ["(H, W)", "(C, H, W)", "(S, C, H, W)"])
def test_kspace_comes_back_as_images_of_the_same_axes(axes, kind):
    truth = images(2)
    maps = coil_sensitivities(3, SIDE, SIDE).astype(np.complex64)
    kspace, wanted, given = {
        "(H, W)": (kspace_of(truth[0]), truth[0], None),
        "(C, H, W)": (kspace_of(maps * truth[0]), truth[0], maps),
        "(S, C, H, W)": (kspace_of(maps * truth[:, None]), truth, maps),
    }[axes]
    before = kspace.copy()
    measurement = kspace if kind == "numpy" else torch.from_numpy(kspace)
    result = reconstruct(measurement, maps=given, **FEW)
    assert np.array_equal(kspace, before)
    assert close(np.asarray(result.image), wanted)
    assert close(np.asarray(result.direct), wanted)
    assert result.std is result.quantile_05 is result.quantile_95 is result.undecided is None
    arrays = [result.image, result.direct]
    if wanted.ndim == 3:
        arrays += [result.sigma_y, result.scale]
        assert tuple(result.sigma_y.shape) == (2,)
    else:
        assert result.sigma_y == 0.0
    assert {type(a) for a in arrays} == {np.ndarray if kind == "numpy" else torch.Tensor}
    assert str(result.image.dtype).endswith("complex64")
    assert result.facts["effective_acceleration"] == [1.0]
    assert repr(result).startswith("Result(point estimate by pnp, 4 steps; image complex64 (")


def test_several_samples_have_a_deviation():
    kspace = kspace_of(images(2))[:, None] * lines()
    result = reconstruct(kspace, samples=3, **FEW)
    assert result.std.shape == result.image.shape == (2, SIDE, SIDE)
    assert result.std.dtype == np.float32
    assert "mean of 3 samples by warm_mmps" in result.description
    for name in ("quantile_05", "quantile_95", "undecided"):
        values = getattr(result, name)
        assert (values.shape, values.dtype) == (result.image.shape, np.float32)
        assert name in result.outputs
    assert (result.quantile_05 <= result.quantile_95).all()
    assert 0 <= result.undecided.min() < result.undecided.max() < 1
    fewer = reconstruct(kspace, samples=9, mean_error=0.6, **FEW)
    assert np.array_equal(fewer.std, result.std)  # of 1 / 0.6^2 samples, the first three
    assert 0.01 * UNIT < result.std.mean() < UNIT
    again = reconstruct(kspace, samples=3, **FEW)
    other = reconstruct(kspace, samples=3, seed=1, **FEW)
    assert np.array_equal(result.image, again.image)
    assert not np.array_equal(result.image, other.image)
    one = reconstruct(kspace[0], samples=3, **FEW)  # what else is in the batch does not matter
    np.testing.assert_allclose(one.image, result.image[0], rtol=1e-4, atol=1e-4 * UNIT)


def test_a_fitted_scale_multiplies_the_deviations(monkeypatch):
    monkeypatch.setitem(SCALES, ("natural_complex_small", "warm_mmps", 3, "MR complex"), 2.0)
    kspace = kspace_of(images(1)[0]) * lines()
    few = {"prior": "natural_complex_small", "num_steps": 3, "sigma_y": 0.0, "device": "cpu"}
    plain = reconstruct(kspace, samples=2, **few)
    scaled = reconstruct(kspace, samples=2, calibrated=True, **few)
    assert np.array_equal(scaled.image, plain.image)
    np.testing.assert_allclose(scaled.std, 2 * plain.std, rtol=1e-6)
    assert (
        (scaled.quantile_95 - scaled.quantile_05) >= (plain.quantile_95 - plain.quantile_05)
    ).all()
    assert "deviations from the mean scaled by 2.00, fitted to other people" in scaled.description
    assert "scaled by 2.00" in scaled.outputs["std"]
    assert "scaled by 2.00" in scaled.outputs["quantile_95"]
    assert "scaled" not in plain.description
    with pytest.raises(ValueError, match="samples above 1 beside"):
        reconstruct(kspace, calibrated=True, **few)
    for changes in ({"num_steps": 4}, {"options": {"end_sigma": 0.01}}, {"prior": PRIOR}):
        with pytest.raises(
            ValueError, match=r"no scale was fitted.*natural_complex_small, warm_mmps of 3"
        ):
            reconstruct(kspace, samples=2, calibrated=True, **few | changes)


def test_a_calibrated_spread_takes_the_steps_that_it_was_fitted_for():
    given = {"num_samples": 2, "sigma_y": None, "options": {}}
    chosen = choose_sampling("", num_steps=None, calibrated=True, **given)
    assert ("natural_small", chosen.sampler, chosen.num_steps, "MR") in SCALES
    assert choose_sampling("", num_steps=None, **given).num_steps == NUM_STEPS[chosen.sampler]
    assert choose_sampling("", num_steps=7, calibrated=True, **given).num_steps == 7
    assert (
        choose_sampling("pula", num_steps=None, calibrated=True, **given).num_steps
        == (
            NUM_STEPS["pula"]  # refused later, as nothing was fitted for it
        )
    )


def test_it_is_what_the_command_line_does(tmp_path, tiny_config):
    prior = write_prior(tmp_path / "prior.pt", tiny_config)
    maps = coil_sensitivities(4, SIDE, SIDE).astype(np.complex64)
    np.save(tmp_path / "k.npy", kspace_of(maps * images(1)[0]) * lines(every=3, centre=12))
    config = load_config(str(ROOT / "configs" / "reconstruct.py"))
    config.prior, config.sampler.num_steps = str(prior), 3
    reconstruct_file(config, tmp_path / "k.npy", tmp_path / "out", "cpu")
    with h5py.File(tmp_path / "out" / "reconstruction.h5") as file:
        arrays = {name: file[name][()] for name in file}
    result = reconstruct(np.load(tmp_path / "k.npy"), prior=prior, num_steps=3)  # ESPIRiT's maps
    assert np.array_equal(result.image, arrays["reconstruction_complex"][0])
    assert result.sigma_y == arrays["sigma_y"][0] > 0
    assert result.facts["coil_maps"] == "ESPIRiT"


def test_masks_are_given_or_the_zeros():
    truth, mask = images(2), lines()
    full = kspace_of(truth)[:, None]
    with_zeros = reconstruct(full * mask, **FEW)
    for given in (mask, np.broadcast_to(mask, (SIDE, SIDE)), torch.from_numpy(mask)):
        assert np.array_equal(reconstruct(full, mask=given, **FEW).image, with_zeros.image)
    masks = np.stack([np.broadcast_to(lines(every=n), (SIDE, SIDE)) for n in (2, 5)])
    each = reconstruct(full, mask=masks, **FEW)
    for item in range(2):
        alone = reconstruct(full[item], mask=masks[item], **FEW)
        np.testing.assert_allclose(each.image[item], alone.image, rtol=1e-4, atol=1e-4 * UNIT)
    expected = sorted(round(float(1 / m.mean()), 3) for m in masks)
    assert each.facts["effective_acceleration"] == expected


def test_sinograms_come_with_their_angles():
    truth, angles = image((24, 24)), np.arange(0, 180, 3.0)
    operator = ParallelBeamCT(24, angles, num_bins=24)
    disc = np.hypot(*np.mgrid[-11.5:12, -11.5:12]) < 10
    x = torch.from_numpy(truth * disc).float()
    y = operator.forward(UNIT * x[None, None])[0, 0]
    options = {"options": {"cg_steps": 60}} | FEW
    result = reconstruct(y.numpy(), angles=angles, **options)
    assert result.image.shape == (24, 24)
    assert np.linalg.norm(result.image - UNIT * x.numpy()) < 0.02 * UNIT * float(x.norm())
    several = reconstruct(torch.stack([y, 2 * y]), angles=list(angles), **options)
    np.testing.assert_allclose(several.image[1], 2 * result.image, rtol=1e-3, atol=1e-3 * UNIT)
    same = reconstruct(y, operator=operator, **options)  # any geometry goes this way
    assert float((same.image - UNIT * x).norm()) < 0.02 * UNIT * float(x.norm())
    assert same.facts["operator"] == "ParallelBeamCT"
    fan = FanBeamCT(24, 2 * angles, source_distance=60, detector_distance=30, num_bins=60)
    y = fan.forward(UNIT * x[None, None])
    result = reconstruct(y, operator=fan, **options)
    assert float((result.image - UNIT * x).norm()) < 0.02 * UNIT * float(x.norm())


class Seventh(LinearOperator):
    """7 times the average of 2 x 2 pixels, of images of either kind: of no norm in particular."""

    def __init__(self, complex_numbers):
        kinds = {"domain_complex": complex_numbers, "range_complex": complex_numbers}
        super().__init__((1, SIDE, SIDE), (1, SIDE // 2, SIDE // 2), **kinds)

    def _forward(self, x):
        rows = x[..., 0::2, :] + x[..., 1::2, :]
        return 7 * (rows[..., 0::2] + rows[..., 1::2]) / 4

    def _adjoint(self, y):
        return 7 * y.repeat_interleave(2, -1).repeat_interleave(2, -2) / 4


@pytest.mark.parametrize("complex_numbers", [False, True])
def test_any_operator_will_do_in_any_unit(complex_numbers):
    x = torch.from_numpy(image((SIDE, SIDE))).float()[None, None]
    x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., :SIDE, :SIDE]
    x = UNIT * (x * (1 + 1j) if complex_numbers else x)
    operator = Seventh(complex_numbers)
    y = operator.forward(torch.cat([x, 3 * x]))
    result = reconstruct(y, operator=operator, **FEW)
    assert result.image.shape == (2, 1, SIDE, SIDE)  # as the operator takes them
    torch.testing.assert_close(result.image[1:], 3 * x, rtol=0.02, atol=0.02 * UNIT)
    torch.testing.assert_close(result.direct[:1], x, rtol=0.02, atol=0.02 * UNIT)
    # not 49 / 4 times as much
    assert float(result.scale[0]) == pytest.approx(float(x.abs().max()), rel=0.05)
    one = reconstruct(y[0], operator=operator, **FEW)
    assert one.image.shape == (1, SIDE, SIDE)
    bare = reconstruct(y[0, 0].numpy(), operator=operator, **FEW)
    assert bare.image.shape == (SIDE, SIDE)
    np.testing.assert_array_equal(bare.image, one.image[0])
    assert reconstruct(y[:, 0], operator=operator, **FEW).image.shape == (2, SIDE, SIDE)
    several = reconstruct(y, operator=operator, samples=2, **FEW)  # whose products may be slow
    assert "mean of 2 samples by warm_dds" in several.description


def test_an_operator_of_each_slice():
    truth = torch.from_numpy(images(5))[:, None]  # more than go at a time
    masks = torch.stack([torch.from_numpy(lines(every=n)).expand(SIDE, -1) for n in range(2, 7)])
    maps = torch.from_numpy(coil_sensitivities(2, SIDE, SIDE).astype(np.complex64))
    operator = MultiCoilMRI(masks[:, None], maps)
    y = operator.forward(truth)
    result = reconstruct(y, operator=operator, **FEW)
    again = operator.forward(result.image)
    assert float((again - y).norm()) < 0.05 * float(y.norm())
    real = SingleCoilMRI(masks[:, None])
    y = real.forward(truth.abs())
    assert reconstruct(y, operator=real, **FEW).image.dtype == torch.float32


def test_noise_is_estimated_given_or_unknown():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((96, 96)) + 1j * rng.standard_normal((96, 96))
    kspace = kspace_of(UNIT * image((96, 96))) + 0.05 * UNIT * noise
    few = {"prior": PRIOR, "num_steps": 3}
    assert reconstruct(kspace, **few).sigma_y == pytest.approx(0.05 * UNIT, rel=0.2)
    assert reconstruct(kspace, sigma_y=7, **few).sigma_y == pytest.approx(7)
    operator = FunctionOperator(lambda x: 2 * x, domain_shape=(1, SIDE, SIDE))
    y = 2 * image((SIDE, SIDE))
    with pytest.warns(UserWarning, match="FunctionOperator cannot tell how noisy"):
        assert reconstruct(y, operator=operator, **few).sigma_y == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reconstruct(y, operator=operator, sigma_y=0, **few)


def test_what_is_unusual_is_warned_of():
    kspace = np.roll(kspace_of(images(1)[0]), 3, axis=1)
    with pytest.warns(UserWarning, match="an echo shift"):
        result = reconstruct(kspace, **FEW)
    assert any("an echo shift" in note for note in result.notes)


def test_a_result_can_be_stored():
    result = reconstruct(kspace_of(images(1)[0]) * lines(), **FEW)
    again = pickle.loads(pickle.dumps(result))
    assert np.array_equal(again.image, result.image)
    with pytest.raises(AttributeError):
        result.image = 0


# --------------------------------------------------------------------------------------- failures


def test_a_slice_that_fails_is_nan_and_the_others_are_kept():
    truth = images(2)
    kspace = kspace_of(truth)[:, None] * lines()

    def score(x, sigma):
        row = torch.arange(len(x))[:, None, None, None]
        return torch.where((row == 1) & x.is_complex(), torch.nan, PRIOR.score(x, sigma))

    with pytest.warns(UserWarning, match="slice 1 is NaN: not finite at step 0"):
        result = reconstruct(kspace, **FEW | {"prior": (score, PRIOR.sde)})
    assert list(result.failures) == [1]
    assert np.isnan(result.image[1]).all()
    assert np.isfinite(result.image[0]).all()

    def never(x, sigma):
        return x * torch.nan

    with pytest.raises(FloatingPointError, match="no image is usable: not finite at step 0"):
        reconstruct(kspace, **FEW | {"prior": (never, PRIOR.sde)})


def test_errors_of_the_callers_functions_keep_their_place():
    def score(x, sigma):
        return x.no_such_method()

    with pytest.raises(AttributeError, match="no_such_method") as error:
        reconstruct(kspace_of(images(1)[0]), **FEW | {"prior": (score, PRIOR.sde)})
    assert error.traceback[-1].name == "score"


def test_batches_shrink_until_they_fit():
    kspace, sizes = kspace_of(images(4))[:, None] * lines(), []

    def score(x, sigma):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return PRIOR.score(x, sigma)

    result = reconstruct(kspace, **FEW | {"prior": Prior(score, PRIOR.sde)})
    assert result.image.shape == (4, SIDE, SIDE)
    assert sizes == [2, 2, 4] + [2] * 8  # the first two: whether it is a score


def test_a_denoiser_in_a_scores_place_is_noticed():
    prior = Prior(lambda x, sigma: F.avg_pool2d(x, 3, 1, 1), VESDE(0.01, 1.0))
    with pytest.raises(ValueError, match=r"predicts='x0'\) makes a prior of it"):
        reconstruct(kspace_of(images(1)[0]), **FEW | {"prior": prior})


def test_a_prior_of_complex_images_may_be_given_as_an_object():
    """Its score takes no real images, with which a score is told from a denoiser."""

    class Parts(torch.nn.Module):
        num_channels = 2

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, sigma):
            return (shrink(x, sigma) - x) / expand(sigma, x) ** 2

    joint = Prior(score_function(Parts()), PRIOR.sde)
    kspace = kspace_of(images(1)[0])
    result = reconstruct(kspace, **FEW | {"prior": joint})
    np.testing.assert_allclose(result.image, reconstruct(kspace, **FEW).image, rtol=1e-4, atol=1)


K = np.ones((8, 8), np.complex64)
Y = np.ones((9, 8), np.float32)
BLUR = Seventh(False)
ANGLES = np.arange(9) * 20.0


@pytest.mark.parametrize(
    ("measurement", "changes", "message"),
    [
        (np.ones((8, 8)), {}, r"complex k-space .*got float64 .*sinogram needs angles=.*operator="),
        (np.ones((8, 8, 2)), {}, r"join its parts: real \+ 1j \* imaginary"),
        (K[0], {}, r"expected k-space \(H, W\), \(coils, H, W\) or .*got the shape \(8,\)"),
        (np.zeros((0, 8), complex), {}, r"got the shape \(0, 8\)"),
        ("scan.h5", {}, "expected measurement as an array of numbers, got str"),
        (K * np.nan, {}, "expected finite values, got 64 NaN"),
        (0 * K, {}, "k-space is 0 in every chosen slice"),
        (K, {"mask": np.ones((4, 4))}, r"expected a mask of shape \(8, 8\)"),
        (K, {"mask": 2 * np.ones((8, 8))}, "expected a mask of 0 and 1"),
        (K, {"mask": np.zeros((8, 8))}, "expected a mask with measured positions"),
        (np.stack([K] * 3), {"mask": np.ones((3, 8, 8))}, r"give kspace\[:, None\]"),
        (np.stack([K] * 3), {"maps": np.ones((2, 8, 8))}, "expected complex coil maps of shape"),
        (np.stack([K] * 3), {"maps": np.stack([K] * 2)}, r"coil maps of shape \(3, 8, 8\)"),
        (Y, {"angles": np.arange(5)}, "expected an angle for each of 9 views, got 5"),
        (K, {"angles": np.arange(8)}, r"expected a real sinogram .*got complex64"),
        (Y, {"angles": ANGLES, "mask": K.real}, "a sinogram with angles= alone, got mask"),
        (np.ones((16, 16)), {"operator": BLUR, "mask": K.real}, "operator= alone, got mask, too"),
        (np.ones((4, 4)), {"operator": BLUR}, r"the operator's shape \(1, 16, 16\), or several"),
        (np.ones((16, 16), complex), {"operator": BLUR}, "expected real measurements"),
        (np.full((16, 16), np.inf), {"operator": BLUR}, "expected finite measurements"),
        (np.zeros((16, 16)), {"operator": BLUR}, "nothing but zeros"),
        (K, {"operator": "blur"}, "expected operator as a LinearOperator, got str"),
        (K, {"sampler": "ssos"}, "unknown sampler 'ssos'; known: .*dds, .*pnp"),
        (K, {"samples": 2, "sampler": "pnp"}, "a point estimate, of 1 or more"),
        (K, {"samples": 0}, "at least 1, got 0"),
        (K, {"samples": 1.5}, "expected samples as an int, got 1.5"),
        (K, {"num_steps": 0}, "num_steps of at least 1, got 0"),
        (K, {"sigma_y": -1.0}, "sigma_y of at least 0, got -1"),
        (K, {"sigma_y": 1.0, "sampler": "dps"}, r"dps has no sampler\.sigma_y"),
        (K, {"options": {"eta": 0.5}}, r"pnp has no sampler\.eta; it has: cg_steps"),
        (K, {"options": {"sigma_y": 1.0}}, "expected sigma_y outside of options"),
        (K, {"prior": "no_such_prior"}, "the name of a shipped prior"),
        (K, {"prior": shrink}, r"got function; a denoiser becomes one by Prior\.from_denoiser"),
        (K, {"precision": "int8"}, "expected precision in"),
        (K, {"precision": "bfloat16"}, "precision of a prior that is loaded by name"),
    ],
)
def test_errors_come_before_the_network(measurement, changes, message):
    def unused(x, sigma):
        raise AssertionError("called")

    arguments = {"prior": Prior(unused, PRIOR.sde)} | changes
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        reconstruct(measurement, **arguments)


def test_estimated_maps_are_not_trusted_like_given_ones(monkeypatch):
    maps = coil_sensitivities(3, SIDE, SIDE).astype(np.complex64)
    kspace = kspace_of(maps * images(1)[0]) * lines()
    # the estimate sees the edges of so small an image
    monkeypatch.setattr("evaluation.own.kspace.kspace_noise", lambda k: torch.zeros(len(k)))
    options = FEW | {"sigma_y": None}
    given, estimated = (reconstruct(kspace, maps=m, **options) for m in (maps, None))
    assert given.sigma_y == 0
    assert estimated.sigma_y == pytest.approx(0.005 * estimated.scale)
    assert reconstruct(kspace, **FEW).sigma_y == 0  # as it was said
