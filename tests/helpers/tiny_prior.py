"""A prior to evaluate with, without training: a small network with random weights."""

from pathlib import Path

import torch

from configs import load_config
from models import checkpoint, create_model
from tests.conftest import ROOT


def write_prior(path: Path, seed: int = 0) -> Path:
    """A checkpoint file of the demo's architecture with 8 channels."""
    config = load_config(str(ROOT / "configs" / "demo.py"))
    config.model.nf, config.model.num_res_blocks = 8, 1
    net = create_model(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # the last layer starts at 0, and a score of 0 has no step size
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    state = net.state_dict()
    payload = {
        "config": config.to_dict(),
        "model": state,
        "ema": state,
        "step": config.training.num_steps,
    }
    checkpoint.save(path, payload)
    return path
