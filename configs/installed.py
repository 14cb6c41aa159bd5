"""Says what to do where the project's packages are missing; imported before all of them.

Otherwise a command ends with "No module named 'torch'", which names no remedy.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("torch", "numpy", "absl", "ml_collections")  # without which nothing works


def check_installed() -> None:
    """Raise a SystemExit that names the packages that this Python lacks, and how to get them."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"error: {sys.executable} has no {', '.join(missing)}; the project's packages are in "
            f"{ROOT / '.venv'}: run `make venv` in {ROOT} once, and in each new terminal "
            f"`source {ROOT / '.venv/bin/activate'}`"
        )


check_installed()
