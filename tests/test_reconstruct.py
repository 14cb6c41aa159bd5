"""reconstruct.py from files to files: numbers, scales, resuming, and what it refuses."""

import functools
import json
import multiprocessing
import re
import subprocess
import sys
from types import SimpleNamespace

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter

import reconstruct as program
from configs import ConfigError, load_config
from datasets.files import holding
from datasets.sample import DataError
from evaluation.metrics import across_metrics
from evaluation.own import engine, open_input
from evaluation.own import folder as command
from evaluation.own.kspace import KspaceInput
from evaluation.run import rehearsal
from evaluation.run.keywords import enough_samples
from evaluation.run.posterior_samples import draw_samples, in_groups
from operators import FanBeamCT, ParallelBeamCT
from operators.fourier import ifft2c
from samplers import SAMPLERS, SPREAD
from sde import complex_score
from tests.conftest import ROOT
from tests.helpers.data_writers import (
    coil_sensitivities,
    crop,
    head,
    write_dicom,
    write_fastmri,
    write_nifti,
    write_series,
)
from tests.helpers.reconstruct_inputs import (
    image,
    kspace_of,
    lines,
    phase,
    write_ismrmrd,
    write_prior,
)

UNIT = 3e4  # of the k-space in these tests, far from 1


@pytest.fixture
def prior(tmp_path, tiny_config):
    """A network whose score is 0, of depth 2: what comes out is due to data and algebra."""
    return write_prior(tmp_path / "prior.pt", tiny_config)


@pytest.fixture
def settings(prior):
    """Few steps, data that are exact; a function that takes changes as dotted fields."""

    def make(**changes):
        config = load_config(str(ROOT / "configs" / "reconstruct.py"))
        config.prior = str(prior)
        config.sampler.num_steps = 4
        config.sampler.sigma_y = 0.0
        config.update_from_flattened_dict(changes)
        return config

    return make


def run(config, source, out):
    """The summary and the arrays of reconstruction.h5."""
    summary = command.reconstruct_file(config, source, out, "cpu")
    with h5py.File(out / "reconstruction.h5") as file:
        return summary, {name: file[name][()] for name in file}


def relative(result, truth):
    return np.linalg.norm(result - truth) / np.linalg.norm(truth)


def complex_images(count=2, shape=(32, 32)):
    images = np.stack([image(shape, seed) for seed in range(count)])
    return (UNIT * images * phase(shape)).astype(np.complex64)


# ---------------------------------------------------------------------- fully measured: it returns


@pytest.mark.parametrize("shape", [(32, 32), (33, 30)])  # the network halves sides: 33 is padded
def test_full_single_coil_kspace_returns_the_image(tmp_path, settings, shape):
    truth = complex_images(2, shape)
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(truth)
    summary, arrays = run(settings(), tmp_path / "k.h5", tmp_path / "out")
    assert relative(arrays["reconstruction_complex"], truth) < 1e-3
    assert relative(arrays["reconstruction"], np.abs(truth)) < 1e-3
    assert arrays["reconstruction"].dtype == np.float32
    assert summary["effective_acceleration"] == [1.0]
    assert any("no zeros" in note for note in summary["notes"])
    volume = nibabel.load(tmp_path / "out" / "reconstruction.nii.gz")
    assert volume.shape == (*shape[::-1], 2)


@pytest.mark.parametrize("given", [True, False])
def test_full_multicoil_kspace_returns_the_image(tmp_path, settings, given):
    truth = complex_images(1)
    maps = coil_sensitivities(4, 32, 32).astype(np.complex64)
    np.save(tmp_path / "k.npy", kspace_of(maps * truth[0]))
    np.save(tmp_path / "maps.npy", 5 * maps)
    fields = {"data.sens_maps": str(tmp_path / "maps.npy")} if given else {}
    summary, arrays = run(settings(**fields), tmp_path / "k.npy", tmp_path / "out")
    result, wanted = arrays["reconstruction"][0], np.abs(truth[0])
    assert summary["coil_maps"] == ("given" if given else "ESPIRiT")
    if given:
        assert relative(arrays["reconstruction_complex"][0], truth[0]) < 1e-3
    else:  # maps are estimated, and 0 where the first eigenvalue is low
        seen = result > 0
        assert seen.mean() > 0.6
        assert relative(result[seen], wanted[seen]) < 0.03
    assert not (tmp_path / "out" / "reconstruction.nii.gz").exists()  # one slice is no volume


def test_dense_sinogram_returns_attenuation_in_its_unit(tmp_path, settings):
    truth = 0.02 * image((24, 24))  # 1/mm
    pixel = 0.5  # mm
    operator = ParallelBeamCT(24, np.arange(0, 180, 3), num_bins=36)
    sinogram = operator.forward(torch.from_numpy(truth * pixel)[None, None])[0, 0].numpy()
    np.save(tmp_path / "s.npy", sinogram)
    config = settings(
        **{
            "data.image_size": "24",
            "operator.pixel_size": pixel,
            "operator.bin_spacing": pixel,
            "sampler.cg_steps": 60,
        }
    )
    summary, arrays = run(config, tmp_path / "s.npy", tmp_path / "out")
    assert relative(arrays["reconstruction"][0], truth) < 0.01
    assert relative(arrays["direct"][0], truth) < 0.3
    assert summary["geometry"] == "parallel"
    assert not summary["notes"]
    # views and bins exchanged: the views' sums then differ
    np.save(tmp_path / "t.npy", sinogram.T)
    opened = open_input(tmp_path / "t.npy", settings())
    assert any("is the array (views, bins)" in note for note in opened.notes)


def test_fan_beam_and_angles_of_a_file(tmp_path, settings):
    truth = image((16, 16))
    angles = np.arange(0, 360, 6.0) + 1
    operator = FanBeamCT(
        16, angles, source_distance=40, detector_distance=20, num_bins=48, bin_spacing=1.0
    )
    sinogram = operator.forward(torch.from_numpy(truth)[None, None])[0, 0].numpy()
    np.savez(tmp_path / "s.npz", sinogram=sinogram, angles=angles)
    config = settings(
        **{
            "data.image_size": "16",
            "operator.geometry": "fan",
            "operator.source_distance": 40.0,
            "operator.detector_distance": 20.0,
            "sampler.cg_steps": 60,
        }
    )
    _, arrays = run(config, tmp_path / "s.npz", tmp_path / "out")
    assert relative(arrays["reconstruction"][0], truth) < 0.01


# ----------------------------------------------------- undersampled, with a prior in closed form


@pytest.mark.parametrize("coils", [1, 3])
def test_undersampled_kspace_gets_what_the_prior_knows(tmp_path, settings, monkeypatch, coils):
    """The prior's mean is the truth plus an error d; the result is nearer to the truth than d.

    The data step projects the denoised image onto the measurement, and projecting towards a set
    that holds the truth cannot increase the distance to it.
    """
    truth = complex_images(1)
    maps = coil_sensitivities(coils, 32, 32).astype(np.complex64)
    maps = maps if coils > 1 else np.ones_like(maps)
    kspace = kspace_of(maps * truth[0]) * lines(every=4, centre=10)
    np.save(tmp_path / "k.npy", kspace)
    np.save(tmp_path / "maps.npy", maps)
    fields = {"data.sens_maps": str(tmp_path / "maps.npy"), "sampler.cg_steps": 30}
    config = settings(**fields, **{"sampler.num_steps": 12})
    problem = open_input(tmp_path / "k.npy", config).problem([0])
    rng = np.random.default_rng(0)
    error = 0.03 * (rng.standard_normal((32, 32)) + 1j * rng.standard_normal((32, 32)))
    clean = torch.from_numpy(truth)[None] / problem.factor / problem.scale
    mean = clean + torch.from_numpy(error).to(torch.complex64)
    parts = torch.cat([mean.real, mean.imag])  # (2, 1, H, W), as complex images reach the network
    load_prior = command.load_prior

    def informed(*arguments, **options):
        _, sde = load_prior(*arguments, **options)

        def score(x, sigma):
            return (parts - x) / (1e-4 + sigma[:, None, None, None] ** 2)

        return complex_score(score), sde

    monkeypatch.setattr(command, "load_prior", informed)
    summary, arrays = run(config, tmp_path / "k.npy", tmp_path / "out")
    result, direct = arrays["reconstruction_complex"][0], arrays["direct"][0]
    distance = np.linalg.norm(result - truth[0])
    assert distance < np.linalg.norm(error) * float(problem.scale)
    assert distance < 0.5 * np.linalg.norm(direct - np.abs(truth[0]))
    # and it meets the measurement
    again = kspace_of(maps * result) * lines(every=4, centre=10)
    assert relative(again, kspace) < 2e-3
    assert summary["effective_acceleration"] == [round(32 / lines(every=4, centre=10).sum(), 3)]


# ------------------------------------------------------------------- fastMRI, ISMRMRD, oversampling


@pytest.mark.parametrize("coils", [0, 3])
def test_fastmri_test_file(tmp_path, settings, coils):
    path = write_fastmri(tmp_path / "f.h5", slices=2, size=(24, 20), coils=coils, test=True)
    summary, arrays = run(settings(), path, tmp_path / "out")
    assert arrays["reconstruction"].shape == (2, 24, 20)  # the header's size, of 48 x 28
    assert summary["mask"] == "of the file"
    if not coils:  # the direct image is what the public tools show
        with h5py.File(path) as file:
            zero_filled = crop(
                np.abs(ifft2c(torch.from_numpy(file["kspace"][()])).numpy()), (24, 20)
            )
        assert relative(arrays["direct"], zero_filled) < 1e-4
        # a score of 0 adds nothing: the zero-filled image is left
        assert relative(arrays["reconstruction"], zero_filled) < 1e-3


def test_ismrmrd_file(tmp_path, settings):
    truth = complex_images(1, (32, 20))
    truth[:, :8] = truth[:, 24:] = 0  # within the half of the readout that is wanted
    path = write_ismrmrd(tmp_path / "raw.mrd", kspace_of(truth[:, None]), np.ones(20))
    _, arrays = run(settings(), path, tmp_path / "out")
    assert relative(arrays["reconstruction"], np.abs(truth[:, 8:24])) < 1e-3


def test_masks_may_be_given_or_drawn(tmp_path, settings):
    truth = complex_images(1)
    np.save(tmp_path / "k.npy", kspace_of(truth[0]))
    np.save(tmp_path / "mask.npy", lines())
    given = settings(**{"data.mask": str(tmp_path / "mask.npy")})
    summary, arrays = run(given, tmp_path / "k.npy", tmp_path / "given")
    assert summary["effective_acceleration"] == [round(32 / lines().sum(), 3)]
    expected = np.abs(ifft2c(torch.from_numpy(kspace_of(truth) * lines())).numpy())
    assert relative(arrays["direct"], expected) < 1e-5
    drawn = settings(**{"operator.mask": "gaussian2d", "operator.acceleration": 2.0})
    summary, _ = run(drawn, tmp_path / "k.npy", tmp_path / "drawn")
    assert summary["effective_acceleration"] == [2.0]
    assert summary["mask"] == "from the zeros of k-space, undersampled by gaussian2d"


def test_slices_may_have_masks_of_their_own(tmp_path, settings):
    truth = complex_images(2)
    masks = np.stack([lines(every=2), lines(every=5)])[:, None]
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(truth) * masks
    summary, arrays = run(settings(), tmp_path / "k.h5", tmp_path / "out")
    assert summary["effective_acceleration"] == sorted(round(32 / m.sum(), 3) for m in masks)
    expected = np.abs(ifft2c(torch.from_numpy(kspace_of(truth) * masks)).numpy())
    assert relative(arrays["reconstruction"], expected) < 1e-3


def test_empty_slices_stay_empty(tmp_path, settings):
    truth = complex_images(3)
    truth[1] = 0
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(truth) * lines()
    summary, arrays = run(settings(), tmp_path / "k.h5", tmp_path / "out")
    assert not arrays["reconstruction"][1].any()
    assert arrays["reconstruction"][0].any()
    assert any("1 slices of k-space are 0" in note for note in summary["notes"])


# ------------------------------------------------------------------------------ images, simulated


def test_nifti_is_measured_and_returns_to_its_place(tmp_path, settings):
    volume = np.stack([1000 * image((20, 24), seed) for seed in range(4)], axis=2) - 200
    affine = np.diag([-2.0, 1.0, 3.0, 1.0])
    source = write_nifti(tmp_path / "v.nii.gz", volume, affine)
    config = settings(**{"data.slices": "range:1:3", "operator.acceleration": 1.0})
    summary, _ = run(config, source, tmp_path / "out")
    result = nibabel.load(tmp_path / "out" / "reconstruction.nii.gz")
    np.testing.assert_allclose(result.get_fdata(), volume.astype(np.int16)[..., 1:3], atol=0.5)
    np.testing.assert_allclose(result.affine[:3, :3], affine[:3, :3])
    assert result.affine[2, 3] == 3.0  # the second slice comes first
    assert summary["metrics"]["reconstruction"]["psnr"] > 60
    config = settings(**{"operator.mask": "equispaced1d", "operator.center_fraction": 0.2})
    summary, arrays = run(config, source, tmp_path / "under")
    assert summary["effective_acceleration"] == [4.0]
    metrics = summary["metrics"]
    # with a score of 0 it is the least-squares image of least norm: the nearest to the truth of all
    # in the range of A^H, where the zero-filled one is, too
    assert metrics["reconstruction"]["psnr"] >= metrics["direct"]["psnr"]
    assert set(arrays["key"]) == {f"v.nii.gz:{i}".encode() for i in range(4)}


def test_every_other_slice_keeps_its_place_and_its_image(tmp_path, settings):
    every = {"data.slices": "range:0:5:2"}
    volume = np.stack([1000 * image((20, 24), seed) for seed in range(5)], axis=2)
    source = write_nifti(tmp_path / "v.nii.gz", volume, np.diag([2.0, 1.0, 3.0, 1.0]))
    summary, arrays = run(
        settings(**every, **{"operator.acceleration": 1.0}), source, tmp_path / "nifti"
    )
    assert list(arrays["key"]) == [f"v.nii.gz:{i}".encode() for i in (0, 2, 4)]
    result = nibabel.load(tmp_path / "nifti" / "reconstruction.nii.gz")
    np.testing.assert_allclose(result.get_fdata(), volume.astype(np.int16)[..., ::2], atol=0.5)
    np.testing.assert_allclose(result.affine, np.diag([2.0, 1.0, 6.0, 1.0]))
    assert summary["metrics"]["reconstruction"]["psnr"] > 60
    hu = np.stack([head(16, seed) for seed in range(5)])
    folder = write_series(tmp_path / "source", hu)
    mri = {"operator.name": "mri", "operator.acceleration": 1.0}
    run(settings(**every, **mri), folder, tmp_path / "dicom")
    written = sorted((tmp_path / "dicom" / "dicom_reconstruction").iterdir())
    for file, number in zip(map(pydicom.dcmread, written), (0, 2, 4), strict=True):
        values = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        np.testing.assert_allclose(values, hu[number], atol=1)
        assert float(file.ImagePositionPatient[2]) == 1.5 * number


def test_every_other_slice_of_kspace_has_its_own_mask(tmp_path, settings):
    kspace = kspace_of(complex_images(5))
    masks = np.stack([np.tile(lines(every=2 + number), (32, 1)) for number in range(5)])
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"], file["mask"] = kspace, masks
    _, arrays = run(settings(**{"data.slices": "range:0:5:2"}), tmp_path / "k.h5", tmp_path / "out")
    assert list(arrays["slice"]) == [0, 2, 4]
    expected = np.abs(ifft2c(torch.from_numpy(kspace * masks)[::2]).numpy())
    assert relative(arrays["direct"], expected) < 1e-5


def test_a_volume_is_compared_with_its_truth_from_the_side(tmp_path, settings):
    volume = np.stack([1000 * image((20, 24), seed) for seed in range(8)], axis=2) - 200
    source = write_nifti(tmp_path / "v.nii.gz", volume, np.eye(4))
    config = settings(**{"operator.mask": "equispaced1d", "operator.center_fraction": 0.2})
    summary, _ = run(config, source, tmp_path / "out")
    written = nibabel.load(tmp_path / "out" / "reconstruction.nii.gz").get_fdata()
    # the columns of an axial image are NIfTI's first axis, its rows the second
    truth, found = (x.transpose(2, 1, 0) for x in (volume.astype(np.int16), written))
    expected = across_metrics(truth - float(truth.min()), found - truth.min())
    assert summary["metrics_across"]["reconstruction"] == pytest.approx(expected, abs=1e-3)
    worse = summary["metrics_across"]["direct"]["psnr_columns"]
    assert worse < expected["psnr_columns"]
    few = settings(**{"data.slices": "range:0:7"})
    assert "metrics_across" not in run(few, source, tmp_path / "few")[0]
    volume = np.concatenate([volume, volume], axis=2)
    source = write_nifti(tmp_path / "w.nii.gz", volume, np.eye(4))
    apart = settings(**{"data.slices": "range:0:16:2"})
    assert "metrics_across" not in run(apart, source, tmp_path / "apart")[0]


def test_images_are_measured_by_operators_of_real_images_only(tmp_path, settings):
    source = write_nifti(tmp_path / "v.nii.gz", 100 * image((20, 24))[:, :, None], np.eye(4))
    for name in ("nufft", "multicoil_mri"):
        with pytest.raises(ValueError, match=f"operator.name of real images.*got {name}"):
            run(settings(**{"operator.name": name}), source, tmp_path / "out")
    for name in ("superresolution", "fan_ct"):
        summary, _ = run(settings(**{"operator.name": name}), source, tmp_path / name)
        assert summary["simulated"] == name


def test_dicom_series_becomes_a_new_series(tmp_path, settings):
    hu = np.stack([head(16, seed) for seed in range(3)])
    folder = write_series(tmp_path / "source", hu)
    config = settings(**{"operator.num_views": 60, "sampler.cg_steps": 80, "data.window": "0,2100"})
    summary, arrays = run(config, folder, tmp_path / "out")
    assert summary["simulated"] == "ct"  # by the modality
    files = sorted((tmp_path / "out" / "dicom_reconstruction").iterdir())
    assert len(files) == 3
    written = [pydicom.dcmread(file) for file in files]
    assert len({file.SeriesInstanceUID for file in written}) == 1
    for number, file in enumerate(written):
        values = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        np.testing.assert_allclose(values, arrays["reconstruction"][number], atol=0.1)
        assert relative(values, np.clip(hu[number], -1050, 1050)) < 0.02
        assert "point estimate" in file.DerivationDescription
    with pytest.raises(ValueError, match="is the input's folder, or in it"):
        run(settings(), folder, folder / "results")


def test_one_dicom_file_with_mri(tmp_path, settings):
    path = write_dicom(tmp_path / "one.dcm", head(16))
    config = settings(**{"operator.name": "mri", "operator.acceleration": 1.0})
    _, arrays = run(config, path, tmp_path / "out")
    np.testing.assert_allclose(arrays["reconstruction"][0], head(16), atol=1.0)


# --------------------------------------------------------------------- samples, noise, batch, files


def test_several_samples_give_mean_and_deviation(tmp_path, settings):
    truth = complex_images(2)
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(truth) * lines()
    config = settings(**{"sampler.num_samples": 3})
    summary, arrays = run(config, tmp_path / "k.h5", tmp_path / "out")
    assert summary["sampler"] == "warm_mmps"  # the default for several samples
    found = SPREAD["warm_mmps"]
    assert summary["result"] == f"mean of 3 samples by warm_mmps, 4 steps; {found}"
    assert (summary["num_steps"], summary["num_samples"]) == (4, 3)
    std = arrays["std"]
    assert std.shape == truth.shape
    # samples agree on what was measured, so that their deviation is in the other lines
    assert 0.01 * UNIT < std.mean() < 10 * UNIT
    low, high = arrays["quantile_05"], arrays["quantile_95"]
    assert (low <= high).all()
    assert (high > arrays["reconstruction"]).mean() > 0.9
    assert 1 < np.median((high - low) / std) < 7  # 2 x 2.92 sqrt(1 + 1/3), less where low is 0
    assert ((arrays["undecided"] >= 0) & (arrays["undecided"] < 1)).all()
    assert arrays["undecided"].max() > 0.1
    outputs = summary["outputs"]
    assert outputs["reconstruction"] == f"magnitude of the {summary['result']}"
    assert "standard deviation of the magnitude over 3 samples" in outputs["std"]
    assert "of Student's t" in outputs["quantile_05"]
    with h5py.File(tmp_path / "out" / "reconstruction.h5") as file:
        described = {name: file[name].attrs.get("description") for name in outputs}
    assert described == outputs
    projected = kspace_of(arrays["reconstruction_complex"])[..., lines()]
    assert relative(projected, kspace_of(truth)[..., lines()]) < 1e-3


def test_names_may_have_any_letters(tmp_path, settings):
    np.save(tmp_path / "Größe_測.npy", kspace_of(complex_images(1)[0]))
    _, arrays = run(settings(), tmp_path / "Größe_測.npy", tmp_path / "out")
    assert arrays["key"][0].decode() == "Größe_測.npy:0"


def test_result_and_noise_level_are_in_the_users_unit(tmp_path, settings):
    truth = complex_images(2) / UNIT
    results = {}
    for unit in (1.0, 1e6):
        with h5py.File(tmp_path / f"{unit}.h5", "w") as file:
            file["kspace"] = unit * kspace_of(truth) * lines()
        config = settings(**{"sampler.sigma_y": 0.05 * unit, "sampler.end_sigma": 0.05})
        results[unit] = run(config, tmp_path / f"{unit}.h5", tmp_path / f"out{unit}")[1]
    scaled = results[1e6]["reconstruction"] / 1e6
    np.testing.assert_allclose(results[1.0]["reconstruction"], scaled, atol=1e-5)
    np.testing.assert_allclose(results[1.0]["scale"] * 1e6, results[1e6]["scale"], rtol=1e-5)


def noisy_kspace(sigma, side=96, seed=0, blur=0.0):
    """A phantom ``(side, side)`` times `UNIT`, its undersampled k-space with noise, and sigma.

    Its sharp edges reach the corners of k-space, and count as noise there, unless they are blurred.
    """
    truth = UNIT * gaussian_filter(image((side, side), seed), blur) * phase((side, side))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((side, side)) + 1j * rng.standard_normal((side, side))
    clean = kspace_of(truth.astype(np.complex64))
    return truth, (clean + UNIT * sigma * noise) * lines(side, 4, 16), UNIT * sigma


def test_noise_is_estimated_as_well_as_given(tmp_path, settings):
    """With the shipped prior: without a noise level the result is that of the right one."""
    truth, kspace, sigma = noisy_kspace(0.03, blur=0.7)
    np.save(tmp_path / "k.npy", kspace.astype(np.complex64))
    errors, found = {}, {}
    for name, sigma_y in (("estimated", None), ("right", sigma), ("none", 0.0)):
        config = settings(prior="natural_small", **{"sampler.num_steps": 15})
        config.sampler.sigma_y = sigma_y
        summary, arrays = run(config, tmp_path / "k.npy", tmp_path / name)
        errors[name] = relative(arrays["reconstruction_complex"][0], truth)
        found[name] = float(arrays["sigma_y"][0])
        assert summary["noise"]["least"] == summary["noise"]["most"] == found[name]
    assert found["right"] == pytest.approx(sigma)
    assert found["estimated"] == pytest.approx(sigma, rel=0.1)
    assert found["none"] == 0
    assert errors["estimated"] < 1.2 * errors["right"]  # 1.05 of it; without a level 2.2
    assert errors["estimated"] < 0.7 * errors["none"]


def test_what_is_said_about_the_noise(tmp_path, settings, capsys):
    _, kspace, sigma = noisy_kspace(0.05, side=64)
    np.save(tmp_path / "k.npy", kspace.astype(np.complex64))
    volume = write_nifti(tmp_path / "v.nii.gz", 100 * image((20, 24))[:, :, None], np.eye(4))
    langevin = {"sampler.name": "annealed_langevin", "sampler.num_steps": 4}
    gaussian = langevin | {"sampler.likelihood": "gaussian", "sampler.data_weight": 0.1}
    for number, (source, fields, origin, line) in enumerate(
        (
            ("k.npy", {}, "estimated", "noise: estimated"),
            ("k.npy", {"sampler.sigma_y": 2.5}, "given", "noise: given, 2.5"),
            ("k.npy", {"sampler.sigma_y": 0.0}, "none: sampler.sigma_y is 0", "noise: none"),
            ("k.npy", langevin, "not used by annealed_langevin", "noise: not used"),
            ("k.npy", gaussian, "estimated", "noise: estimated"),
            (volume.name, {}, "none: simulated without", "noise: none: simulated"),
        )
    ):
        out = tmp_path / str(number)
        config = settings(**{"sampler.sigma_y": None})
        config.update_from_flattened_dict(fields)
        summary, arrays = run(config, tmp_path / source, out)
        assert line in capsys.readouterr().out
        assert summary["noise"]["origin"] == origin
        with h5py.File(out / "reconstruction.h5") as file:
            assert file.attrs["noise"] == origin
        if origin == "estimated":
            assert arrays["sigma_y"] == pytest.approx([sigma], rel=0.3)
        elif origin.startswith("none"):
            assert arrays["sigma_y"] == [0]
        elif origin == "given":
            assert arrays["sigma_y"] == pytest.approx([2.5])
        else:
            assert "sigma_y" not in arrays
    with pytest.raises(ValueError, match=r"sigma_y with sampler\.likelihood=gaussian only"):
        run(settings(**langevin), tmp_path / "k.npy", tmp_path / "refused")


def test_the_estimate_survives_oversampling_and_padding(tmp_path, settings):
    """Readouts of twice the size, a quarter of them and of the lines being zeros all the same."""
    sigma, rng = 0.05 * UNIT, np.random.default_rng(1)
    noise = rng.standard_normal((2, 144, 72)) + 1j * rng.standard_normal((2, 144, 72))
    kspace = np.zeros((2, 192, 96), np.complex64)
    kspace[:, 24:168, 12:84] = sigma * noise + kspace_of(0.2 * UNIT * image((144, 72)))
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace * np.array([1, 10])[:, None, None]
        file["mask"] = np.ones(96)
    config = settings(**{"data.image_size": "96", "sampler.sigma_y": None})
    summary, arrays = run(config, tmp_path / "k.h5", tmp_path / "out")
    assert summary["image_shape"] == [96, 96]
    assert arrays["sigma_y"] == pytest.approx([sigma, 10 * sigma], rel=0.15)


def test_batch_size_changes_nothing(tmp_path, settings):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(3)) * lines()
    estimated = {"sampler.num_samples": 2, "sampler.sigma_y": None}
    results = [
        run(settings(batch_size=size, **estimated), tmp_path / "k.h5", out)[1]
        for size, out in ((1, tmp_path / "one"), (3, tmp_path / "three"))
    ]
    for name in ("reconstruction", "std", "scale", "sigma_y"):
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-4, atol=1e-4 * UNIT)


def test_samples_share_batches_and_do_not_depend_on_them(tmp_path, settings, monkeypatch):
    """Two slices with masks, coil maps and noise of their own; up to batch_size images a call."""
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(2)) * lines()
    sizes = []

    def watched(name, score, *arguments, **options):
        def seen(x, sigma):
            sizes.append(len(x))
            return score(x, sigma)

        return draw_samples(name, seen, *arguments, **options)

    monkeypatch.setattr(engine, "draw_samples", watched)
    found = {}
    for size, expected in {1: {1}, 2: {2}, 7: {2, 6}}.items():
        config = settings(batch_size=size, **{"sampler.num_samples": 4, "sampler.sigma_y": None})
        found[size] = run(config, tmp_path / "k.h5", tmp_path / f"out{size}")[1]
        assert set(sizes) == expected  # 7: three samples of two slices, then the fourth
        sizes.clear()
    for name in ("reconstruction", "std", "quantile_05", "quantile_95"):
        for size in (2, 7):
            expected = found[1][name]
            np.testing.assert_allclose(found[size][name], expected, rtol=1e-3, atol=1e-3 * UNIT)


def test_samples_in_one_batch_are_halved_until_they_fit(caplog):
    asked = []

    def draw(numbers):
        asked.append(list(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor([10.0 * n + slice_ for n in numbers for slice_ in range(2)])

    sample = in_groups(draw, 5, 4)
    found = [sample(n).tolist() for n in range(5)]
    assert found == [[10.0 * n, 10.0 * n + 1] for n in range(5)]
    assert asked == [[0, 1, 2, 3], [0, 1], [2, 3], [4]]
    assert "out of memory with 4 samples at once; on with 2" in caplog.text

    def too_large(numbers):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_groups(too_large, 5, 4)(0)


def test_sampling_stops_when_the_mean_is_known_well_enough(tmp_path, settings):
    """After n samples the error of the mean is std / sqrt(n); they are those of a run of n."""
    np.save(tmp_path / "k.npy", kspace_of(complex_images(1)[0]) * lines())
    several = {"sampler.num_samples": 50, "sampler.mean_error": 0.5}
    summary, stopped = run(settings(**several), tmp_path / "k.npy", tmp_path / "a")
    assert summary["num_samples"] == 4
    assert summary["result"].startswith(
        "mean of 4 samples, enough for an error of the mean of 0.5 std, by warm_mmps"
    )
    few = settings(**{"sampler.num_samples": 4})
    _, expected = run(few, tmp_path / "k.npy", tmp_path / "b")
    for name in ("reconstruction", "std", "quantile_95"):
        np.testing.assert_array_equal(stopped[name], expected[name])


@pytest.mark.parametrize(
    ("most", "error", "expected"),
    [(16, None, 16), (16, 0.25, 16), (99, 0.25, 16), (999, 0.1, 100), (9, 0.99, 2), (3, 0.01, 3)],
)
def test_as_many_samples_as_are_enough(most, error, expected):
    assert enough_samples(most, error) == expected


def test_an_interrupted_run_continues(tmp_path, settings, monkeypatch):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(3)) * lines()
    config = settings(batch_size=1, **{"sampler.num_samples": 2})
    _, whole = run(config, tmp_path / "k.h5", tmp_path / "whole")
    calls = []
    sample = engine.sample

    def interrupted(*arguments, keys, **options):
        calls.append(keys)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(*arguments, keys=keys, **options)

    monkeypatch.setattr(engine, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "k.h5", tmp_path / "pieces")
    assert len(list((tmp_path / "pieces" / "parts").iterdir())) == 2
    assert not (tmp_path / "pieces" / "reconstruction.h5").exists()
    _, pieces = run(config, tmp_path / "k.h5", tmp_path / "pieces")
    assert calls[3:] == [["k.h5:2"]]  # only the last slice was left
    for name, array in whole.items():
        np.testing.assert_array_equal(array, pieces[name])
    assert not (tmp_path / "pieces" / "parts").exists()
    run(config, tmp_path / "k.h5", tmp_path / "pieces")  # complete: nothing is computed
    assert len(calls) == 4


def test_a_damaged_part_is_done_again(tmp_path, settings, monkeypatch):
    np.save(tmp_path / "k.npy", kspace_of(complex_images(3)))
    config = settings(**{"data.first_axis": "slices", "sampler.num_steps": 2})
    _, expected = run(config, tmp_path / "k.npy", tmp_path / "whole")

    def stop(*_):
        raise KeyError("stopped")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(command, "write_results", stop)
        with pytest.raises(KeyError):
            command.reconstruct_file(config, tmp_path / "k.npy", out, "cpu")
    part = out / "parts" / "00001.npz"
    content = part.read_bytes()
    part.write_bytes(content[:999] + bytes([content[999] ^ 1]) + content[1000:])
    _, found = run(config, tmp_path / "k.npy", out)
    assert np.array_equal(found["reconstruction"], expected["reconstruction"])


def hold(folder, pipe):
    with holding(folder):
        pipe.send("held")
        pipe.recv()


def test_two_processes_do_not_work_on_one_folder(tmp_path, settings, monkeypatch):
    np.save(tmp_path / "k.npy", kspace_of(complex_images(1)))
    monkeypatch.setattr("datasets.files.PATIENCE", 0.0)
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=hold, args=(tmp_path / "out", theirs))
    process.start()
    try:
        assert ours.recv() == "held"
        with pytest.raises(ValueError, match="another process works on this folder"):
            command.reconstruct_file(settings(), tmp_path / "k.npy", tmp_path / "out", "cpu")
    finally:
        process.kill()
        process.join()
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_slice_that_fails_leaves_the_others(tmp_path, settings, monkeypatch):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(2)) * lines()
    load_prior = command.load_prior

    def broken(*arguments, **options):
        score, sde = load_prior(*arguments, **options)

        def first_is_nan(x, sigma):  # rows: real parts of two slices, then imaginary parts
            row = torch.arange(len(x))[:, None, None, None]
            return torch.where(row == 0, torch.nan, score(x, sigma))

        return first_is_nan, sde

    with monkeypatch.context() as patch:
        patch.setattr(command, "load_prior", broken)
        with pytest.raises(ValueError, match=r"1 slices failed.*\n  k.h5:0: not finite"):
            run(settings(), tmp_path / "k.h5", tmp_path / "out")
    kept = [path.name for path in (tmp_path / "out" / "parts").iterdir()]
    assert kept == ["00001.npz"]
    _, arrays = run(settings(), tmp_path / "k.h5", tmp_path / "out")
    assert np.isfinite(arrays["reconstruction"]).all()


def test_batches_shrink_until_they_fit(tmp_path, settings, monkeypatch):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(3)) * lines()
    _, whole = run(settings(batch_size=3), tmp_path / "k.h5", tmp_path / "whole")
    sizes = []

    def small(*arguments, **options):
        sizes.append(len(options["keys"]))
        if len(options["keys"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return draw_samples(*arguments, **options)

    monkeypatch.setattr(engine, "draw_samples", small)
    _, pieces = run(settings(batch_size=3), tmp_path / "k.h5", tmp_path / "pieces")
    assert sizes == [3, 1, 1, 1]
    np.testing.assert_array_equal(whole["key"], pieces["key"])
    np.testing.assert_allclose(whole["reconstruction"], pieces["reconstruction"], rtol=1e-4)


def test_an_error_in_one_slice_leaves_the_others(tmp_path, settings, monkeypatch):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(3)) * lines()

    def faulty(*arguments, **options):
        if "k.h5:1" in options["keys"]:
            raise ValueError("expected something else")
        return draw_samples(*arguments, **options)

    monkeypatch.setattr(engine, "draw_samples", faulty)
    with pytest.raises(ValueError, match=r"1 slices failed.*\n  k.h5:1: expected something else"):
        run(settings(), tmp_path / "k.h5", tmp_path / "out")
    kept = sorted(path.name for path in (tmp_path / "out" / "parts").iterdir())
    assert kept == ["00000.npz", "00002.npz"]


def test_what_is_no_slices_fault_ends_the_run(tmp_path, settings, monkeypatch):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(5)) * lines()
    sampler = SAMPLERS["pnp"]

    @functools.wraps(sampler)
    def fails(score, sde, operator, y, **keywords):
        if operator.domain_shape[-1] != rehearsal.SIDE:
            raise ValueError("cannot be")
        return sampler(score, sde, operator, y, **keywords)

    monkeypatch.setitem(SAMPLERS, "pnp", fails)
    with pytest.raises(ValueError, match=r"first 3 slices all failed alike.*cannot be"):
        run(settings(), tmp_path / "k.h5", tmp_path / "out")


def test_invalid_keywords_end_the_run_before_coil_maps(tmp_path, settings, monkeypatch):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(2)) * lines()
    monkeypatch.setattr(KspaceInput, "problem", lambda *args: pytest.fail("no problem was needed"))
    for field, value in {"momentum": 3.0, "end_sigma": 77.0}.items():
        with pytest.raises(ValueError, match=f"^(?!.*alike).*{field}"):
            run(settings(**{f"sampler.{field}": value}), tmp_path / "k.h5", tmp_path / "out")
    monkeypatch.setattr(KspaceInput, "holdout", lambda *args: pytest.fail("nothing was left out"))
    choices = settings(validate=0.1, choose="momentum=0.2,3")
    with pytest.raises(ValueError, match=r"momentum in \[0, 1\), got 3"):
        run(choices, tmp_path / "k.h5", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_setting_or_file_is_refused(tmp_path, settings, tiny_config):
    np.save(tmp_path / "k.npy", kspace_of(complex_images(1)[0]))
    out = tmp_path / "out"
    run(settings(), tmp_path / "k.npy", out)
    with pytest.raises(ConfigError, match=r"seed: 42 there, 1 now"):
        run(settings(seed=1), tmp_path / "k.npy", out)
    with pytest.raises(ConfigError, match=r"sampler.num_steps: 4 there, 5 now"):
        run(settings(**{"sampler.num_steps": 5}), tmp_path / "k.npy", out)
    run(settings(batch_size=2), tmp_path / "k.npy", out)
    write_prior(tmp_path / "prior.pt", tiny_config, depth=1)
    with pytest.raises(ConfigError, match=r"sha256\.prior"):
        run(settings(), tmp_path / "k.npy", out)
    write_prior(tmp_path / "prior.pt", tiny_config)
    np.save(tmp_path / "k.npy", kspace_of(complex_images(2)[1]))
    with pytest.raises(ConfigError, match=r"sha256\.input"):
        run(settings(), tmp_path / "k.npy", out)


def test_folder_has_what_it_promises(tmp_path, settings):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = kspace_of(complex_images(2)) * lines()
    out = tmp_path / "out"
    summary, _ = run(settings(**{"sampler.num_samples": 2}), tmp_path / "k.h5", out)
    assert {path.name for path in out.iterdir()} == {
        *("config.json", "preview.png", "reconstruction.h5", "reconstruction.nii.gz"),
        *("std.nii.gz", "quantile_05.nii.gz", "quantile_95.nii.gz", "undecided.nii.gz"),
        *("summary.json", "sampling.png", "report.html", ".lock"),
    }
    assert summary == json.loads((out / "summary.json").read_text())
    with h5py.File(out / "reconstruction.h5") as file:
        settings_there = json.loads(file.attrs["settings"])
        assert file.attrs["mask_sha256"] == summary["mask_sha256"]
        assert json.loads(file.attrs["code_version"])["version"].startswith("0.")
        assert "k-space" in file.attrs["unit"]
    assert settings_there["sampler"]["name"] == "warm_mmps"
    assert settings_there == json.loads((out / "config.json").read_text())
    picture = imread(out / "preview.png")[..., :3]
    assert picture.std() > 0.1
    assert (picture.max(2) - picture.min(2)).max() > 0.3  # the deviation is in colour


# ------------------------------------------------------------------------------------------ errors


def save(path, array):
    np.save(path, array)
    return str(path)


@pytest.mark.parametrize(
    ("array", "changes", "message"),
    [
        (np.zeros((8, 8), np.complex64), {}, "k-space is 0 in every chosen slice"),
        (np.full((8, 8), np.nan + 0j), {}, "expected finite values, got 64 NaN"),
        ("k", {"data.mask": np.ones(5)}, r"expected a mask of shape \(32, 32\), or of its 32"),
        ("k", {"data.mask": np.full(32, 2)}, "expected a mask of 0 and 1.*; give mask > 0"),
        ("k", {"data.mask": np.zeros(32)}, "expected a mask with measured positions"),
        ("k", {"data.sens_maps": np.ones((2, 32, 32))}, "expected complex coil maps of shape"),
        ("k", {"data.image_size": "1,2,3"}, "expected data.image_size as N or HEIGHT,WIDTH"),
        ("k", {"data.first_axis": "rows"}, "expected data.first_axis in"),
        ("k", {"data.angles": "a.npy"}, "data.angles is for a sinogram, the input is k-space"),
        ("k", {"data.slices": "first:2"}, "expected at least 2 slices"),
        ("k", {"operator.mask": "nomask"}, "expected a mask among"),
        ("k", {"sampler.name": "nosampler"}, "unknown sampler 'nosampler'; known: .*dds, .*pnp"),
        ("k", {"sampler.eta": 0.5}, "pnp has no sampler.eta"),
        ("k", {"sampler.name": "pnp", "sampler.num_samples": 2}, "set sampler.name to warm_mmps"),
        ("k", {"sampler.sigma_y": -1.0}, "expected sampler.sigma_y of at least 0"),
        ("k", {"precision": "int8"}, "expected precision in"),
        ("k", {"batch_size": -1}, "expected batch_size of at least 0"),
        ("shifted", {}, "apply numpy.fft.fftshift"),
        ("coils", {}, r"expected the central 8 x 8 of k-space to be measured, .* data.sens_maps"),
        ("sino", {"data.angles": np.arange(3)}, "expected an angle for each of 5 views, got 3"),
        ("sino", {"operator.geometry": "cone"}, "expected operator.geometry parallel or fan"),
        ("sino", {"operator.geometry": "fan"}, "expected operator.source_distance"),
        ("sino", {"operator.pixel_size": 0.0}, "expected a positive operator.pixel_size"),
        ("sino", {"data.mask": "m.npy"}, "data.mask is for k-space, the input is a sinogram"),
        (np.zeros((4, 9)), {}, "the sinogram is 0 in every chosen slice"),
        (np.ones((9, 4)), {}, r"at least 5 bins, got 4; sinograms are \(views, bins\)"),
        (np.ones((9, 8, 2)), {}, r"at least 5 bins, got 2; .*: real \+ 1j \* imaginary"),
    ],
)
def test_errors_come_before_any_work(tmp_path, settings, array, changes, message):
    kspace = kspace_of(complex_images(1)[0])
    arrays = {
        "k": kspace,
        "shifted": np.fft.fftshift(kspace),
        "coils": np.stack([kspace, kspace]) * lines(centre=4),
        "sino": np.ones((5, 9)),
    }
    path = tmp_path / "in.npy"
    np.save(path, arrays[array] if isinstance(array, str) else array)
    changes = {
        name: save(tmp_path / f"{name}.npy", value) if isinstance(value, np.ndarray) else value
        for name, value in changes.items()
    }
    with pytest.raises(ValueError, match=message):
        run(settings(**changes), path, tmp_path / "out")
    assert not (tmp_path / "out" / "reconstruction.h5").exists()


def test_missing_input_and_prior(tmp_path, settings):
    with pytest.raises(DataError, match="no such file or folder; check --input"):
        run(settings(), tmp_path / "nothing.h5", tmp_path / "out")
    np.save(tmp_path / "k.npy", kspace_of(complex_images(1)[0]))
    config = settings()
    config.prior = str(tmp_path / "no_prior")
    with pytest.raises(FileNotFoundError, match="the name of a shipped prior"):
        run(config, tmp_path / "k.npy", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a folder for --out, got a file"):
        run(settings(), tmp_path / "k.npy", tmp_path / "file")


def test_command_line(tmp_path, prior):
    np.save(tmp_path / "k.npy", kspace_of(complex_images(1)[0]) * lines())
    arguments = [
        *(f"--input={tmp_path / 'k.npy'}", f"--out={tmp_path / 'out'}"),
        *(f"--config.prior={prior}", "--config.sampler.num_steps=2"),
    ]
    done = subprocess.run(
        [sys.executable, "reconstruct.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"effective_acceleration [{32 / lines().sum():.3f}]" in done.stdout
    assert "result: point estimate by pnp, 2 steps" in done.stdout
    assert "estimated noise: " in done.stdout
    assert (tmp_path / "out" / "preview.png").is_file()


def test_errors_are_one_line(tmp_path, settings, monkeypatch):
    given = SimpleNamespace(
        config=settings(), input=str(tmp_path / "k.txt"), out=str(tmp_path), shard="auto"
    )
    (tmp_path / "k.txt").write_text("no k-space")
    monkeypatch.setattr(program.flags, "FLAGS", given)
    with pytest.raises(SystemExit, match=r"^error: .*is the input's folder"):
        program.main(None)
    given.out = str(tmp_path / "out")
    with pytest.raises(SystemExit, match=r"^error: .*k.txt: unknown kind of file; expected .h5"):
        program.main(None)


def test_metrics_that_do_not_exist_are_no_error(tmp_path, settings, monkeypatch, capsys):
    """A constant slice has none, images of less than 7 pixels no SSIM."""
    few = {"operator.mask": "equispaced1d", "operator.acceleration": 2.0}
    steps = np.repeat([[[1, 2]]], 8, 0).repeat(8, 1)  # two slices, each of one value
    for name, volume, said in (
        ("thin", 100 * image((6, 8))[:, :, None], r"reconstruction: \d+\.\d\d dB, SSIM -\n"),
        ("constant", steps, "results: "),
    ):
        source = write_nifti(tmp_path / f"{name}.nii.gz", volume, np.eye(4))
        given = SimpleNamespace(
            config=settings(**few), input=str(source), out=str(tmp_path / name), shard="auto"
        )
        monkeypatch.setattr(program.flags, "FLAGS", given)
        program.main(None)
        assert re.search(said, capsys.readouterr().out)
        assert (tmp_path / name / "report.html").is_file()
