"""What happens at bad input: an error that names file and remedy, or a counted, logged skip."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from datasets.sample import DataError

log = logging.getLogger(__name__)


# how files begin whose content git-annex or Git LFS keeps elsewhere
STAND_INS = {b"/annex/objects/": "datalad get", b"version https://git-lfs": "git lfs pull"}


class Skips:
    """What is left out of a data set, and whether leaving out is allowed at all.

    Attributes:
        reasons: the text of the error of everything that was left out, in order.
    """

    def __init__(self, allowed: bool):
        self.allowed = allowed
        self.reasons: list[str] = []

    def add(self, error: DataError) -> None:
        """Log and count `error`, or raise it where skipping is not allowed."""
        if not self.allowed:
            raise error
        log.warning("data.skip_bad leaves out: %s", error)
        self.reasons.append(str(error))

    def leave_out(self, reason: str) -> None:
        """Log and count what is no part of the data set, and no fault."""
        log.warning("left out: %s", reason)
        self.reasons.append(reason)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A ``with`` block whose DataError goes to `add`."""
        try:
            yield
        except DataError as error:
            self.add(error)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """A ``with`` block that reads `path`: whatever goes wrong in it becomes a DataError.

    Every kind of exception is taken, since parsers raise anything on corrupt bytes (MemoryError,
    struct.error, ZeroDivisionError, ...); the original one is the cause.

    Args:
        path: the file.
        what: what is expected, such as "an intact HDF5 file".
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: {_explain(path, what, error)}") from error


def _explain(path: Path, what: str, error: Exception) -> str:
    """What probably is wrong with a file, and the remedy."""
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
    """What lies in place of a file whose content was not downloaded; "" where that is not so."""
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


def require(module: str) -> ModuleType:
    """The optional dependency `module`, imported.

    Raises:
        DataError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"these files are read with {module.split('.')[0]}, which is not installed; run "
            "'make venv', or pip install '.[io]' in the checkout (the extra 'io')"
        ) from error
