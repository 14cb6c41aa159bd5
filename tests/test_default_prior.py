"""Which shipped prior reconstruct.py takes where none is named."""

from pathlib import Path

import numpy as np
import pytest
import torch

import reconstruct as program
from configs.reconstruct import get_config
from evaluation.own.folder import reconstruct_file
from operators import FunctionOperator, ParallelBeamCT
from operators.fourier import fft2c
from sde import VESDE, Prior


def shrink(x, sigma):
    return -x / (0.1 + sigma[:, None, None, None] ** 2)


@pytest.fixture
def asked(monkeypatch):
    """The names of the priors that are loaded; none of them is."""
    names = []

    def load(name, *_, **__):
        names.append(Path(getattr(name, "path", name)).stem)
        return Prior(shrink, VESDE(0.01, 1.0))

    monkeypatch.setattr("reconstruct.load_prior", load)
    monkeypatch.setattr("evaluation.own.folder.load_prior", load)
    return names


def disc(side=48):
    axis = torch.linspace(-1, 1, side)
    return (axis[:, None] ** 2 + axis**2 < 0.5).float()


FEW = {"num_steps": 3, "sigma_y": 0.0}


def test_kspace_has_the_prior_of_complex_images(asked):
    program.reconstruct(fft2c(disc() + 0j), **FEW)
    assert asked == ["natural_complex_small"]


def test_a_sinogram_has_the_prior_of_real_images(asked):
    angles = np.linspace(0, 180, 24, endpoint=False)
    sinogram = ParallelBeamCT(48, angles).forward(disc()[None, None])[0]
    program.reconstruct(sinogram, angles=angles, **FEW)
    assert asked == ["natural_small"]


@pytest.mark.parametrize(
    ("is_complex", "name"), [(True, "natural_complex_small"), (False, "natural_small")]
)
def test_an_operator_has_that_of_its_images(asked, is_complex, name):
    half = FunctionOperator(
        lambda x: x / 2,
        lambda y: y / 2,
        domain_shape=(1, 48, 48),
        domain_complex=is_complex,
        range_complex=is_complex,
    )
    image = disc()[None] + (0j if is_complex else 0)
    program.reconstruct(image, operator=half, **FEW)
    assert asked == [name]


def test_a_named_prior_is_taken_and_the_default_is_written_down(asked, tmp_path):
    source = tmp_path / "kspace.npy"
    np.save(source, fft2c(disc() + 0j).numpy())
    config = get_config()
    config.sampler.num_steps, config.sampler.sigma_y = 3, 0.0
    summary = reconstruct_file(config, source, tmp_path / "default", "cpu")
    assert summary["prior"] == "natural_complex_small"
    config.prior = "natural_small"
    summary = reconstruct_file(config, source, tmp_path / "named", "cpu")
    assert summary["prior"] == "natural_small"
    assert asked == ["natural_complex_small", "natural_small"]


def test_a_wrong_name_is_found_before_the_input_is_read(tmp_path):
    config = get_config()
    config.prior = "natural_smal"
    with pytest.raises(FileNotFoundError, match="natural_smal"):
        reconstruct_file(config, tmp_path / "missing.npy", tmp_path / "out", "cpu")


def test_a_prior_of_complex_images_is_refused_for_real_ones_before_anything_is_written(tmp_path):
    source, out = tmp_path / "sinogram.npy", tmp_path / "out"
    angles = np.linspace(0, 180, 24, endpoint=False)
    np.save(source, ParallelBeamCT(48, angles).forward(disc()[None, None])[0, 0].numpy())
    config = get_config()
    config.prior = "natural_complex_small"
    with pytest.raises(ValueError, match=r"a prior of real images for a sinogram, such as natural"):
        reconstruct_file(config, source, out, "cpu")
    assert not out.exists()
    with pytest.raises(ValueError, match=r"one of complex images, which is for k-space"):
        program.reconstruct(np.load(source), angles=angles, prior="natural_complex_small", **FEW)
