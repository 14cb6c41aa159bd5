"""What has to hold on a GPU; skipped without one (training_scripts/gpu.sh runs these first)."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint import find_latest, load, load_prior
from operators import BatchGenerator, MultiCoilMRI, ParallelBeamCT, SingleCoilMRI
from operators.masks import make_mask
from samplers import SAMPLERS
from train import train

pytestmark = pytest.mark.gpu

SIDE = 64
CALLS = {"predictor_corrector": 20, "annealed_langevin": 20}
RELATIVE = 2e-3  # float32 convolutions of other kernels, over a run of steps


@pytest.fixture(autouse=True)
def exact_products():
    """No 19-bit products: the CPU is compared with."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def image() -> torch.Tensor:
    axis = torch.linspace(-1, 1, SIDE)
    disc = (axis[:, None] ** 2 + axis[None] ** 2 < 0.6).float()
    return (disc * (0.6 + 0.3 * torch.cos(6 * axis)[:, None]))[None, None]  # (1, 1, H, W)


def measurement(kind: str):
    x = image()
    if kind == "ct":
        operator = ParallelBeamCT(SIDE, np.arange(20) * 9.0)
        return operator, operator.forward(x)
    mask = make_mask("gaussian1d", (SIDE, SIDE), seed=0, acceleration=4, center_fraction=0.08)
    if kind == "mri":
        operator = SingleCoilMRI(mask)
        return operator, operator.forward(x)
    ramp = torch.linspace(0.2, 1, SIDE)
    maps = torch.stack([ramp[:, None] * torch.ones(SIDE), (1.2 - ramp)[None] * torch.ones(SIDE, 1)])
    maps = (maps / maps.square().sum(0).sqrt()).to(torch.complex64)[None]  # (1, 2, H, W)
    operator = MultiCoilMRI(mask, maps)
    return operator, operator.forward(x.to(torch.complex64))


@pytest.mark.parametrize("kind", ["mri", "ct", "coils"])
@pytest.mark.parametrize("name", ["pnp", "dds", "diffpir", "dps", "predictor_corrector"])
def test_a_sampler_gives_what_it_gives_on_the_cpu(name, kind):
    operator, y = measurement(kind)
    results = []
    for device in ("cpu", "cuda"):
        score, sde = load_prior("natural_small", device)
        results.append(
            SAMPLERS[name](
                score,
                sde,
                operator.to(device),
                y.to(device),
                rng=BatchGenerator([0]),
                num_steps=CALLS.get(name, 10),
            ).cpu()
        )
    difference = (results[1] - results[0]).norm() / results[0].norm()
    assert difference < RELATIVE


def test_samples_of_a_batch_are_independent():
    score, sde = load_prior("natural_small", "cuda")
    operator, y = measurement("mri")
    operator, y = operator.to("cuda"), y.to("cuda")
    both = SAMPLERS["dds"](
        score, sde, operator, torch.cat([y, 2 * y]), rng=BatchGenerator([1, 2]), num_steps=10
    )
    alone = SAMPLERS["dds"](score, sde, operator, 2 * y, rng=BatchGenerator([2]), num_steps=10)
    assert (both[1:] - alone).norm() / alone.norm() < RELATIVE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype):
    exact, _ = load_prior("natural_small", "cuda")
    half, _ = load_prior("natural_small", "cuda", autocast=dtype)
    x = image().cuda() + 0.1 * torch.randn(1, 1, SIDE, SIDE).cuda()
    sigma = torch.full((1,), 0.1, device="cuda")
    expected = exact(x, sigma)
    assert 0 < (half(x, sigma) - expected).norm() / expected.norm() < 0.02


def test_compiled_network_is_the_network():
    eager, _ = load_prior("natural_small", "cuda")
    compiled, _ = load_prior("natural_small", "cuda", compiled=True)
    x, sigma = image().cuda(), torch.full((1,), 0.1, device="cuda")
    expected = eager(x, sigma)
    assert (compiled(x, sigma) - expected).norm() / expected.norm() < RELATIVE


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns_and_continues(tiny_config, tmp_path: Path, precision):
    tiny_config.training.precision = precision
    tiny_config.training.num_steps = 40
    tiny_config.training.batch_size = 8
    tiny_config.optim.lr = 2e-3
    tiny_config.training.checkpoint_every = tiny_config.training.reconstruct_every = 20
    tiny_config.training.reconstruct_from = "mri,ct"
    train(tiny_config, tmp_path, "cuda")
    tiny_config.training.num_steps = 60
    train(tiny_config, tmp_path, "cuda")
    with (tmp_path / "log.csv").open(newline="") as file:
        losses = [float(row["loss_per_pixel"]) for row in csv.DictReader(file)]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])
    assert load(find_latest(tmp_path / "checkpoints"))["step"] == 60
    with (tmp_path / "reconstructions.csv").open(newline="") as file:
        psnr = [float(row["psnr"]) for row in csv.DictReader(file)]
    assert len(psnr) == 3 * 2 * 4 * 3  # steps, measurements, images, methods
    assert np.isfinite(psnr).all()
