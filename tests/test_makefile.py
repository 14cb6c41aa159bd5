"""What the Makefile does before it installs anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", ["venv", "docs"])
def test_an_environment_behind_a_link_is_not_touched(tmp_path, target):
    other, checkout = tmp_path / "other", tmp_path / "checkout"
    other.mkdir()
    checkout.mkdir()
    (other / "kept").touch()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    (checkout / ".venv").symlink_to(other)
    if target == "docs":  # what it needs before is up to date
        (other / ".installed").touch()
    # make hands its variables down: VENV of `make test VENV=...` would be meant
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "VENV"}
    done = subprocess.run(["make", target], cwd=checkout, env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "expected no link at .venv" in done.stderr
    assert (other / "kept").exists()
