"""`moment_gibbs` and its steps: dense matrices, posteriors in closed form, a prior of two modes."""

import math

import numpy as np
import pytest
import torch

from benchmarks import calibration
from benchmarks.gaussian_posterior import condition, gaussian_prior
from operators import BatchGenerator, MultiCoilMRI, Unmeasured
from operators.gaussian import coupled_draw, coupled_misfit, largest_eigenvalue
from samplers import mmps, moment_gibbs
from samplers.particles import resample
from sde import VESDE
from tests.helpers.scaled_operator import ScaledOperator
from tests.samplers import test_formulas as box
from tests.samplers.test_calibrated_samplers import root_of, scores
from tests.samplers.test_formulas import SDE, SIGMA_Y, SIZE, A

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = sorted(calibration.OPERATORS)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def images_of(operator, count, seed):
    n = calibration.SIZE * (2 if operator.domain_complex else 1)
    drawn = torch.randn(count, n, generator=torch.Generator().manual_seed(seed))
    return calibration.as_images(drawn.double(), operator)


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_eigenvalue_is_that_of_the_matrix_or_a_little_above(kind):
    operator = calibration.OPERATORS[kind]()
    expected = float(torch.linalg.matrix_norm(calibration.dense(operator), 2)) ** 2
    found = largest_eigenvalue(operator, images_of(operator, 3, 0))
    assert found.shape == (3,)
    assert torch.equal(found, found[:1].expand(3))
    assert 0.99 * expected < float(found[0]) < 1.03 * expected


def test_the_largest_eigenvalue_is_each_samples_own():
    maps = (
        torch.ones(2, 1, 4, 4, dtype=torch.complex128)
        * torch.tensor([1.0, 3.0])[:, None, None, None]
    )
    operator = MultiCoilMRI(torch.ones(2, 1, 4, 4, dtype=torch.bool), maps)
    x = torch.zeros(2, 1, 4, 4, dtype=torch.complex128)
    torch.testing.assert_close(largest_eigenvalue(operator, x), 1.02 * doubles(1.0, 9.0))
    nothing = largest_eigenvalue(Unmeasured((1, 4, 4)), torch.zeros(2, 1, 4, 4))
    assert (nothing > 0).all()
    assert (nothing < 1e-30).all()


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overrelaxation", [None, 0.7])
def test_the_coupled_draw_is_that_of_dense_matrices(kind, scale, overrelaxation):
    operator = ScaledOperator(calibration.OPERATORS[kind](), scale)
    noises, rhos = doubles(0.3, 0.3, 0.0), doubles(0.2 / scale, 0.9, 0.4)
    x = images_of(operator, 3, 0)
    y = operator.forward(images_of(operator, 3, 1))
    largest = 1.1 * largest_eigenvalue(operator, x)
    seeds = [4, 5, 6]
    given = {"sigma_y": noises, "largest": largest, "rng": BatchGenerator(seeds)}
    c, last = overrelaxation or 0.0, images_of(operator, 3, 2)
    if c:
        given |= {"last": last, "overrelaxation": c}
    found = coupled_draw(operator, y, x, rhos, **given)
    rng, matrix = BatchGenerator(seeds), calibration.dense(operator)
    moved = calibration.real_vector(x + rhos.reshape(-1, 1, 1, 1) * rng.normal_like(x))
    drawn = calibration.rows_of(operator, rng.normal_like(y))
    rows = calibration.rows_of(operator, y)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    left, values, right = (part[..., values > 1e-9] for part in (left, values, right.T))
    for b, (rho, noise) in enumerate(zip(rhos, noises, strict=True)):
        squares = torch.minimum(rho**2, noise**2 / largest[b]) * values**2
        root = (noise**2 - squares).sqrt() - noise  # beside noise times the identity
        n = noise * drawn[b] + left @ (root * (left.T @ drawn[b]))
        gain = rho**2 * right * (values / (noise**2 + rho**2 * values**2 - squares)) @ left.T
        drawn_z = moved[b] + gain @ (rows[b] + n - matrix @ moved[b])
        still = calibration.real_vector(x)[b]
        mean = still + gain @ (rows[b] - matrix @ still)
        away = calibration.real_vector(last)[b] - mean
        expected = mean - c * away + math.sqrt(1 - c**2) * (drawn_z - mean)
        # without noise iterations end before they have fitted the smallest singular values
        tolerance = 4e-3 if noise else {"coils": 0.05, "radial": math.inf}.get(kind, 4e-3)
        torch.testing.assert_close(
            calibration.real_vector(found)[b], expected, rtol=0, atol=tolerance
        )
    if not c:
        misfit = operator.forward(found[2:]) - y[2:]
        assert misfit.abs().max() < 5e-4 * y[2:].abs().max()


@pytest.mark.parametrize("coupling", [0.5, 1.0])
def test_a_sweep_leaves_the_posterior_as_it_is_up_to_the_noise(coupling):
    """In matrices: P is the covariance after a sweep from P, where rho <= sigma_y / |A|."""
    prior, noise, matrix = gaussian_prior(), 0.3, calibration.dense(calibration.OPERATORS["ct"]())
    gram = matrix @ matrix.T
    rho = coupling * noise / float(torch.linalg.matrix_norm(matrix, 2))
    eye, small = torch.eye(len(prior.mean)).double(), torch.eye(len(matrix)).double()
    posterior = condition(prior, matrix, torch.zeros(len(matrix)).double(), noise).covariance
    gain = rho**2 * matrix.T / noise**2
    z = (eye - gain @ matrix) @ (posterior + rho**2 * eye) @ (eye - gain @ matrix).T
    z = z + gain @ (noise**2 * small - rho**2 * gram) @ gain.T
    back = prior.covariance @ torch.linalg.inv(prior.covariance + rho**2 * eye)
    after = back @ z @ back.T + rho**2 * back
    torch.testing.assert_close(after, posterior)


def test_moment_gibbs():
    """The algorithm box, with dense matrices."""
    _, rows = box.measurement()
    noise, widest, last_level = box.Noise(), 3.0, SDE.sigma_min
    options = {"sigma_y": torch.from_numpy(SIGMA_Y), "tolerance": 0.0, "max_products": SIZE}
    options |= calibration.EXACT
    rng = BatchGenerator(box.SEEDS)
    x = mmps(scores, SDE, box.OPERATOR, box.measurement()[0], rng=rng, num_steps=4, **options)
    x = x.flatten(1).numpy()
    noise.generators = rng.generators
    largest = 1.02 * np.linalg.norm(A, 2) ** 2
    last = SIGMA_Y / math.sqrt(largest)
    couplings = [widest * last, widest ** (2 / 3) * last, widest ** (1 / 3) * last, last, last]
    z, c = None, 0.6
    for rho, following in zip(couplings, [*couplings[1:], last], strict=True):
        moved = x + rho[:, None] * noise.normal()
        half = len(A) // 2
        w = np.concatenate([noise.normal(), noise.normal()], axis=1)
        w = w[:, np.tile(box._mask().numpy().ravel(), 2)]
        assert w.shape[1] == 2 * half
        drawn, means = [], []
        for b, s in enumerate(SIGMA_Y):
            coupled = min(rho[b] ** 2, s**2 / largest)
            n = root_of(s**2 * np.eye(len(A)) - coupled * A @ A.T) @ w[b]
            gram = s**2 * np.eye(len(A)) + (rho[b] ** 2 - coupled) * A @ A.T
            gain = rho[b] ** 2 * A.T @ np.linalg.inv(gram)
            drawn.append(moved[b] + gain @ (rows[b] + n - A @ moved[b]))
            means.append(x[b] + gain @ (rows[b] - A @ x[b]))
        drawn, means = np.stack(drawn), np.stack(means)
        if z is not None:
            drawn = means - c * (z - means) + math.sqrt(1 - c**2) * (drawn - means)
        z = x = drawn
        sigmas = [rho * (last_level / rho) ** part for part in (0.0, 0.5, 1.0)]
        for sigma, lower in zip(sigmas, [*sigmas[1:], 0 * rho], strict=True):
            white, clean = noise.normal(), []
            for b, level in enumerate(sigma):
                jacobian = box.COVARIANCE @ box.inverse(level)
                mean = box.denoise(x[b : b + 1], level)[0]
                clean.append(mean + level * root_of((jacobian + jacobian.T) / 2) @ white[b])
            clean, share = np.stack(clean), ((lower / sigma) ** 2)[:, None]
            if lower.any():
                spread = lower[:, None] * np.sqrt(1 - share)
                x = clean + share * (x - clean) + spread * noise.normal()
        x = clean
        z = x + (following / rho)[:, None] * (z - x)
    options |= {"widest": widest, "inner_steps": 3, "start_steps": 4, "overrelaxation": c}
    found = box.run(moment_gibbs, score=scores, **options).flatten(1).numpy()
    np.testing.assert_allclose(found, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "noise"),
    [("mri", 0.0), ("mri", 0.1), ("inpainting", 0.1), ("coils", 0.1), ("ct", 0.1)],
)
def test_it_samples_the_posterior_of_a_gaussian_prior(kind, noise):
    """Mean, variance and generalised eigenvalues."""
    options = {"tolerance": 0.1, "start_steps": 6, "inner_steps": 2, "widest": 1.5, "ridge": 1e-3}
    row = calibration.gaussian_row("moment_gibbs", options, 6, kind, noise, 400, 0)
    assert row["all_mean_error"] < 2 * row["chance"] + 0.03
    assert abs(row["all_variance_ratio"] - 1) < 0.07 + 2 * row["all_ratio_error"]
    assert 0.85 < row["all_median"] < 1.07  # of so few exact samples: 0.95 and less
    if noise:
        assert 0.85 < row["measured_median"] < 1.1
        assert row["misfit"] == pytest.approx(noise, rel=0.3)
    else:
        assert row["misfit"] < 1e-5


def two_spikes(x, sigma):
    """Score of pixels that are 0 or 1, with a normal width of 0.02, half of them each."""
    variance = 0.02**2 + sigma.reshape(-1, 1, 1, 1) ** 2
    share = torch.sigmoid((2 * x - 1) / (2 * variance))
    return (share - x) / variance


def test_it_mends_what_mmps_gets_wrong_of_a_prior_of_two_modes():
    """Pixels of 0 or 1 seen with noise of 0.5: p(1 | y) is known."""
    operator = calibration.inpainting()
    count, noise = 400, 0.5
    y = torch.full((count, *operator.range_shape), 0.7, dtype=torch.float64) * operator.measured()
    seen = operator.measured().expand(1, *operator.range_shape)[0]
    sde = VESDE(0.01, 5.0)
    found = {}
    for name, sampler in {"mmps": mmps, "gibbs": moment_gibbs}.items():
        samples = sampler(
            two_spikes,
            sde,
            operator,
            y,
            rng=BatchGenerator(range(count)),
            num_steps=12,
            sigma_y=noise,
        )
        found[name] = samples[:, seen]
    expected = 1 / (1 + math.exp(-(2 * 0.7 - 1) / (2 * (noise**2 + 0.02**2))))
    shares = {k: float((v > 0.5).double().mean()) for k, v in found.items()}
    between = {k: float(((v > 0.1) & (v < 0.9)).double().mean()) for k, v in found.items()}
    assert abs(shares["gibbs"] - expected) < 0.02
    assert between["gibbs"] < 0.02
    assert max(abs(shares["mmps"] - expected), between["mmps"]) > 0.04


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_steps": 1}, "num_steps and inner_steps of 2 or more, widest above 1"),
        ({"widest": 1.0}, "num_steps and inner_steps of 2 or more, widest above 1"),
        ({"steps": 1}, "num_steps and inner_steps of 2 or more, widest above 1"),
        ({"particles": 0}, "particles of 1 or more"),
        ({"max_products": 0}, "expected max_products of 1 or more"),
    ],
)
def test_keywords_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        box.run(moment_gibbs, score=scores, **{"start_steps": 2, **options})


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_without_noise_it_is_mmps(noise):
    """No coupling is as small as the error that it would have to be without."""
    options = {"sigma_y": noise, "tolerance": 0.1}
    y, _ = box.measurement()
    expected = mmps(
        scores, SDE, box.OPERATOR, y, rng=BatchGenerator(box.SEEDS), num_steps=3, **options
    )
    found = box.run(moment_gibbs, score=scores, start_steps=3, **options)
    assert torch.equal(found, expected)


def test_samples_with_and_without_noise_share_a_batch():
    y, seeds = box.measurement()[0], BatchGenerator(box.SEEDS)
    noises = doubles(0.0, 0.3)
    options = {"num_steps": 4, "start_steps": 3, "sigma_y": noises, "max_products": 3}
    together = moment_gibbs(scores, SDE, box.OPERATOR, y, rng=seeds, **options)
    for b in range(2):
        options["sigma_y"] = noises[b : b + 1]
        rng = BatchGenerator(box.SEEDS[b : b + 1])
        alone = moment_gibbs(scores, SDE, box.OPERATOR, y[b : b + 1], rng=rng, **options)
        torch.testing.assert_close(together[b], alone[0])


@pytest.mark.parametrize("kind", ["ct", "coils"])
def test_the_coupled_misfit_is_the_gaussian_log_density(kind):
    operator = calibration.OPERATORS[kind]()
    x, noises, rhos = images_of(operator, 3, 0), doubles(0.3, 0.3, 0.5), doubles(0.01, 0.9, 0.2)
    residual = operator.forward(x)
    largest = largest_eigenvalue(operator, x)
    found = coupled_misfit(operator, residual, rhos, sigma_y=noises, largest=largest)
    matrix, rows = calibration.dense(operator), calibration.rows_of(operator, residual)
    for b, (rho, noise) in enumerate(zip(rhos, noises, strict=True)):
        coupled = torch.minimum(rho**2, noise**2 / largest[b])
        gram = noise**2 * torch.eye(len(matrix)) + (rho**2 - coupled) * matrix @ matrix.T
        expected = rows[b] @ torch.linalg.solve(gram, rows[b]) / 2
        assert float(found[b]) == pytest.approx(float(expected), rel=2e-3)


def test_particles_are_resampled_by_their_weights():
    """Floor or ceil of P w times, P w times in the mean, each sample by its own numbers."""
    count, samples = 5, 4000
    weights = doubles(0.03, 0.4, 0.0, 0.07, 0.5)
    x = torch.arange(count).repeat_interleave(samples)
    logs = weights.log().repeat_interleave(samples) + torch.randn(samples).repeat(count)
    taken = resample(x, logs, BatchGenerator(range(samples))).reshape(count, samples)
    times = torch.stack([(taken == p).sum(0) for p in range(count)]).double()  # (P, samples)
    assert (times >= torch.floor(count * weights)[:, None]).all()
    assert (times <= torch.ceil(count * weights)[:, None]).all()
    torch.testing.assert_close(times.mean(1), count * weights, rtol=0, atol=0.03)
    alone = resample(x[::samples], logs[7::samples], BatchGenerator([7]))
    assert torch.equal(alone, taken[:, 7])
    spoilt = torch.where(x == 1, torch.nan, logs)
    assert (resample(x, spoilt, BatchGenerator(range(samples))) != 1).all()


@pytest.mark.parametrize("separation", [1.2, 4.2])
def test_particles_find_the_weights_of_modes(separation):
    options = calibration.PARTICLES | {"inner_steps": 2}
    shares = {
        particles: calibration.mixture_row(
            "moment_gibbs", options | {"particles": particles}, 12, separation, 400, 0
        )["share"]
        for particles in (1, 4)
    }
    assert abs(shares[4] - 0.18) < 0.06  # three standard errors
    assert shares[1] > 0.24


def test_particles_keep_their_last_z():
    """With another particle's z images would move too far: the variance would be 1.37."""
    options = calibration.EXACT | {"tolerance": 0.1, "start_steps": 6, "inner_steps": 2}
    options |= {"widest": 3.0, "particles": 4, "overrelaxation": 0.9}
    row = calibration.gaussian_row("moment_gibbs", options, 6, "inpainting", 0.1, 400, 0)
    assert abs(row["all_variance_ratio"] - 1) < 0.05 + 2 * row["all_ratio_error"]


def test_samples_with_particles_are_independent():
    y, seeds = box.measurement()[0], BatchGenerator(box.SEEDS)
    noises = doubles(0.2, 0.3)
    options = {"num_steps": 4, "start_steps": 3, "particles": 3, "max_products": 3, "widest": 9.0}
    together = moment_gibbs(scores, SDE, box.OPERATOR, y, rng=seeds, sigma_y=noises, **options)
    for b in range(2):
        rng, alone = BatchGenerator(box.SEEDS[b : b + 1]), slice(b, b + 1)
        found = moment_gibbs(
            scores, SDE, box.OPERATOR, y[alone], rng=rng, sigma_y=noises[alone], **options
        )
        torch.testing.assert_close(together[alone], found)
