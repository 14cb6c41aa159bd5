"""The study's samplers of 2026 on the toy problem: formulas by hand, and where 2024 differs."""

import pytest
import torch

from benchmarks.gaussian_posterior import SDE, SIDE, gaussian_prior
from operators import BatchGenerator, FanBeamCT, SingleCoilMRI, StudyParallelBeamCT
from operators.ct import few_view_angles
from operators.masks import make_mask
from samplers import (
    SAMPLERS,
    STUDY,
    STUDY_2026,
    STUDY_2026_CT,
    STUDY_CT,
    annealed_langevin,
    dps,
    predictor_corrector,
)
from samplers.dps import pixel_weights
from samplers.levels import study_levels
from sde import VESDE
from tests.helpers.scaled_operator import ScaledOperator

PRIOR = gaussian_prior()
STUDY_SDE = VESDE(0.01, 378.0)
MASK = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(3)) < 0.4
MASK[SIDE // 2, SIDE // 2] = True
OPERATORS = {
    "mri": SingleCoilMRI(MASK),
    "ct": StudyParallelBeamCT(SIDE, [0.0, 40.0, 110.0]),
    "fan": FanBeamCT(
        SIDE,
        few_view_angles(5, 360.0),
        source_distance=1.5 * SIDE,
        detector_distance=1.5 * SIDE,
        num_bins=3 * SIDE,
        detector="curved",
    ),
}
EDITION = {"mri": STUDY_2026, "ct": STUDY_2026_CT, "fan": STUDY_2026}
EARLIER = {"mri": STUDY, "ct": STUDY_CT, "fan": STUDY}


pytestmark = pytest.mark.usefixtures("one_thread")


def dense(function, shape):
    """The matrix of a linear map of real images or measurements of `shape`, real parts first."""
    size = int(torch.tensor(shape).prod())
    out = function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1)
    return (torch.cat([out.real, out.imag], dim=1) if out.is_complex() else out).T


def problem(kind):
    """Operator, measurement, A as a matrix, B (the study's back-projection), and y as a vector."""
    operator = OPERATORS[kind]
    generator = torch.Generator().manual_seed(5)
    truth = torch.rand(1, *operator.domain_shape, generator=generator, dtype=torch.float64)
    y = operator.forward(truth)
    a = dense(operator.forward, operator.domain_shape)
    b = dense(operator.study_adjoint, operator.range_shape) if kind == "ct" else a.T
    flat = torch.cat([y.real.flatten(), y.imag.flatten()]) if y.is_complex() else y.flatten()
    return operator, y, a, b, flat


def noise(rng):
    return rng.normal_like(torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)).flatten()


def score(x, level):
    sigma = torch.full((1,), level, dtype=torch.float64)
    return PRIOR.score(x.reshape(1, 1, SIDE, SIDE), sigma).flatten()


def run(sampler, operator, y, **options):
    return sampler(PRIOR.score, SDE, operator, y, rng=BatchGenerator([3]), **options).flatten()


@pytest.mark.parametrize("kind", OPERATORS)
def test_pc(kind):
    operator, y, a, b, flat = problem(kind)
    ones = b @ a @ torch.ones(SIDE**2, dtype=torch.float64)
    d = 2 * ones if kind == "ct" else torch.ones_like(ones) if kind == "mri" else ones
    steps = 4

    def to_the_data(x):
        return x + 2 * (b @ (flat - a @ x)) / d

    rng, sigmas = BatchGenerator([3]), SDE.sigma(SDE.sampling_times(steps)).tolist()
    x = SDE.sigma_max * noise(rng)
    for i, increment in enumerate(SDE.increments(steps).tolist()):
        s, z = score(x, sigmas[i]), noise(rng)
        step = 2 * (0.16 * z.norm() / s.norm()) ** 2
        x = to_the_data(x + step * s + torch.sqrt(2 * step) * z)
        mean = x + increment**2 * score(x, sigmas[i])
        x = to_the_data(mean + increment * noise(rng))
    options = EDITION[kind]["predictor_corrector"]
    out = run(predictor_corrector, operator, y, num_steps=steps, **options)
    torch.testing.assert_close(out, to_the_data(mean), rtol=1e-8, atol=1e-8)


def test_factor_2_reflects_pairs_and_meets_single_positions():
    operator, y, *_ = problem("mri")
    x = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    before = -y[0, 0]  # error of k-space where x = 0
    after = (operator.forward(operator.correct(x, y, 2.0)) - y)[0, 0]
    index = torch.arange(SIDE)
    mirrored = MASK[(-index % SIDE)[:, None], (-index % SIDE)]  # of a centred grid of even size
    pairs, single = MASK & mirrored, MASK & ~mirrored
    assert pairs.any()
    assert single.any()
    torch.testing.assert_close(after[pairs], -before[pairs])
    assert after[single].abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "options", "pairs", "single"),
    [
        ("gaussian1d", {"acceleration": 4, "center_fraction": 0.04}, 0.128, 0.206),
        ("gaussian1d", {"acceleration": 8, "center_fraction": 0.04}, 0.072, 0.156),
        ("gaussian2d", {"acceleration": 4}, 0.082, 0.102),
        ("radial", {"num_spokes": 29}, 0.040, 0.096),
    ],
)
def test_how_much_of_k_space_is_reflected(name, options, pairs, single):
    options = {"acceleration": 4, "center_fraction": 0, "num_spokes": None} | options
    mask = make_mask(name, (320, 320), seed=42, study=True, **options)
    index = -torch.arange(320) % 320
    mirrored = mask[index[:, None], index]
    assert (mask & mirrored).float().mean() == pytest.approx(pairs, abs=1e-3)
    # of real images both positions of a pair change
    assert 2 * (mask & ~mirrored).float().mean() == pytest.approx(single, abs=1e-3)


@pytest.mark.parametrize(
    ("steps", "edition", "first"),
    [
        (2000, 2026, 1.080), (1000, 2026, 1.083), (500, 2026, 1.021), (250, 2026, 1.009),
        (2000, 2024, 1.074), (1000, 2024, 1.129), (500, 2024, 0.9995), (250, 2024, 378.0),
    ],
)  # fmt: skip
def test_first_levels(steps, edition, first):
    levels = study_levels(STUDY_SDE, steps, edition)
    assert levels[0] == pytest.approx(first, abs=6e-4)
    assert levels[-1] == pytest.approx(0.01)
    skipped = {2026: {250: 140, 500: 280}, 2024: {500: 281}}[edition].get(steps)
    assert skipped is None or len(levels) == steps - skipped


@pytest.mark.parametrize("sampler", [annealed_langevin, dps])
def test_an_unknown_edition_is_an_error(sampler):
    operator, y, *_ = problem("mri")
    with pytest.raises(ValueError, match=r"study_skips out of \[2024, 2026\] or None, got 2025"):
        run(sampler, operator, y, num_steps=5, study_skips=2025)


@pytest.mark.parametrize("kind", OPERATORS)
def test_langevin(kind):
    operator, y, a, b, flat = problem(kind)
    steps, rng = 5, BatchGenerator([3])
    x = noise(rng)
    for sigma in SDE.ladder(steps).flip(0).tolist():  # none is skipped of 5
        eta = 0.5 * sigma**2
        for _ in range(3):
            z, s = noise(rng), score(x, sigma)
            g = b @ (a @ x - flat)
            x = x + eta * (s - 5 * s.norm() * g / g.norm()) + (2 * eta) ** 0.5 * z
    out = run(annealed_langevin, operator, y, num_steps=steps, **EDITION[kind]["annealed_langevin"])
    torch.testing.assert_close(out, x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", OPERATORS)
def test_dps(kind):
    """The article's, with its own zeta and D where these are exact: MRI and fan beams."""
    operator, y, a, b, flat = problem(kind)
    ones = a.T @ a @ torch.ones(SIDE**2, dtype=torch.float64)
    d = torch.ones_like(ones) if kind == "mri" else ones
    own = b @ a @ torch.ones(SIDE**2, dtype=torch.float64) * 2 if kind == "ct" else d
    zeta, steps, rng = 0.6, 5, BatchGenerator([3])
    noise(rng)  # the draw without use
    x = noise(rng)
    x = x + b @ (flat - a @ x) / own
    sigmas = SDE.ladder(steps).flip(0).tolist()
    for sigma, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        x = x.requires_grad_()
        clean = x + sigma**2 * score(x, sigma)
        (gradient,) = torch.autograd.grad((flat - a @ clean).square().sum(), x)
        x = (clean - zeta * gradient / d).detach()
        if following is not None:
            x = x + following * noise(rng)
    options = EDITION[kind]["dps"]
    out = run(dps, operator, y, num_steps=steps, step=2 * zeta, **options)
    torch.testing.assert_close(out, x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", OPERATORS)
def test_the_step_of_dps_is_free_of_the_operators_scale(kind):
    operator, y, *_ = problem(kind)
    options = {"num_steps": 4} | EDITION[kind]["dps"]
    plain = run(dps, operator, y, **options)
    scaled = run(dps, ScaledOperator(operator, 7.0), 7 * y, **options)
    torch.testing.assert_close(scaled, plain)


def test_pixels_that_no_ray_meets_have_weight_1():
    operator = FanBeamCT(
        SIDE, [0.0], source_distance=40.0, detector_distance=0.0, num_bins=3, bin_spacing=1.0
    )
    weights = pixel_weights(operator, torch.zeros(1, *operator.range_shape))
    seen = operator.adjoint(operator.forward(torch.ones(1, 1, SIDE, SIDE))) > 0
    assert (weights[~seen] == 1).all()
    assert (~seen).any()
    expected = operator.adjoint(operator.forward(torch.ones(1, 1, SIDE, SIDE)))
    torch.testing.assert_close(weights[seen], expected[seen])


@pytest.mark.parametrize("kind", OPERATORS)
def test_dps_samples_are_independent(kind):
    operator, y, *_ = problem(kind)
    both = torch.cat([y, 0.5 * y])
    options = {"num_steps": 4} | EDITION[kind]["dps"]

    def sample(y, seeds):
        return dps(PRIOR.score, SDE, operator, y, rng=BatchGenerator(seeds), **options)

    together = sample(both, [5, 6])
    alone = torch.cat([sample(both[i : i + 1], [5 + i]) for i in range(2)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", ["predictor_corrector", "dps"])
def test_where_the_editions_differ(name, kind):
    operator, y, *_ = problem(kind)
    found = [
        run(SAMPLERS[name], operator, y, num_steps=5, **options[name])
        for options in (EARLIER[kind], EDITION[kind])
    ]
    assert not torch.allclose(*found)


@pytest.mark.parametrize(("edition", "first"), [(STUDY, 0.9995), (STUDY_2026, 1.021)])
def test_langevin_begins_a_level_earlier_than_in_2024(edition, first):
    operator, y, *_ = problem("mri")

    class SeenError(Exception):
        pass

    def look(step, sigma, x):
        raise SeenError(sigma)

    options = edition["annealed_langevin"] | {"num_steps": 500, "callback": look}
    with pytest.raises(SeenError) as seen:
        annealed_langevin(PRIOR.score, STUDY_SDE, operator, y, rng=BatchGenerator([3]), **options)
    assert seen.value.args[0] == pytest.approx(first, abs=6e-4)


def test_what_the_editions_set():
    assert STUDY_2026["predictor_corrector"]["weight"] == 2
    assert STUDY_2026_CT["predictor_corrector"]["weight"] == 1
    assert STUDY["dps"] == {}  # the edition of 2024 has no DPS
    assert STUDY["annealed_langevin"] == {"study_skips": 2024}
    assert STUDY_2026["annealed_langevin"] == {"study_skips": 2026}
    assert all(STUDY_2026[name] == {} for name in STUDY_2026 if not STUDY[name] and name != "dps")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"misfit": "cubed"}, "misfit to be one of"), ({"start": "prior"}, "start to be one of")],
)
def test_unknown_names_are_errors(options, message):
    operator, y, *_ = problem("mri")
    with pytest.raises(ValueError, match=message):
        run(dps, operator, y, num_steps=4, **options)
