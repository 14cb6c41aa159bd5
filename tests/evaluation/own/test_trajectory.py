"""K-space along a trajectory as the user's own measurement: maps, noise, hold-out, files."""

import numpy as np
import pytest
import torch

from configs.reconstruct import get_config
from datasets import bart
from datasets.measured_files import open_measurement
from datasets.sample import DataError
from evaluation.own import open_input
from evaluation.own.holdout import choose_along
from evaluation.own.noise_factor import noise_by_held_out
from operators import NonCartesianMRI
from operators.batch import expand
from operators.simulation import birdcage_maps
from operators.trajectories import radial, spiral
from reconstruct import Prior, reconstruct
from tests.helpers.reconstruct_inputs import image, kspace_of, phase

SIDE, UNIT = 32, 3e4
SPOKES = radial(60, 64)


def shrink(x, sigma):
    """The denoiser of white images; keeps what is measured, and is fast."""
    return x * 0.09 / (0.09 + expand(sigma, x) ** 2)


PRIOR = Prior.from_denoiser(shrink, sigma_min=0.01, sigma_max=2.0)
FEW = {"prior": PRIOR, "num_steps": 4}


def smooth(seed=0):
    """An image that is nearly limited to the disc of k-space that spokes cover, complex."""
    spectrum = np.fft.fftshift(np.fft.fft2(image((SIDE, SIDE), seed)))
    axis = (np.arange(SIDE) - SIDE // 2) / SIDE
    spectrum *= np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 0.12**2))
    truth = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum)))
    return (UNIT * truth / truth.max() * phase((SIDE, SIDE))).astype(np.complex64)


def measure(truth, coils=4, trajectory=SPOKES):
    operator = NonCartesianMRI(trajectory, birdcage_maps(coils, (SIDE, SIDE)))
    return operator.forward(torch.from_numpy(truth).reshape(-1, 1, SIDE, SIDE)).numpy()


def error(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def open_file(path, **fields):
    config = get_config()
    for name, value in fields.items():
        config.data[name] = value
    return open_input(path, config)


@pytest.mark.parametrize("form", ["complex", "swapped", "of the field of view", "torch"])
def test_arrays_in_images_out(form):
    truth, maps = smooth(), birdcage_maps(4, (SIDE, SIDE)).numpy()
    kspace, places = measure(truth)[0], SPOKES.numpy()
    size = SIDE
    if form == "complex":
        places = places[..., 0] + 1j * places[..., 1]
    elif form == "swapped":
        kspace, places = kspace.swapaxes(-1, -2), places.swapaxes(0, 1)
    elif form == "of the field of view":
        places, size = SIDE * places, None
    elif form == "torch":
        kspace, places = torch.from_numpy(kspace), torch.from_numpy(places)
    result = reconstruct(kspace, trajectory=places, maps=maps, image_size=size, sigma_y=0, **FEW)
    assert error(np.asarray(result.image), truth) < 0.02
    assert error(np.asarray(result.direct), truth) < 0.1
    assert isinstance(result.image, torch.Tensor) == (form == "torch")


def test_slices_and_one_coil():
    truth = np.stack([smooth(0), smooth(1)])
    kspace = measure(truth, coils=1)  # (2, 1, 60, 64)
    result = reconstruct(kspace, trajectory=SPOKES, image_size=SIDE, sigma_y=0, **FEW)
    size = np.abs(birdcage_maps(1, (SIDE, SIDE)).numpy())
    assert error(np.abs(result.image), np.abs(truth) * size) < 0.03
    alone = reconstruct(kspace[1], trajectory=SPOKES, image_size=SIDE, sigma_y=0, **FEW)
    np.testing.assert_allclose(alone.image, result.image[1], rtol=1e-4, atol=1e-4 * UNIT)


def test_maps_of_the_gridded_centre_and_noise(tmp_path):
    truth, rng = smooth(), np.random.default_rng(0)
    clean = measure(truth)[0]
    for level in (0.0, 300.0):
        noise = rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)
        kspace = (clean + level * noise).astype(np.complex64)
        np.savez(tmp_path / "a.npz", kspace=kspace, trajectory=SPOKES)
        opened = open_file(tmp_path / "a.npz", image_size=str(SIDE))
        assert (opened.kind, opened.facts["coils"]) == ("k-space along a trajectory", 4)
        maps = opened._maps(opened._read(0), 0)
        true = birdcage_maps(4, (SIDE, SIDE))
        along = (maps.conj() * true).sum(0).abs() / true.norm(dim=0)
        inside = torch.from_numpy(np.abs(truth) > 0.3 * UNIT)
        assert along[inside].min() > 0.995
        problem = opened.problem([0])
        found = float(opened.operator.noise(opened._read(0)[None]))
        assert found == pytest.approx(level, rel=0.1, abs=0.002 * UNIT)
        assert float(problem.scale) == pytest.approx(UNIT, rel=0.1)
        assert float(problem.noise) >= 0.0049  # of estimated maps
        direct = problem.restore(problem.direct)[0, 0].numpy()
        assert error(np.abs(direct), np.abs(truth)) < 0.1
        assert noise_by_held_out("", opened, type("S", (), {"sigma_y": None, "uses_noise": 1}))


@pytest.mark.parametrize(
    ("trajectory", "what"), [(SPOKES, "lines"), (spiral(2, 4096, turns=12), "positions")]
)
def test_left_out_parts_are_predicted_by_the_truth(tmp_path, trajectory, what):
    truth, maps = smooth(), birdcage_maps(4, (SIDE, SIDE)).numpy()
    kspace = measure(truth, trajectory=trajectory)[0]
    np.savez(tmp_path / "a.npz", kspace=kspace, trajectory=trajectory, sens_maps=maps)
    opened = open_file(tmp_path / "a.npz")  # the size is that of the maps
    held = opened.holdout(0, 0.1, seed=0)
    assert held.what == what
    there = held.y.shape[-1]
    total = trajectory[..., 0].numel()
    assert 0.02 * total < there < 0.12 * total
    assert held.problem.y.shape[-1] + there == total
    assert (held.operator.trajectory * SIDE).norm(dim=-1).min() >= 12
    problem = held.problem
    factor = problem.factor[0, 0].numpy()
    x = torch.from_numpy(truth * factor.conj() / float(problem.scale))[None, None]
    assert held.error(x) < 1e-3
    assert held.error(0 * x) == pytest.approx(1)


def test_pieces_of_few_lines_are_longer_than_a_cell():
    cells = SIDE * spiral(1, 2000, turns=12)
    held, what = choose_along(cells, 0.2, 8, torch.Generator().manual_seed(0))
    assert what == "positions"
    edges = torch.nonzero(held[0].diff()).flatten()
    runs = edges.diff()
    step = float(cells.diff(dim=1).norm(dim=-1).median())
    assert runs.max() * step >= 3
    with pytest.raises(ValueError, match="outside its central 99 cells"):
        choose_along(cells, 0.2, 99, torch.Generator())


def test_bart_files_through_the_command(tmp_path):
    truth = smooth()
    maps = birdcage_maps(4, (SIDE, SIDE)).numpy()
    bart.write_cfl(tmp_path / "k.cfl", bart.kspace_to_bart(measure(truth)[0], along=True))
    bart.write_cfl(tmp_path / "t.cfl", bart.trajectory_to_bart(SPOKES.numpy(), (SIDE, SIDE)))
    bart.write_cfl(tmp_path / "m.cfl", bart.kspace_to_bart(maps))
    files = {"trajectory": str(tmp_path / "t.cfl"), "sens_maps": str(tmp_path / "m.cfl")}
    opened = open_file(tmp_path / "k.cfl", **files)
    assert opened.facts["image_shape"] == [SIDE, SIDE]
    problem = opened.problem([0])
    found = problem.restore(problem.direct)[0, 0].numpy()
    assert error(found, truth) < 0.1
    assert len(opened.others) == 2


def test_an_opened_file_is_reconstructed_whole(tmp_path):
    truth, maps = np.stack([smooth(0), smooth(1)]), birdcage_maps(4, (SIDE, SIDE)).numpy()
    np.savez(tmp_path / "a.npz", kspace=measure(truth), trajectory=SPOKES)
    opened = open_measurement(tmp_path / "a.npz")
    result = reconstruct(opened, maps=maps, image_size=SIDE, sigma_y=0, **FEW)
    assert result.image.shape == (2, SIDE, SIDE)
    assert error(result.image, truth) < 0.02
    assert "sens_maps" not in opened.extras  # what was given has not changed it
    np.savez(tmp_path / "g.npz", kspace=kspace_of(maps * truth[:, None]))
    result = reconstruct(open_measurement(tmp_path / "g.npz"), maps=maps, sigma_y=0, **FEW)
    assert error(result.image, truth) < 0.02
    np.savez(tmp_path / "s.npz", sinogram=np.ones((12, 16)), angles=np.arange(12) * 15.0)
    real = Prior.from_denoiser(shrink, sigma_min=0.01, sigma_max=2.0)
    opened = open_measurement(tmp_path / "s.npz")
    result = reconstruct(opened, prior=real, num_steps=4, sigma_y=0.1, last_level="noise")
    assert result.image.shape == (1, 16, 16)
    with pytest.raises(ValueError, match=r"belong to a sinogram, got \['mask'\]"):
        reconstruct(opened, mask=np.ones(16), **FEW)


def test_what_does_not_fit_is_told(tmp_path):
    kspace = measure(smooth())[0]
    np.savez(tmp_path / "a.npz", kspace=kspace, trajectory=SPOKES)
    with pytest.raises(ValueError, match=r"expected data\.image_size.* up to \d+ pixels"):
        open_file(tmp_path / "a.npz")
    config = get_config()
    config.data.image_size, config.operator.mask = str(SIDE), "gaussian1d"
    with pytest.raises(ValueError, match=r"operator\.mask is for k-space and images"):
        open_input(tmp_path / "a.npz", config)
    with pytest.raises(ValueError, match="without a mask"):
        reconstruct(kspace, trajectory=SPOKES, mask=np.ones((60, 64)), image_size=SIDE, **FEW)
    with pytest.raises(ValueError, match="image_size with a trajectory"):
        reconstruct(kspace, image_size=SIDE, **FEW)
    np.savez(tmp_path / "b.npz", kspace=0 * kspace, trajectory=SPOKES)
    with pytest.raises(DataError, match="0 in every chosen slice"):
        open_file(tmp_path / "b.npz", image_size=str(SIDE))
    few = radial(6, 64)
    np.savez(tmp_path / "c.npz", kspace=measure(smooth(), trajectory=few)[0], trajectory=few)
    told = r"c\.npz: expected positions in the central 8 x 8 .*; give maps with data\.sens_maps"
    with pytest.raises(DataError, match=told):
        open_file(tmp_path / "c.npz", image_size=str(SIDE))
    moved = np.roll(kspace, 32, axis=-1)
    np.savez(tmp_path / "d.npz", kspace=moved, trajectory=SPOKES)
    opened = open_file(tmp_path / "d.npz", image_size=str(SIDE))
    assert "not larger around the origin" in opened.notes[-1]
