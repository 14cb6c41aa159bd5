"""Numbers that nobody means, and commands that are called from other folders."""

import os
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

import configs
from configs.ranges import ALL, ANY, POSITIVE, check_numbers
from evaluation import report
from tests.conftest import ROOT

FILES = sorted(f"configs/{path.name}" for path in ROOT.glob("configs/*.py"))
CONFIGS = [name for name in FILES if "def get_config" in (ROOT / name).read_text()]
CONFIGS += ["configs/base.py:structured"]


def fields(config: ConfigDict, prefix=""):
    """(name, type) of all fields, those of sections with a dot."""
    for name in config:
        if isinstance(config[name], ConfigDict):
            yield from fields(config[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", config.get_type(name)


@pytest.mark.parametrize("file", CONFIGS)
def test_no_number_of_any_config_is_below_0_in_silence(file):
    check_numbers(configs.load_config(file))
    found = set()
    for name, kind in fields(configs.load_config(file)):
        if kind in (int, float) and name not in ANY:
            found.add(name)
            for value in (-1, -2, *((0,) if name in POSITIVE else ()), float("nan")):
                config = configs.load_config(file).to_dict()
                section, _, field = name.rpartition(".")
                (config[section] if section else config)[field] = value
                if name in ALL and value == -1:
                    check_numbers(config)
                    continue
                with pytest.raises(ValueError, match=rf"expected {name} of at least [01].*got"):
                    check_numbers(config)
    assert found


def test_every_name_is_a_field():
    known = {name for file in CONFIGS for name, _ in fields(configs.load_config(file))}
    assert {*ANY, *ALL, *POSITIVE} <= known


def test_tuples_and_sections():
    with pytest.raises(ValueError, match=r"model\.ch_mult of at least 1, got 0"):
        check_numbers({"model": {"ch_mult": (1, 0)}})
    with pytest.raises(ValueError, match=r"data\.crop of at least 0, got -1"):
        check_numbers({"crop": -1, "flip": False, "name": "", "x": None}, "data.")


def test_a_report_of_minus_one_slices(capsys):
    with pytest.raises(SystemExit):
        report.main(["folder", "--limit=-1"])
    assert "expected --limit of 0 (all) or more, got -1" in capsys.readouterr().err


def test_configs_are_found_from_other_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configs.find_config("configs/demo.py:2") == f"{ROOT}/configs/demo.py:2"
    assert configs.load_config("configs/demo.py:2").model.ch_mult == (1, 2)
    assert configs.find_config("own.py") == "own.py"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/demo.py").write_text("def get_config():\n    return 'own'\n")
    assert configs.load_config("configs/demo.py") == "own"


def test_a_command_finds_its_default_config_from_another_folder(tmp_path):
    command = [sys.executable, "-m", "evaluation.evaluate", "--out=o", "--config.limit=-1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.strip().endswith("expected limit of at least 0 (all), got -1")


@pytest.mark.parametrize("script", ["evaluation/common.sh", "training_scripts/common.sh"])
def test_paths_in_variables_are_the_callers(tmp_path, script):
    lines = f'cd "{ROOT}"; source {script}; echo "$RUNS|$OUT|$NATURAL|$KNEE|$DATA_ROOT"'
    variables = {"RUNS": "runs", "NATURAL": "/photos", "DATA_ROOT": "a b", "KNEE": "k"}
    environment = {k: v for k, v in os.environ.items() if k != "OUT"} | variables
    command = ["bash", "-euc", lines.replace("$OUT", "${OUT:-}")]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    ours = script.startswith("evaluation")
    knee, data = (f"{tmp_path}/k", "a b") if ours else ("k", f"{tmp_path}/a b")
    assert run.stdout == f"{tmp_path}/runs||/photos|{knee}|{data}\n", run.stderr
