"""Measurements whose noise differs from number to number."""

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import ParallelBeamCT, SingleCoilMRI, Whitened
from operators.dual import solve_dual
from operators.whitened import noise_weights

VIEWS = np.arange(0.0, 180.0, 20.0)


def _operator() -> ParallelBeamCT:
    return ParallelBeamCT(8, VIEWS)


def _std(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.exp(torch.randn((batch, 1, 9, 12), generator=generator, dtype=torch.float64))


def test_noise_is_white_of_the_level_that_the_weights_name():
    std = _std(2)
    weights, level = noise_weights(std)
    assert torch.allclose(weights * std, level[:, None, None, None].expand_as(std))
    assert torch.allclose(weights.log().mean((1, 2, 3)), torch.zeros(2, dtype=torch.float64))


def test_a_data_step_is_weighted_least_squares():
    """Against the normal equations, solved as a dense matrix."""
    operator, std = _operator(), _std(2)
    weights, level = noise_weights(std)
    generator = torch.Generator().manual_seed(5)
    x0 = torch.randn((2, 1, 8, 8), generator=generator, dtype=torch.float64)
    y = operator.forward(x0) + std * torch.randn(std.shape, generator=generator).double()
    whitened = Whitened(operator, weights)
    found = solve_dual(
        whitened, weights * y, x0, regularization=level**2 / 0.3**2, max_iterations=500
    )
    matrix = operator.forward(torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)).flatten(1).T
    for b in range(2):
        inverse = torch.diag(1 / std[b].flatten() ** 2)
        left = matrix.T @ inverse @ matrix + torch.eye(64, dtype=torch.float64) / 0.3**2
        right = matrix.T @ inverse @ y[b].flatten() + x0[b].flatten() / 0.3**2
        expected = torch.linalg.solve(left, right).reshape(1, 8, 8)
        assert (found.x[b] - expected).norm() < 1e-4 * expected.norm()


def test_few_steps_suffice_where_the_noise_of_rays_differs_by_factors():
    """Against the same filter without regard to the weights, and none of the rays by itself."""
    operator = ParallelBeamCT(32, np.arange(0.0, 180.0, 10.0))
    generator = torch.Generator().manual_seed(7)
    x0 = torch.rand((1, 1, 32, 32), generator=generator, dtype=torch.float64)
    thickness = operator.forward(torch.ones_like(x0))
    std = 0.1 * torch.exp(0.12 * thickness)  # some rays see 40 times the noise of others
    weights, level = noise_weights(std)
    y = operator.forward(x0) + std * torch.randn(std.shape, generator=generator).double()
    whitened = Whitened(operator, weights)
    penalty = level**2 / 0.3**2

    def error(steps: int, chosen: Whitened) -> float:
        options = {"regularization": penalty, "tolerance": 0.0}
        exact = solve_dual(whitened, weights * y, x0, max_iterations=300, **options).x
        found = solve_dual(chosen, weights * y, x0, max_iterations=steps, **options).x
        return float((found - exact).norm() / (exact - x0).norm())

    assert error(3, whitened) < 0.5 * error(3, _Plain(operator, weights))


class _Plain(Whitened):
    """One regularization for all rays in the filter."""

    def gram_inverse(self, regularization: Tensor):
        mean = regularization / self.weights.square().mean()
        inner = self.operator.gram_inverse(mean)
        return lambda r: inner(r / self.weights) / self.weights


def test_direct_and_correct_do_not_depend_on_weights():
    operator = _operator()
    weights = noise_weights(_std(1))[0]
    whitened = Whitened(operator, weights)
    x = torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    y = operator.forward(x)
    assert torch.allclose(whitened.direct(weights * y), operator.direct(y))
    assert torch.allclose(whitened.correct(x / 2, weights * y), operator.correct(x / 2, y))
    assert whitened.facts() == operator.facts()


def test_weights_are_checked():
    operator = SingleCoilMRI(torch.ones(4, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected weights of shape"):
        Whitened(operator, torch.ones(1, 1, 6, 4))
    with pytest.raises(ValueError, match="positive, finite"):
        Whitened(operator, torch.zeros(1, 1, 4, 6))
    per_sample = SingleCoilMRI(torch.ones(3, 1, 4, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected weights of shape"):
        Whitened(per_sample, torch.ones(2, 1, 4, 6))
