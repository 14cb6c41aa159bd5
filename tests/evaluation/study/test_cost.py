"""What a grid costs: calls, operations, hours, and the time limit of its array."""

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from configs import load_config
from evaluation import grid
from evaluation.study import cost as module
from evaluation.study.cost import Cost, choose_rate, cost_of, time_limit
from evaluation.study.grids import GRIDS, NOISY_GRIDS
from evaluation.study.grids_2026 import GRIDS_2026
from models import create_model
from tests.conftest import ROOT
from tests.helpers.grids import write_results

pytestmark = pytest.mark.usefixtures("one_thread")


NESTED = "study2026_nested"


def find(grids, name, folder):
    return next(cell for cell in grids[name] if cell.folder == folder)


# TFLOP of the study's sizes as in docs/sizes.md
@pytest.mark.parametrize(
    ("grids", "name", "folder", "expected"),
    [
        (GRIDS, "mri", "brain/radial_29/knee_1_pc", Cost(500, 2 * 500, 0.849)),
        (GRIDS, "jalal", "brain/radial_29/natural_2_jalal", Cost(500, 3 * (500 - 281), 1.85)),
        (GRIDS, "ct", "head/views_30/ct_4_attention_ccdf", Cost(128, 2 * 300, 2.08)),
        (GRIDS, "baselines", "brain/radial_29/unet", Cost(500, 0, 0)),
        # the derivative of a call as two more
        (GRIDS_2026, "study2026_mri", "brain/radial_29/knee_4_dps", Cost(100, 250, 3 * 2.07)),
        (GRIDS_2026, "study2026_ct", "head/fan_60/ct_1_small_pc", Cost(100, 2000, 0.0236)),
        # depths of nested networks
        (GRIDS_2026, NESTED, "brain/radial_29/knee_structured_1_pc", Cost(100, 500, 0.73)),
        (GRIDS_2026, NESTED, "brain/radial_29/knee_structured_4_pc", Cost(100, 500, 1.08)),
    ],
)
def test_the_cost_of_a_cell(grids, name, folder, expected):
    found = cost_of(find(grids, name, folder))
    assert found[:2] == expected[:2]
    assert found.tflop == pytest.approx(expected.tflop, rel=0.01)


def test_flags_that_are_passed_on_count():
    cell = find(GRIDS, "mri", "brain/radial_29/knee_1_pc")
    flags = ["--config.limit=7", "--config.sampler.num_steps=20", "--config.sampler.num_samples=4"]
    found = cost_of(cell, flags)
    assert found[:2] == (7, 2 * 20 * 4)
    # the study's DPS of 2026 skips the levels above about 1
    cell = find(GRIDS_2026, "study2026_mri", "brain/radial_29/knee_1_dps")
    assert cost_of(cell, ["--config.protocol=study2026"]).calls < cost_of(cell).calls


def test_samples_that_share_a_first_image_pay_for_it_once():
    # measured in a run: recon.nfe of evaluate; a sinogram's first level takes a call a sample
    cell = find(NOISY_GRIDS, "noisy", "brain/gaussian1d_4x_noise_0.03/natural_small_mean_of_8")
    assert cost_of(cell).calls == 50 + 8 * 20
    cell = find(NOISY_GRIDS, "noisy", "ct/views_30_photons_10000/natural_small_mean_of_8")
    assert cost_of(cell).calls == 50 + 8 * (20 + 1)


def test_levels_are_those_of_the_prior():
    """Langevin skips levels above about 1: fewer of a prior whose largest is 5."""
    cell = find(grid.ALL_QUICK, "jalal", "samples_brain/gaussian1d_4x/natural_1_jalal")
    below = sum(0.01 * 500 ** (k / 49) <= 1 for k in range(50))
    assert cost_of(cell).calls == pytest.approx(3 * below, abs=3)


def test_operations_are_those_of_a_real_call():
    config = load_config(str(ROOT / "configs" / "demo.py"))
    net = create_model(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.rand(1, 1, 32, 32), torch.ones(1))
    assert module.count_flops(config, 32) == counter.get_total_flops() > 0
    both = module.count_flops(config, 32, backward=True)
    assert both == pytest.approx(3 * counter.get_total_flops(), rel=0.05)


@pytest.mark.parametrize(
    ("hours", "limit"),
    [(0.0, "00:30:00"), (1 / 3, "01:00:00"), (0.34, "01:30:00"), (20, "30:30:00")],
)
def test_a_time_limit_has_half_as_much_again_and_half_an_hour(hours, limit):
    assert time_limit(hours) == limit


def test_hours_are_those_of_finished_slices(tmp_path):
    folder = write_results(tmp_path / "a", [("f:0", 30, 0.9, 0.1), ("f:1", 30, 0.9, 0.1)])
    costs = {str(folder): Cost(500, 6, 0.5), str(tmp_path / "none"): Cost(500, 6, 1.0)}
    rate = choose_rate(costs, None, None)  # 6 calls of 0.5 TFLOP in 2 s
    assert rate.tflops == pytest.approx(1.5)
    assert "1.5 TFLOP/s, measured on 2 finished slices" in rate.source
    assert rate.hours(Cost(3600, 6, 1.0)) == pytest.approx(6 / 1.5)
    assert choose_rate(costs, 40, None).tflops == 40
    assert choose_rate(costs, None, 0.5).hours(Cost(3600, 6, 1.0)) == pytest.approx(3)
    assert choose_rate({}, None, None).tflops == module.TFLOPS


@pytest.mark.parametrize("name", ["mri", "jalal", "ct", "lambda", "study2026_mri", "study2026_ct"])
def test_the_scripts_time_limit_fits(name):
    header = (ROOT / f"evaluation/evaluate_{name}.sh").read_text()
    costs = {cell.folder: cost_of(cell) for cell in grid.ALL[name]}
    longest = max(map(choose_rate({}, None, None).hours, costs.values()))
    assert f"#SBATCH --time={time_limit(longest)}\n" in header


def test_a_plan_ends_in_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for name in ("NPROC", "OUT"):
        monkeypatch.delenv(name, raising=False)

    def lines(*argv: str) -> list[str]:
        grid.main([*argv, "--plan", f"--out={tmp_path}"])
        return capsys.readouterr().out.splitlines()

    flags = ("mri", "--only=*/radial_29/*_[12]_pc", "--seconds-per-call=0.036")
    found = lines(*flags, "--config.limit=100")
    assert found[1].split() == ["knee_1_pc", "3", "100", "1000", "0.849", "1.00"]
    assert "12 cells, 1.2 million network calls, 12 GPU hours" in found
    assert found[-1] == (
        "sbatch --array=0-11%8 --time=02:00:00 evaluation/evaluate_mri.sh "
        "'--only=*/radial_29/*_[12]_pc' --config.limit=100"
    )
    assert lines(*flags, "--nproc=5")[-1].startswith(
        "NPROC=5 sbatch --array=0-11%8 --time=02:00:00 --gpus-per-node=5 "
    )
    assert lines("baselines")[-2:] == [
        "78 cells; their hours are not known",
        "sbatch --array=0-77%8 evaluation/evaluate_baselines.sh",
    ]
    for wrong in ("-3", "0", "nan", "fast"):
        with pytest.raises(SystemExit):
            lines("mri", f"--tflops={wrong}")
    assert "argument --tflops" in capsys.readouterr().err


SCRIPTS = [p for p in ROOT.glob("*/*.sh") if "#SBATCH --" in p.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_the_output_of_jobs_has_a_folder(script):
    """SLURM does not make it, and a job without it fails without a word."""
    (output,) = re.findall(r"^#SBATCH --output=(.*)$", script.read_text(), re.M)
    folder, _, name = output.partition("/")
    assert name == "%x_%A_%a.out"
    assert (ROOT / folder / ".gitignore").read_text().splitlines()[-2:] == ["*", "!.gitignore"]
