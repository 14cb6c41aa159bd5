"""The training scripts of the study's 2026 edition: all sizes, an array task each."""

import re

import pytest

from configs import load_config
from configs.base import ALL_SIZES, NESTED
from evaluation.study.grids_2026 import GRIDS_2026
from tests.conftest import ROOT
from tests.helpers.scripts import bash
from training_scripts.plan import AT_ONCE

NAMES = ("fastmri_knee_2026", "celeba_2026", "ct_2026")


@pytest.mark.parametrize("name", NAMES)
def test_all_sizes_have_an_array_task(name):
    script = f"training_scripts/train_{name}.sh"
    text = (ROOT / script).read_text()
    sizes = re.search(r"^SIZES=\((.*)\)$", text, re.MULTILINE)[1].split()
    assert set(sizes) == {*ALL_SIZES, *NESTED}
    assert f"#SBATCH --array=0-{len(sizes) - 1}%{AT_ONCE}\n" in text
    lines = bash(script, PYTHON="echo").stdout.splitlines()
    commands = [line.split() for line in lines if line.startswith("train.py")]
    assert [command[1:3] for command in commands] == [
        [f"--config=configs/{name}.py:{size}", f"--workdir=runs/{name}_{size}"] for size in sizes
    ]
    task = bash(script, PYTHON="echo", SLURM_ARRAY_TASK_ID="2").stdout.splitlines()
    assert [line.split() for line in task if line.startswith("train.py")] == commands[2:3]


def test_what_the_grids_take_is_what_the_scripts_leave():
    wanted = {
        cell.prior for cells in GRIDS_2026.values() for cell in cells if "unet" not in cell.prior
    }
    trained = {f"{name}_{size}" for name in NAMES for size in [*ALL_SIZES, *NESTED]}
    assert wanted - {""} <= trained
    for name in NAMES:
        assert load_config(f"configs/{name}.py:1_small").model.nf == 32
