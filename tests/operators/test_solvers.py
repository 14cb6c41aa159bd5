"""Conjugate gradients and the power method against dense linear algebra."""

import pytest
import torch

from operators import Inpainting, ParallelBeamCT, SingleCoilMRI, SuperResolution
from operators.solvers import conjugate_gradient, power_method, solve_normal_equations

BATCH, SIZE = 4, 12


def _systems(dtype, condition=(1.5, 10.0, 100.0, 1.0)):
    """Positive definite matrices ``(B, n, n)``, of different conditions, and right sides."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(BATCH, SIZE, SIZE, generator=generator, dtype=dtype)
    basis = torch.linalg.qr(square).Q
    spectra = torch.stack([torch.logspace(0, torch.tensor(c).log10(), SIZE) for c in condition])
    matrices = basis @ torch.diag_embed(spectra.to(dtype)) @ basis.mH
    return matrices, torch.randn(BATCH, SIZE, generator=generator, dtype=dtype)


def _times(matrices):
    # A product for each sample, so that the batch can not change its rounding.
    return lambda x: torch.stack([m @ v for m, v in zip(matrices, x, strict=True)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("with_start", [False, True])
def test_conjugate_gradient_solves(dtype, with_start):
    matrices, rhs = _systems(dtype)
    x0 = torch.ones_like(rhs) if with_start else None
    solution = conjugate_gradient(_times(matrices), rhs, x0=x0, tolerance=1e-12)
    expected = torch.linalg.solve(matrices, rhs)
    torch.testing.assert_close(solution.x, expected, rtol=1e-9, atol=1e-9)
    assert solution.converged.all()
    assert (solution.residual <= 1e-12).all()
    actual = torch.linalg.vector_norm(rhs - _times(matrices)(solution.x), dim=1)
    assert (actual <= 1e-11 * torch.linalg.vector_norm(rhs, dim=1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_samples_are_frozen_when_they_converge(dtype):
    matrices, rhs = _systems(dtype)
    together = conjugate_gradient(_times(matrices), rhs, tolerance=1e-4)
    assert len(set(together.iterations.tolist())) > 2  # they do stop at different times
    for i in range(BATCH):
        one = slice(i, i + 1)
        alone = conjugate_gradient(_times(matrices[one]), rhs[one], tolerance=1e-4)
        for joint, single in zip(together, alone, strict=True):
            torch.testing.assert_close(joint[one], single, rtol=1e-5, atol=1e-6)


def test_iterations_run_out():
    matrices, rhs = _systems(torch.float64)
    solution = conjugate_gradient(_times(matrices), rhs, max_iterations=3, tolerance=1e-12)
    assert solution.iterations.tolist() == [3, 3, 3, 1]
    assert solution.converged.tolist() == [False, False, False, True]
    untouched = conjugate_gradient(_times(matrices), rhs, max_iterations=0)
    assert torch.equal(untouched.x, torch.zeros_like(rhs))
    torch.testing.assert_close(untouched.residual, torch.ones(BATCH, dtype=torch.float64))


def test_zero_right_side_stays_zero():
    matrices, rhs = _systems(torch.float64)
    rhs[1] = 0
    solution = conjugate_gradient(_times(matrices), rhs, tolerance=1e-12)
    assert solution.iterations[1] == 0
    assert torch.equal(solution.x[1], torch.zeros(SIZE, dtype=torch.float64))
    assert torch.isfinite(solution.x).all()
    assert solution.converged.all()


def test_tolerance_zero_does_not_break_down():
    matrices, rhs = _systems(torch.float32)
    solution = conjugate_gradient(_times(matrices), rhs, max_iterations=200, tolerance=0.0)
    assert solution.converged.all()  # rounding is all that is left
    assert solution.iterations.max() < 200
    expected = torch.linalg.solve(matrices, rhs)
    torch.testing.assert_close(solution.x, expected, rtol=1e-3, atol=1e-3)


def _numbers(operator, y):
    """Measurements as rows ``(B, M)``, of real numbers where images are real."""
    rows = y.flatten(1)
    if operator.range_complex and not operator.domain_complex:
        rows = torch.cat([rows.real, rows.imag], dim=1)
    return rows


def _dense(operator):
    """A as a matrix ``(M, N)`` over the numbers of the image."""
    size = torch.Size(operator.domain_shape).numel()
    units = torch.eye(size, dtype=_dtype(operator.domain_complex))
    return _numbers(operator, operator.forward(units.reshape(size, *operator.domain_shape))).T


def _dtype(is_complex):
    return torch.complex128 if is_complex else torch.float64


@pytest.mark.parametrize(
    "operator",
    [
        SingleCoilMRI(torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) < 0.5, False),
        SingleCoilMRI(torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) < 0.5),
        ParallelBeamCT(6, [0.0, 40.0, 110.0]),
        SuperResolution((4, 6), 2),
    ],
    ids=lambda operator: type(operator).__name__,
)
class TestNormalEquations:
    def test_minimises_the_regularised_residual(self, operator):
        y = torch.randn(3, *operator.range_shape, dtype=_dtype(operator.range_complex))
        x0 = torch.randn(3, *operator.domain_shape, dtype=_dtype(operator.domain_complex))
        weights = torch.tensor([0.05, 0.5, 3.0], dtype=torch.float64)
        solution = solve_normal_equations(
            operator, y, regularization=weights, x0=x0, tolerance=1e-13
        )
        assert solution.converged.all()
        a = _dense(operator)
        normal = a.mH @ a + weights[:, None, None] * torch.eye(a.shape[1])  # (3, N, N)
        rhs = _numbers(operator, y) @ a.conj() + weights[:, None] * x0.flatten(1)
        expected = torch.linalg.solve(normal, rhs)
        torch.testing.assert_close(solution.x.flatten(1), expected, rtol=1e-9, atol=1e-9)

    def test_without_regularisation_gives_the_nearest_solution(self, operator):
        x0 = torch.randn(2, *operator.domain_shape, dtype=_dtype(operator.domain_complex))
        y = operator.forward(torch.randn_like(x0))
        solution = solve_normal_equations(operator, y, x0=x0, tolerance=1e-12)
        residual = _numbers(operator, y - operator.forward(x0))
        expected = x0.flatten(1) + residual @ torch.linalg.pinv(_dense(operator)).T
        torch.testing.assert_close(solution.x.flatten(1), expected, rtol=1e-7, atol=1e-7)

    def test_power_method_finds_the_norm(self, operator):
        expected = torch.linalg.matrix_norm(_dense(operator), 2)
        actual = power_method(operator, num_iterations=300, dtype=torch.float64)
        assert actual.shape == (1,)
        torch.testing.assert_close(actual[0], expected, rtol=1e-5, atol=0)


def test_power_method_in_another_metric():
    """sqrt of the largest eigenvalue of A^H M A."""
    operator = ParallelBeamCT(6, [0.0, 40.0, 110.0])
    metric = operator.gram_inverse(torch.zeros(1, dtype=torch.float64))
    found = power_method(operator, metric=metric, num_iterations=300, dtype=torch.float64)
    a = _dense(operator)
    size = torch.Size(operator.range_shape).numel()
    units = torch.eye(size, dtype=torch.float64).reshape(size, *operator.range_shape)
    m = metric(units).flatten(1)
    expected = torch.linalg.eigvalsh(a.T @ m @ a).max().sqrt()
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=0)


def test_power_method_per_sample():
    masks = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(3)) < 0.5
    operator = SingleCoilMRI(masks)
    together = power_method(operator, num_iterations=50, seed=5)
    assert together.shape == (3,)
    for i in range(3):
        torch.testing.assert_close(
            power_method(operator[i], num_iterations=50, seed=5)[0], together[i]
        )
    again = power_method(operator, num_iterations=50, seed=5)
    assert torch.equal(together, again)


def test_inpainting_keeps_x0_where_nothing_is_measured():
    mask = torch.tensor([[True, False], [False, True]])
    x0 = torch.full((1, 1, 2, 2), 7.0)
    y = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]])
    solution = solve_normal_equations(Inpainting(mask), y, x0=x0)
    torch.testing.assert_close(solution.x[0, 0], torch.tensor([[1.0, 7.0], [7.0, 2.0]]))


def test_gradients_flow_through_the_solution():
    matrices, rhs = _systems(torch.float64, condition=(2.0, 2.0, 2.0, 2.0))
    rhs.requires_grad_()
    solution = conjugate_gradient(_times(matrices), rhs, tolerance=1e-13)
    (gradient,) = torch.autograd.grad(solution.x.sum(), rhs)
    expected = torch.linalg.solve(matrices, torch.ones_like(rhs))
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)


def test_errors():
    matrices, rhs = _systems(torch.float64)
    with pytest.raises(ValueError, match=r"expected x0 of shape \(4, 12\), got \(4, 3\)"):
        conjugate_gradient(_times(matrices), rhs, x0=rhs[:, :3])
    with pytest.raises(ValueError, match="expected max_iterations of 0 or more, got -1"):
        conjugate_gradient(_times(matrices), rhs, max_iterations=-1)
    with pytest.raises(ValueError, match="expected a tolerance of 0 or more, got nan"):
        conjugate_gradient(_times(matrices), rhs, tolerance=float("nan"))
    operator, y = SuperResolution((4, 4), 2), torch.zeros(2, 1, 2, 2)
    with pytest.raises(ValueError, match="expected regularization of 0 or more, got -1"):
        solve_normal_equations(operator, y, regularization=-1.0)
    with pytest.raises(ValueError, match=r"expected regularization .* of shape \(2,\)"):
        solve_normal_equations(operator, y, regularization=torch.ones(3))
    with pytest.raises(ValueError, match="expected at least 1 iteration, got 0"):
        power_method(operator, num_iterations=0)


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_rounding_in_the_null_space_does_not_grow(tolerance):
    """Semi-definite systems in float32, iterated on beyond what the precision can give."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(64, 64, generator=generator) < 0.25
    mask[32, 32] = True
    operator = SingleCoilMRI(mask)  # real images: A^H A is no projection, and singular
    x0 = torch.rand(2, 1, 64, 64, generator=generator)
    y = operator.forward(torch.rand(2, 1, 64, 64, generator=generator))
    exact = solve_normal_equations(
        operator, y.to(torch.complex128), x0=x0.double(), max_iterations=50, tolerance=1e-12
    )
    for start in (x0, exact.x.float()):  # the second one meets the data already
        found = solve_normal_equations(
            operator, y, x0=start, max_iterations=200, tolerance=tolerance
        )
        assert (found.x - exact.x).norm() < 1e-4 * exact.x.norm()
