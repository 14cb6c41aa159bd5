"""Where the cache lies, and what to say where it cannot be written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets.files import FULL
from datasets.sample import DataError

NO_ROOM = "free some space there, or set data.cache_dir to a larger disk"
NOT_OURS = "set data.cache_dir to a folder that you may write to"


def cache_folder(cache_dir: str, root: str | Path | None) -> Path:
    """The folder of the cache, made if need be.

    Args:
        cache_dir: the folder; "": ``score-priors`` below ``$XDG_CACHE_HOME``, else ``~/.cache``.
        root: folder of the data, into which nothing may be written; None: there is none.

    Raises:
        DataError: it lies in the data's folder, or cannot be written to.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(cache_dir or Path(base, "score-priors")).expanduser().resolve()
    source = root and Path(root).expanduser().resolve()
    if source and folder.is_relative_to(source):
        raise DataError(
            f"{folder}: the cache lies in the data's folder {source}, where nothing is written; "
            "set data.cache_dir to another folder"
        )
    make_folder(folder)
    return folder


def make_folder(folder: Path) -> None:
    """Make a folder, or raise a DataError that names the remedy."""
    with writing_cache(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing_cache(path: Path) -> Iterator[None]:
    """A ``with`` block that writes to the cache: errors of the system become a DataError.

    Args:
        path: what is written, for errors that name no file.
    """
    try:
        yield
    except OSError as error:
        remedy = NO_ROOM if error.errno in FULL else NOT_OURS
        raise DataError(
            f"{error.filename or path}: cannot write the cache ({error.strerror or error}); "
            f"{remedy}, or data.cache to none"
        ) from error
