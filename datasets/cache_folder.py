"""The folder of the cache, and errors of writing to it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets.files import FULL
from datasets.sample import DataError

NO_ROOM = "free some space there, or set data.cache_dir to a larger disk"
NOT_OURS = "set data.cache_dir to a folder that you may write to"


def cache_folder(cache_dir: str, root: str | Path | None) -> Path:
    """Folder of the cache, created if missing.

    Args:
        cache_dir: the folder; "" for ``score-priors`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
        root: folder of the data, to which nothing is written; None if there is none.

    Raises:
        DataError: the folder is inside that of the data, or cannot be created.
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
    """Create a folder, or raise a DataError that names the remedy."""
    with writing_cache(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def writing_cache(path: Path) -> Iterator[None]:
    """Context that turns an OSError of writing to the cache into a DataError.

    Args:
        path: the file or folder that is written, for errors without a file name.
    """
    try:
        yield
    except OSError as error:
        remedy = NO_ROOM if error.errno in FULL else NOT_OURS
        raise DataError(
            f"{error.filename or path}: cannot write the cache ({error.strerror or error}); "
            f"{remedy}, or data.cache to none"
        ) from error
