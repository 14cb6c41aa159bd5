"""Who may import whom: lower layers never know the ones above."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

OURS = {p.parent.name for p in ROOT.glob("*/__init__.py")} | {"train", "reconstruct"}
# package -> modules of ours that it may import, beside itself
ALLOWED = {
    "operators": set(),
    "models": {"datasets.files"},  # the one writer of files
    "sde": {"operators.batch"},
    "samplers": {"sde", "operators"},
    "datasets": {
        "configs.progress",
        "operators.fourier",
        "operators.batch",
        "operators.espirit",  # coil maps
        "operators.prewhiten",  # white noise of coils
    },
    "configs": set(),
}
# load_prior gives a score function and its SDE; the command line reads config files
EXCEPTIONS = {
    "models/checkpoint.py": {"configs"},
    "models/convert.py": {"sde"},
    "models/prior_load.py": {"sde"},
    "models/prior_open.py": {"sde"},
    "models/plain.py": {"configs.is_out_of_memory"},
    "models/foreign/prior.py": {"sde"},
    "datasets/check.py": {"configs"},  # a command
    # before PyTorch: what to do where it is missing
    "datasets/__init__.py": {"configs.installed"},
    "models/__init__.py": {"configs.installed"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in OURS}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_layers(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        relative = path.relative_to(ROOT).as_posix()
        allowed = {package} | ALLOWED[package] | EXCEPTIONS.get(relative, set())
        for name in imports(path):
            assert any(name == a or name.startswith(f"{a}.") for a in allowed), (relative, name)


# folder of evaluation -> folders of evaluation that it may import, beside itself and metrics
EVALUATION = {
    "baselines": set(),
    "results": set(),
    "run": {"baselines", "results"},
    "own": {"baselines", "results", "run", "show"},  # validated beside baselines; previews
    "show": {"baselines", "results", "run"},
    "study": {"baselines", "results", "run", "show"},
}


@pytest.mark.parametrize("folder", EVALUATION)
def test_the_engine_does_not_import_the_gallery(folder):
    allowed = {folder, "metrics"} | EVALUATION[folder]
    files = sorted((ROOT / "evaluation" / folder).rglob("*.py"))
    assert len(files) > 1
    for path in files:
        seen = {name.split(".")[1] for name in imports(path) if name.startswith("evaluation.")}
        assert seen <= allowed, path


def test_nobody_imports_the_top_layer():
    for path in ROOT.glob("*/**/*.py"):
        if path.relative_to(ROOT).parts[0] in ("tests", "benchmarks", ".venv"):
            continue
        top = {name.split(".")[0] for name in imports(path)} & {"train", "reconstruct"}
        assert not top, path
