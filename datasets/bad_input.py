"""Handling of bad input: errors that name the file and the remedy, or counted, logged skips."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from datasets.sample import DataError

log = logging.getLogger(__name__)


# text in pointer files of git-annex and Git LFS -> command that downloads the content
STAND_INS = {b"/annex/objects/": "datalad get", b"version https://git-lfs": "git lfs pull"}


class Skips:
    """Record of what is left out of a data set.

    Args:
        allowed: whether bad input may be skipped; otherwise it raises its error.

    Attributes:
        reasons: error messages of everything that was left out, in order.
    """

    def __init__(self, allowed: bool):
        self.allowed = allowed
        self.reasons: list[str] = []

    def add(self, error: DataError) -> None:
        """Log and record `error`, or raise it if skipping is not allowed."""
        if not self.allowed:
            raise error
        log.warning("data.skip_bad leaves out: %s", error)
        self.reasons.append(str(error))

    def leave_out(self, reason: str) -> None:
        """Log and record something that is left out without being an error."""
        log.warning("left out: %s", reason)
        self.reasons.append(reason)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Context that passes a DataError to `add`."""
        try:
            yield
        except DataError as error:
            self.add(error)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Context that turns any error of reading a file into a DataError.

    All exceptions are caught, as parsers raise anything on corrupt bytes (MemoryError,
    struct.error, ZeroDivisionError, ...); the original exception is the cause.

    Args:
        path: the file.
        what: the expected content, such as "an intact HDF5 file".
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: {_explain(path, what, error)}") from error


def _explain(path: Path, what: str, error: Exception) -> str:
    """Probable cause of an error of reading a file, with the remedy."""
    stand_in = _stand_in(path)
    if stand_in:
        return f"expected {what}, got {stand_in}"
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return f"cannot be read ({error}); check that it exists and may be read (chmod +r)"
    if isinstance(error, OSError) and "unable to lock" in str(error):
        return (
            f"is locked, another program is writing it ({error}); close that, or set "
            "HDF5_USE_FILE_LOCKING=FALSE where the disk does not know locks"
        )
    return (
        f"expected {what}, got: {error or type(error).__name__}; probably truncated "
        "or corrupt, copy or download it again, or take it out"
    )


def _stand_in(path: Path) -> str:
    """Description of a link or pointer file whose content was not downloaded; "" otherwise."""
    if path.is_symlink() and not path.exists():
        return (
            f"a link to {path.readlink()}, which is not there; restore it (in a clone by DataLad "
            "or git-annex: 'datalad get' in its folder)"
        )
    try:
        with path.open("rb") as file:
            first = file.read(64)
    except OSError:
        return ""
    for mark, command in STAND_INS.items():
        if mark in first:
            return f"a pointer to content that was not downloaded; run '{command}' in its folder"
    return ""


def require(module: str, extra: str = "io") -> ModuleType:
    """Import an optional dependency.

    Args:
        module: its name.
        extra: extra of pyproject.toml that it is in.

    Raises:
        DataError: the module is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        make = "'make venv', or " if extra == "io" else ""
        raise DataError(
            f"these files are read with {module.split('.')[0]}, which is not installed; run "
            f"{make}pip install '.[{extra}]' in the checkout (the extra '{extra}')"
        ) from error
