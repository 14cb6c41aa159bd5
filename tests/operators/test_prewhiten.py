"""White noise of coils: the covariance, what it does to k-space, and noise scans of files."""

import h5py
import numpy as np
import pytest
import torch

from configs import load_config
from datasets.measured_files import open_measurement
from evaluation.own.kspace import open_kspace
from operators.fourier import ifft2c
from operators.prewhiten import noise_covariance, prewhiten, whitening_matrix
from tests.conftest import ROOT
from tests.evaluation.own.test_kspace import complex_image
from tests.helpers.reconstruct_inputs import HEAD, kspace_of, write_ismrmrd

COILS = 3


def mixing():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(COILS, COILS, dtype=torch.complex128, generator=generator)
    return mix + 2 * torch.diag(torch.tensor([1.0, 3.0, 0.5], dtype=torch.complex128))


def noise(*shape, seed=1):
    """Complex noise with parts of variance 1."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def test_the_covariance_is_that_of_each_part():
    """n = M w with white w of unit parts: E n n^H / 2 = M M^H."""
    found = noise_covariance(mixing() @ noise(COILS, 200_000))
    torch.testing.assert_close(found, mixing() @ mixing().mH, rtol=0.02, atol=0.05)


def test_whitened_noise_is_white_and_the_signal_is_the_same_combination():
    covariance = mixing() @ mixing().mH
    kspace = torch.einsum("dc,bchw->bdhw", mixing(), noise(2, COILS, 128, 128))
    white = prewhiten(kspace, covariance)
    flat = white.movedim(1, 0).reshape(COILS, -1)
    torch.testing.assert_close(
        noise_covariance(flat), torch.eye(COILS, dtype=torch.complex128), atol=0.02, rtol=0
    )
    matrix = whitening_matrix(covariance)
    torch.testing.assert_close(matrix @ covariance @ matrix.mH, torch.eye(COILS).to(matrix))
    kspace[..., ::2] = 0
    assert not prewhiten(kspace, covariance)[..., ::2].any()
    diagonal = torch.diag(torch.tensor([4.0, 9.0, 0.25], dtype=torch.complex128))
    expected = kspace / torch.tensor([2.0, 3.0, 0.5])[:, None, None]
    torch.testing.assert_close(prewhiten(kspace, diagonal), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_covariance(noise(COILS, 3)), "more than 3 samples of 3 coils, got 3"),
        (lambda: noise_covariance(noise(2, 3, 9)), r"shape \(coils, samples\), got"),
        (lambda: whitening_matrix(torch.zeros(2, 2)), "positive definite .* dead"),
        (lambda: prewhiten(noise(1, 2, 8, 8), torch.eye(3)), "covariance of 2 coils .* got 3"),
    ],
)
def test_what_does_not_fit_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def add_noise_scan(path, samples):
    """Replace the noise readout of an ISMRMRD file by `samples` ``(C, N)``."""
    with h5py.File(path, "r+") as file:
        records = file["dataset/data"][()]
        assert records.dtype["head"] == HEAD
        records[0]["head"]["number_of_samples"] = samples.shape[1]
        records[0]["data"] = np.ascontiguousarray(samples.astype(np.complex64)).view("f4").ravel()
        file["dataset/data"][...] = records


def test_a_file_with_a_noise_scan_has_white_coils(tmp_path):
    scan = (mixing() @ noise(COILS, 500, seed=2)).numpy()
    clean = noise(1, COILS, 16, 12, seed=3).numpy().astype(np.complex64)
    path = write_ismrmrd(tmp_path / "a.h5", clean, np.ones(12))
    few = open_measurement(path)
    assert few.whitening is None
    np.testing.assert_allclose(few.read(0), clean[0], atol=1e-5)
    add_noise_scan(path, scan)
    measured = open_measurement(path)
    assert any("whitened by 500 samples" in note for note in measured.notes)
    covariance = noise_covariance(torch.from_numpy(scan))
    level = np.exp(np.log(np.linalg.eigvalsh(covariance.numpy())).mean() / 2)
    expected = level * prewhiten(torch.from_numpy(clean[0]), covariance).numpy()
    np.testing.assert_allclose(measured.read(0), expected, atol=1e-4)
    np.testing.assert_allclose(
        measured.whitening, level * whitening_matrix(covariance).numpy(), atol=1e-5
    )
    add_noise_scan(path, np.concatenate([scan[:2], 0 * scan[2:]]))  # a dead coil
    dead = open_measurement(path)
    assert dead.whitening is None
    assert any("noise readouts are not used" in note for note in dead.notes)


def test_given_maps_are_of_the_coils_as_measured(tmp_path):
    """Maps get the same combination as k-space: the coil images are still maps times image."""
    generator = np.random.default_rng(5)
    image = complex_image((32, 24))
    maps = generator.standard_normal((COILS, 32, 24)) + 1j * generator.standard_normal(
        (COILS, 32, 24)
    )
    path = write_ismrmrd(tmp_path / "a.h5", kspace_of(maps * image)[None], np.ones(24))
    add_noise_scan(path, (mixing() @ noise(COILS, 500, seed=2)).numpy())
    np.save(tmp_path / "maps.npy", maps.astype(np.complex64))
    config = load_config(f"{ROOT}/configs/reconstruct.py")
    config.data.sens_maps = str(tmp_path / "maps.npy")
    opened = open_kspace(open_measurement(path), config)
    kspace = torch.from_numpy(opened.measured.read(0))
    seen = opened.sens_maps[0] * torch.from_numpy(image)
    torch.testing.assert_close(ifft2c(kspace), seen.to(kspace), rtol=1e-3, atol=1e-3)
