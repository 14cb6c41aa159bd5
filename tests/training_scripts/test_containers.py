"""Container definitions, the workflow and the issue forms name what is there."""

import re
import shutil
import subprocess
import tomllib

import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers.documents import check_pip

DOCKERFILE = ROOT / "training_scripts" / "Dockerfile"
APPTAINER = ROOT / "training_scripts" / "apptainer.def"


def copied() -> dict[str, list[str]]:
    """Files and folders that each definition copies."""
    docker = re.findall(r"^COPY (.+) \S+$", DOCKERFILE.read_text(), re.M)
    section = APPTAINER.read_text().split("%files\n")[1].split("\n\n")[0]
    pairs = [line.split() for line in section.splitlines()]
    assert all(target == f"/opt/score-priors/{source}" for source, target in pairs)
    return {
        "Dockerfile": [word for line in docker for word in line.split()],
        "apptainer.def": [source for source, _ in pairs],
    }


@pytest.mark.parametrize("name", ["Dockerfile", "apptainer.def"])
def test_a_container_has_what_the_commands_import(name):
    found = copied()[name]
    text = (ROOT / "configs" / "namespace" / "__init__.py").read_text()
    names = re.findall(r'^    "(\w+)",$', text.split("NAMES = (")[1].split(")")[0], re.M)
    needed = [n if (ROOT / n).is_dir() else f"{n}.py" for n in names]
    assert len(needed) > 5
    assert set(needed) | {"pyproject.toml", "constraints.txt", "weights"} <= set(found)
    assert all((ROOT / path).exists() for path in found)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= set(found)


@pytest.mark.parametrize("path", [DOCKERFILE, APPTAINER], ids=lambda path: path.name)
def test_a_container_installs_existing_extras_for_a_supported_python(path):
    text = path.read_text()
    (command,) = re.findall(r"pip (install .*)", text)
    check_pip(command.replace('"', "").split())
    (version,) = re.findall(r"python:(\d+\.\d+)-slim", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={version}"
    assert project["scripts"]["score-priors"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["docker", "build", "-q", "-f", "training_scripts/Dockerfile", "."],
        ["apptainer", "build", "--force", "score-priors.sif", "training_scripts/apptainer.def"],
    ],
    ids=lambda command: command[0],
)
def test_a_container_is_built(command, tmp_path):
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    command = [str(tmp_path / word) if word.endswith(".sif") else word for word in command]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_the_workflow_runs_the_ci():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]
    (artifact,) = (step["with"]["path"] for step in steps if "upload-artifact" in str(step))
    assert f"{artifact}/index.html" in (ROOT / "Makefile").read_text()


def test_issue_forms_ask_for_something():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert forms
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert form["name"]
        assert form["description"]
        fields = [field["id"] for field in form["body"]]
        assert len(set(fields)) == len(fields)
        assert any(field.get("validations", {}).get("required") for field in form["body"])
