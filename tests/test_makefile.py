"""What the Makefile does before it installs anything."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_an_environment_behind_a_link_is_not_emptied(tmp_path):
    other, checkout = tmp_path / "other", tmp_path / "checkout"
    other.mkdir()
    checkout.mkdir()
    (other / "kept").touch()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    (checkout / ".venv").symlink_to(other)
    done = subprocess.run(["make", "venv"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode != 0
    assert "expected no link at .venv" in done.stderr
    assert (other / "kept").exists()
