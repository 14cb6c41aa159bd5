"""Shell scripts of the checkout, run as a user runs them."""

import os
import subprocess
import sys

from tests.conftest import PATIENCE, ROOT


def bash(script: str, *argv: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", script, *argv],
        env=os.environ | {"PYTHON": sys.executable} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
