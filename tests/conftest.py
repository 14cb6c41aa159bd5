"""Shared fixtures: where the reference vectors lie, one thread a worker, small configs."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT.parent / "shared" / "reference"

# seconds that anything may take: ends a hang, decides nothing else, on the slowest machine
PATIENCE = 900

# the same examples each time: a test that fails, fails for everybody
hypothesis.settings.register_profile("seeded", derandomize=True, deadline=None)
hypothesis.settings.load_profile("seeded")

# pytest-xdist runs a process a core; more threads than cores would only get in each other's way
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run tests that take minutes")


def pytest_collection_modifyitems(config, items):
    skips = {
        "slow": None if config.getoption("--slow") else "takes minutes; run with --slow",
        "gpu": None if torch.cuda.is_available() else "no CUDA device",
    }
    for item in items:
        for marker, reason in skips.items():
            if reason and marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded():
    """Draws without a generator do not depend on the tests that ran before."""
    torch.manual_seed(0)


@pytest.fixture
def one_thread():
    """For tiny networks and images, which are slower on two, and for processes that are forked."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def reference():
    """A function that loads ``shared/reference/NAME.npz`` as a dict of arrays."""

    def load(name: str) -> dict[str, np.ndarray]:
        path = REFERENCE / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"no reference vectors: expected {name}.npz in ../shared/reference")
        with np.load(path) as file:
            return dict(file)

    return load


@pytest.fixture
def tiny_config():
    """A training config of the smallest useful network on embedded data."""
    from configs import load_config

    config = load_config(str(ROOT / "configs" / "demo.py"))
    config.model.nf = 8
    config.model.num_res_blocks = 1
    config.data.crop = 16
    config.training.batch_size = 2
    config.training.num_steps = 4
    config.training.log_every = 1
    config.training.checkpoint_every = 2
    config.training.validate_every = 0
    config.training.sample_every = 0
    return config
