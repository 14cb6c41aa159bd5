"""Samplers: reference vectors, independence of samples, closed-form posteriors, failures."""

import inspect
import sys

import numpy as np
import pytest
import torch

from benchmarks.gaussian_posterior import (
    GAUSSIAN,
    SDE,
    SIDE,
    compare,
    condition,
    coverage,
    dense,
    draw,
    gaussian_prior,
    measurement,
    mixture_score,
    moments,
    subspaces,
    toy_ct,
    toy_mri,
    two_modes,
)
from evaluation.run.keywords import uses_noise
from operators import (
    BatchGenerator,
    FanBeamCT,
    Inpainting,
    MultiCoilMRI,
    NonCartesianMRI,
    ParallelBeamCT,
    SingleCoilMRI,
    StudyParallelBeamCT,
    SuperResolution,
    Unmeasured,
)
from operators.batch import GroupedGenerator, expand, norm
from operators.ct import few_view_angles
from operators.multicoil import rss
from operators.trajectories import radial
from samplers import (
    POINT_ESTIMATES,
    PRESETS,
    SAMPLERS,
    SPREAD,
    STUDY,
    NonFiniteError,
    Progress,
    annealed_langevin,
    hybrid,
    posterior_moments,
    prediction_quantile,
    predictor_corrector,
    spread,
    ssos,
)
from samplers.dps import misfit_norm
from samplers.multicoil import sense_correction
from samplers.pnp import MOMENTUM
from sde import VESDE, complex_score
from tests.helpers.scaled_operator import ScaledOperator

PRIOR = gaussian_prior()


def score(x, sigma):
    """The Gaussian prior's, capped as a network is, for real and complex images."""

    def real(x, sigma):
        s = PRIOR.score(x, sigma)
        limit = 1.2 * s[0].numel() ** 0.5 / (expand(sigma, s) * expand(norm(s), s))
        return s * limit.clamp(max=1)

    return complex_score(real)(x, sigma)


def toy(vectors):
    """The score of the reference vectors' toy problem."""
    mean = torch.from_numpy(vectors["prior_mean"])
    variance = float(vectors["prior_std"]) ** 2

    def toy_score(x, sigma):
        d = (mean - x) / (variance + expand(sigma, x) ** 2)
        limit = 1.2 * x[0].numel() ** 0.5 / (expand(sigma, x) * expand(norm(d), x))
        return d * limit.clamp(max=1)

    return complex_score(toy_score)


@pytest.mark.parametrize(
    ("result", "name", "kspace", "steps", "options"),
    [
        ("pc_real", "predictor_corrector", "kspace", "N_pc", {}),
        ("pc_lambda", "predictor_corrector", "kspace", "N_pc", {"weight": "lam"}),
        ("pc_complex", "predictor_corrector", "complex_kspace", "N_pc", {}),
        ("langevin_real", "annealed_langevin", "kspace", "N_langevin", {}),
    ],
)
def test_study_protocol_gives_the_originals_numbers(
    reference, result, name, kspace, steps, options
):
    vectors = reference("samplers_16")
    mask = torch.from_numpy(vectors["mask"])[0, 0].bool()
    options = {k: float(vectors[v]) for k, v in options.items()}
    out = SAMPLERS[name](
        toy(vectors),
        VESDE(float(vectors["sigma_min"]), float(vectors["sigma_max"])),
        SingleCoilMRI(mask, real="complex" not in kspace),
        torch.from_numpy(vectors[kspace]),
        rng=BatchGenerator([int(vectors["seed"])]),
        num_steps=int(vectors[steps]),
        **STUDY[name],
        **options,
    )
    expected = torch.from_numpy(vectors[result])
    assert (out - expected).abs().max() < 1e-5 * expected.abs().max()


def random_mask(*shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.4
    mask[..., 0, 0] = True
    return mask


def maps(*shape):
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(shape, generator=generator, dtype=torch.complex128)
    return values / torch.linalg.vector_norm(values, dim=-3, keepdim=True)


OPERATORS = {
    "mri real": SingleCoilMRI(random_mask(SIDE, SIDE)),
    "mri complex": SingleCoilMRI(random_mask(SIDE, SIDE), real=False),
    "mri, a mask a sample": SingleCoilMRI(random_mask(3, 1, SIDE, SIDE)),
    "multi-coil": MultiCoilMRI(random_mask(SIDE, SIDE), maps(2, SIDE, SIDE)),
    "multi-coil, maps a sample": MultiCoilMRI(
        random_mask(3, 1, SIDE, SIDE), maps(3, 2, SIDE, SIDE)
    ),
    "radial, maps a sample": NonCartesianMRI(radial(3, 2 * SIDE), maps(3, 2, SIDE, SIDE)),
    "ct": ParallelBeamCT(SIDE, [0.0, 40.0, 110.0]),
    "study ct": StudyParallelBeamCT(SIDE, [0.0, 40.0, 110.0]),
    "inpainting": Inpainting(random_mask(SIDE, SIDE)),
    "super-resolution": SuperResolution((SIDE, SIDE), 2),
    "unmeasured": Unmeasured((1, SIDE, SIDE)),
}


DETERMINISTIC = {"pnp"}  # point estimates: no random number is drawn
CASES = [
    (name, kind)
    for name in SAMPLERS
    for kind in OPERATORS
    if name not in ("ssos", "hybrid") or "multi-coil" in kind
]


def run(name, operator, y, seeds, model=score, keys=None, **options):
    if name == "hybrid":
        options = {"every": 3} | options
    if name in (
        "mmps",
        "warm_mmps",
    ):  # with more, the capped score, no denoiser's, blows up rounding errors
        options = {"max_products": 4, "num_steps": 5, "sigma_y": 0.05} | options
    if name == "moment_gibbs":  # the same; without noise it is mmps
        options = {"max_products": 4, "num_steps": 4, "start_steps": 5, "sigma_y": 0.1} | options
    if isinstance(operator, NonCartesianMRI) and uses_noise(name, options):
        options = {"sigma_y": 0.05} | options  # A^H A is singular: without noise rounding grows
    options = {"num_steps": 12} | options
    rng = BatchGenerator(seeds, keys=keys)
    return SAMPLERS[name](model, SDE, operator, y, rng=rng, **options)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_samples_are_independent(name, kind):
    operator = OPERATORS[kind]
    generator = torch.Generator().manual_seed(0)
    dtype = torch.complex128 if operator.domain_complex else torch.float64
    images = torch.randn(3, *operator.domain_shape, generator=generator, dtype=dtype)
    y, seeds = operator.forward(images), [5, 6, 7]
    together = run(name, operator, y, seeds)
    assert together.dtype in (dtype, torch.float64)
    alone = torch.cat([run(name, operator[i], y[i : i + 1], seeds[i : i + 1]) for i in range(3)])
    scale = alone.abs().max()
    assert (together - alone).abs().max() < 1e-9 * scale
    if operator.batch_size is None:
        order = [2, 0, 1]
        permuted = run(name, operator, y[order], [seeds[i] for i in order])
        assert (permuted - together[order]).abs().max() < 1e-9 * scale
    again = run(name, operator, y, seeds)
    assert torch.equal(again, together)
    other = run(name, operator, y, [8, 6, 7])
    assert torch.allclose(other[0], together[0]) == (name in DETERMINISTIC)
    assert (other[1:] - together[1:]).abs().max() < 1e-9 * scale


COUNT = 300
CHANCE = COUNT**-0.5


def calibration(name, operator, noise, **options):
    y = measurement(operator, PRIOR, noise)
    values = torch.cat([y.real.flatten(), y.imag.flatten()]) if y.is_complex() else y.flatten()
    matrix = dense(operator)
    truth = condition(PRIOR, matrix, values, noise)
    samples = draw(name, PRIOR.score, operator, y, count=COUNT, num_steps=300, options=options)
    seen, unseen = subspaces(matrix)
    residual = (operator.forward(samples) - y).abs().max()
    return compare(samples, truth, unseen), compare(samples, truth, seen), residual


@pytest.mark.parametrize("predictor", ["reverse_diffusion", "euler_maruyama"])
def test_unconditional_samples_have_the_priors_moments(predictor):
    options = {"final": "sample", "predictor": predictor}
    nothing = torch.empty(1, 0, dtype=torch.float64)
    samples = draw(
        "predictor_corrector",
        PRIOR.score,
        Unmeasured((1, SIDE, SIDE)),
        nothing,
        count=COUNT,
        num_steps=300,
        options=options,
    )
    result = compare(samples, PRIOR, torch.eye(SIDE**2, dtype=torch.float64))
    assert result.mean_error < 2.5 * CHANCE
    assert result.variance_ratio == pytest.approx(1.05, abs=0.08)  # 1.04 of it from N = 300


def test_predictor_corrector_given_exact_data_is_calibrated():
    unseen, _, residual = calibration("predictor_corrector", toy_mri(), 0.0)
    assert residual < 1e-12
    assert unseen.mean_error < 2.5 * CHANCE
    assert unseen.variance_ratio == pytest.approx(1.06, abs=0.1)


def test_predictor_corrector_takes_noise_for_signal():
    """It replaces measured k-space by noisy data: no spread where there should be some."""
    _, seen, residual = calibration("predictor_corrector", toy_mri(), 0.1)
    assert residual < 0.5
    assert seen.variance_ratio < 1e-6
    assert seen.mean_error > 5 * CHANCE


def test_relaxed_ct_consistency_is_a_heuristic():
    """One step of A^T / (A^T A 1) is not the projection onto the data: the mean is off."""
    unseen, _, _ = calibration("predictor_corrector", toy_ct(), 0.0)
    assert unseen.mean_error > 4 * CHANCE


@pytest.mark.parametrize(("make_operator", "noise"), [(toy_mri, 0.1), (toy_ct, 0.5)])
def test_langevin_with_the_gaussian_likelihood_is_calibrated(make_operator, noise):
    """Whatever |A| is: nobody has to say it."""
    options = {"likelihood": "gaussian", "sigma_y": noise}
    unseen, seen, _ = calibration("annealed_langevin", make_operator(), noise, **options)
    for part in (unseen, seen):
        assert part.mean_error < 2.5 * CHANCE
        assert part.variance_ratio == pytest.approx(1.06, abs=0.12)


LARGE = {  # operators whose norm is far from 1
    "mri in another unit": ScaledOperator(OPERATORS["mri real"], 300.0),
    "ct": ParallelBeamCT(32, few_view_angles(20)),
    "ct, the same view three times": ParallelBeamCT(16, [0.0, 0.0, 0.0, 90.0]),
    "ct, few bins": ParallelBeamCT(32, few_view_angles(30), num_bins=16),
    "fan": FanBeamCT(
        32, few_view_angles(31, 360.0), source_distance=64, detector_distance=32, num_bins=96
    ),
    "super-resolution": SuperResolution((16, 16), 4),
}


@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
@pytest.mark.parametrize("kind", LARGE)
def test_the_gaussian_likelihood_is_stable_for_every_operator(kind, sigma_y):
    operator = LARGE[kind]

    def flat(x, sigma):  # of images that are all but 0: the steepest score there is
        return -x / expand(sigma, x) ** 2

    y = operator.forward(torch.zeros(1, *operator.domain_shape))
    options = {"likelihood": "gaussian", "sigma_y": sigma_y, "num_steps": 60}
    x = annealed_langevin(flat, SDE, operator, y, rng=BatchGenerator([1]), **options)
    assert x.square().mean().sqrt() < 3 * SDE.sigma_min
    if kind == "super-resolution":
        return
    with pytest.raises(ValueError, match=r"steps are stable.*below 2, got .*; leave operator_norm"):
        annealed_langevin(
            *(flat, SDE, operator, y), rng=BatchGenerator([1]), operator_norm=1.0, **options
        )
    with pytest.raises(ValueError, match="steps are stable"):
        annealed_langevin(
            *(flat, SDE, operator, y), rng=BatchGenerator([1]), data_weight=5.0, **options
        )


def test_dds_with_old_noise_uses_the_noise_level():
    """The paper's direction all but forgets it; that of the fitted image does not."""
    options = {"sigma_y": 0.1, "eta": 0.3}
    _, ours, _ = calibration("dds", toy_mri(), 0.1, **options)
    _, paper, _ = calibration("dds", toy_mri(), 0.1, old_noise="network", **options)
    assert ours.variance_ratio == pytest.approx(0.92, abs=0.12)
    assert ours.mean_error < 3 * CHANCE
    assert paper.variance_ratio < 0.15
    assert paper.mean_error > 8 * CHANCE


@pytest.mark.parametrize(
    ("name", "options", "covered"),
    [
        (None, {}, 0.62),  # exact samples: Student's t
        ("dds", {"sigma_y": 0.1}, 0.48),
        ("diffpir", {"sigma_y": 0.1}, 0.60),
        ("dps", {}, 0.80),
    ],
)
def test_the_deviation_of_few_samples_covers_what_the_samplers_say_of_their_spread(
    name, options, covered
):
    found = coverage(name, options, 50, problems=40)
    assert found == pytest.approx(covered, abs=0.04)
    if name is not None:
        assert ("more" if covered > 0.62 else "less") in spread(name, options)


def test_every_sampler_says_what_is_known_of_its_spread():
    assert SPREAD.keys() == SAMPLERS.keys()
    assert spread("annealed_langevin", {"likelihood": "gaussian", "sigma_y": 0.1}) == ""
    assert spread("annealed_langevin", {"likelihood": "gaussian", "data_weight": 0.3})
    assert spread("annealed_langevin", {})


@pytest.mark.parametrize(
    ("name", "ratio"),
    [("dds", 0.49), ("diffpir", 0.92)],  # docs/samplers.md: too little spread, the mean right
)
def test_fast_samplers_have_the_right_mean(name, ratio):
    for noise in (0.0, 0.1):
        unseen, seen, residual = calibration(name, toy_mri(), noise, sigma_y=noise)
        assert unseen.mean_error < 2.5 * CHANCE
        assert unseen.variance_ratio == pytest.approx(ratio, abs=0.1)
        if noise:
            assert seen.mean_error < 2.5 * CHANCE
            assert seen.variance_ratio == pytest.approx(ratio, abs=0.12)
        else:
            assert residual < 1e-10


@pytest.mark.parametrize(
    ("name", "options"),
    [("dds", {}), ("diffpir", {}), ("pnp", {}), ("annealed_langevin", GAUSSIAN)],
)
@pytest.mark.parametrize(
    "kind", ["mri real", "mri complex", "mri, a mask a sample", "multi-coil, maps a sample", "ct"]
)
def test_noise_levels_are_per_sample(kind, name, options):
    operator = OPERATORS[kind]
    images = PRIOR.mean.reshape(1, 1, SIDE, SIDE).expand(3, -1, -1, -1)
    images = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).double()
    images = images + 0j if operator.domain_complex else images
    y = operator.forward(images)
    levels = [0.0, 0.05, 0.5]
    both = run(name, operator, y, [1, 2, 3], sigma_y=torch.tensor(levels), **options)
    for b, sigma_y in enumerate(levels):
        alone = run(name, operator[b], y[b : b + 1], [b + 1], sigma_y=sigma_y, **options)
        torch.testing.assert_close(both[b : b + 1], alone, rtol=1e-5, atol=1e-7)
    swapped = run(name, operator, y, [1, 2, 3], sigma_y=torch.tensor(levels[::-1]), **options)
    assert (swapped - both)[0].abs().max() > 1e-3  # it matters


@pytest.mark.parametrize("name", ["dds", "diffpir", "pnp"])
def test_data_steps_stay_bounded_in_single_precision(name):
    """Iterations beyond float32's precision must not blow up what is not measured."""
    operator = OPERATORS["mri real"]
    y = operator.forward(PRIOR.mean.reshape(1, 1, SIDE, SIDE).float())

    def single(x, sigma):
        return score(x.double(), sigma.double()).float()

    x = SAMPLERS[name](single, SDE, operator, y, rng=BatchGenerator([1]), num_steps=50, cg_steps=30)
    assert x.dtype == torch.float32
    assert (operator.forward(x) - y).abs().max() < 1e-4
    assert x.abs().max() < 3


def test_plug_and_play_finds_the_posterior_mean_of_a_gaussian():
    unseen, _, residual = calibration("pnp", toy_mri(), 0.0)
    assert residual < 1e-10
    assert unseen.mean_error < 0.02
    assert unseen.variance_ratio < 1e-25  # rounding


def test_dps_takes_the_gradient_through_the_score():
    operator = OPERATORS["mri real"]
    image = PRIOR.mean.reshape(1, 1, SIDE, SIDE)
    y = operator.forward(image)
    far, near = (
        (operator.forward(run("dps", operator, y, [1], num_steps=50, step=step)) - y).abs().max()
        for step in (0.0, 0.1)
    )
    assert near < 0.3 * far
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"without torch\.inference_mode"),
    ):
        run("dps", operator, y, [1])


def test_dps_does_not_depend_on_the_operators_scale():
    operator = OPERATORS["mri real"]
    scaled = ScaledOperator(operator, 30.0)
    y = operator.forward(PRIOR.mean.reshape(1, 1, SIDE, SIDE))
    one, other = run("dps", operator, y, [1]), run("dps", scaled, 30.0 * y, [1])
    torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["mri real", "ct"])
def test_in_dps_misfit_the_operator_has_about_norm_one(name):
    operator = OPERATORS[name]
    y = operator.forward(torch.zeros(1, *operator.domain_shape, dtype=torch.float64))
    images = torch.eye(SIDE**2, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE)
    rows = operator.forward(images)
    distance = misfit_norm(operator, y)
    # |r|^2 is a quadratic form of the image: its matrix by polarisation
    sums = (rows[:, None] + rows[None]).flatten(0, 1)
    square = distance(sums).square().reshape(SIDE**2, SIDE**2)
    own = distance(rows).square()
    gram = (square - own[:, None] - own[None]) / 2
    assert 0.8 < torch.linalg.eigvalsh(gram).max().sqrt() < 1.25


def test_dps_takes_longer_steps_where_there_are_fewer():
    operator = OPERATORS["ct"]
    y = operator.forward(PRIOR.mean.reshape(1, 1, SIDE, SIDE))
    for num_steps, step in ((10, 9.0), (40, 4.5)):
        found, given = (
            run("dps", operator, y, [1], num_steps=num_steps, **s) for s in ({}, {"step": step})
        )
        torch.testing.assert_close(found, given)


@pytest.mark.parametrize("name", ["dds", "diffpir", "pnp", "dps"])
def test_levels_outside_the_networks_range_are_errors(name):
    operator = OPERATORS["mri real"]
    y = operator.forward(torch.zeros(1, 1, SIDE, SIDE))
    for options in (
        {"start_sigma": 50.0},
        {"end_sigma": 0.001},
        {"start_sigma": 1.0, "end_sigma": 2.0},
    ):
        with pytest.raises(ValueError, match=r"expected sigma_min = 0\.01 <= end_sigma < start"):
            run(name, operator, y, [1], **options)
    for num_steps in (0, 1):
        with pytest.raises(ValueError, match="expected num_steps of at least 2, got"):
            run(name, operator, y, [1], num_steps=num_steps)


def test_mixture_samples_visit_both_modes():
    components, weights = two_modes()
    nothing = torch.empty(1, 0, dtype=torch.float64)
    samples = draw(
        "predictor_corrector",
        mixture_score(components, weights),
        Unmeasured((1, SIDE, SIDE)),
        nothing,
        count=COUNT,
        num_steps=300,
        options={"final": "sample"},
    )
    truth = moments(components, weights)
    direction = components[0].mean - components[1].mean
    side = (samples.flatten(1) - truth.mean) @ direction
    share = float((side > side.new_tensor(0.0)).double().mean())
    assert share == pytest.approx(weights[0], abs=0.1)  # 4 standard errors


def test_warm_start_begins_at_the_level():
    operator, steps = OPERATORS["mri real"], []
    initial = torch.full((2, 1, SIDE, SIDE), 0.5, dtype=torch.float64)
    y = operator.forward(initial)

    def sample(**options):
        steps.clear()
        return predictor_corrector(
            score,
            SDE,
            operator,
            y,
            rng=BatchGenerator([1, 2]),
            num_steps=20,
            initial=initial,
            callback=lambda step, sigma, x: steps.append((step, sigma)),
            **options,
        )

    by_level = sample(start_level=6)
    assert [step for step, _ in steps] == list(range(6))
    first = steps[0][1]
    assert first == pytest.approx(SDE.sigma(SDE.sampling_times(20))[14].item())
    by_sigma = sample(start_sigma=1.001 * first)
    assert torch.equal(by_level, by_sigma)
    assert torch.isfinite(sample(start_level=6, truncated_label=True)).all()
    assert not torch.equal(sample(start_level=6, truncated_label=True), by_level)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_sigma": 1.0}, "expected a warm start with `initial`"),
        ({"initial": torch.zeros(1, 1, SIDE, SIDE)}, "either start_sigma or start_level"),
        ({"initial": torch.zeros(1, 1, SIDE, SIDE), "start_level": 99}, r"start_level in 1 \.\.\."),
        ({"initial": torch.zeros(1, 1, SIDE, SIDE), "start_sigma": 1e-9}, "start_sigma of at"),
        ({"final": "best"}, r"final to be one of \('mean', 'sample', 'study'\), got 'best'"),
        ({"predictor": "heun"}, "expected predictor to be one of"),
        ({"corrector": "mala"}, "expected corrector to be one of"),
        ({"start": "data"}, "expected start to be one of"),
    ],
)
def test_unfit_arguments_are_errors(options, message):
    operator = OPERATORS["mri real"]
    y = operator.forward(torch.zeros(1, 1, SIDE, SIDE))
    with pytest.raises(ValueError, match=message):
        predictor_corrector(
            score, SDE, operator, y, rng=BatchGenerator([1]), num_steps=10, **options
        )


@pytest.mark.parametrize(("sigma_min", "step_scale"), [(0.01, 5e-5), (0.002, 2e-6)])
def test_langevin_s_step_follows_the_smallest_level(sigma_min, step_scale):
    operator = OPERATORS["mri real"]
    y = operator.forward(PRIOR.mean.reshape(1, 1, SIDE, SIDE))
    default, given = (
        annealed_langevin(
            *(score, VESDE(sigma_min, 1.0), operator, y),
            rng=BatchGenerator([1]),
            num_steps=9,
            **options,
        )
        for options in ({}, {"step_scale": step_scale})
    )
    torch.testing.assert_close(default, given)
    assert default.abs().max() < 10  # it stays bounded


def test_unfit_langevin_arguments_are_errors():
    operator = OPERATORS["mri real"]
    y = operator.forward(torch.zeros(1, 1, SIDE, SIDE))

    def sample(**options):
        annealed_langevin(score, SDE, operator, y, rng=BatchGenerator([1]), num_steps=9, **options)

    with pytest.raises(ValueError, match=r"step_scale between 0 and 2 sigma_min\^2"):
        sample(step_scale=1.0)
    with pytest.raises(ValueError, match=r"likelihood to be one of .*gaussian.*, got 'poisson'"):
        sample(likelihood="poisson")
    with pytest.raises(ValueError, match=r"start to be one of \('normal', 'uniform'\), got 'ones'"):
        sample(start="ones")
    with pytest.raises(ValueError, match=r"expected start_sigma of at least 0\.01"):
        sample(start_sigma=0.001)
    with pytest.raises(ValueError, match=r"expected shape \(B, 1, 8, 8\), got \(1, 1, 4, 8\)"):
        annealed_langevin(score, SDE, operator, y[:, :, :4], rng=BatchGenerator([1]), num_steps=9)


def test_published_presets_fit_their_samplers():
    for name, options in [*STUDY.items(), *PRESETS.values()]:
        assert options.keys() <= inspect.signature(SAMPLERS[name]).parameters.keys()


@pytest.mark.parametrize(
    ("name", "kind", "last"),
    [
        ("predictor_corrector", "mri real", 5),
        ("annealed_langevin", "mri real", 5),
        ("mmps", "mri real", 3),
        ("mmps", "radial, maps a sample", 3),
        ("warm_mmps", "mri real", 53),  # after the calls of its first image
        ("moment_gibbs", "mri real", 8),  # after those of mmps
    ],
)
def test_a_failing_sample_leaves_the_others(name, kind, last):
    operator = OPERATORS[kind]
    dtype = torch.complex128 if operator.domain_complex else torch.float64
    y = operator.forward(torch.rand(3, 1, SIDE, SIDE, dtype=dtype))
    calls = 0

    def breaking(x, sigma):
        nonlocal calls
        calls += 1
        s = score(x, sigma).clone()
        if calls == last and len(s) == 3:
            s[1, 0, 0, 0] = float("nan")
        return s

    with pytest.raises(NonFiniteError, match=r"NaN or infinite values in b at step \d, sigma") as e:
        run(name, operator, y, [1, 2, 3], model=breaking, keys=["a", "b", "c"])
    ((index, key, _, _),) = e.value.failures
    assert (index, key) == (1, "b")
    for i, seed in ((0, 1), (2, 3)):
        expected = run(name, operator[i], y[i : i + 1], [seed])
        assert (e.value.images[i : i + 1] - expected).abs().max() < 1e-9


def test_a_batch_that_fails_altogether_stops_early():
    operator = OPERATORS["mri real"]
    y = operator.forward(torch.zeros(1, 1, SIDE, SIDE))
    calls = 0

    def nan(x, sigma):
        nonlocal calls
        calls += 1
        return x * float("nan")

    with pytest.raises(NonFiniteError, match="sample 0 at step 0") as error:
        predictor_corrector(nan, SDE, operator, y, rng=BatchGenerator([1]), num_steps=500)
    assert error.value.images is None
    assert calls <= 4


def test_posterior_moments_are_numpys():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(7, 2, 1, 3, 3, generator=generator, dtype=torch.complex128)
    result = posterior_moments(lambda n: samples[n], 7)
    values = samples.numpy()
    np.testing.assert_allclose(result.mean.numpy(), values.mean(0), atol=1e-14)
    # of a complex pixel: its part along the mean, here by way of each sample
    direction = values.mean(0) / np.abs(values.mean(0))
    along = (values * direction.conj()).real
    np.testing.assert_allclose(result.std.numpy(), along.std(0, ddof=1), atol=1e-14)
    result = posterior_moments(lambda n: samples[n].real, 7)
    np.testing.assert_allclose(result.std.numpy(), values.real.std(0, ddof=1), atol=1e-14)
    one = posterior_moments(lambda n: samples[0], 1)
    assert (one.std == 0).all()
    assert torch.equal(one.low, samples[0].abs())
    assert torch.equal(one.high, one.low)
    with pytest.raises(ValueError, match="num_samples of at least 1, got 0"):
        posterior_moments(lambda n: samples[0], 0)


def test_the_deviation_of_complex_pixels_is_that_of_their_magnitude():
    """Complex noise of 0.1 beside an image of 1 and any phase; |x - mean| is sqrt(2) as much."""
    generator = torch.Generator().manual_seed(0)
    phase = torch.polar(torch.ones(64, 64), torch.linspace(0, 7, 64).expand(64, 64))
    noise = torch.randn(40, 64, 64, generator=generator, dtype=torch.complex64) * 2**0.5
    samples = (phase + 0.1 * noise)[:, None, None]
    std = posterior_moments(lambda n: samples[n], 40).std
    expected = samples.abs().std(0)
    assert float((std / expected).mean()) == pytest.approx(1, abs=0.01)
    assert float(std.mean()) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("count", [2, 16, 19, 40])
@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
def test_quantiles_of_a_gaussian_posterior_cover_what_they_say(count, coverage):
    """The plain 5 and 95 % quantiles of 16 samples would cover 0.83 instead of 0.9."""
    cases = 40_000
    draws = torch.randn(count + 1, cases, generator=torch.Generator().manual_seed(count))
    samples, truth = draws[:-1], draws[-1]
    low = prediction_quantile(samples, (1 - coverage) / 2)
    high = prediction_quantile(samples, (1 + coverage) / 2)
    found = float(((low <= truth) & (truth <= high)).double().mean())
    # 4 standard errors; between two order statistics of few samples the line is not the curve
    assert found == pytest.approx(coverage, abs=4 * (coverage * (1 - coverage) / cases) ** 0.5)


def test_quantiles_by_hand():
    samples = torch.arange(1.0, 20.0)[torch.randperm(19)][:, None]  # 1, ..., 19 in any order
    assert prediction_quantile(samples, 0.05).item() == 1
    assert prediction_quantile(samples, 0.95).item() == 19
    assert prediction_quantile(samples, 0.5).item() == 10
    assert prediction_quantile(samples, 0.26).item() == pytest.approx(5.2)
    beyond = prediction_quantile(samples, 0.04).item()  # Student's t, as no sample is so far
    assert beyond == pytest.approx(
        10 - 1.8553 * samples.std().item() * (1 + 1 / 19) ** 0.5, rel=1e-3
    )
    with pytest.raises(ValueError, match="two samples or more"):
        prediction_quantile(samples[:1], 0.5)


def test_limits_are_of_what_is_shown_and_scale_about_its_mean():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(19, 2, 3, 4, 4, generator=generator, dtype=torch.complex64)
    sizes = torch.linalg.vector_norm(samples, dim=2, keepdim=True)  # three images a sample
    found = posterior_moments(lambda n: samples[n], 19)
    torch.testing.assert_close(found.low, sizes.amin(0))
    torch.testing.assert_close(found.high, sizes.amax(0))
    twice = posterior_moments(lambda n: samples[n], 19, scale=2.0)
    middle = sizes.mean(0)
    torch.testing.assert_close(twice.high - middle, 2 * (found.high - middle))
    torch.testing.assert_close(twice.low, (2 * found.low - middle).clamp(min=0))
    torch.testing.assert_close(twice.std, 2 * found.std)
    assert torch.equal(twice.mean, found.mean)
    shown = posterior_moments(lambda n: samples[n], 19, shown=lambda x: 9 - x[:, :1].real)
    torch.testing.assert_close(shown.low, 9 - samples[:, :, :1].real.amax(0))


def test_coils_take_their_samples_random_numbers():
    rng, grouped = BatchGenerator([1, 2]), GroupedGenerator(BatchGenerator([1, 2]), 3)
    expected = rng.normal((2, 3, 4, 4))
    assert torch.equal(grouped.normal((6, 4, 4)), expected.flatten(0, 1))
    like = torch.empty(2, 3, 4, 4, dtype=torch.float64)
    uniform = rng.uniform_like(like)
    assert torch.equal(grouped.uniform_like(like.flatten(0, 1)), uniform.flatten(0, 1))
    assert uniform.dtype == torch.float64
    assert 0 <= uniform.min() < 0.1 < 0.9 < uniform.max() < 1
    assert len(grouped) == 6
    with pytest.raises(ValueError, match="expected a batch of 6, got 2"):
        grouped.normal((2, 4, 4))


def test_hybrid_without_weight_is_ssos_and_with_it_meets_the_sense_model():
    operator = OPERATORS["multi-coil"]
    image = torch.rand(2, 1, SIDE, SIDE, dtype=torch.float64).to(torch.complex128)
    y = operator.forward(image)
    arguments = {"num_steps": 12}
    plain = ssos(score, SDE, operator, y, rng=BatchGenerator([1, 2]), **arguments)
    arguments |= {"every": 3, "weight_first": 0.0, "weight_last": 0.0}
    off = hybrid(score, SDE, operator, y, rng=BatchGenerator([1, 2]), **arguments)
    assert torch.equal(plain, off)
    coils = (operator.sens_maps * image).flatten(0, 1)[:, None]
    torch.testing.assert_close(sense_correction(operator, coils, y, 1.0), coils)

    def residual(coils):
        combined = (operator.sens_maps.conj() * coils.reshape(y.shape)).sum(1, keepdim=True)
        return norm(operator.forward(combined) - y).max()

    generator = torch.Generator().manual_seed(0)
    off = coils + 0.1 * torch.randn(coils.shape, dtype=coils.dtype, generator=generator)
    corrected = off
    for _ in range(300):
        corrected = sense_correction(operator, corrected, y, 1.0)
    assert residual(corrected) < 0.02 * residual(off)
    with pytest.raises(ValueError, match="expected a MultiCoilMRI operator, got SingleCoilMRI"):
        ssos(score, SDE, OPERATORS["mri complex"], y, rng=BatchGenerator([1]), num_steps=5)


def test_ssos_returns_exact_coils_where_all_is_measured():
    operator = MultiCoilMRI(torch.ones(SIDE, SIDE, dtype=torch.bool), maps(2, SIDE, SIDE))
    image = torch.rand(1, 1, SIDE, SIDE, dtype=torch.float64).to(torch.complex128)
    y = operator.forward(image)
    out = ssos(score, SDE, operator, y, rng=BatchGenerator([1]), num_steps=5)
    torch.testing.assert_close(out, image.abs())
    torch.testing.assert_close(out, rss(operator.sens_maps * image))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_sigma_and_residual_on_a_terminal(capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    operator = OPERATORS["mri real"]
    y = operator.forward(torch.rand(1, 1, SIDE, SIDE))
    with Progress(operator, y, 12) as progress:
        predictor_corrector(
            score,
            SDE,
            operator,
            y,
            rng=BatchGenerator([1]),
            num_steps=12,
            callback=progress,
        )
    out = capsys.readouterr().err
    assert ("12/12" in out) == terminal
    assert ("sigma" in out) == terminal
    assert ("residual" in out) == terminal


def test_final_variants_differ_as_documented():
    operator = OPERATORS["mri real"]
    y = operator.forward(torch.rand(1, 1, SIDE, SIDE, dtype=torch.float64))
    mean, sample, study = (
        run("predictor_corrector", operator, y, [1], final=final)
        for final in ("mean", "sample", "study")
    )
    # real images: P is not a projection there, so that P(P(x)) differs from P(x)
    assert not torch.equal(sample, study)
    torch.testing.assert_close(study, operator.correct(sample, y))
    assert 0 < (mean - sample).abs().max() < 10 * SDE.sigma_min


def half_quadratic_splitting(score, sde, operator, y, *, num_steps, start, momentum, turns):
    """`samplers.pnp` for noise-free Cartesian MRI, written out: the data step is a projection."""
    positions = [
        lambda x, quarters=quarters, mirrored=mirrored: (
            x.rot90(quarters, (2, 3)).flip(3) if mirrored else x.rot90(quarters, (2, 3))
        )
        for mirrored in (False, True)
        for quarters in range(4)
    ]
    # turning is undone by turning back; a mirrored position is its own way back
    ways_back = [positions[i] for i in (0, 3, 2, 1, 4, 5, 6, 7)]
    x = operator.adjoint(y)
    fits = []
    for step in range(num_steps):
        sigma = start * (sde.sigma_min / start) ** (step / (num_steps - 1))
        turn = step % 8 if turns else 0
        shown = positions[turn](x)
        level = torch.full((len(x),), sigma, dtype=torch.float64)
        clean = ways_back[turn](shown + sigma**2 * score(shown, level))
        fits.append(operator.correct(clean, y))
        part = step / (num_steps - 1)
        m = (1 - part) * momentum[0] + part * momentum[1]
        x = fits[-1] + (m * (fits[-1] - fits[-2]) if step else 0)
    return fits[-1]


@pytest.mark.parametrize(
    ("momentum", "turns"), [(0.0, False), (0.6, False), (0.6, True), ((0.2, 0.9), True)]
)
def test_plug_and_play_is_the_written_out_recursion(momentum, turns):
    operator = OPERATORS["mri complex"]
    y = operator.forward(PRIOR.mean.reshape(1, 1, SIDE, SIDE) + 0j)
    options = {"num_steps": 11, "momentum": momentum, "turns": turns}
    two = momentum if isinstance(momentum, tuple) else (momentum, momentum)
    expected = half_quadratic_splitting(
        score, SDE, operator, y, start=1.0, **options | {"momentum": two}
    )
    found = run("pnp", operator, y, [1], start_sigma=1.0, cg_steps=3, **options)
    torch.testing.assert_close(found, expected)


def test_turns_are_all_eight_positions_and_only_where_the_prior_is_symmetric():
    operator = OPERATORS["mri real"]
    still = torch.arange(float(SIDE**2), dtype=torch.float64).reshape(1, 1, SIDE, SIDE)
    shown = []

    def nothing(x, sigma):  # all images are as likely: what is measured stays
        shown.append(tuple(x.round().flatten().tolist()))
        return torch.zeros_like(x)

    def positions() -> int:
        shown.clear()
        x = SAMPLERS["pnp"](
            *(nothing, SDE, operator, operator.forward(still)),
            rng=BatchGenerator([1]),
            num_steps=8,
            start_sigma=1.0,
            initial=still,
        )
        torch.testing.assert_close(x, still)
        return len(set(shown))

    assert positions() == 1
    nothing.symmetric = True
    assert positions() == 8


def test_momentum_gets_nearer_to_the_posterior_mean_in_few_steps():
    operator = toy_mri()
    y = measurement(operator, PRIOR, 0.0)
    values = torch.cat([y.real.flatten(), y.imag.flatten()])
    truth = condition(PRIOR, dense(operator), values, 0.0).mean.reshape(1, 1, SIDE, SIDE)
    plain, fast = (
        (
            SAMPLERS["pnp"](
                *(PRIOR.score, SDE, operator, y),
                rng=BatchGenerator([1]),
                num_steps=8,
                momentum=momentum,
            )
            - truth
        ).norm()
        for momentum in (0.0, MOMENTUM)
    )
    assert fast < 0.7 * plain
    with pytest.raises(ValueError, match=r"expected momentum in \[0, 1\), got 1"):
        run("pnp", operator, y, [1], momentum=1.0)


# ------------------------------------------------------------ what callers need not think of


class Learnt(torch.nn.Module):
    """A score with a parameter that requires a gradient, as a network's do."""

    def __init__(self):
        super().__init__()
        self.variance = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, x, sigma):
        return (0.5 - x) / (self.variance + expand(sigma, x) ** 2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_keeps_a_graph(name):
    """Memory would grow with the steps."""
    coils = name in ("ssos", "hybrid")
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) < 0.6
    maps = torch.full((2, 8, 8), 0.5**0.5, dtype=torch.complex64)
    operator = MultiCoilMRI(mask, maps) if coils else SingleCoilMRI(mask)
    y = operator.forward(torch.full((2, 1, 8, 8), 0.5).to(maps.dtype if coils else torch.float32))
    net, seen = Learnt(), []
    noise = {"sigma_y": 0.1} if name == "moment_gibbs" else {}  # without, no sweep is made
    assert torch.is_grad_enabled()
    result = SAMPLERS[name](
        complex_score(net),
        VESDE(0.01, 2.0),
        operator,
        y,
        rng=BatchGenerator([0, 1]),
        num_steps=4,
        callback=lambda step, sigma, x: seen.append(x.requires_grad),
        **noise,
    )
    assert seen
    assert not any(seen)
    assert not result.requires_grad
    assert net.variance.grad is None
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", POINT_ESTIMATES)
def test_where_nothing_is_random_no_random_numbers_are_asked_for(name):
    operator = SingleCoilMRI(torch.ones(8, 8, dtype=torch.bool))
    y = operator.forward(torch.rand(2, 1, 8, 8))
    arguments = (Learnt(), VESDE(0.01, 2.0), operator, y)
    without = SAMPLERS[name](*arguments, num_steps=4)
    given = SAMPLERS[name](*arguments, rng=BatchGenerator([3, 4]), num_steps=4)
    assert torch.equal(without, given)
    y[1, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="values in sample 1 at step 0"):
        SAMPLERS[name](*arguments, num_steps=4, start_sigma=1.0)


@pytest.mark.parametrize("name", ["dps", "mmps", "moment_gibbs", "warm_mmps"])
def test_a_score_without_a_gradient_is_told(name):
    """It was taken for one whose derivative is 0, and samples were of another posterior."""
    operator = OPERATORS["mri real"]
    y = operator.forward(PRIOR.mean.reshape(1, 1, SIDE, SIDE))

    def detached(x, sigma):
        return score(x.detach(), sigma)

    with pytest.raises(RuntimeError, match="expected a score that autograd can go through"):
        SAMPLERS[name](detached, SDE, operator, y, rng=BatchGenerator([1]), num_steps=4)
