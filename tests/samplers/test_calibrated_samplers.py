"""The calibrated samplers: each against its formulas, and against posteriors in closed form."""

import csv
import math

import numpy as np
import pytest
import torch

from benchmarks import calibration
from benchmarks.gaussian_posterior import SDE as TOY_SDE
from benchmarks.gaussian_posterior import condition, gaussian_prior
from operators import BatchGenerator, MultiCoilMRI, ParallelBeamCT
from operators.gaussian import gain_product, lanczos_sqrt, nearest_fit
from samplers import daps, dds, mmps, pula, red_diff, split_gibbs
from tests.samplers import test_formulas as box
from tests.samplers.test_formulas import SDE, SIGMA_Y, SIZE, STEPS, A, Noise

# measured positions only, as real parts and then imaginary ones of the operator's y
NUMBERS = 2 * box.SIDE**2
MEASURED = np.tile(box._mask().numpy().ravel(), 2)


def spd(size, seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(batch, size, size, generator=generator, dtype=torch.float64)
    return root @ root.mT + 0.1 * torch.eye(size, dtype=torch.float64)


def root_of(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


# ------------------------------------------------------------------------------------- solvers


@pytest.mark.parametrize("is_complex", [False, True])
def test_lanczos_root_is_the_matrix_root(is_complex):
    matrix = spd(12, 0)
    z = torch.randn(2, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = torch.view_as_complex(z.reshape(2, 6, 2)) if is_complex else z

    def product(x):
        flat = torch.view_as_real(x).flatten(1) if is_complex else x
        out = (matrix @ flat[..., None])[..., 0]
        return torch.view_as_complex(out.reshape(2, 6, 2)) if is_complex else out

    found, quotient = lanczos_sqrt(product, rows, max_products=12, tolerance=0.0)
    expected = torch.stack(
        [torch.from_numpy(root_of(m.numpy())) @ v for m, v in zip(matrix, z, strict=True)]
    )
    found = torch.view_as_real(found).flatten(1) if is_complex else found
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    expected = (z * (matrix @ z[..., None])[..., 0]).sum(1) / (z * z).sum(1)
    torch.testing.assert_close(quotient, expected)


def test_lanczos_root_stops_for_each_sample_and_stands_what_is_no_covariance():
    matrix, count = spd(12, 0), []
    matrix[0] = torch.eye(12)
    matrix[1, 3, 4] += 0.2  # not quite symmetric

    def product(x):
        count.append(int((x != 0).any(1).sum()))
        return (matrix[: len(x)] @ x[..., None])[..., 0]

    z = torch.randn(2, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, _ = lanczos_sqrt(product, z, max_products=12, tolerance=1e-3)
    torch.testing.assert_close(found[0], z[0])
    assert found.isfinite().all()
    assert count[0] == 2
    assert max(count[2:]) == 1  # the first was finished
    assert (lanczos_sqrt(lambda x: -x, z, max_products=5, tolerance=0.0)[0] == 0).all()


def dense_gain(operator, covariance, sigma_y, ridge=0.0):
    """Real matrix of V A^H (A V A^H + sigma_y^2)^-1, and A."""
    matrix = calibration.dense(operator).numpy()
    gram = matrix @ (covariance + ridge * np.eye(len(covariance))) @ matrix.T
    return covariance @ matrix.T @ np.linalg.pinv(gram + sigma_y**2 * np.eye(len(matrix))), matrix


def test_more_products_than_rounding_allows_do_no_harm():
    """In single precision without noise, along a trajectory with two positions that coincide."""
    operator, prior = calibration.OPERATORS["radial"](), gaussian_prior().covariance
    covariance = torch.block_diag(prior, prior).float()
    images = torch.randn(2, 2 * calibration.SIZE, generator=torch.Generator().manual_seed(0))
    y = operator.forward(calibration.as_images(images, operator))
    one = torch.ones(2)
    found = [
        gain_product(
            operator,
            y,
            lambda x: calibration.as_images(calibration.real_vector(x) @ covariance, operator),
            sigma_y=0 * one,
            level=0.05 * one,
            ridge=1e-2 * one,
            largest=one,
            max_products=products,
            length=0 * one,
            precondition_steps=100,
        )
        for products in (30, 90)
    ]
    assert (found[1] - found[0]).norm() < 0.02 * found[0].norm()  # 0.0005; without an end 0.2


@pytest.mark.parametrize("kind", ["mri", "coils", "ct", "inpainting", "radial"])
def test_the_gain_is_that_of_conditioning_a_gaussian(kind):
    operator, noises, ridge = calibration.OPERATORS[kind](), [0.0, 0.3], 1e-2
    n = calibration.SIZE * (2 if operator.domain_complex else 1)
    covariance = gaussian_prior().covariance
    covariance = covariance if n == len(covariance) else torch.block_diag(covariance, covariance)
    images = torch.randn(2, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = operator.forward(calibration.as_images(images, operator))
    found = gain_product(
        operator,
        y,
        lambda x: calibration.as_images(calibration.real_vector(x) @ covariance, operator),
        sigma_y=torch.tensor(noises, dtype=torch.float64),
        level=torch.full((2,), 0.05, dtype=torch.float64),
        ridge=torch.full((2,), ridge, dtype=torch.float64),
        largest=torch.ones(2, dtype=torch.float64),
        max_products=200,
        length=torch.full((2,), 1e-9, dtype=torch.float64),
        precondition_steps=100,
    )
    for b, noise in enumerate(noises):
        gain, _ = dense_gain(operator, covariance.numpy(), noise, ridge)
        expected = gain @ calibration.rows_of(operator, y)[b].numpy()
        np.testing.assert_allclose(
            calibration.real_vector(found)[b].numpy(), expected, rtol=1e-4, atol=1e-5
        )


def test_the_nearest_fit_is_the_projection_in_single_precision_too():
    operator = ParallelBeamCT(8, [0.0, 50.0, 100.0])
    generator = torch.Generator().manual_seed(0)
    image, x = torch.randn(2, 1, 1, 8, 8, generator=generator)
    fitted = nearest_fit(operator, operator.forward(image), x)
    matrix = calibration.dense(operator).numpy()
    expected = x.flatten().double().numpy()
    expected = expected + np.linalg.pinv(matrix) @ (matrix @ (image - x).flatten().double().numpy())
    assert np.abs(fitted.flatten().numpy() - expected).max() < 2e-3
    assert (operator.forward(fitted) - operator.forward(image)).abs().max() < 1e-3


# ------------------------------------------------------------------------------------- formulas


def disturb(rows, noise):
    """y + sigma_y z of the measured numbers; z is drawn for all positions."""
    drawn = np.concatenate([noise.normal(NUMBERS // 2), noise.normal(NUMBERS // 2)], axis=1)
    return rows + SIGMA_Y[:, None] * drawn[:, MEASURED]


def scores(x, sigma):
    """For samplers that take the score's derivative."""
    matrix = torch.stack([torch.from_numpy(box.inverse(float(s))) for s in sigma])
    difference = torch.from_numpy(box.MEAN) - x.flatten(1)
    return (difference[:, None] @ matrix)[:, 0].reshape(x.shape)


def test_mmps():
    _, rows = box.measurement()
    noise, sigmas = Noise(), box.levels(5.0)
    x = rows @ A + sigmas[0] * noise.normal()
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        jacobian = box.COVARIANCE @ box.inverse(sigma)
        clean = box.denoise(x, sigma)
        drawn = clean + sigma * noise.normal() @ root_of((jacobian + jacobian.T) / 2)
        disturbed = disturb(rows, noise)
        variance = sigma**2 * jacobian
        fitted = []
        for b, sigma_y in enumerate(SIGMA_Y):
            gram = A @ (variance + 0.02 * sigma**2 * np.eye(SIZE)) @ A.T
            inverse = np.linalg.inv(gram + sigma_y**2 * np.eye(len(A)))
            fitted.append(drawn[b] + variance @ A.T @ inverse @ (disturbed[b] - A @ drawn[b]))
        fitted, share = np.stack(fitted), (following / sigma) ** 2
        x = fitted + share * (x - fitted) + following * math.sqrt(1 - share) * noise.normal()
    options = {"sigma_y": torch.from_numpy(SIGMA_Y), "tolerance": 0.0, "max_products": SIZE}
    box.compare(box.run(mmps, score=scores, ridge=0.02, **options), fitted)


def test_pula():
    _, rows = box.measurement()
    noise, step = Noise(), 0.4
    x = rows @ A + 5.0 * noise.normal()
    for sigma in box.levels(5.0):
        for _ in range(2):
            image = step * sigma**2 * box.real_score(x, sigma)
            image = image + math.sqrt(2 * step) * sigma * noise.normal()
            nothing = np.zeros_like(rows)
            residual = step * (rows - x @ A.T) + math.sqrt(2 * step) * disturb(nothing, noise)
            change = []
            for b, sigma_y in enumerate(SIGMA_Y):
                metric = np.linalg.inv(A.T @ A / sigma_y**2 + np.eye(SIZE) / sigma**2)
                change.append(metric @ (A.T @ residual[b] / sigma_y**2 + image[b] / sigma**2))
            x = x + np.stack(change)
    options = {"sigma_y": torch.from_numpy(SIGMA_Y), "step": step, "inner_steps": 2}
    box.compare(box.run(pula, **options), x)


def test_split_gibbs():
    _, rows = box.measurement()
    noise, x = Noise(), rows @ A
    for rho in box.levels(3.0, 0.1):
        moved = x + rho * noise.normal()
        x = box.fits(moved, disturb(rows, noise), rho, SIGMA_Y)
        sigmas = [rho * (SDE.sigma_min / rho) ** part for part in (0.0, 0.5, 1.0)]
        for sigma, following in zip(sigmas, [*sigmas[1:], None], strict=True):
            clean = box.denoise(x, sigma)
            if following is not None:
                share = (following / sigma) ** 2
                drawn = following * math.sqrt(1 - share) * noise.normal()
                x = share * x + (1 - share) * clean + drawn
        x = clean
    options = {"sigma_y": torch.from_numpy(SIGMA_Y), "start_sigma": 3.0, "end_sigma": 0.1}
    box.compare(box.run(split_gibbs, inner_steps=3, **options), x)


def test_daps():
    _, rows = box.measurement()
    noise, x0 = Noise(), rows @ A
    for level in box.levels(3.0, 0.1):
        x = x0 + level * noise.normal()
        sigmas = [level * (SDE.sigma_min / level) ** part for part in (0.0, 0.5)]
        for sigma, following in zip(sigmas, [sigmas[1], 0.0], strict=True):
            x = x + (following - sigma) * -sigma * box.real_score(x, sigma)  # dx = -sigma s dsigma
        moved = x + level * noise.normal()
        x0 = box.fits(moved, disturb(rows, noise), level, SIGMA_Y)
    options = {"sigma_y": torch.from_numpy(SIGMA_Y), "start_sigma": 3.0, "end_sigma": 0.1}
    box.compare(box.run(daps, inner_steps=2, **options), x0)


def test_red_diff():
    _, rows = box.measurement()
    noise, x = Noise(), rows @ A
    first = second = np.zeros_like(x)
    for count, sigma in enumerate(box.levels(1.0), start=1):
        drawn = noise.normal()
        clean = box.denoise(x + sigma * drawn, sigma)
        seen = (x + sigma * drawn - clean) / sigma  # by the network
        gradient = (x @ A.T - rows) @ A + 0.3 * sigma * (seen - drawn)
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        mean, square = first / (1 - 0.9**count), second / (1 - 0.99**count)
        x = x - 0.05 * (1 - (count - 1) / STEPS) * mean / (np.sqrt(square) + 1e-8)
    box.compare(box.run(red_diff, strength=0.3, step=0.05), x)


@pytest.mark.parametrize("sigma_y", [0.0, 0.2])
def test_dds_with_the_noise_of_the_exact_step_back(sigma_y):
    _, rows = box.measurement()
    noise, sigmas = Noise(), box.levels(1.0)
    x = rows @ A + sigmas[0] * noise.normal()
    for sigma, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        clean = box.denoise(x, sigma)
        fitted = box.fits(clean, rows, sigma, sigma_y)
        if following is not None:
            share = (following / sigma) ** 2
            old = x - (fitted if sigma_y else clean)
            x = fitted + share * old + following * math.sqrt(1 - share) * noise.normal()
    box.compare(box.run(dds, sigma_y=sigma_y, ancestral=True), fitted)
    with pytest.raises(ValueError, match="expected eta or ancestral, got both"):
        box.run(dds, eta=0.5, ancestral=True)


# ---------------------------------------------------------------------------------- calibration

COUNT = 500


@pytest.mark.parametrize(
    ("kind", "noise"),
    [
        ("mri", 0.0),
        ("mri", 0.1),
        ("inpainting", 0.0),
        ("coils", 0.1),
        ("ct", 0.1),
        ("radial", 0.1),
    ],
)
def test_mmps_samples_the_posterior_of_a_gaussian_prior_in_few_steps(kind, noise):
    """Mean, variance and generalised eigenvalues, at 300 network calls or fewer."""
    options = calibration.EXACT | {"tolerance": 0.1}
    row = calibration.gaussian_row("mmps", options, 8, kind, noise, COUNT, 0)
    assert row["calls"] < 250
    assert row["all_mean_error"] < 2 * row["chance"] + 0.03
    assert abs(row["all_variance_ratio"] - 1) < 0.07 + 2 * row["all_ratio_error"]
    assert 0.85 < row["all_median"] < 1.07  # of so few exact samples: 0.95 and less
    if noise:
        assert row["misfit"] == pytest.approx(noise, rel=0.3)
    else:
        assert row["misfit"] < 1e-5
        assert row["measured_spread"] < 1e-9


def test_mmps_is_exact_without_noise_in_single_precision():
    operator = calibration.inpainting()
    prior = gaussian_prior()
    x = prior.mean + torch.linalg.cholesky(prior.covariance) @ torch.ones(len(prior.mean)).double()
    y = calibration.measure(operator, x, 0.0)
    truth = condition(prior, calibration.dense(operator), calibration.rows_of(operator, y)[0], 0.0)

    def score(x, sigma):
        return gaussian_prior().score(x.double(), sigma.double()).float()

    samples = mmps(
        score,
        TOY_SDE,
        operator,
        y.float().expand(400, -1, -1, -1),
        rng=BatchGenerator(range(400)),
        num_steps=8,
        tolerance=0.1,
        ridge=1e-3,
    )
    assert samples.dtype == torch.float32
    assert (operator.forward(samples) - y).abs().max() < 1e-6
    unseen = calibration.subspaces(calibration.dense(operator))[1]
    found = calibration.compare(samples.flatten(1).double(), truth, unseen)
    assert found.mean_error < 2 * 400**-0.5 + 0.03
    assert abs(found.variance_ratio - 1) < 0.07 + 2 * found.ratio_error


def test_the_weights_of_modes_are_those_of_bayes():
    mixture, operator, y, posterior = calibration.mixture_problem(2.4)
    matrix, values = calibration.dense(operator), calibration.rows_of(operator, y)[0]
    noisy = matrix @ mixture.covariance @ matrix.T + 0.01 * torch.eye(len(matrix)).double()
    logs = [
        torch.distributions.MultivariateNormal(matrix @ m, noisy).log_prob(values)
        for m in mixture.means
    ]
    expected = torch.softmax(torch.stack(logs) + mixture.weights.log(), dim=0)
    torch.testing.assert_close(posterior.weights, expected)
    assert float(expected[0]) == pytest.approx(0.18, abs=1e-3)
    exact = posterior.draw(4000, 0)
    assert posterior.share_of_first(exact) == pytest.approx(0.18, abs=0.02)
    with torch.enable_grad():  # the score is the gradient of the noisy log-density
        x = exact[:1].reshape(1, 1, 8, 8).requires_grad_()
        wide = mixture.covariance + 0.25 * torch.eye(len(matrix[0])).double()
        density = [
            w.log() + torch.distributions.MultivariateNormal(m, wide).log_prob(x.flatten(1))
            for m, w in zip(mixture.means, mixture.weights, strict=True)
        ]
        total = torch.logsumexp(torch.stack(density), dim=0).sum()
        (gradient,) = torch.autograd.grad(total, x)
    found = mixture.score(x.detach(), torch.tensor([0.5], dtype=torch.float64))
    torch.testing.assert_close(found, gradient)


def test_calls_are_counted_with_their_derivatives():
    operator = MultiCoilMRI(box._mask(), torch.full((2, 4, 4), 0.5**0.5, dtype=torch.complex64))
    y = operator.forward(torch.ones(3, 1, 4, 4, dtype=torch.complex64))
    calls = calibration.Calls()
    score = calls.counted(lambda x, sigma: -x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2))
    arguments = (score, SDE, operator, y)
    dds(*arguments, rng=BatchGenerator([1, 2, 3]), num_steps=5)
    assert calls.count == 5 * 3
    options = {"num_steps": 5, "max_products": 1, "sigma_y": 0.1, "tolerance": 0.0}
    mmps(*arguments, rng=BatchGenerator([1, 2, 3]), **options)
    assert calls.count == 5 * 3 + 5 * 3 * (1 + 2 * 2)


def test_the_benchmark_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "SEPARATIONS", (1.2,))
    monkeypatch.setattr(calibration, "RUNS", {("dds, ancestral", 100): ({"ancestral": True}, 4)})
    arguments = {"samplers": [], "kinds": ["inpainting", "mixture"], "count": 50, "seed": 0}
    calibration.run(tmp_path, **arguments, budgets=[300])
    assert not any(tmp_path.iterdir())
    calibration.run(tmp_path, **arguments, noises=[0.1])
    given = f"calibration --out={tmp_path} --rows=inpainting,mixture --count=50 --budgets=100"
    monkeypatch.setattr("sys.argv", [*given.split(), "--noises=0.10"])
    calibration.main()
    for name in ("gaussian.csv", "mixture.csv"):
        with (tmp_path / name).open() as file:
            rows = list(csv.DictReader(file))
        assert [row["calls"] for row in rows] == ["4"]
    monkeypatch.setattr("sys.argv", ["calibration", f"--out={tmp_path}", "--print"])
    calibration.main()
    assert "| dds, ancestral | inpainting | 0.1 | 4 |" in capsys.readouterr().out
