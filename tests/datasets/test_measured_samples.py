"""The embedded measurements: what they hold, and that `reconstruct.py` opens them."""

import h5py
import numpy as np
import pytest
import torch
from skimage.transform import resize

from configs import load_config
from datasets.embedded import SAMPLES
from datasets.measured_files import open_measurement
from evaluation.own import open_input
from operators.fourier import ifft2c
from tests.conftest import ROOT

GEOMETRY = ("geometry", "source_distance", "detector_distance", "bin_spacing")


def opened(name, **fields):
    config = load_config(str(ROOT / "configs" / "reconstruct.py"))
    config.update_from_flattened_dict(fields)
    return open_input(SAMPLES / "measured" / name, config)


def test_embedded_kspace_is_what_was_measured():
    measured = open_measurement(SAMPLES / "measured/brain_8coil.h5")
    assert (measured.kind, measured.shape) == ("kspace", (1, 8, 230, 180))
    kspace = measured.read(0)
    assert np.all((kspace != 0) == (kspace != 0)[0])
    assert (kspace[0] != 0).mean() == pytest.approx(1 / 8, abs=0.002)
    image = ifft2c(torch.from_numpy(kspace)).abs().square().sum(0).sqrt()
    assert image[80:150, 60:120].mean() > 5 * image[:10, :10].mean()


@pytest.mark.parametrize("name", ["solid_disc", "ta", "tb", "tc", "td"])
def test_embedded_sinograms_are_what_was_measured(name):
    path = SAMPLES / f"measured/htc2022_{name}.h5"
    measured = open_measurement(path)
    assert (measured.kind, measured.shape) == ("sinogram", (1, 720, 560))
    np.testing.assert_allclose(measured.extras["angles"], np.arange(720) / 2, atol=1e-6)
    sinogram = measured.read(0)
    assert sinogram.min() > -0.1
    middle = sinogram[:, 279:281].mean(1)  # half a turn later the central ray is the same
    assert np.abs(middle[:360] - middle[360:]).mean() < 0.05
    with h5py.File(path) as file:
        assert file.attrs["source_distance"] + file.attrs["detector_distance"] == 553.74
        noise = file.attrs["noise"]
        part = file["segmentation"][()].mean()
    assert 0.1 < part < 0.9
    steps = np.unique(np.diff(np.unique(sinogram)))
    assert steps.min() / 12**0.5 < noise / 20


def test_the_kspace_opens_without_a_flag():
    found = opened("brain_8coil.h5")
    assert found.facts["coils"] == 8
    assert found.facts["mask"] == "from the zeros of k-space"
    assert found.facts["effective_acceleration"] == [pytest.approx(8.04, abs=0.01)]


def test_a_sinogram_opens_with_its_geometry_and_shows_the_object():
    path = SAMPLES / "measured/htc2022_ta.h5"
    with h5py.File(path) as file:
        geometry = {f"operator.{name}": file.attrs[name] for name in GEOMETRY}
        segmentation = file["segmentation"][()].astype(float)
        side = len(segmentation) * file.attrs["segmentation_pixel_size"]
    pixel = 2.0
    found = opened("htc2022_ta.h5", **geometry, **{"operator.pixel_size": pixel})
    problem = found.problem([0])
    image = found.finish(problem.operator.direct(problem.y))[0, 0].numpy()
    n = 2 * round(side / pixel / 2)
    cut = (len(image) - n) // 2
    middle = image[cut : len(image) - cut, cut : len(image) - cut]
    truth = resize(segmentation, middle.shape, anti_aliasing=True)
    assert np.corrcoef(middle.ravel(), truth.ravel())[0, 1] > 0.9
    assert np.corrcoef(middle[::-1].ravel(), truth.ravel())[0, 1] < 0.8
