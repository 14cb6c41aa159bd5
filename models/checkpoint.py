"""Checkpoints and priors: what other folders and users call, and the command line.

    python -m models.checkpoint import FILE OUT --config=configs/fastmri_knee.py:1
    python -m models.checkpoint import FILE OUT --format=edm --keywords=FILE.json

converts a checkpoint of the original code, and that of another code base, to this project's format
(`models.checkpoint_file`).

    python -m models.checkpoint export runs/NAME weights/NAME.pt --half

writes only what `load_prior` needs of a training run: the config and the averaged weights.
"""

import argparse

from configs import clear_errors, load_config
from models import foreign
from models.checkpoint_file import FORMAT, SUFFIX, find_latest, load, load_weights, save, step_of
from models.convert import export, import_foreign, import_original, import_state_dict
from models.foreign import files
from models.plain import CheckpointError
from models.prior_load import load_averaged, load_prior, unfinished
from models.prior_open import Opened, describe, open_prior, training_config
from models.prior_path import WEIGHTS, keyword_files, resolve_prior, shipped_priors

__all__ = [
    "FORMAT",
    "SUFFIX",
    "WEIGHTS",
    "CheckpointError",
    "Opened",
    "describe",
    "export",
    "find_latest",
    "import_foreign",
    "import_original",
    "import_state_dict",
    "keyword_files",
    "load",
    "load_averaged",
    "load_prior",
    "load_weights",
    "open_prior",
    "resolve_prior",
    "save",
    "shipped_priors",
    "step_of",
    "training_config",
    "unfinished",
]


def _main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m models.checkpoint")
    commands = parser.add_subparsers(dest="command", required=True)
    importer = commands.add_parser("import", help="convert a checkpoint of another code base")
    importer.add_argument("original")
    importer.add_argument("out")
    importer.add_argument(
        "--config", help="of a checkpoint of the study's code, e.g. configs/fastmri_knee.py:1"
    )
    importer.add_argument(
        "--format", default="score_sde", help=f"one of {', '.join(foreign.FORMATS)}; %(default)s"
    )
    importer.add_argument(
        "--keywords", help="instead of --config: JSON, or a file of it (docs/priors.md)"
    )
    exporter = commands.add_parser("export", help="averaged weights and config of a run only")
    exporter.add_argument("run")
    exporter.add_argument("out")
    exporter.add_argument("--half", action="store_true", help="in float16")
    arguments = parser.parse_args(argv)
    with clear_errors():
        if arguments.command == "export":
            export(arguments.run, arguments.out, half=arguments.half)
        elif arguments.config:
            if arguments.format != "score_sde" or arguments.keywords:
                raise ValueError("--config is for score_sde, without --keywords")
            import_original(arguments.original, arguments.out, load_config(arguments.config))
        else:
            given = files.read_keywords(arguments.keywords) if arguments.keywords else None
            import_foreign(arguments.original, arguments.out, arguments.format, given)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    _main()
