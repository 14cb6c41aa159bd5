"""The comparison with Gibbs samples, on Gaussian increments, whose posterior is known."""

import pytest
import torch

from benchmarks import levy
from benchmarks.levy import Cell, as_operator, compare, gibbs, make_cell


def exact(cell: Cell) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior mean ``(B, d)`` and covariance of Gaussian increments of variance 0.25."""
    steps = torch.ones(levy.LENGTH, levy.LENGTH, dtype=torch.float64).tril()
    prior = 0.25 * steps @ steps.T
    gain = prior @ cell.matrix.T
    spread = cell.matrix @ gain + cell.noise**2 * torch.eye(len(cell.matrix)).double()
    back = torch.linalg.solve(spread, gain.T)
    return cell.y @ back, prior - gain @ back


def draws(cell: Cell, part: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean, and samples with `part` of the posterior's standard deviation."""
    mean, covariance = exact(cell)
    normal = torch.randn(
        levy.COUNT, *mean.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    return mean, mean + part * normal @ torch.linalg.cholesky(covariance).T


@pytest.mark.parametrize("operator", levy.OPERATORS)
def test_exact_samples_pass_and_others_do_not(operator):
    cell = make_cell("gauss", operator, 400, seed=0)
    mean, samples = draws(cell)
    found = compare(cell, samples, mean)
    assert abs(found["gap"]) < 3 * found["gap_error"] + 0.02
    assert abs(found["coverage"] - 0.9) < 0.05
    narrow = compare(cell, draws(cell, 0.7)[1], mean)
    assert narrow["coverage"] < 0.6
    away = compare(cell, samples + 0.3 * (cell.x - mean), mean)  # towards the truth: too good
    assert away["gap"] < -1


def test_gibbs_has_the_posterior_mean_and_variance(monkeypatch):
    monkeypatch.setattr(levy, "BURN_IN", 5)  # none is needed for Gaussian increments
    cell = make_cell("gauss", "fourier", 8, seed=0)
    mean, covariance = exact(cell)
    found, samples = gibbs(cell, 1, sweeps=100)
    spread = covariance.diagonal().sqrt()
    assert ((found - mean).abs() / spread).max() < 0.5  # 5 standard errors of 100
    variance = (samples - mean).square().mean((0, 1)) / spread**2
    assert variance.mean() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("operator", levy.OPERATORS)
def test_operators(operator):
    matrix = levy.OPERATORS[operator]()
    made = as_operator(matrix)  # which tests its adjoint
    x = torch.randn(2, 1, 1, levy.LENGTH, dtype=torch.float64)
    assert torch.allclose(made.forward(x)[:, 0, 0], x[:, 0, 0] @ matrix.T)
    if operator in ("imputation", "fourier"):
        assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)).double(), atol=1e-12)
        assert 20 < len(matrix) < 40
    if operator == "deconvolution":
        assert torch.allclose(matrix.sum(1), torch.ones(levy.LENGTH).double())
        assert torch.allclose(matrix, matrix.T)


def test_a_row_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(levy, "SWEEPS", 40)
    monkeypatch.setattr(levy, "BURN_IN", 5)
    monkeypatch.setattr(levy, "RUNS", {"dds": ({"cg_steps": 10}, 12)})
    arguments = f"levy --out={tmp_path} --signals=20 --increments=gauss --operators=denoising"
    monkeypatch.setattr("sys.argv", [*arguments.split(), "--samplers=gibbs; dds"])
    levy.main()
    first = capsys.readouterr().out
    assert "| dds | gauss | denoising | 12 |" in first
    levy.main()  # nothing is missing: the table alone
    assert capsys.readouterr().out == first[first.index("| sampler") :]
    monkeypatch.setattr("sys.argv", [*arguments.split(), "--samplers=nobody"])
    with pytest.raises(SystemExit):
        levy.main()
    assert "unknown: nobody" in capsys.readouterr().err
