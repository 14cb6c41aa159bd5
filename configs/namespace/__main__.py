"""The commands of the project, from any folder: ``score-priors reconstruct --input=... --out=...``.

Relative paths are relative to the current working directory.
"""

import runpy
import sys

from score_priors import ROOT
from score_priors.configs import project_version

COMMANDS = {
    "reconstruct": "reconstruct",
    "train": "train",
    "evaluate": "evaluation.evaluate",
    "tune": "evaluation.tune",
    "tables": "evaluation.tables",
    "figures": "evaluation.figures",
    "report": "evaluation.report",
    "sample": "evaluation.sample",
    "likelihood": "evaluation.likelihood",
    "image-statistics": "evaluation.image_statistics",
    "check": "datasets.check",
    "checkpoint": "models.checkpoint",
}


def main() -> None:
    """Run the command named by the first argument, like ``python -m`` in the checkout."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        text = f"usage: score-priors {'|'.join(COMMANDS)} ...\n(score-priors COMMAND --help)"
        if name in ("-h", "--help"):
            print(text)
            return
        if name == "--version":
            print(f"score-priors {project_version()}")
            return
        raise SystemExit(f"error: unknown command {name!r}\n{text}")
    del sys.argv[1]
    sys.path.insert(0, str(ROOT))
    runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
