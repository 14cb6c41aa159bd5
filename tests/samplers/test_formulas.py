"""Every sampler against its algorithm box, written out in NumPy for a Gaussian prior.

Score, data step and operator are dense matrices here; random numbers are drawn from the samples'
seeds in the order that the docstrings state.
"""

import math

import numpy as np
import pytest
import torch

from operators import BatchGenerator, MultiCoilMRI, SingleCoilMRI
from samplers import (
    PRESETS,
    annealed_langevin,
    dds,
    diffpir,
    dps,
    hybrid,
    pnp,
    predictor_corrector,
    ssos,
)
from sde import VESDE, complex_score

SIDE, STEPS = 4, 5
SIZE = SIDE**2
SDE = VESDE(0.02, 5.0)
SEEDS = [3, 4]
SIGMA_Y = np.array([0.1, 0.3])  # of each sample


def _prior():
    rng = np.random.default_rng(0)
    root = 0.3 * rng.standard_normal((SIZE, SIZE))
    return rng.random(SIZE), root @ root.T + 0.02 * np.eye(SIZE)


MEAN, COVARIANCE = _prior()


def inverse(sigma):
    """Of the noisy prior's covariance."""
    return np.linalg.inv(COVARIANCE + sigma**2 * np.eye(SIZE))


def real_score(x, sigma):
    """Of rows ``(B, n)``, one noise level."""
    return (MEAN - x) @ inverse(sigma)


def torch_score(x, sigma):
    """The same as the samplers call it."""

    def real(x, sigma):
        rows = [real_score(v.numpy(), float(s)) for v, s in zip(x.flatten(1), sigma, strict=True)]
        return torch.from_numpy(np.stack(rows)).reshape(x.shape)

    return complex_score(real)(x, sigma)


def differentiable_score(x, sigma):
    """For dps, whose gradient goes through it; one noise level for all."""
    matrix = torch.from_numpy(inverse(float(sigma[0])))
    return ((torch.from_numpy(MEAN) - x.flatten(1)) @ matrix).reshape(x.shape)


def _mask():
    """The origin and pairs (k, -k) alone: real images see |A| = 1."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for row, column in [(2, 2), (2, 1), (2, 3), (1, 3), (3, 1)]:
        mask[row, column] = True
    return mask


OPERATOR = SingleCoilMRI(_mask())


def _matrix():
    """A on real images: real parts, then imaginary parts of k-space; the DFT written out."""
    position = np.arange(SIDE) - SIDE // 2
    dft = np.exp(-2j * np.pi * np.outer(position, position) / SIDE) / math.sqrt(SIDE)
    rows = np.kron(dft, dft)[_mask().numpy().ravel()]
    return np.concatenate([rows.real, rows.imag])


A = _matrix()


def measurement():
    """(k-space for the operator, rows ``(B, M)`` for the matrix)."""
    rng = np.random.default_rng(1)
    rows = rng.random((len(SEEDS), SIZE)) @ A.T + 0.1 * rng.standard_normal((len(SEEDS), len(A)))
    half = len(A) // 2
    kspace = np.zeros((len(SEEDS), SIZE), dtype=complex)
    kspace[:, _mask().numpy().ravel()] = rows[:, :half] + 1j * rows[:, half:]
    return torch.from_numpy(kspace).reshape(-1, 1, SIDE, SIDE), rows


def test_the_matrix_is_the_operator():
    kspace, rows = measurement()
    x = np.random.default_rng(2).random((2, SIZE))
    found = OPERATOR.forward(torch.from_numpy(x).reshape(-1, 1, SIDE, SIDE)).flatten(1)
    found = found[:, _mask().flatten()].numpy()
    np.testing.assert_allclose(np.concatenate([found.real, found.imag], axis=1), x @ A.T)
    back = OPERATOR.adjoint(kspace).flatten(1).numpy()
    np.testing.assert_allclose(back, rows @ A, atol=1e-12)


class Noise:
    """The numbers that `BatchGenerator` draws, as rows ``(B, n)``."""

    def __init__(self, seeds=SEEDS):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(self, size=SIZE):
        return self._rows(torch.randn, size)

    def uniform(self, size=SIZE):
        return self._rows(torch.rand, size)

    def _rows(self, function, size):
        return np.stack([function(size, generator=g).numpy() for g in self.generators]).astype(
            float
        )


def fit(x, rows, penalty):
    """argmin_z |A z - y|^2 + penalty |z - x|^2 of one sample; the nearest solution for 0."""
    if penalty == 0:
        return x + np.linalg.pinv(A) @ (rows - A @ x)
    return np.linalg.solve(A.T @ A + penalty * np.eye(SIZE), A.T @ rows + penalty * x)


def fits(x, rows, sigma, sigma_y, strength=1.0):
    penalties = strength * (np.broadcast_to(sigma_y, len(x)) / sigma) ** 2
    return np.stack([fit(*values) for values in zip(x, rows, penalties, strict=True)])


def levels(first, last=SDE.sigma_min):
    """Falling levels; for each sample ``(B,)``, where `last` is."""
    fraction = np.arange(STEPS) / (STEPS - 1)
    return [first * (last / first) ** part for part in fraction]


def run(sampler, score=torch_score, operator=OPERATOR, y=None, sde=SDE, steps=STEPS, **options):
    y = measurement()[0] if y is None else y
    rng = BatchGenerator(SEEDS)
    return sampler(score, sde, operator, y, rng=rng, num_steps=steps, **options)


def compare(found, expected):
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, rtol=1e-6, atol=1e-7)


def denoise(x, sigma):
    return x + sigma**2 * real_score(x, sigma)


# ------------------------------------------------------------------- denoise, fit the data, noise


@pytest.mark.parametrize(
    ("options", "sigma_y", "from_data"),
    [
        ({"eta": 1.0}, 0.0, False),
        ({"eta": 0.6}, 0.0, False),
        ({"eta": 0.6}, SIGMA_Y, True),
        ({"eta": 0.6, "old_noise": "network"}, SIGMA_Y, False),
        ({"eta": 0.6, "old_noise": "data"}, 0.0, True),
        ({"eta": 1.0}, SIGMA_Y, False),
    ],
)
def test_dds(options, sigma_y, from_data):
    _, rows = measurement()
    noise, eta = Noise(), options["eta"]
    sigmas = levels(1.0)
    fitted = rows @ A  # zero-filled
    x = fitted + sigmas[0] * noise.normal()
    for sigma, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        clean = denoise(x, sigma)
        fitted = fits(clean, rows, sigma, sigma_y)
        if following is not None:
            old = (x - (fitted if from_data else clean)) / sigma
            x = fitted + following * (math.sqrt(1 - eta**2) * old + eta * noise.normal())
    compare(run(dds, sigma_y=torch.as_tensor(sigma_y), **options), fitted)


def test_dds_chooses_the_old_noise_for_each_sample():
    mixed = run(dds, eta=0.5, sigma_y=torch.tensor([0.0, 0.3]))
    for b, old_noise in enumerate(("network", "data")):
        alone = run(dds, eta=0.5, sigma_y=torch.tensor([0.0, 0.3]), old_noise=old_noise)
        torch.testing.assert_close(mixed[b], alone[b])
        assert (mixed[1 - b] - alone[1 - b]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"old_noise to be one of \('network', 'data'\) or None"):
        run(dds, old_noise="both")


@pytest.mark.parametrize("zeta", [0.0, 0.3, 1.0])
def test_diffpir(zeta):
    _, rows = measurement()
    noise, sigmas = Noise(), levels(2.0, 0.05)
    x = rows @ A + sigmas[0] * noise.normal()
    for sigma, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        fitted = fits(denoise(x, sigma), rows, sigma, SIGMA_Y, strength=0.7)
        if following is not None:
            old = (x - fitted) / sigma
            x = fitted + following * (math.sqrt(1 - zeta) * old + math.sqrt(zeta) * noise.normal())
    options = {"zeta": zeta, "strength": 0.7, "start_sigma": 2.0, "end_sigma": 0.05}
    compare(run(diffpir, sigma_y=torch.from_numpy(SIGMA_Y), **options), fitted)


@pytest.mark.parametrize("strength", [None, 2.0])
@pytest.mark.parametrize("given", [None, 0.1])
@pytest.mark.parametrize("quiet", [False, True])
def test_pnp(strength, given, quiet):
    """To the noise that the measurement's is in an image; the last data step to sigma_min."""
    noises = np.array([0.0, *SIGMA_Y[1:]]) if quiet else SIGMA_Y
    _, rows = measurement()
    generator = torch.Generator().manual_seed(0)
    white = torch.complex(*(torch.randn(1, SIDE, SIDE, generator=generator) for _ in range(2)))
    # the operator's rows are orthonormal, so that its adjoint fits the noise as it is
    gain = OPERATOR.adjoint((white * _mask())[None].to(torch.complex128)).square().mean().sqrt()
    last = np.maximum(SDE.sigma_min, noises * gain.numpy()) if given is None else given
    x = image = rows @ A
    for step, sigma in enumerate(levels(1.0, np.broadcast_to(last, len(rows)))):
        before, fitted = image, np.stack([denoise(*pair) for pair in zip(x, sigma, strict=True)])
        trusted = sigma if step < STEPS - 1 else SDE.sigma_min
        image = fits(fitted, rows, trusted, noises, strength or 0.23)
        m = 0.5 + np.where(noises > 0, 0.0, 0.3)[:, None] * step / (STEPS - 1)
        x = image + (m * (image - before) if step else 0)
    options = {} if strength is None else {"strength": strength}
    options |= {"sigma_y": torch.from_numpy(noises), "end_sigma": given}
    compare(run(pnp, start_sigma=1.0, **options), image)


def test_dps():
    """x' ~ N(x0 + (s'/s)^2 (x - x0), s'^2 (1 - (s'/s)^2)), then the gradient; s' = 0 at last."""
    _, rows = measurement()
    noise, sigmas, step = Noise(), levels(1.0), 0.3
    x = rows @ A + sigmas[0] * noise.normal()
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        clean = denoise(x, sigma)
        residual = clean @ A.T - rows
        jacobian = np.eye(SIZE) - sigma**2 * inverse(sigma)  # of the denoiser, symmetric
        unit = residual / np.linalg.norm(residual, axis=1, keepdims=True)
        share = (following / sigma) ** 2
        x = clean + share * (x - clean) + following * math.sqrt(1 - share) * noise.normal()
        x = x - step * unit @ A @ jacobian
    compare(run(dps, differentiable_score, step=step), clean)


# ------------------------------------------------------------------------------------- Langevin


def langevin(sigmas, eta, gradient, x, noise, inner=3):
    for sigma in sigmas:
        step = eta * (sigma / sigmas[-1]) ** 2
        for _ in range(inner):
            z, s = noise.normal(), real_score(x, sigma)
            x = x + step * (s - gradient(x, s, sigma)) + math.sqrt(2 * step) * z
    return x


def norm_ratio(weight, rows):
    def gradient(x, s, sigma):
        g = (x @ A.T - rows) @ A
        lengths = [np.linalg.norm(v, axis=1, keepdims=True) for v in (s, g)]
        return weight * lengths[0] / lengths[1] * g

    return gradient


def test_langevin_by_norm_ratio():
    _, rows = measurement()
    ladder = SDE.sigma_max * (SDE.sigma_min / SDE.sigma_max) ** (np.arange(9) / 8)
    sigmas, noise = ladder[ladder <= 1], Noise()
    expected = langevin(
        sigmas, 0.5 * SDE.sigma_min**2, norm_ratio(5.0, rows), noise.normal(), noise
    )
    compare(run(annealed_langevin, steps=9), expected)


def test_langevin_with_the_gaussian_likelihood():
    _, rows = measurement()
    ladder = SDE.sigma_max * (SDE.sigma_min / SDE.sigma_max) ** (np.arange(9) / 8)
    sigmas, noise, gamma, weight = ladder[ladder <= 2], Noise(), 1.3, 0.9

    def gradient(x, s, sigma):
        variance = SIGMA_Y[:, None] ** 2 + (gamma * sigma) ** 2  # |A| = 1
        return weight * (x @ A.T - rows) @ A / variance

    expected = langevin(sigmas, 1e-4, gradient, noise.normal(), noise, inner=2)
    options = {"step_scale": 1e-4, "inner_steps": 2, "start_sigma": 2.0, "gamma": gamma}
    options |= {"likelihood": "gaussian", "data_weight": weight}
    compare(run(annealed_langevin, steps=9, sigma_y=torch.from_numpy(SIGMA_Y), **options), expected)


def test_the_csgm_preset_is_the_published_configuration():
    """step_lr 5e-5, mse 5, 3 steps a level, levels 1156 to 2310 of 2311, uniform start."""
    _, rows = measurement()
    name, options = PRESETS["csgm"]
    assert name == "annealed_langevin"
    seen = []

    def watched(x, sigma):
        seen.append(float(sigma[0]))
        return torch_score(x, sigma)

    def stop(step, sigma, x):
        if step == 1:
            raise StopIteration(x)

    sde = VESDE(0.0066, 232.0)
    with pytest.raises(StopIteration) as stopped:
        run(annealed_langevin, watched, sde=sde, steps=2311, callback=stop, **options)
    ladder = 232.0 * (0.0066 / 232.0) ** (np.arange(2311) / 2310)
    np.testing.assert_allclose(seen, np.repeat(ladder[1156:1158], 3), rtol=1e-6)
    assert seen[0] == pytest.approx(1.2318, abs=1e-4)
    noise = Noise()
    x = noise.uniform()
    for sigma in ladder[1156:1158]:
        step = 5e-5 * (sigma / 0.0066) ** 2
        for _ in range(3):
            z, s = noise.normal(), real_score(x, sigma)
            x = x + step * (s - norm_ratio(5.0, rows)(x, s, sigma)) + math.sqrt(2 * step) * z
    compare(stopped.value.args[0], x)


# --------------------------------------------------------------------------- predictor-corrector


def _dft():
    position = np.arange(SIDE) - SIDE // 2
    return np.exp(-2j * np.pi * np.outer(position, position) / SIDE) / math.sqrt(SIDE)


F = np.kron(_dft(), _dft())
M = _mask().numpy().ravel()


def replaced(x, kspace, weight, real):
    """F^-1 [(1 - weight M) F x + weight y] of rows ``(B, n)``."""
    spectrum = x @ F.T
    spectrum = np.where(M, (1 - weight) * spectrum + weight * kspace, spectrum)
    image = spectrum @ F.conj()
    return image.real if real else image


def increments(n):
    """G of step i: sqrt(sigma_k^2 - sigma_{k-1}^2) at k = floor(t_i (n - 1)), and sigma(t_i)."""
    ladder = SDE.sigma_min * (SDE.sigma_max / SDE.sigma_min) ** (np.arange(n) / (n - 1))
    times = 1 + (SDE.eps - 1) * np.arange(n) / (n - 1)
    k = np.floor(times * (n - 1)).astype(int)
    previous = np.where(k > 0, ladder[k - 1], 0.0)
    sigmas = SDE.sigma_min * (SDE.sigma_max / SDE.sigma_min) ** times
    return np.sqrt(ladder[k] ** 2 - previous**2), sigmas


def by_parts(function, *arrays):
    """A function of real rows on the real and on the imaginary part."""
    if not np.iscomplexobj(arrays[0]):
        return function(*arrays)
    return function(*(a.real for a in arrays)) + 1j * function(*(a.imag for a in arrays))


def written_out(
    kspace,
    draw,
    *,
    weight,
    snr,
    real,
    corrector_steps=1,
    after=lambda i, x: x,
    initial=None,
    first=0,
    labels=None,
):
    """Chung & Ye, algorithms 2 and 3: corrector, data, predictor, data; the mean at the end."""

    def score(x, sigma):
        return by_parts(lambda v: real_score(v, sigma), x)

    def length(s, z):
        norms = [np.linalg.norm(v, axis=1, keepdims=True) for v in (z, s)]
        return 2 * (snr * norms[0] / norms[1]) ** 2

    growth, sigmas = increments(STEPS)
    labels = sigmas if labels is None else labels
    x = SDE.sigma_max * draw() if initial is None else initial + sigmas[first] * draw()
    x = replaced(x, kspace, 1.0, real)
    for i in range(first, STEPS):
        for _ in range(corrector_steps):
            s, z = score(x, labels[i]), draw()
            e = [length(s.real, z.real)] + ([] if real else [length(s.imag, z.imag)])
            parts = [
                v + step * g + np.sqrt(2 * step) * n
                for v, step, g, n in zip(
                    (x.real, x.imag), e, (s.real, s.imag), (z.real, z.imag), strict=False
                )
            ]
            x = parts[0] if real else parts[0] + 1j * parts[1]
            x = replaced(x, kspace, weight, real)
        mean = x + growth[i] ** 2 * score(x, labels[i])
        x = after(i, replaced(mean + growth[i] * draw(), kspace, weight, real))
    return after(STEPS - 1, replaced(mean, kspace, weight, real))


@pytest.mark.parametrize("truncated", [False, True])
def test_a_warm_start_is_the_image_with_noise_of_its_level(truncated):
    """Chung et al., CVPR 2022: 3 of 5 levels; the original's labels end at the first of them."""
    kspace, _ = measurement()
    noise, initial = Noise(), np.random.default_rng(7).random((len(SEEDS), SIZE))
    sigmas, labels = increments(STEPS)[1], None
    if truncated:
        times = 1 + (SDE.eps - 1) * np.arange(STEPS) / (STEPS - 1)
        labels = SDE.sigma_min * (sigmas[2] / SDE.sigma_min) ** times
    expected = written_out(
        *(kspace.flatten(1).numpy(), noise.normal),
        **{"weight": 1.0, "snr": 0.16, "real": True},
        **{"initial": initial, "first": 2, "labels": labels},
    )
    start = torch.from_numpy(initial).reshape(-1, 1, SIDE, SIDE)
    options = {"initial": start, "start_level": 3, "truncated_label": truncated}
    compare(run(predictor_corrector, **options), expected)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize(("weight", "corrector_steps"), [(1.0, 1), (0.4, 2)])
def test_predictor_corrector(real, weight, corrector_steps):
    kspace, _ = measurement()
    noise = Noise()

    def draw():
        return noise.normal() if real else noise.normal() + 1j * noise.normal()

    options = {"weight": weight, "snr": 0.2, "corrector_steps": corrector_steps}
    found = run(predictor_corrector, operator=SingleCoilMRI(_mask(), real=real), **options)
    rows = kspace.flatten(1).numpy()
    compare(found, written_out(rows, draw, real=real, **options))


def test_the_originals_complex_start_is_real_noise():
    """The first draw, of the start, has no imaginary part."""
    kspace, _ = measurement()
    noise, draws = Noise(), []

    def draw():
        draws.append(noise.normal() if not draws else noise.normal() + 1j * noise.normal())
        return draws[-1] + 0j

    operator = SingleCoilMRI(_mask(), real=False)
    found = run(predictor_corrector, operator=operator, complex_start=False)
    rows = kspace.flatten(1).numpy()
    compare(found, written_out(rows, draw, weight=1.0, snr=0.16, real=False))


@pytest.mark.parametrize("num_steps", [500, 1000, 2000, 400])
def test_the_levels_that_the_original_skips(num_steps):
    first = {500: 281, 1000: 551, 2000: 1112}.get(num_steps, 0)
    seen = []

    def stop(step, sigma, x):
        raise StopIteration

    def watched(x, sigma):
        seen.append(float(sigma[0]))
        return torch_score(x, sigma)

    with pytest.raises(StopIteration):
        run(annealed_langevin, watched, steps=num_steps, study_skips=2024, callback=stop)
    ladder = SDE.sigma_max * (SDE.sigma_min / SDE.sigma_max) ** (
        np.arange(num_steps) / (num_steps - 1)
    )
    assert seen[0] == pytest.approx(ladder[first])


COILS = 3


def coil_problem():
    generator = torch.Generator().manual_seed(5)
    maps = torch.randn(COILS, SIDE, SIDE, generator=generator, dtype=torch.complex128)
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    operator = MultiCoilMRI(_mask(), maps)
    image = torch.rand(2, 1, SIDE, SIDE, generator=generator, dtype=torch.float64) + 0j
    return operator, operator.forward(image)


@pytest.mark.parametrize("every", [None, 2, 3])
def test_coil_samplers(every):
    """Coils of a sample in turn; the SENSE correction ends a step, and that of the last the mean.

    With 5 steps and one every 2 the last step is one, every 3 it is not.
    """
    operator, y = coil_problem()
    kspace = y.flatten(0, 1).flatten(1).numpy()  # (B C, n), a sample's coils side by side
    maps = np.tile(operator.sens_maps[0].flatten(1).numpy(), (len(SEEDS), 1))
    noise = Noise()

    def draw():
        """Of a sample all coils' real parts, then all imaginary parts."""
        real, imag = noise.normal(COILS * SIZE), noise.normal(COILS * SIZE)
        return (real + 1j * imag).reshape(-1, SIZE)

    def after(i, x):
        if every is None or i % every:
            return x
        weight = 0.9 + (0.1 - 0.9) * i / (STEPS - 1)
        combined = (maps.conj() * x).reshape(len(SEEDS), COILS, SIZE).sum(1)
        combined = np.repeat(combined, COILS, axis=0)
        residual = np.where(M, kspace - (maps * combined) @ F.T, 0) @ F.conj()
        step = (maps.conj() * residual).reshape(len(SEEDS), COILS, SIZE).sum(1)
        return x + weight * maps * np.repeat(step, COILS, axis=0)

    coils = written_out(kspace, draw, weight=1.0, snr=0.16, real=False, after=after)
    expected = np.sqrt((np.abs(coils) ** 2).reshape(len(SEEDS), COILS, SIZE).sum(1))
    if every is None:
        found = run(ssos, operator=operator, y=y)
    else:
        options = {"every": every, "weight_first": 0.9, "weight_last": 0.1}
        found = run(hybrid, operator=operator, y=y, **options)
    compare(found, expected)
