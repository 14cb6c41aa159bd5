"""What a training takes, and the command that submits it."""

import pytest

from configs import load_config
from tests.conftest import ROOT
from tests.helpers.scripts import bash
from training_scripts.plan import main, plan


def test_hours_of_the_study_s_priors():
    """The figures of docs/cluster.md."""
    for spec, hours, tflop in (
        ("fastmri_knee.py:1", 18, 2.55),
        ("ct.py:4_attention", 19, 4 * 6.23),
    ):
        config = load_config(str(ROOT / "configs" / spec))
        found = plan(config, ROOT / "nowhere", None)
        assert found.hours == pytest.approx(hours, abs=0.5)
        assert found.tflop == pytest.approx(tflop, rel=0.01)
        assert plan(config, ROOT / "nowhere", 50).hours == pytest.approx(2 * found.hours)


def test_a_run_tells_its_own_speed(tmp_path):
    (tmp_path / "log.csv").write_text("step,images_per_second\n100,1\n200,40\n300,40\n")
    config = load_config(str(ROOT / "configs" / "ct.py:1"))
    config.training.num_steps = 36_300
    found = plan(config, tmp_path, None)
    assert found.steps == 36_000
    assert found.hours == pytest.approx(36_000 * 4 / 40 / 3600)
    assert "40 images/s measured, 300 steps done" in found.source
    assert plan(config, tmp_path, 100).source == "100 TFLOP/s, as given"
    config.training.num_steps = 10
    assert plan(config, tmp_path, None).hours == 0


def test_a_script_plans_its_sizes(tmp_path):
    flags = ("--plan", "1", "4_small", "--config.training.num_steps=400000", "--tflops=80")
    result = bash("training_scripts/train_ct_2026.sh", *flags, RUNS=str(tmp_path))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1].split()[:4] == ["1", "400000", "2.55", "3.5"]  # hours
    assert lines[2].split()[:2] == ["4_small", "400000"]
    assert lines[-1] == (
        "sbatch --array=0-1%4 --time=06:00:00 training_scripts/train_ct_2026.sh 1 4_small "
        "--config.training.num_steps=400000"
    )
    assert not list(tmp_path.iterdir())


def test_wrong_flags_are_refused():
    for flag, known in (
        ("--config.training.steps=4", "training.num_steps"),
        ("--tflop=1", "--help"),
    ):
        with pytest.raises(SystemExit, match=known):
            main(["ct", "1", flag])
