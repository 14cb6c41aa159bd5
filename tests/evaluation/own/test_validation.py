"""What is left out of a measurement and predicted, and what is chosen by that."""

import json
import math

import nibabel
import numpy as np
import pytest
import torch

import reconstruct as program
from configs.reconstruct import get_config
from evaluation.own import open_input
from evaluation.own.arrays import open_array
from evaluation.own.engine import Sampling, choose_sampling
from evaluation.own.folder import reconstruct_file
from evaluation.own.holdout import choose_positions, choose_views
from evaluation.own.validation import best_weight, check_part, read_choices, table, validate
from operators import FanBeamCT, ParallelBeamCT
from operators.masks import make_mask
from sde import Prior
from tests.helpers.reconstruct_inputs import image, kspace_of, phase

SHAPE = (64, 64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mask(name, acceleration=3.0):
    return make_mask(name, SHAPE, seed=0, acceleration=acceleration, center_fraction=0.1)


def coil_kspace(sigma=0.0, name="gaussian1d"):
    """Four coils of an image with a phase, white noise, and 0 where not measured."""
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    coils = [np.exp(-((x - a) ** 2) - (y - b) ** 2) for a in (-1, 1) for b in (-1, 1)]
    kspace = kspace_of(np.stack(coils) * image(SHAPE) * phase(SHAPE))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, *kspace.shape))
    return ((kspace + sigma * (noise[0] + 1j * noise[1])) * mask(name).numpy()).astype(np.complex64)


def opened(path, values, **changes):
    np.save(path, values)
    config = get_config()
    config.update_from_flattened_dict(changes)
    return open_input(path, config)


# ------------------------------------------------------------------------------ what is left out


@pytest.mark.parametrize("transposed", [False, True])
def test_whole_lines_are_left_out_where_lines_were_measured(transposed):
    measured = mask("gaussian1d").T if transposed else mask("gaussian1d")
    held, what = choose_positions(measured, 0.2, (32, 32), 8, generator())
    held, measured = (held.T, measured.T) if transposed else (held, measured)
    assert what == "lines"
    assert (held == held.any(0)).all()  # whole columns
    assert not (held & ~measured).any()
    columns = held.any(0).nonzero().flatten()
    assert len(columns) == round(0.2 * int(measured.any(0).sum()))
    assert ((columns - 32).abs() >= 4).all()


def test_points_are_left_out_where_points_were_measured():
    measured = mask("gaussian2d")
    held, what = choose_positions(measured, 0.1, (30, 34), 8, generator())
    assert what == "points"
    assert not (held & ~measured).any()
    assert int(held.sum()) == round(0.1 * int(measured.sum()))
    assert not held[26 + 1 : 34, 30 + 1 : 38].any()
    other, _ = choose_positions(measured, 0.1, (30, 34), 8, generator(1))
    assert (other != held).any()


def test_a_measurement_of_nothing_but_the_centre_cannot_be_validated():
    measured = torch.zeros(SHAPE, dtype=torch.bool)
    measured[28:36, 28:36] = True
    with pytest.raises(ValueError, match="outside its central 24 x 24"):
        choose_positions(measured, 0.1, (32, 32), 24, generator())


def test_views_are_left_out_one_at_least_and_one_stays():
    assert choose_views(2, 0.01, generator()) in [([0], [1]), ([1], [0])]
    held, kept = choose_views(40, 0.25, generator())
    assert len(held) == 10
    assert sorted(held + kept) == list(range(40))
    with pytest.raises(ValueError, match="two views"):
        choose_views(1, 0.5, generator())


@pytest.mark.parametrize("kind", [ParallelBeamCT, FanBeamCT])
def test_an_operator_of_some_views_is_as_built_of_them(kind):
    distances = {"source_distance": 90.0, "detector_distance": 60.0} if kind is FanBeamCT else {}
    angles = np.linspace(0, 360, 12, endpoint=False) ** 1.01
    chosen = [1, 4, 5, 9]
    whole = kind(24, angles, num_bins=40, **distances)
    x = torch.rand(2, 1, 24, 24, dtype=torch.float64, generator=generator())
    y = whole.forward(x)
    penalty = torch.ones(1, dtype=torch.float64)
    whole.gram_inverse(penalty)(y)  # what it keeps is of all views
    part, built = whole.of_views(chosen), kind(24, angles[chosen], num_bins=40, **distances)
    torch.testing.assert_close(part.forward(x), y[:, :, chosen])
    few = y[:, :, chosen]
    for name in ("adjoint", "direct"):
        torch.testing.assert_close(getattr(part, name)(few), getattr(built, name)(few))
    for operator in (part, part.to("cpu")):
        filtered = operator.gram_inverse(penalty)(few)
        torch.testing.assert_close(filtered, built.gram_inverse(penalty)(few))
    assert whole.range_shape == (1, 12, 40)


# ------------------------------------------------------------------------- what the error means


@pytest.mark.parametrize("name", ["gaussian1d", "gaussian2d"])
def test_the_rest_knows_nothing_of_what_is_left_out(tmp_path, name):
    kspace = coil_kspace(0.01, name)
    before = opened(tmp_path / "a.npy", kspace).holdout(0, 0.2, seed=1)
    there = before.operator.mask[0, 0].numpy()
    changed = np.where(there, kspace * 3 + 1, kspace).astype(np.complex64)
    # the key, and with it what is left out, is the file's name
    after = opened(tmp_path / "a.npy", changed).holdout(0, 0.2, seed=1)
    assert (after.operator.mask == before.operator.mask).all()
    torch.testing.assert_close(after.problem.y, before.problem.y, rtol=0, atol=0)
    torch.testing.assert_close(after.problem.operator.sens_maps, before.problem.operator.sens_maps)
    assert not (before.problem.operator.mask & before.operator.mask).any()
    assert (after.y != before.y).any()


def test_the_true_image_is_as_wrong_as_the_noise(tmp_path):
    """One coil: the image of all the data without noise predicts all but the noise."""
    sigma, truth = 0.02, kspace_of(image(SHAPE) * phase(SHAPE))
    rng = np.random.default_rng(0)
    noise = sigma * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE))
    measured = mask("gaussian2d").numpy()
    kspace = ((truth + noise) * measured).astype(np.complex64)
    held = opened(tmp_path / "a.npy", kspace).holdout(0, 0.5, seed=0)
    clean = torch.from_numpy(image(SHAPE) * phase(SHAPE)).to(torch.complex64)
    p = held.problem
    x = clean[None, None] * p.factor.conj() / p.scale
    expected = held.with_noise(sigma).noise()
    assert held.error(x) == pytest.approx(expected, rel=0.15)  # 600 samples
    assert held.error(torch.zeros_like(x)) == pytest.approx(1)
    assert held.count == 2 * int(held.operator.mask.sum())


def test_the_views_left_out_of_a_sinogram_are_predicted_by_the_truth(tmp_path):
    angles = np.linspace(0, 180, 30, endpoint=False)
    sinogram = ParallelBeamCT(48, angles, num_bins=48).forward(
        torch.from_numpy(image((48, 48)))[None, None]
    )
    held = opened(tmp_path / "a.npy", sinogram[0, 0].numpy()).holdout(0, 0.1, seed=0)
    assert held.what == "views"
    assert held.operator.range_shape == (1, 3, 48)
    assert held.problem.operator.range_shape == (1, 27, 48)
    size = held.operator.domain_shape[-1]
    x = torch.zeros(1, 1, size, size)
    edge = (size - 48) // 2
    x[..., edge : edge + 48, edge : edge + 48] = torch.from_numpy(image((48, 48)))
    assert held.error(x / held.problem.scale) < 1e-9


# ----------------------------------------------------------------------------------- what is chosen


@pytest.mark.parametrize("best", [-3, 0, 4])
def test_the_best_weight_is_found_from_either_side(best):
    asked = []

    def errors(weight):
        asked.append(weight)
        return [abs(math.log2(weight / 0.01) - best), 0.0]

    weight, found = best_weight(errors, 0.01)
    assert weight == pytest.approx(0.01 * 2.0**best)
    assert found == [0.0, 0.0]
    assert len(asked) == len(set(asked)) <= abs(best) + 4


def test_the_search_for_a_weight_ends():
    weight, _ = best_weight(lambda weight: [-weight], 1.0)
    assert 1e3 < weight < 1e4


PNP = Sampling("pnp", 3, 1, None, {})


def test_choices_are_read_and_checked():
    assert read_choices("strength=0.1,2", PNP) == {"strength": (0.1, 2)}
    assert read_choices("", PNP) == {}
    for text in ("strength", "=1", "strength=", "strength=a"):
        with pytest.raises(ValueError, match="KEYWORD=VALUE"):
            read_choices(text, PNP)
    check_part(0.1, {"strength": (1.0,)}, PNP)
    with pytest.raises(ValueError, match="validate from 0"):
        check_part(0.6, {}, PNP)
    with pytest.raises(ValueError, match="validate, such as"):
        check_part(0.0, {"strength": (1.0,)}, PNP)
    with pytest.raises(ValueError, match="strenth"):
        check_part(0.1, {"strenth": (1.0,)}, PNP)
    with pytest.raises(ValueError, match="one keyword"):
        check_part(0.1, {"strength": (1.0,), "momentum": (0.0,)}, PNP)
    with pytest.raises(ValueError, match="is given"):
        check_part(0.1, {"strength": (1.0,)}, PNP._replace(options={"strength": 2.0}))
    with pytest.raises(ValueError, match="choose without sampler"):
        check_part(0.1, {"strength": (1.0,)}, PNP._replace(calibrated=True))


# -------------------------------------------------------------------------------------- as a user


def shrink(x, sigma):
    """A denoiser: towards 0 where there is little beside noise."""
    size = (x.abs() ** 2).mean((-2, -1), keepdim=True)
    return x * (1 - sigma[:, None, None, None] ** 2 / size.clamp(min=1e-6)).clamp(0, 1)


PRIOR = Prior.from_denoiser(shrink, sigma_min=0.01, sigma_max=1.0)


def test_arrays_are_validated_and_the_image_is_of_all_data():
    kspace = coil_kspace(0.005)
    plain = program.reconstruct(kspace, prior=PRIOR, num_steps=3)
    found = program.reconstruct(kspace, prior=PRIOR, num_steps=3, validate=0.1)
    assert plain.validation is None
    np.testing.assert_array_equal(found.image, plain.image)
    by_name = {row["method"]: row for row in found.validation["methods"]}
    assert list(by_name) == ["pnp", "zero-filled", "cg_sense", "l1_wavelet", "tv"]
    # zero-filled has of the lines only what the coils add: more than half is missing
    assert 0.5 < by_name["zero-filled"]["error"] < 1
    assert 0 < by_name["tv"]["error"] < 0.5
    assert found.validation["left_out"] == "lines"
    for row in by_name.values():
        excess = row["error"] - found.validation["noise"]
        assert row["above_noise"] == pytest.approx(excess, abs=1e-3)


@pytest.mark.parametrize(("factor", "part"), [(0.5, 0.25), (2.0, 1.0)])
def test_noise_of_the_truth_is_never_more_than_the_estimate(factor, part):
    """A larger factor is for what the model leaves unexplained, which no truth has."""
    given = {"mask": None, "maps": None, "angles": None, "operator": None}
    opened = open_array(coil_kspace(0.005), **given)[0]
    point = choose_sampling("pnp", num_steps=2, num_samples=1, sigma_y=None, options={})
    of_noise = [
        validate(opened, 0.1, sampling, PRIOR, seed=0, device="cpu")["noise"]
        for sampling in (point, point._replace(noise_factor=factor))
    ]
    assert of_noise[1] == pytest.approx(part * of_noise[0], rel=0.01)


def test_the_value_that_predicts_best_is_taken():
    kspace = coil_kspace(0.005)
    options = {"prior": PRIOR, "num_steps": 3, "validate": 0.1}
    chosen = program.reconstruct(kspace, **options, choose={"strength": (100.0, 0.1)})
    rows = [r for r in chosen.validation["methods"] if r["method"] == "pnp"]
    assert [row["settings"] for row in rows] == ["strength=100", "strength=0.1"]
    best = min(rows, key=lambda row: row["error"])
    assert chosen.validation["chosen"] == {"strength": float(best["settings"].split("=")[1])}
    given = program.reconstruct(
        kspace, prior=PRIOR, num_steps=3, options=chosen.validation["chosen"]
    )
    np.testing.assert_array_equal(chosen.image, given.image)


def test_a_value_with_which_it_diverges_is_not_chosen():
    def score(x, sigma):  # at the first level, which alone is above 0.5, it is NaN
        return torch.where(sigma[:, None, None, None] > 0.5, torch.nan, PRIOR.score(x, sigma))

    options = {"prior": Prior(score, PRIOR.sde), "num_steps": 3, "validate": 0.1}
    kspace = coil_kspace(0.005)
    found = program.reconstruct(kspace, **options, choose={"start_sigma": (0.9, 0.4)})
    assert found.validation["chosen"] == {"start_sigma": 0.4}
    assert found.validation["methods"][0]["error"] is None
    assert "failed" in "\n".join(table(found.validation))
    json.dumps(found.validation, allow_nan=False)
    with pytest.raises(FloatingPointError, match="validate with became NaN"):
        program.reconstruct(kspace, **options, choose={"start_sigma": (0.9, 0.8)})


def test_a_slice_of_noise_alone_is_an_image_of_zeros():
    """Of many coils and a narrow centre it has maps of 0 everywhere, and is no reason to fail."""
    rng = np.random.default_rng(0)
    image = np.concatenate([factor * coil_kspace(0.005) for factor in (1, 1j, 0.5, -1, -1j, 0.2)])
    noise = (rng.normal(size=image.shape) + 1j * rng.normal(size=image.shape)) * (image != 0)
    stack = np.stack([image, 0.005 * noise]).astype(np.complex64)
    found = program.reconstruct(stack, prior=PRIOR, num_steps=3)
    assert not found.failures
    assert found.image[0].any()
    assert not found.image[1].any()


def test_a_measurement_without_parts_is_refused():
    operator = ParallelBeamCT(24, [0.0, 45.0, 90.0])
    y = operator.forward(torch.rand(1, 1, 24, 24, generator=generator()))
    with pytest.raises(ValueError, match="leave it at 0"):
        program.reconstruct(y, operator=operator, prior=PRIOR, num_steps=3, validate=0.1)


def test_the_command_writes_what_it_found_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("evaluation.own.folder.load_prior", lambda *_, **__: PRIOR)
    source, out = tmp_path / "kspace.npy", tmp_path / "out"
    np.save(source, coil_kspace(0.005))
    config = get_config()
    config.validate, config.choose = 0.1, "strength=0.1,100"
    config.sampler.num_steps = 3
    summary = reconstruct_file(config, source, out, "cpu")
    kept = json.loads((out / "validation.json").read_text())
    assert summary["validation"] == kept
    printed = capsys.readouterr().out
    assert "left out and predicted: 10 % of the lines of 1 slices" in printed
    assert f"chosen: strength={kept['chosen']['strength']:g}" in printed
    # gone on with after the images are lost: not validated again
    (out / "summary.json").unlink()
    monkeypatch.setattr("evaluation.own.folder.validate", None)
    again = reconstruct_file(config, source, out, "cpu")
    assert again["validation"] == kept


def test_simulated_images_are_refused_before_anything_is_written(tmp_path):
    source, out = tmp_path / "image.nii.gz", tmp_path / "out"
    nibabel.save(nibabel.Nifti1Image(image((32, 32))[..., None], np.eye(4)), source)
    config = get_config()
    config.validate = 0.1
    with pytest.raises(ValueError, match=r"validate is for .*, the input is images"):
        reconstruct_file(config, source, out, "cpu")
    assert not out.exists()


def test_sets_of_maps_without_estimated_maps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="map_sets=2 has no effect: no coil maps are estimated"):
        opened(tmp_path / "a.npy", coil_kspace()[:1], **{"data.map_sets": 2})
