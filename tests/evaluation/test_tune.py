"""Choice of a keyword on validation slices."""

import json
import math
import subprocess
import sys

import pytest

from configs import load_config
from datasets.prepare import prepare_dataset
from evaluation.results.folder import read_rows
from evaluation.tune import mean_row, parse, search, tune
from tests.conftest import ROOT


def small_config():
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.data.image_size, config.sampler.name, config.limit = 32, "cg_sense", 4
    config.operator.center_fraction = 0.1
    return config


def test_search_refines_around_the_best_value():
    asked = []

    def score(value):
        asked.append(value)
        return -abs(math.log(value / 0.02))

    assert search(score, [1e-4, 1e-2, 1.0], 0) == 1e-2
    assert search(score, [1.0, 1e-2, 1e-4], 1) == 1e-2  # against 1e-3 and 0.1
    # then between 1e-3 and 1e-2, and between 1e-2 and 0.1: 0.0316 is nearer
    assert search(score, [1e-4, 1e-2, 1.0], 2) == 0.0316
    assert search(score, [1e-4, 1e-2, 1.0], 3) == 0.0178
    assert search(score, [0.5, 1.0], 1) == 0.5  # at the border there is one neighbour
    assert 0.707 in asked


def test_tune_writes_what_evaluate_measures(tmp_path):
    options = {"keyword": "weight", "grid": ["0.01", "1.0"], "refine": 1, "split": "val"}
    best = tune(small_config(), tmp_path, "cpu", **options)
    scores = {v: mean_row(tmp_path / f"weight={v}")["psnr"] for v in (0.01, 0.1, 1.0)}
    assert best == max(scores, key=scores.get)
    assert json.loads((tmp_path / "tune.json").read_text()) == {
        "keyword": "weight",
        "best": best,
        "split": "val",
        **mean_row(tmp_path / f"weight={best}"),
    }
    lines = (tmp_path / "tune.csv").read_text().splitlines()
    assert lines[0] == "value,psnr,seconds,slices"
    assert [line.split(",")[0] for line in lines[1:]] == ["0.01", "0.1", "1.0"]
    keys = [row["key"] for row in read_rows(tmp_path / "weight=0.1")]
    config = small_config()
    assert keys == prepare_dataset(config.data, "val").keys[:4]
    assert config.data.split == "test"  # the caller's config is left alone


def test_values_take_the_type_of_the_field():
    config = small_config()
    assert parse(config, "weight", ["1", "1e-3"]) == [1.0, 1e-3]
    assert parse(config, "max_iterations", ["3", "10"]) == [3, 10]
    assert parse(config, "wavelet", ["haar", "db4"]) == ["haar", "db4"]
    with pytest.raises(ValueError, match=r"expected values of type int .* got 1\.5"):
        parse(config, "max_iterations", ["1.5"])
    with pytest.raises(ValueError, match=r"unknown keyword 'lambda' .* known: .*eta"):
        parse(config, "lambda", ["1"])
    with pytest.raises(ValueError, match="expected --grid as values"):
        parse(config, "weight", [])


@pytest.mark.parametrize(("keyword", "grid"), [("weight", ["0", "1"]), ("wavelet", ["haar"])])
def test_only_positive_numbers_are_refined(tmp_path, keyword, grid):
    with pytest.raises(ValueError, match=f"expected positive numbers of {keyword} to refine"):
        tune(
            small_config(), tmp_path, "cpu", keyword=keyword, grid=grid, refine=1, split="val"
        )  # fmt: skip


def test_command_line_prints_the_flag(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "evaluation.tune", f"--out={tmp_path}", "--keyword=weight"),
            *("--grid=0.1,10", "--refine=0", "--config.sampler.name=cg_sense"),
            *("--config.data.image_size=32", "--config.operator.center_fraction=0.1"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "best: --config.sampler.weight=0.1"
