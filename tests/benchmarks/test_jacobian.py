"""What a denoiser's Jacobian lacks to be a covariance, of matrices that are known."""

import pytest
import torch

from benchmarks import jacobian
from benchmarks.gaussian_posterior import SIDE, gaussian_prior

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_exact_score_has_the_posterior_covariance():
    prior, sigma = gaussian_prior(), 0.3
    x = torch.linspace(-1, 1, SIDE**2, dtype=torch.float64).reshape(1, 1, SIDE, SIDE)
    clean, matrix = jacobian.jacobian(prior.score, x, sigma)
    gain = prior.covariance @ torch.linalg.inv(
        prior.covariance + sigma**2 * torch.eye(SIDE**2, dtype=torch.float64)
    )
    torch.testing.assert_close(matrix, gain, rtol=1e-10, atol=1e-10)
    expected = prior.mean + gain @ (x.flatten() - prior.mean)
    torch.testing.assert_close(clean.flatten(), expected, rtol=1e-10, atol=1e-10)
    found = jacobian.shape(matrix)
    assert found.antisymmetric < 1e-10
    assert found.below_zero == 0
    assert found.mean == pytest.approx(float(gain.trace()) / SIDE**2)


def test_a_matrix_by_hand():
    found = jacobian.shape(torch.tensor([[3.0, 1.0], [-1.0, -1.0]]))
    assert found == pytest.approx(((2 / 10) ** 0.5, -1.0, 3.0, 1.0, 1 / 3))


def test_each_row_is_the_gradient_of_one_output():
    weights = torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(x, sigma):
        return ((x.flatten(1) @ weights.T).reshape(x.shape) - x) / sigma[:, None, None, None] ** 2

    x = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(jacobian.jacobian(score, x, 0.5)[1], weights)


def test_the_command_prints_a_row_for_each_image_and_level(capsys, monkeypatch):
    monkeypatch.setattr(jacobian, "SIDE", 8)
    jacobian.main(["natural_small", "--subsets", "natural", "brain", "--sigmas", "0.1", "0.3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4
    numbers = [float(cell) for cell in lines[2].split("|")[4:-1]]
    assert 0 < numbers[0] < 1
    assert numbers[1] < numbers[3] < numbers[2]
