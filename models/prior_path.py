"""Where a prior's file is: a shipped one by its name, a checkpoint, a run, another code base's."""

import difflib
from pathlib import Path

from models.checkpoint_file import SUFFIX, find_latest
from models.foreign import files

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def resolve_prior(name_or_path: str | Path, format: str = "") -> Path:
    """Checkpoint file of a prior, as `load_prior` reads it.

    Args:
        name_or_path: name of a shipped prior, a checkpoint file, or a folder of checkpoints; with
            a `format` the file of another code base, or the folder of diffusers.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError: there is no such prior; the shipped names are listed.
        ValueError: an unknown format.
    """
    if ":" in format:
        if not Path(name_or_path).is_file():
            raise FileNotFoundError(f"{name_or_path}: expected a file for {format}, got none")
        return Path(name_or_path)
    if format:
        return files.weights_file(format, Path(name_or_path))
    shipped = WEIGHTS / f"{name_or_path}{SUFFIX}"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        for folder in (path / "checkpoints", path):
            latest = find_latest(folder)
            if latest is not None:
                return latest
        raise FileNotFoundError(
            f"{path}: expected a readable step_*{SUFFIX} in this folder or in its folder "
            "checkpoints, found none; a training writes its first one after "
            "training.checkpoint_every steps, and when it is interrupted"
        )
    known = ", ".join(shipped_priors()) or "none"
    raise FileNotFoundError(
        f"{name_or_path}: expected a checkpoint file, a folder with step_*{SUFFIX} files, or the "
        f"name of a shipped prior; {_meant(name_or_path)}known: {known}"
    )


def keyword_files(name_or_path: str | Path, format: str) -> list[Path]:
    """Files beside a prior of another code base that say what its weights are; [] for others.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.
    """
    if not format or ":" in format:
        return []
    path = resolve_prior(name_or_path, format)
    return [file for _, file in files.keyword_files(format, path)]


def shipped_priors() -> list[str]:
    """Names of the priors in ``weights/``."""
    return sorted(path.stem for path in WEIGHTS.glob(f"*{SUFFIX}"))


def _meant(wrong: str | Path) -> str:
    """Hint at a shipped prior, or a file beside a path, with a similar name; "" without one."""
    path = Path(wrong)
    groups = [] if path.name != str(wrong) else [{name: name for name in shipped_priors()}]
    try:
        groups.append({found.name: found for found in path.parent.iterdir()})
    except OSError:
        return f"there is no folder {path.parent}; "
    for known in groups:
        lower = {name.lower(): name for name in known}
        for text in (path.name, path.stem):
            close = difflib.get_close_matches(text.lower(), lower, n=1)
            if close:
                return f"did you mean {known[lower[close[0]]]}? "
    return ""
