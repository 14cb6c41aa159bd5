"""What every command does with flags, configs, --help, a missing environment, a closed pipe."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import configs
from configs import ConfigError, fields, installed, load_config
from tests.conftest import ROOT

CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.py") if "def get_config" in p.read_text())
PLAIN = sorted(  # commands without a config's flags
    f"evaluation.{path.stem}"
    for path in (ROOT / "evaluation").glob("*.py")
    if "argparse.ArgumentParser(" in path.read_text() and "\ndef main(" in path.read_text()
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_field_is_explained(path):
    flat = configs.flatten(load_config(str(path)).to_dict())
    explained = fields.meanings(path)
    assert not [field for field in flat if not explained.get(field)]


def test_comments_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        '# -*- coding: latin-1 -*-\n"""Mine."""\n'
        "from configs import base\nfrom configs.evaluate import add_sampler_keywords\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        "    config.data.root = 'a # b'  # of \xc9lan\n"
        "    # two lines\n    # above\n"
        "    config.data.crop = 3\n"
        "    # a heading\n"
        "    config.mine = mine = base.ConfigDict()\n"
        "    mine.deep = deep = base.ConfigDict()\n"
        "    deep.field = (1,\n        2)  # over two rows\n"
        "    mine.bare = 1\n"
        "    return config\n",
        encoding="latin-1",
    )
    found = fields.meanings(path)
    assert found["data.root"].startswith("folder of the download")
    assert found["data.root"].endswith("(of \xc9lan)")
    assert found["data.crop"].endswith("0: off (two lines above)")
    assert found["mine.deep.field"] == "over two rows"
    assert "mine.bare" not in found
    assert found["sampler.snr"] == "pc: step size of the corrector"
    assert "sampler.smoothing" not in found  # of the same file's other function


@pytest.mark.parametrize("kind", fields.KINDS.values())
def test_help_names_each_field_with_default_and_meaning(kind):
    text = configs.help_text(None, kind, required=["verbosity"])
    flat = configs.flatten(load_config(str(fields.FOLDER / kind)).to_dict())
    explained = fields.meanings(fields.FOLDER / kind)
    for field, value in flat.items():
        begin = text.index(f"  --config.{field}={value}")
        letters = "".join(text[begin : begin + 1000].split())  # lines break at hyphens, too
        assert "".join(explained[field][:40].split()) in letters
    if kind == "evaluate.py":
        assert "--config.sampler.snr=None" in text
        assert "float; pc: step size of the corrector" in text


@pytest.mark.parametrize("kind", fields.KINDS.values())
def test_a_config_for_something_else_is_named(kind):
    purposes = {file: purpose for purpose, file in fields.KINDS.items()}
    for other in purposes.keys() - {kind}:
        path = str(fields.FOLDER / other)
        with pytest.raises(ConfigError, match=f"for {purposes[kind]}, .* for {purposes[other]}"):
            configs.check_kind(load_config(path), path, kind)
    config = load_config(str(fields.FOLDER / kind))
    del config.seed
    with pytest.raises(ConfigError, match="got one without seed"):
        configs.check_kind(config, "mine.py", kind)
    configs.check_kind(config, "mine.py", kind, "data.")


def test_other_networks_have_other_fields():
    path = str(fields.FOLDER / "natural_small.py")
    configs.check_kind(load_config(path), path, "base.py")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.data.nme=x", "unknown config field 'data.nme'; did you mean data.name"),
        ("--config.acceleration=8", "did you mean operator.acceleration"),
        ("--noconfig.skip_bad", "did you mean data.skip_bad"),
        ("--config.zzz=8", "known: averaged, batch_size, clamp, compile"),
        ("--sampler.name=tv", "unknown flag '--sampler.name'; did you mean --config.sampler.name"),
        ("--num_steps=20", "did you mean --config.sampler.num_steps"),
        ("-num_steps", "did you mean --config.sampler.num_steps"),
    ],
)
def test_unknown_flags_are_answered_with_the_likely_ones(argument, message):
    with pytest.raises(ConfigError, match=message):
        configs.check_overrides([argument], load_config(str(fields.FOLDER / "evaluate.py")))


def test_a_config_is_found_in_both_forms_of_a_flag():
    assert configs.config_spec(["--config=a", "--out=b", "-config", "c"]) == "c"
    assert configs.config_spec(["--config.seed=1"]) == ""


def test_files_that_are_no_configs_are_named(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.txt").write_text("x = 1\n")
    for spec, message in [
        ("a.py", "with a function get_config"),
        ("b.txt", "expected a Python file"),
        ("c.py", "expected a config file"),
        (f"{ROOT}/configs/reconstruct.py:3", "takes no argument; leave out ':3'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            load_config(str(tmp_path / spec))


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.py"],
        ["reconstruct.py"],
        ["-m", "datasets.check"],
        ["-m", "models.checkpoint"],
        ["-m", "evaluation.tables"],
    ],
)
def test_without_the_environment_commands_say_how_to_enter_it(arguments):
    done = command("-S", *arguments)  # without site-packages
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    for words in ("has no torch", "make venv", "source ", ".venv/bin/activate"):
        assert words in done.stderr


def test_what_the_project_needs_is_looked_for():
    installed.check_installed()


def test_help_and_wrong_arguments_of_a_command_with_a_config():
    done = command("-m", "datasets.check", "--config=configs/demo.py", "--help")
    assert done.returncode == 0
    for words in ("--items=200: images to", "Fields of configs/demo.py", "--config.data.crop=64"):
        assert words in done.stdout
    done = command("-m", "datasets.check", "--config=configs/demo.py", "a.h5")
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: unexpected argument 'a.h5'" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["train.py"], ["reconstruct.py"], ["-m", "evaluation.evaluate"]],
    ids=lambda arguments: arguments[-1],
)
def test_version_needs_no_other_flag(arguments):
    done = command(*arguments, "--version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (done.stdout, done.stderr) == (f"score-priors {project['version']}\n", "")
    assert done.returncode == 0


@pytest.mark.parametrize("module", PLAIN)
def test_help_of_the_other_commands(module, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main(["--help"])
    assert end.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_subcommands_have_help(capsys):
    from evaluation.figures import main

    for kind in ("boxplots", "depth", "lambda", "panels"):
        with pytest.raises(SystemExit):
            main([kind, "--help"])
    assert capsys.readouterr().out.count("usage") == 4


def test_a_reader_that_leaves_ends_a_command_quietly():
    # more than a pipe holds, so that it is noticed
    text = f'"{sys.executable}" -m evaluation.grid mri --dry-run | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize(
    "script",
    [
        "training_scripts/demo.sh",
        "training_scripts/train_ct.sh",
        "training_scripts/train_small_study.sh",
        "evaluation/collect.sh",
        "hist.sh",
    ],
)
def test_help_of_scripts_is_their_head(script, tmp_path):
    head = (ROOT / script).read_text().splitlines()[1].removeprefix("# ")
    for folder, path in ((tmp_path, ROOT / script), ((ROOT / script).parent, Path(script).name)):
        done = subprocess.run(
            ["bash", str(path), "--help"], cwd=folder, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(head)
        assert "SBATCH" not in done.stdout
        assert "set -" not in done.stdout


def test_the_earlier_name_of_a_command_still_works():
    """Scripts call `datasets.inspect`."""
    found = [
        subprocess.run(
            [sys.executable, "-m", name, "--config=configs/demo.py", "--helpshort"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        ).stdout
        for name in ("datasets.inspect", "datasets.check")
    ]
    assert "--sheet" in found[1]
    assert found[0].replace("inspect", "check") == found[1].replace("inspect", "check")
