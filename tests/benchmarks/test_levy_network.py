"""Denoisers of Lévy processes that are learnt: against the exact one of Gaussian increments."""

import pytest
import torch

from benchmarks import levy, levy_network
from benchmarks.levy_process import INCREMENTS, denoise
from sde import VESDE

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH, SDE = 16, VESDE(0.1, 5.0)


def test_a_short_training_comes_near_to_the_exact_denoiser(tmp_path):
    increments, path = INCREMENTS["gauss"], tmp_path / "gauss.pt"
    options = {"length": LENGTH, "size": 1.4, "width": 16}
    net = levy_network.kept(path, increments, SDE, steps=250, **options)
    generator = torch.Generator().manual_seed(1)
    x = increments.draw((1000, LENGTH), generator).cumsum(-1)
    for level, most in ((0.3, 1.1), (1.0, 1.2)):
        sigma = torch.full((len(x),), level, dtype=torch.float64)
        noisy = x + level * torch.randn(x.shape, generator=generator)
        best = denoise(increments, noisy, sigma, generator).mean.T
        found = net(noisy.float(), sigma.float())
        errors = [float((d - x).square().mean()) for d in (found, best, noisy)]
        assert errors[0] < most * errors[1]
        assert errors[2] > 1.3 * errors[1]
    again = levy_network.kept(path, increments, SDE, steps=1, **options)  # from the file
    assert torch.equal(again(noisy.float(), sigma.float()), found)


def test_its_score_is_that_of_the_denoiser_and_can_be_differentiated():
    torch.manual_seed(0)
    net = levy_network.Denoiser(1.4, width=8)
    x = torch.randn(3, 1, 1, LENGTH, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    score = levy_network.score_of(net)(x, sigma)
    assert score.dtype == torch.float64
    expected = net(x[:, 0, 0].float(), sigma.float())[:, None, None]
    found = x + sigma.reshape(-1, 1, 1, 1) ** 2 * score
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert gradient.shape == x.shape
    assert gradient.isfinite().all()


def test_both_denoisers_have_a_table_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(levy, "SWEEPS", 40)
    monkeypatch.setattr(levy, "BURN_IN", 5)
    monkeypatch.setattr(levy, "SIZED", 50)
    monkeypatch.setattr(levy, "RUNS", {"dds": ({"cg_steps": 10}, 12)})
    monkeypatch.setattr(levy_network, "STEPS", 3)
    arguments = f"levy --out={tmp_path} --signals=20 --increments=gauss --operators=denoising"
    for denoiser in ("exact", "learnt"):
        given = [*arguments.split(), "--samplers=dds", f"--denoiser={denoiser}"]
        monkeypatch.setattr("sys.argv", given)
        levy.main()
    assert (tmp_path / "network_gauss.pt").exists()
    exact, learnt = ((tmp_path / f"{name}.csv").read_text() for name in ("levy", "learnt"))
    assert exact.split()[0] == learnt.split()[0]
    assert exact != learnt
