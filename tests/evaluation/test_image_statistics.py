"""Image statistics against NumPy, streaming, and the script."""

import subprocess

import hypothesis.extra.numpy
import numpy as np
import pytest
import torch
from hypothesis import given
from matplotlib.axes import Axes

from configs import ConfigError
from datasets.prepare import prepare_dataset
from evaluation import image_statistics as module
from evaluation.image_statistics import (
    BINS,
    RANGE,
    bin_centres,
    count_gradients,
    draw,
    image_statistics,
    main,
    negative_log,
    stream,
)
from evaluation.show.gradient_shape import EXPONENTS, shape_of
from tests.conftest import ROOT
from tests.helpers.data_writers import write_fastmri


def numpys(gradient):
    """Counts by NumPy; float64, for its edges in float32 are not exactly where they should be."""
    return np.histogram(gradient.astype(np.float64), BINS, (-RANGE, RANGE))[0]


@pytest.mark.parametrize("threads", [1, 3])
def test_matches_numpy_however_it_is_streamed(threads):
    generator = torch.Generator().manual_seed(0)
    images = 0.5 + 0.15 * torch.randn(7, 1, 12, 9, generator=generator)
    result = image_statistics(iter(images.split(3)), threads=threads)
    array = images[:, 0].numpy()
    assert result.count == 7
    np.testing.assert_allclose(result.mean, array.mean(0, dtype=np.float64), rtol=1e-12)
    for axis, counts in ((2, result.horizontal), (1, result.vertical)):
        np.testing.assert_array_equal(counts, numpys(np.diff(array, axis=axis)))


def test_counts_are_numpys_at_every_edge():
    edges = np.linspace(-RANGE, RANGE, BINS + 1).astype(np.float32)
    near = np.concatenate(
        [edges, np.nextafter(edges, np.float32(1)), np.nextafter(edges, np.float32(-1))]
    )
    np.testing.assert_array_equal(count_gradients(near), numpys(near))
    assert numpys(near).sum() >= 3 * (BINS - 1)  # of 3 * 180, some at the ends lie outside
    outside = np.float32([0.3511, -0.3511, 1, -1, 5e8, -5e8])
    assert count_gradients(outside).sum() == 0


@given(hypothesis.extra.numpy.arrays(np.float32, (4, 5), elements={"min_value": 0, "max_value": 1}))
def test_counts_are_numpys_for_any_image(image):
    for axis in (0, 1):
        gradient = np.diff(image, axis=axis)
        np.testing.assert_array_equal(count_gradients(gradient), numpys(gradient))


def test_the_disk_cache_is_mapped_anew_without_effect(tmp_path, monkeypatch):
    data = {"name": "samples", "subset": "ct", "cache": "disk", "cache_dir": str(tmp_path)}
    cached = prepare_dataset(data, "train", processes=1)
    images = torch.stack([cached[i].image for i in range(len(cached))])
    monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(module, "REMAP", 3)
    assert torch.equal(torch.cat(list(stream(cached, "brain"))), images)
    before = image_statistics([images])
    after = image_statistics(stream(cached, "brain"))
    np.testing.assert_array_equal(before.horizontal, after.horizontal)
    np.testing.assert_allclose(before.mean, after.mean, rtol=1e-12)


def test_complex_images_are_taken_as_magnitudes():
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    phase = torch.polar(torch.ones(6, 6), torch.arange(36.0).reshape(6, 6))
    expected, result = image_statistics([images]), image_statistics([images * phase])
    np.testing.assert_allclose(result.mean, expected.mean, rtol=1e-6)


def test_negative_log_is_shifted_and_without_end_bins():
    counts = np.ones(BINS)
    counts[BINS // 2] = np.e**2
    counts[10] = 0
    counts[0] = counts[-1] = 1e9  # dropped
    values = negative_log(counts)
    assert len(values) == BINS - 2 == len(bin_centres()[1:-1])
    assert values[BINS // 2 - 1] == 0
    assert values[20] == pytest.approx(2)
    assert np.isnan(values[9])
    assert bin_centres()[BINS // 2] == pytest.approx(0, abs=1e-15)


def test_a_bin_is_a_grey_level_of_8_bits():
    levels = np.random.default_rng(0).integers(0, 256, (1, 1, 200, 200))
    images = torch.from_numpy((levels / 255).astype(np.float32))
    found = image_statistics([images]).horizontal
    differences = np.diff(levels[0, 0], axis=1).ravel()
    half = BINS // 2
    expected = [(differences == level).sum() for level in range(-half, half + 1)]
    assert found.tolist() == expected
    assert found.min() > 0  # none is empty


def test_exponent_and_kurtosis_of_known_distributions():
    places = np.linspace(-20, 20, 40_001)
    for exponent, kurtosis in ((2, 3), (1, 6), (0.7, None)):
        counts = 1e6 * np.exp(-(np.abs(2 * places) ** exponent))
        found = shape_of(places, counts)
        assert found[0] == pytest.approx(exponent, rel=2e-3)
        if kurtosis:
            assert found[1] == pytest.approx(kurtosis, rel=2e-3)
    assert np.isnan(shape_of(places, 1.0 * (places == 0))).all()
    two_values = 1.0 * (np.abs(places) == 20)
    assert shape_of(places, two_values) == pytest.approx((EXPONENTS[1], 1))


def test_figure_has_letters_one_scale_and_shapes():
    rng = torch.Generator().manual_seed(0)
    results = {
        name: image_statistics([part * torch.rand(3, 1, 16, 16, generator=rng)])
        for name, part in (("a", 0.3), ("b", 1.0))
    }
    figure = draw(results)
    titled = [axis for axis in figure.findobj(Axes) if axis.get_title(loc="left")]
    assert [axis.get_title(loc="left")[:3] for axis in titled] == ["(a)", "(b)", "(c)", "(d)"]
    scales = {axis.images[0].get_clim() for axis in titled[:2]}
    assert scales == {(0, max(r.mean.max() for r in results.values()))}
    for axis, direction in zip(titled[2:], ("horizontal", "vertical"), strict=True):
        texts = [text.get_text() for text in axis.get_legend().get_texts()]
        for text, (name, found) in zip(texts, results.items(), strict=True):
            exponent, kurtosis = shape_of(bin_centres(), getattr(found, direction))
            assert text == f"{name}: exponent {exponent:.2f}, kurtosis {kurtosis:.0f}"


def test_unfit_input_is_an_error():
    with pytest.raises(ValueError, match="expected at least one image, got none"):
        image_statistics(iter([]))
    with pytest.raises(ValueError, match=r"expected images of one size, got \(4, 4\) after"):
        image_statistics(iter([torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 4, 4)]))
    with pytest.raises(ValueError, match="expected finite images, got NaN"):
        image_statistics([torch.full((1, 1, 4, 4), torch.nan)])
    with pytest.raises(SystemExit, match="unknown field 'size'; known: acquisition, axis"):
        main(["x=configs/demo.py,size=3"])
    with pytest.raises(SystemExit, match=r"expected LABEL=CONFIG\.py"):
        main(["configs/demo.py"])


def test_the_script_makes_the_figure(tmp_path):
    done = subprocess.run(
        ["bash", "hist.sh", "--quick"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OUT": str(tmp_path), "OMP_NUM_THREADS": "1"}
        | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in tmp_path.iterdir()}
    assert {"image_statistics.png", "image_statistics.pdf", "brain MR.csv"} <= written


def test_paths_may_have_commas(tmp_path):
    root = tmp_path / "Doe, J (knee)"
    for i in range(3):
        write_fastmri(root / f"f{i}.h5", slices=1, size=(24, 20), kspace=False)
    spec = f"a, b=configs/fastmri_knee.py,root={root},image_size=16,acquisition=,slices="
    label, data = module.open_data(spec, "train")
    assert label == "a, b"
    assert data[0].image.shape == (1, 16, 16)
    with pytest.raises(ConfigError, match=r"unknown field 'size'"):
        module.open_data(spec + ",size=16", "train")


def test_labels_are_files_names_and_each_data_sets_own(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(module, "open_data", lambda spec, split: opened.append(spec))
    for twice in (["x=a.py", "x=b.py"], ["T1/T2=a.py", "T1_T2=b.py"]):
        with pytest.raises(SystemExit, match=r"a label of its own .* got (x|T1_T2)\.csv more"):
            module.main([*twice, f"--out={tmp_path}"])
    assert not opened  # before anything is read
    data = "=configs/demo.py,subset=brain,image_size=8"
    monkeypatch.undo()
    module.main([f"T1/T2{data}", f"--out={tmp_path}"])
    assert {path.name for path in tmp_path.iterdir()} >= {"T1_T2.csv", "image_statistics.png"}
