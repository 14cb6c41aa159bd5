"""The filtered proximal step of tomography against dense linear algebra and plain gradients."""

import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from operators import FanBeamCT, ParallelBeamCT, SingleCoilMRI
from operators.batch import norm
from operators.ct import few_view_angles
from operators.dual import solve_dual
from operators.solvers import solve_normal_equations
from samplers.denoise import CG_STEPS, FILTERED_STEPS, data_step

GEOMETRIES = {
    "few parallel views": ParallelBeamCT((7, 6), [0.0, 40.0, 110.0]),
    "fine bins": ParallelBeamCT(6, few_view_angles(4), bin_spacing=0.5),
    "fan": FanBeamCT(6, few_view_angles(4, 360.0), source_distance=12, detector_distance=6,
                     num_bins=14, bin_spacing=1.2),
    "more rays than pixels": ParallelBeamCT(6, few_view_angles(20)),
}  # fmt: skip


@pytest.fixture(params=GEOMETRIES, name="operator")
def _operator(request):
    return GEOMETRIES[request.param]


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def columns(function, shape):
    """The matrix of a linear function of ``(1, *shape)``."""
    size = int(np.prod(shape))
    units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return function(units).flatten(1).T


def test_the_filter_is_symmetric_and_positive(operator):
    for weight in (0.0, 3.0):
        m = columns(operator.gram_inverse(torch.tensor([weight])), operator.range_shape)
        torch.testing.assert_close(m, m.T)
        assert torch.linalg.eigvalsh(m).min() > 0


def test_minimises_the_regularised_residual(operator):
    y, x0 = randn(3, *operator.range_shape), randn(3, *operator.domain_shape, seed=1)
    weights = torch.tensor([0.05, 0.5, 30.0], dtype=torch.float64)
    found = solve_dual(operator, y, x0, regularization=weights, max_iterations=500, tolerance=1e-12)
    assert found.converged.all()
    assert len(set(found.iterations.tolist())) > 1  # the samples stop on their own
    a = columns(operator.forward, operator.domain_shape)
    normal = a.T @ a + weights[:, None, None] * torch.eye(a.shape[1])
    expected = torch.linalg.solve(normal, y.flatten(1) @ a + weights[:, None] * x0.flatten(1))
    torch.testing.assert_close(found.x.flatten(1), expected, rtol=1e-8, atol=1e-8)


def test_without_regularisation_gives_the_nearest_solution(operator):
    x0 = randn(2, *operator.domain_shape)
    y = operator.forward(randn(2, *operator.domain_shape, seed=1))
    found = solve_dual(operator, y, x0, max_iterations=500, tolerance=1e-12)
    inverse = torch.linalg.pinv(columns(operator.forward, operator.domain_shape))
    expected = x0.flatten(1) + (y - operator.forward(x0)).flatten(1) @ inverse.T
    torch.testing.assert_close(found.x.flatten(1), expected, rtol=1e-6, atol=1e-6)


def test_a_measurement_that_no_image_has_gives_weighted_least_squares():
    operator = GEOMETRIES["more rays than pixels"]
    y, x0 = randn(2, *operator.range_shape), randn(2, *operator.domain_shape, seed=1)
    found = solve_dual(operator, y, x0, max_iterations=500, tolerance=1e-12)
    a = columns(operator.forward, operator.domain_shape)
    m = columns(operator.gram_inverse(torch.zeros(1)), operator.range_shape)
    expected = torch.linalg.solve(a.T @ m @ a, a.T @ m @ y.flatten(1).T).T
    torch.testing.assert_close(found.x.flatten(1), expected, rtol=1e-6, atol=1e-6)


def test_samples_do_not_mix(operator):
    y, x0 = randn(3, *operator.range_shape), randn(3, *operator.domain_shape, seed=1)
    y[1] *= 1e3
    y[2], x0[2] = 0, 0  # finished before it begins
    weights = torch.tensor([0.0, 0.5, 0.1])
    together = solve_dual(operator, y, x0, regularization=weights, max_iterations=4)
    assert together.iterations[2] == 0
    assert torch.equal(together.x[2], x0[2])
    for b in range(3):
        one = slice(b, b + 1)
        alone = solve_dual(operator, y[one], x0[one], regularization=weights[one], max_iterations=4)
        torch.testing.assert_close(alone.x[0], together.x[b], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "views"), [((64, 64), 20), ((80, 96), 30)])
def test_three_filtered_steps_come_as_near_as_eight_plain_ones(views, size):
    operator = ParallelBeamCT(size, few_view_angles(views))
    image = torch.from_numpy(resize(shepp_logan_phantom(), size)).float()[None, None]
    y, start = operator.forward(image), torch.zeros_like(image)
    exact = solve_normal_equations(
        operator, y.double(), max_iterations=2000, tolerance=1e-10
    ).x.float()

    def filtered(steps):
        x = data_step(operator, y, start, torch.ones(1), sigma_y=0.0, cg_steps=steps)
        return float(norm(x - exact) / norm(exact))

    def plain(steps):
        x = solve_normal_equations(operator, y, max_iterations=steps).x
        return float(norm(x - exact) / norm(exact))

    # 1.007 and 0.79 of it; two filtered steps 1.14 and 0.96
    assert filtered(FILTERED_STEPS) < 1.07 * plain(CG_STEPS)
    # 0.32 and 0.24 of it; without the filter 1
    assert filtered(FILTERED_STEPS) < 0.5 * plain(FILTERED_STEPS)
    assert filtered(None) == pytest.approx(filtered(FILTERED_STEPS), rel=1e-4)


def test_noise_and_more_rays_than_pixels_do_not_make_it_diverge():
    operator = ParallelBeamCT(32, few_view_angles(90))
    image = torch.from_numpy(resize(shepp_logan_phantom(), (32, 32)))[None, None]
    y = operator.forward(image) + randn(1, *operator.range_shape)
    errors = [
        norm(solve_dual(operator, y, image, max_iterations=n).x - image) for n in (1, 3, 10, 100)
    ]
    exact = columns(operator.forward, operator.domain_shape)
    m = columns(operator.gram_inverse(torch.zeros(1)), operator.range_shape)
    noise = y.flatten(1) - operator.forward(image).flatten(1)
    converged = torch.linalg.solve(exact.T @ m @ exact, exact.T @ m @ noise.T).norm()
    assert max(errors) < 1.01 * converged


def test_errors():
    mri = SingleCoilMRI(torch.ones(4, 4, dtype=torch.bool))
    y, x = torch.zeros(1, 1, 4, 4, dtype=torch.complex64), torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="no gram_inverse"):
        solve_dual(mri, y, x)
    ct = GEOMETRIES["few parallel views"]
    y, x = torch.zeros(2, *ct.range_shape), torch.zeros(2, *ct.domain_shape)
    with pytest.raises(ValueError, match="regularization of 0 or more"):
        solve_dual(ct, y, x, regularization=-1.0)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        solve_dual(ct, y, x, regularization=torch.ones(3))
