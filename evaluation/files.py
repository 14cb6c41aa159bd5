"""Files that several processes share: replaced whole, never seen half-written."""

import csv
import fcntl
import io
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED = 600.0  # seconds without a write after which a temporary file is nobody's


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A ``with`` block's temporary file, which becomes `path` at the end; after an error it goes.

    It lies in the same folder under a name of its own, and is flushed to the disk before it is
    renamed: at any time `path` is the old file or the new one, whole.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.touch(exist_ok=False)  # readable by whom the umask says, unlike tempfile's
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` entirely or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def remove_abandoned(folder: Path, names: Iterable[str] = ("*",)) -> None:
    """Remove what processes left that were killed in `replacing`.

    Args:
        folder: where to look.
        names: of the files that were to be replaced, as patterns.
    """
    for path in [path for name in names for path in folder.glob(f".{name}.*")]:
        with suppress(FileNotFoundError):  # others clean up, too
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file in a ``with`` block; without effect on file systems that have no locks."""
    with path.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def to_csv(rows: Sequence[Mapping], columns: Sequence[str], *, header: bool = True) -> str:
    """Rows as the text of a CSV file; missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n", extrasaction="ignore")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
