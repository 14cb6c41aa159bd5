"""Samplers of the prior alone, and Heun's steps in posterior samplers, against written-out boxes.

The prior is Gaussian, whose flow is known in closed form: x - m shrinks like sqrt(s^2 + sigma^2).
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from operators import BatchGenerator, Unmeasured
from samplers import daps, dds, diffpir, predictor_corrector
from samplers.ancestral_vp import ancestral_vp
from samplers.probability_flow import edm_levels, probability_flow
from samplers.start import GREY
from samplers.unconditional import UNCONDITIONAL
from sde import VESDE, VPSDE

SDE = VESDE(0.01, 10.0)
MEAN, STD = GREY + 0.2, 0.25
SEEDS = [3, 4]
SHAPE = (4, 5)


def score(x, sigma):
    """Of independent pixels."""
    return (MEAN - x) / (STD**2 + sigma[:, None, None, None] ** 2)


def slope(x, sigma):
    """dx / dsigma of the flow, in NumPy."""
    return -sigma * (MEAN - x) / (STD**2 + sigma**2)


def draws(seeds=SEEDS):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda: np.stack([torch.randn((1, *SHAPE), generator=g).numpy() for g in generators])


def exact(x, first, last=0.0):
    """Where the flow leads from x at level `first`."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + last**2) / (STD**2 + first**2))


def compare(found, expected, rtol=1e-5):
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=1e-6)


# ------------------------------------------------------------------------------ EDM's algorithms


def test_levels_are_those_of_equation_5():
    found = edm_levels(SDE, 7)
    i = np.arange(7)
    expected = (10 ** (1 / 7) + i / 6 * (0.01 ** (1 / 7) - 10 ** (1 / 7))) ** 7
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0] <= 10.0  # networks know no others
    assert found[-1] >= 0.01
    assert edm_levels(SDE, 7, rho=1.0)[3].item() == pytest.approx(5.005)


@pytest.mark.parametrize("churn", [{}, {"s_churn": 2, "s_tmin": 0.05, "s_tmax": 5, "s_noise": 1.1}])
@pytest.mark.parametrize("order", [1, 2])
def test_the_flow_is_algorithm_2(churn, order):
    """Karras et al. 2022; without churn it is algorithm 1."""
    draw, n = draws(), 6
    t = [*edm_levels(SDE, n).tolist(), 0.0]
    x = GREY + t[0] * draw()
    for now, following in pairwise(t):
        gamma = 0.0
        if churn and churn["s_tmin"] <= now <= churn["s_tmax"]:
            gamma = min(churn["s_churn"] / n, math.sqrt(2) - 1)
        raised = now + gamma * now
        if gamma:
            x = x + math.sqrt(raised**2 - now**2) * churn["s_noise"] * draw()
        d = slope(x, raised)
        ahead = x + (following - raised) * d
        if order == 2 and following:
            ahead = x + (following - raised) * (d + slope(ahead, following)) / 2
        x = ahead
    options = {"num_steps": n, "order": order, **churn}
    compare(probability_flow(score, SDE, SHAPE, rng=BatchGenerator(SEEDS), **options), x)


def test_heun_s_method_has_order_two_and_the_gaussian_s_flow():
    start = GREY + SDE.sigma_max * draws()()
    errors = {}
    for order, steps in ((1, 20), (1, 40), (2, 20), (2, 40)):
        rng = BatchGenerator(SEEDS)
        found = probability_flow(score, SDE, SHAPE, rng=rng, num_steps=steps, order=order)
        errors[order, steps] = np.abs(found.numpy() - exact(start, SDE.sigma_max)).max()
    assert errors[1, 20] / errors[1, 40] == pytest.approx(2, abs=0.4)
    assert errors[2, 20] / errors[2, 40] == pytest.approx(4, abs=1.5)
    assert errors[2, 40] < 0.004
    assert errors[2, 20] < errors[1, 40] / 2  # as many calls


@pytest.mark.parametrize(
    ("name", "options", "ratio"),
    [
        ("probability_flow", {}, 1.0),
        ("probability_flow", {"s_churn": 30.0}, 1.0),
        ("ancestral", {}, 1.0),
        ("ancestral_vp", {}, 1.0),
        ("predictor_corrector", {"predictor": "ancestral", "corrector": "none"}, 1.0),
    ],
)
def test_samples_have_the_moments_of_the_prior(name, options, ratio):
    rng = BatchGenerator(range(30))
    steps = 300 if name == "ancestral_vp" else 150
    images = UNCONDITIONAL[name](score, SDE, (16, 16), rng=rng, num_steps=steps, **options)
    assert images.mean().item() == pytest.approx(MEAN, abs=0.02)  # 7680 pixels: 0.003 by chance
    assert images.std().item() == pytest.approx(ratio * STD, rel=0.04)


def test_churn_does_not_ask_beyond_the_largest_level():
    seen = []

    def watched(x, sigma):
        seen.append(float(sigma.max()))
        return score(x, sigma)

    options = {"num_steps": 5, "s_churn": 100.0}
    probability_flow(watched, SDE, SHAPE, rng=BatchGenerator(SEEDS), **options)
    assert max(seen) == 10.0
    assert len(seen) == 9  # two a level, one for the last


@pytest.mark.parametrize("name", UNCONDITIONAL)
@pytest.mark.parametrize("joint", [False, True])
def test_images_of_a_batch_are_independent_and_of_the_score_s_kind(name, joint):
    def own(x, sigma):
        return score(x, sigma)

    own.joint = joint
    options = {"num_steps": 25} | ({"s_churn": 5.0} if name == "probability_flow" else {})
    both = UNCONDITIONAL[name](own, SDE, SHAPE, rng=BatchGenerator([3, 5]), **options)
    alone = UNCONDITIONAL[name](own, SDE, SHAPE, rng=BatchGenerator([5]), **options)
    assert both.is_complex() == joint
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 1}, "num_steps of at least 2, got 1"),
        ({"rho": 0.0}, "expected rho above 0"),
        ({"order": 3}, r"expected order 1 \(Euler\) or 2 \(Heun\), got 3"),
    ],
)
def test_unfit_arguments_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        probability_flow(score, SDE, SHAPE, rng=BatchGenerator(SEEDS), **{"num_steps": 4} | options)


# ------------------------------------------------------------------------- discrete ladders


def test_the_chain_of_ddpm_is_that_of_song_s_code():
    """Its `vpsde_update_fn` on images in [-1, 1], with the last mean instead of the last sample."""
    n, draw = 30, draws()
    betas = np.linspace(0.1 / n, 20 / n, n)
    alphas = np.cumprod(1 - betas)
    np.testing.assert_allclose(VPSDE().ladder(n), np.sqrt((1 - alphas) / alphas) / 2, rtol=1e-12)
    sde = VESDE(0.01, 1e5)  # knows all of them
    y = math.sqrt(alphas[-1]) * (2 * GREY - 1) + math.sqrt(1 - alphas[-1]) * draw()
    for k in range(n - 1, -1, -1):
        variance = alphas[k] * (2 * STD) ** 2 + 1 - alphas[k]
        s = (math.sqrt(alphas[k]) * (2 * MEAN - 1) - y) / variance
        mean = (y + betas[k] * s) / math.sqrt(1 - betas[k])
        y = mean + math.sqrt(betas[k]) * draw() if k else mean
    found = ancestral_vp(score, sde, SHAPE, rng=BatchGenerator(SEEDS), num_steps=n)
    compare(found, (y + 1) / 2, rtol=1e-4)


def test_levels_that_a_prior_does_not_know_are_left_out():
    seen = []

    def watched(x, sigma):
        seen.append(float(sigma[0]))
        return score(x, sigma)

    options = {"rng": BatchGenerator(SEEDS), "num_steps": 1000}
    ancestral_vp(watched, VESDE(0.02, 1.0), SHAPE, **options)
    assert 0.02 <= seen[-1] < 0.021
    assert 0.99 < seen[0] <= 1.0
    with pytest.raises(ValueError, match=r"between 1000 and 10000"):
        ancestral_vp(watched, VESDE(1e3, 1e4), SHAPE, **options)
    with pytest.raises(ValueError, match="num_steps of at least 21, got 20"):
        ancestral_vp(watched, SDE, SHAPE, rng=BatchGenerator(SEEDS), num_steps=20)


def test_the_ancestral_predictor_is_that_of_song_s_code():
    """Its `vesde_update_fn`: levels k and k - 1 of the ladder, 0 below the first."""
    n, draw = 5, draws()
    ladder = SDE.ladder(n).tolist()
    times = np.linspace(1, SDE.eps, n)
    x = SDE.sigma_max * draw()
    for t in times:
        k = int(t * (n - 1))
        sigma, adjacent = ladder[k], ladder[k - 1] if k else 0.0
        label = 0.01 * 1000**t
        mean = x + (sigma**2 - adjacent**2) * (MEAN - x) / (STD**2 + label**2)
        x = mean + math.sqrt(adjacent**2 * (sigma**2 - adjacent**2) / sigma**2) * draw()
    nothing = Unmeasured((1, *SHAPE))
    options = {"predictor": "ancestral", "corrector": "none", "num_steps": n}
    rng, y = BatchGenerator(SEEDS), nothing.nothing(2)
    compare(predictor_corrector(score, SDE, nothing, y, rng=rng, **options), mean)


# ------------------------------------------------------------------- steps of posterior samplers


def geometric(n, first, last=SDE.sigma_min):
    return [first * (last / first) ** (i / (n - 1)) for i in range(n)]


def heun(x, levels):
    """Heun's method on levels, Euler's to 0 at the end."""
    for now, following in pairwise([*levels, 0.0]):
        d = slope(x, now)
        ahead = x + (following - now) * d
        if following:
            ahead = x + (following - now) * (d + slope(ahead, following)) / 2
        x = ahead
    return x


@pytest.mark.parametrize(
    ("sampler", "no_new_noise"), [(dds, {"eta": 0.0}), (diffpir, {"zeta": 0.0})]
)
def test_without_data_and_new_noise_samplers_of_order_two_are_heun_s_method(sampler, no_new_noise):
    nothing = Unmeasured((1, *SHAPE))
    initial = torch.full((2, 1, *SHAPE), 0.3)
    x = 0.3 + 2.0 * draws()()
    options = {"initial": initial, "start_sigma": 2.0, "num_steps": 20, **no_new_noise}
    args = score, SDE, nothing, nothing.nothing(2)
    found = sampler(*args, rng=BatchGenerator(SEEDS), order=2, **options)
    compare(found, heun(x, geometric(20, 2.0)))
    euler = sampler(*args, rng=BatchGenerator(SEEDS), **options)
    error, of_euler = (np.abs(v.numpy() - exact(x, 2.0)).max() for v in (found, euler))
    assert error < of_euler / 4
    with pytest.raises(ValueError, match="expected order 1"):
        sampler(*args, rng=BatchGenerator(SEEDS), order=0, **options)


def test_the_flow_of_daps_by_heun_s_method():
    nothing, draw = Unmeasured((1, *SHAPE)), draws()
    x0 = np.zeros((2, 1, *SHAPE))
    for level in geometric(3, 2.0, 0.1):
        x = x0 + level * draw()
        levels = [level * (SDE.sigma_min / level) ** (i / 4) for i in range(4)]
        x0 = heun(x, levels) + level * draw()
    options = {"start_sigma": 2.0, "end_sigma": 0.1, "num_steps": 3, "inner_steps": 4, "order": 2}
    found = daps(score, SDE, nothing, nothing.nothing(2), rng=BatchGenerator(SEEDS), **options)
    compare(found, x0)
