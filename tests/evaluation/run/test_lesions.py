"""Metrics of lesions: formula, columns and tables; and how the embedded masks were found."""

import csv

import numpy as np
import pytest
import torch

from configs import load_config
from datasets import create_dataset
from datasets.samples.lesions import find_lesions
from evaluation import evaluate as evaluation
from evaluation.results.cells import METRICS, read_cell
from evaluation.run.lesions import lesion_metrics
from evaluation.show.markup import MISSING
from evaluation.show.study_table import is_finished
from evaluation.tables import make_table
from tests.conftest import ROOT


@pytest.fixture
def slice_with_lesion():
    """Head of 0.5 on black, lesion of 1; and its mask, second of a batch."""
    target = np.zeros((40, 40), dtype=np.float32)
    target[5:35, 5:35] = 0.5
    mask = torch.zeros(2, 1, 40, 40, dtype=torch.bool)
    mask[1, 0, 15:20, 15:20] = True
    target[15:20, 15:20] = 1
    return target, {"lesions": mask}


def test_a_kept_and_a_removed_lesion(slice_with_lesion):
    target, extras = slice_with_lesion
    inside = extras["lesions"][1, 0].numpy()
    image = target.copy()
    image[5:10, 5:35] += 0.1  # error far from the lesion
    image[:3] += 5  # outside the head, of no effect
    kept = lesion_metrics(target, image, extras, 1)
    assert kept == {"lesion_error": 0, "lesion_contrast": 1}
    image[inside] = 0.5
    gone = lesion_metrics(target, image, extras, 1)
    assert gone["lesion_contrast"] == 0
    elsewhere = np.sqrt(0.1**2 * 150 / (900 - 25))
    assert gone["lesion_error"] == pytest.approx(0.5 / elsewhere)
    image[inside] = 0.875
    half = lesion_metrics(target, image * np.exp(0.3j), extras, 1)  # of the magnitude
    assert half["lesion_contrast"] == pytest.approx(0.75)
    assert half["lesion_error"] == pytest.approx(0.125 / elsewhere)


def test_slices_without_lesions_have_no_metrics(slice_with_lesion):
    target, extras = slice_with_lesion
    assert lesion_metrics(target, target, extras, 0) == {}
    assert lesion_metrics(target, target, {}, 1) == {}


def test_an_image_without_any_error_has_no_ratio(slice_with_lesion):
    target, extras = slice_with_lesion
    found = lesion_metrics(target, target, extras, 1)
    assert np.isnan(found["lesion_error"])
    assert found["lesion_contrast"] == 1


def test_the_evaluation_writes_and_shows_them(tmp_path):
    folders = []
    for subset in ("brain", "ct"):
        config = load_config(str(ROOT / "configs" / "evaluate.py"))
        config.sampler.name, config.data.subset, config.operator.name = "zero_filled", subset, "mri"
        config.data.image_size, config.panels, config.limit = 128, 0, 9
        config.data.fit = "resize" if subset == "brain" else ""
        folders.append(tmp_path / subset)
        evaluation.evaluate(config, folders[-1], "cpu")
    data = create_dataset({"name": "samples", "image_size": 128, "fit": "resize"}, "test")
    expected = {
        item.key: bool(item.extras["lesions"].any()) for item in map(data.__getitem__, range(9))
    }
    assert 0 < sum(expected.values()) < 9
    with (folders[0] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        there = {row["lesion_error"] != "", row["lesion_contrast"] != ""}
        assert there == {expected[row["key"]]}
    both, ct = make_table(folders, "markdown"), make_table(folders[1:], "markdown")
    assert "| lesion error | lesion contrast |" in both
    assert f"| {MISSING} | {MISSING} |" in both.splitlines()[-1]
    assert "lesion" not in ct
    cells = [read_cell(folder) for folder in folders]
    assert is_finished(cells[0], cells[:1], "lesion_error")
    lines = list(csv.reader(make_table(folders, "csv").splitlines()))
    place = lines[0].index("lesion_contrast_mean")
    assert 0 < float(lines[1][place]) < 1
    assert lines[2][place] == ""


def test_the_nearest_contrast_to_one_is_the_best():
    better = METRICS["lesion_contrast"].better
    assert better({"0.80", "1.10", "1.30"}, key=float, default=None) == "1.10"
    assert better(set(), key=float, default=None) is None


def test_bright_spots_of_white_matter_are_found_and_cortex_is_not():
    y, x = np.mgrid[-64:64, -64:64]
    radius = np.hypot(x, 0.8 * y)
    image = np.where(radius < 50, 1.0, 0.0)
    image[(radius > 44) & (radius < 50)] = 1.4  # cortex
    image[np.hypot(np.abs(x) - 6, y) < 4] = 0.1  # ventricles
    image[np.hypot(np.abs(x) - 11, y) < 2] = 1.5  # beside them
    lesion = np.hypot(x + 25, y - 10) < 4
    image[lesion] = 1.5
    noise = np.random.default_rng(0).normal(0, 0.05, (2, *image.shape))
    volume = np.maximum(100 * (image + noise) * (image > 0), 0)
    found = find_lesions(volume, 1.0)
    assert found.shape == volume.shape
    for mask in found:
        assert (mask & lesion).sum() > 0.9 * lesion.sum()
        assert (mask & ~lesion).sum() < 0.1 * lesion.sum()
