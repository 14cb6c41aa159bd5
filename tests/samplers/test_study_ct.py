"""The study's protocol for CT against its formulas, written out with dense matrices."""

import pytest
import torch

from benchmarks.gaussian_posterior import SDE, SIDE, gaussian_prior
from operators import BatchGenerator, ParallelBeamCT, StudyParallelBeamCT
from samplers import STUDY, STUDY_CT, predictor_corrector

PRIOR = gaussian_prior()
ANGLES = [0.0, 40.0, 110.0]
STEPS, SNR, WEIGHT = 4, 0.16, 0.8
OPERATOR = StudyParallelBeamCT(SIDE, ANGLES)


def dense(function, shape):
    """The matrix of a linear map of images or sinograms of `shape`."""
    size = int(torch.tensor(shape).prod())
    return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T


A = dense(OPERATOR.forward, OPERATOR.domain_shape)
B = dense(OPERATOR.study_adjoint, OPERATOR.range_shape)


def measurement():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(1, *OPERATOR.range_shape, generator=generator, dtype=torch.float64)


def run(operator, y, *, seed=3, **options):
    return predictor_corrector(
        PRIOR.score, SDE, operator, y, rng=BatchGenerator([seed]), num_steps=STEPS, **options
    )


def by_hand(y, initial=None, first=0):
    """What the original code does, x and y as vectors; `first` step of a warm start."""
    rng, flat = BatchGenerator([3]), y.flatten()
    image = torch.zeros(1, *OPERATOR.domain_shape, dtype=torch.float64)

    def noise():
        return rng.normal_like(image).flatten()

    def score(x, level):
        sigma = torch.full((1,), level, dtype=torch.float64)
        return PRIOR.score(x.reshape(image.shape), sigma).flatten()

    def step_to_the_data(x):
        return x + WEIGHT * (B @ (flat - A @ x)) / (B @ A @ torch.ones_like(x))

    sigmas = SDE.sigma(SDE.sampling_times(STEPS)).tolist()
    labels = sigmas
    if initial is None:
        x = SDE.sigma_max * noise()
    else:
        x = initial.flatten() + sigmas[first] * noise()
        ladder = type(SDE)(SDE.sigma_min, sigmas[first], SDE.eps)
        labels = ladder.sigma(SDE.sampling_times(STEPS)).tolist()
    x = B @ (flat - A @ x)
    increments = SDE.increments(STEPS).tolist()
    for i in range(first, STEPS):
        s, z = score(x, labels[i]), noise()
        step = 2 * (SNR * z.norm() / s.norm()) ** 2
        x = step_to_the_data(x + step * s + torch.sqrt(2 * step) * z)
        s = score(x, labels[i])
        x = step_to_the_data(x + increments[i] ** 2 * s + increments[i] * noise())
    return x


@pytest.mark.parametrize("level", [None, 3])
def test_the_whole_run_is_the_originals(level):
    y = measurement()
    options, warm = STUDY_CT["predictor_corrector"] | {"weight": WEIGHT, "snr": SNR}, {}
    if level:
        warm = {"initial": torch.rand(1, 1, SIDE, SIDE, dtype=torch.float64), "start_level": level}
    out = run(OPERATOR, y, **options, **warm)
    expected = by_hand(y, warm.get("initial"), STEPS - level if level else 0)
    torch.testing.assert_close(out.flatten(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [StudyParallelBeamCT, ParallelBeamCT])
def test_the_start_is_the_back_projected_residual_and_nothing_else(kind):
    operator, y = kind(SIDE, ANGLES), measurement()
    nothing = {"predictor": "none", "corrector": "none", "final": "sample"}
    noise = BatchGenerator([3]).normal_like(torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64))
    out = run(operator, y, start="residual", **nothing)
    expected = B @ (y.flatten() - A @ (SDE.sigma_max * noise.flatten()))
    torch.testing.assert_close(out.flatten(), expected, rtol=1e-10, atol=1e-10)
    prior = run(operator, y, **nothing)
    torch.testing.assert_close(prior, operator.correct(SDE.sigma_max * noise, y))


def test_what_ct_does_other_than_mri():
    ours, mri = STUDY_CT["predictor_corrector"], STUDY["predictor_corrector"]
    differing = {name for name in ours.keys() | mri.keys() if ours.get(name) != mri.get(name)}
    assert differing == {"start", "final"}
    assert all(STUDY_CT[name] == STUDY[name] for name in STUDY if name != "predictor_corrector")
