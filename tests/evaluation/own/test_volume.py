"""Slices of a file reconstructed together: gain, slabs, shards, the weight, what is refused."""

import h5py
import numpy as np
import pytest
import torch

from configs import load_config
from evaluation.own import volume
from evaluation.own.folder import reconstruct_file
from evaluation.own.slabs import HALO, SLAB, on_scale, slabs, solve_slab
from evaluation.own.volume import FULL, probes, unlikeness, weight_of
from evaluation.run.shards import Shard
from operators.inverse_problem import image_problem, mri_problem
from operators.masks import make_mask
from operators.mri import SingleCoilMRI
from reconstruct import reconstruct
from tests.conftest import ROOT
from tests.helpers.reconstruct_inputs import kspace_of

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE, NOISE, UNIT = 32, 0.02, 500.0


def phantom(count, side=SIDE):
    """Ellipsoids that reach through the slices, (count, side, side), smooth from one to the next.

    Edges are slanted along z, so that neighbours are alike but not the same.
    """
    z = np.linspace(0, count / 16, count)[:, None, None]
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    volume = 0.3 * ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1)
    for cy, cx, r, amount in ((0, 0.3, 0.3, 0.4), (-0.3, -0.3, 0.25, 0.25), (0.4, -0.1, 0.2, 0.7)):
        moved = np.hypot(x - cx * np.cos(z), y - cy * np.cos(1.5 * z))
        volume = volume + amount / (1 + np.exp((moved - r) * 25))
    return (volume / volume.max()).astype(np.float32)


def measured(truth, *, acceleration=3, seed=0):
    """K-space ``(n, 1, H, W)`` with a mask of its own for each slice, and noise."""
    rng = np.random.default_rng(seed)
    shape = truth.shape[-2:]
    masks = np.stack(
        [
            make_mask(
                "gaussian1d", shape, seed=k, acceleration=acceleration, center_fraction=0.2
            ).numpy()
            for k in range(len(truth))
        ]
    )
    white = rng.standard_normal((2, *truth.shape))
    noise = (NOISE * (white[0] + 1j * white[1])).astype(np.complex64)
    return (UNIT * masks * (kspace_of(truth) + noise))[:, None], masks


def sagittal_psnr(images, truth):
    errors = np.square(np.abs(images) / UNIT - truth).mean((0, 1))  # of each column
    seen = truth.max((0, 1)) > 0.1
    return -10 * np.log10(errors[seen]).mean()


def write(path, truth, **options):
    kspace, masks = measured(truth, **options)
    with h5py.File(path, "w") as file:
        file["kspace"], file["mask"] = kspace[:, 0], masks
    return path


def settings(**changes):
    config = load_config(str(ROOT / "configs" / "reconstruct.py"))
    config.sampler.num_steps = 8
    config.sampler.sigma_y = NOISE * UNIT
    config.volume.weight = "0.667"
    config.update_from_flattened_dict(changes)
    return config


def images_of(folder):
    with h5py.File(folder / "reconstruction.h5") as file:
        return file["reconstruction"][:]


def test_the_view_through_the_plane_gains_at_least_half_a_decibel():
    truth = phantom(16)
    kspace, masks = measured(truth)
    options = {"mask": masks, "sigma_y": NOISE * UNIT, "num_steps": 15}
    alone = reconstruct(kspace, **options)
    together = reconstruct(kspace, **options, volume="auto")
    assert together.volume["weight"] == pytest.approx(FULL)
    assert alone.volume is None
    gain = sagittal_psnr(together.image, truth) - sagittal_psnr(alone.image, truth)
    assert gain > 0.5
    steps = [np.diff(np.abs(r.image) / UNIT - truth, axis=0) for r in (alone, together)]
    assert np.square(steps[1]).mean() < 0.8 * np.square(steps[0]).mean()


def test_where_slabs_are_cut_is_not_seen(monkeypatch):
    """Another cut changes no slice by more than a tenth of its error (root mean square)."""
    truth = phantom(32)
    kspace, masks = measured(truth)
    options = {"mask": masks, "sigma_y": NOISE * UNIT, "num_steps": 12, "volume": 0.667}
    whole = np.abs(reconstruct(kspace, **options).image) / UNIT
    error = np.sqrt(np.square(whole - truth).mean())
    assert len(slabs(32)) == 1
    monkeypatch.setattr("reconstruct.slabs", lambda count: slabs(count, slab=16))
    cut = np.abs(reconstruct(kspace, **options).image) / UNIT
    by_slice = np.sqrt(np.square(cut - whole).mean((1, 2)))
    assert by_slice.max() > 0  # it was cut
    assert by_slice.max() < error / 10


def test_slabs_keep_each_slice_once():
    for count in (8, 47, 48, 49, 200, 1000):
        parts = slabs(count)
        assert [n for part in parts for n in part.kept] == list(range(count))
        sizes = [len(part.kept) for part in parts]
        assert max(sizes) <= SLAB
        assert max(sizes) - min(sizes) <= 1
        for part in parts:
            assert part.begin == max(0, part.first - HALO)
            assert part.end == min(count, part.last + HALO)


def test_shards_give_what_one_process_gives(tmp_path, monkeypatch):
    cut = lambda count: slabs(count, slab=8, halo=4)  # noqa: E731
    monkeypatch.setattr("evaluation.own.folder.slabs", cut)
    source = write(tmp_path / "k.h5", phantom(18))
    config = settings(**{"data.first_axis": "slices"})
    reconstruct_file(config, source, tmp_path / "one", "cpu")
    several = tmp_path / "several"
    assert reconstruct_file(config, source, several, "cpu", Shard(1, 2)) is None
    assert not (several / "reconstruction.h5").exists()
    assert len(list((several / "parts").glob("*.npz"))) == 6  # the middle one of three slabs
    summary = reconstruct_file(config, source, several, "cpu", Shard(0, 2))
    assert summary["volume"]["weight"] == 0.667
    np.testing.assert_array_equal(images_of(several), images_of(tmp_path / "one"))
    # and a process that comes late finds it done
    assert reconstruct_file(config, source, several, "cpu", Shard(1, 2)) == summary


def test_shards_of_single_slices(tmp_path):
    source = write(tmp_path / "k.h5", phantom(6))
    config = settings(**{"data.first_axis": "slices", "volume.weight": "0", "batch_size": 2})
    reconstruct_file(config, source, tmp_path / "one", "cpu")
    assert reconstruct_file(config, source, tmp_path / "n", "cpu", Shard(0, 2)) is None
    assert reconstruct_file(config, source, tmp_path / "n", "cpu", Shard(1, 2)) is not None
    np.testing.assert_array_equal(images_of(tmp_path / "n"), images_of(tmp_path / "one"))


def test_a_slab_that_is_missing_is_done_again_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.own.folder.slabs", lambda count: slabs(count, slab=8, halo=2))
    source = write(tmp_path / "k.h5", phantom(16))
    config = settings(**{"data.first_axis": "slices"})
    reconstruct_file(config, source, tmp_path / "one", "cpu")
    out = tmp_path / "out"
    assert reconstruct_file(config, source, out, "cpu", Shard(0, 2)) is None
    kept = {path: path.stat().st_mtime_ns for path in (out / "parts").glob("*.npz")}
    assert len(kept) == 8
    seen = []
    monkeypatch.setattr(
        "evaluation.own.folder.solve_slab",
        lambda opened, slab, *a, **k: seen.append(slab) or solve_slab(opened, slab, *a, **k),
    )
    reconstruct_file(config, source, out, "cpu")
    assert [slab.first for slab in seen] == [8]
    np.testing.assert_array_equal(images_of(out), images_of(tmp_path / "one"))


def test_neighbours_that_are_not_alike_stay_alone():
    truth = phantom(64)[np.random.default_rng(3).permutation(64)][:9]
    truth = truth[:, ::-1] * np.linspace(0.3, 1, 9)[[0, 8, 1, 7, 2, 6, 3, 5, 4], None, None]
    kspace, masks = measured(truth.astype(np.float32))
    options = {"mask": masks, "sigma_y": NOISE * UNIT, "num_steps": 6}
    alone, asked = reconstruct(kspace, **options), reconstruct(kspace, **options, volume="auto")
    assert asked.volume["weight"] == 0
    np.testing.assert_array_equal(asked.image, alone.image)


def test_weight_falls_with_the_ratio_of_steps():
    assert weight_of(0.5) == weight_of(volume.ALIKE) == FULL
    assert weight_of((volume.ALIKE + volume.UNLIKE) / 2) == pytest.approx(FULL / 2)
    assert weight_of(volume.UNLIKE) == weight_of(100.0) == 0


def test_unlikeness_of_ramps():
    """Of a x + b y + c z: |c| over the mean of |a| and |b|."""
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    first = 2 * x + 4 * y
    pairs = torch.stack([first, first + 6, first + 100, first + 94])[:, None]
    assert unlikeness(pairs) == pytest.approx(2.0)
    assert unlikeness(torch.ones(2, 1, 4, 4)) == float("inf")


@pytest.mark.parametrize("count", [8, 9, 13, 200])
def test_probes_are_pairs_of_neighbours_spread_over_the_volume(count):
    items = probes(count)
    assert items == sorted(set(items))
    assert [b - a for a, b in zip(items[::2], items[1::2], strict=True)] == [1] * 4
    assert items[0] <= count / 8
    assert count * 7 / 8 - 1 <= items[-1] < count


def test_problems_on_one_scale_measure_the_same_images():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((3, 1, 8, 8)) * [[[[5.0]]], [[[2.0]]], [[[9.0]]]] + 1)
    operator = SingleCoilMRI(torch.ones(8, 8, dtype=torch.bool))
    before = image_problem(operator, images)
    after = on_scale(before, 10.0, 0.5)
    torch.testing.assert_close(after.y, operator.forward((images - 0.5) / 10))
    torch.testing.assert_close(after.restore(after.direct), before.restore(before.direct))
    kspace = torch.from_numpy(kspace_of(rng.random((2, 1, 8, 8)) * [[[[5.0]]], [[[2.0]]]]))
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    before = mri_problem(kspace, mask, noise=torch.tensor([0.3, 0.3]))
    after = on_scale(before, 4.0, 0.0)
    torch.testing.assert_close(after.noise, torch.full((2,), 0.3 / 4))
    torch.testing.assert_close(after.y, kspace / 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volume": "some"}, "volume.weight as auto or a number"),
        ({"volume": 1.5}, "volume.weight as auto or a number"),
        ({"volume": 0.5, "sampler": "dds"}, "only pnp does so, the sampler is dds"),
        ({"volume": "auto", "options": {"tolerance": 0.01}}, "tolerance is for single slices"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(options, message):
    kspace, masks = measured(phantom(8))
    with pytest.raises(ValueError, match=message):
        reconstruct(kspace, mask=masks, **options)


def test_few_slices_are_refused():
    kspace, masks = measured(phantom(5))
    with pytest.raises(ValueError, match="takes 8 slices or more, got 5"):
        reconstruct(kspace, mask=masks, volume="auto")
