"""Check that the project's packages are installed; imported before all of them.

Without it, a command would fail with "No module named 'torch'" and no remedy.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("torch", "numpy", "absl", "ml_collections")  # packages that every command needs


def check_installed() -> None:
    """Raise a SystemExit that names the missing packages and how to install them."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"error: {sys.executable} has no {', '.join(missing)}; the project's packages are in "
            f"{ROOT / '.venv'}: run `make venv` in {ROOT} once, and in each new terminal "
            f"`source {ROOT / '.venv/bin/activate'}`"
        )


check_installed()
