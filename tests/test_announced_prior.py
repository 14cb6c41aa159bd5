"""A prior that is small or not finished is announced by the commands that use it."""

import numpy as np
import pytest
import torch

from configs import load_config
from configs.reconstruct import get_config
from evaluation.evaluate import evaluate
from evaluation.own.folder import reconstruct_file
from models import checkpoint
from operators.fourier import fft2c
from tests.helpers.tiny_prior import write_prior


@pytest.fixture
def prior(tmp_path):
    """A prior that stopped after half of its training."""
    path = write_prior(tmp_path / "half.pt")
    payload = checkpoint.load(path)
    checkpoint.save(path, payload | {"step": payload["step"] // 2})
    return path


def test_by_evaluate(prior, tmp_path, capsys):
    config = load_config("configs/evaluate.py")
    config.prior, config.limit, config.data.image_size = str(prior), 1, 32
    config.sampler.name, config.sampler.num_steps = "pnp", 3
    with pytest.warns(UserWarning, match="an unfinished prior: step"):
        evaluate(config, tmp_path / "results", "cpu")
    assert "prior: half.pt: a small network of 0.0" in capsys.readouterr().err


def test_by_reconstruct(prior, tmp_path, capsys):
    np.save(tmp_path / "kspace.npy", fft2c(torch.ones(32, 32) + 0j).numpy())
    config = get_config()
    config.prior, config.sampler.num_steps, config.sampler.sigma_y = str(prior), 3, 0.0
    with pytest.warns(UserWarning, match="an unfinished prior: step"):
        reconstruct_file(config, tmp_path / "kspace.npy", tmp_path / "results", "cpu")
    assert "prior: half.pt: a small network of 0.0" in capsys.readouterr().out
