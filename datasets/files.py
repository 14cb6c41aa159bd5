"""Files: replaced whole or left as they were, and locks on folders.

Every file of results, runs and caches is written by `replacing` or `write_atomically`. All layers
above may import this module, `models` for its checkpoints, too; it knows none of them.
"""

import csv
import errno
import io
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: weights are loaded all the same
    fcntl = None

log = logging.getLogger(__name__)

NEW = ".new-"  # what names of files that are being written begin with
ABANDONED = 600.0  # seconds without a write after which such a file is nobody's
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
LOCK = ".lock"  # in a folder that processes work on
PATIENCE, PAUSE = 3.0, 0.1  # seconds: a process that has the folder may be about to leave it


class FolderInUseError(ValueError):
    """Another process works on a folder that one process at a time may work on."""


class NewFile(io.RawIOBase):
    """A file to be written, made under the umask; binary, without a buffer of its own.

    An error of the disk is kept rather than raised, and what comes after it is not written:
    libraries turn such errors into others, and HDF5 into pages of text. `finish` raises it.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.name = str(path)
        self.error: OSError | None = None
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self.descriptor = os.open(path, flags, 0o666)

    def write(self, data) -> int:
        """All of the bytes `data`."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and len(rest):
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError as error:
            self.error = error
        return size

    def readinto(self, buffer) -> int:
        """As of `io.RawIOBase`."""
        view = memoryview(buffer).cast("B")
        content = os.read(self.descriptor, len(view))
        view[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of `io.RawIOBase`."""
        return os.lseek(self.descriptor, offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """As of `io.RawIOBase`."""
        size = self.tell() if size is None else size
        try:
            os.ftruncate(self.descriptor, size)
        except OSError as error:
            self.error = self.error or error
        return size

    def readable(self) -> bool:
        """True: HDF5 reads back what it has written."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def finish(self) -> None:
        """Flush to the disk.

        Raises:
            OSError: a write, or this, has failed.
        """
        if self.error is not None:
            raise self.error
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file, once."""
        if not self.closed:
            os.close(self.descriptor)
        super().close()


@contextmanager
def replacing(path: str | Path) -> Iterator[NewFile]:
    """A ``with`` block's file, which becomes `path` at the end; after an error it goes.

    It lies in the same folder (which is made) under a name of its own, and is flushed to the disk
    before it is renamed: at any time `path` is the old file or the new one, whole. A symbolic link
    is replaced, not followed.

    Raises:
        OSError: the disk is full or not writable; names `path`, which is as it was.
    """
    path = Path(path)
    temporary = path.with_name(f"{NEW}{uuid.uuid4().hex}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = NewFile(temporary)
    try:
        try:
            yield file
        except Exception:
            if file.error is None:
                raise  # else it follows from the disk's error
        with naming(path):
            file.finish()
            file.close()
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        file.close()
    _sync_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system in a ``with`` block name `path` and, of a full disk, the remedy."""
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error)
        if error.errno in FULL:
            text += " (an older file of that name is as it was; free some space)"
        raise OSError(error.errno, text, str(path)) from None


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Replace `path` by `content` entirely or not at all; text as UTF-8.

    Names of files that are not UTF-8 may be in it: their bytes come back as they were.

    Raises:
        OSError: as `replacing`.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    with replacing(path) as file:
        file.write(content)


def read_text(path: Path) -> str:
    """The text that `write_atomically` wrote; bytes that are not UTF-8 are kept as surrogates."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def to_csv(rows: Iterable[Mapping], columns: Sequence[str], *, header: bool = True) -> str:
    """Rows as the text of a CSV file; missing values are empty."""
    text = io.StringIO()
    how = {"restval": "", "lineterminator": "\n", "extrasaction": "ignore"}
    writer = csv.DictWriter(text, columns, **how)
    careful = csv.DictWriter(text, columns, quoting=csv.QUOTE_ALL, **how)
    if header:
        writer.writeheader()
    for row in rows:  # csv itself quotes line feeds, but not carriage returns
        (careful if any("\r" in str(value) for value in row.values()) else writer).writerow(row)
    return text.getvalue()


def remove_abandoned(folder: Path, older: float = ABANDONED) -> None:
    """Remove what processes left in `folder` that were killed in `replacing`.

    Args:
        folder: where to look.
        older: seconds since the last write.
    """
    for path in folder.glob(f"{NEW}*"):
        with suppress(FileNotFoundError):  # others clean up, too
            if time.time() - path.stat().st_mtime >= older:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open a folder
        return
    try:
        with suppress(OSError):  # some network file systems cannot flush one
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------ locks


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Hold the lock file `path` alone in a ``with`` block, after waiting for other processes.

    Args:
        path: made if missing; stays. Its folder is made, too.
        waiting: a warning where there is somebody to wait for.

    Raises:
        OSError: it cannot be made or opened, or is a symbolic link; names it.
    """
    descriptor = _open_lock(path)
    try:
        if _lock(descriptor) is False:
            if waiting:
                log.warning("waiting for another process that %s: %s", waiting, path.parent)
            _lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


class Hold:
    """That this process works on a folder, from `holding`."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def is_last(self) -> bool:
        """Whether no other process works on the folder; from then on none can begin to."""
        return _lock(self._descriptor) is True


@contextmanager
def holding(folder: Path, *, shared: bool = False) -> Iterator[Hold]:
    """Work on a folder in a ``with`` block, which no other process does meanwhile.

    The system ends the hold when the process ends, however it ends; processes that it has forked
    do not have it. On a network file system it holds for all machines if the file system has locks.

    Args:
        folder: made if missing; gets the file ``.lock``, which stays.
        shared: others that ask for a shared hold may work on it, too.

    Raises:
        FolderInUseError: another process works on it.
        OSError: as `locked`.
    """
    descriptor = _open_lock(folder / LOCK)
    try:
        end = time.monotonic() + PATIENCE
        while _lock(descriptor, shared=shared) is False:
            if time.monotonic() > end:
                raise FolderInUseError(
                    f"{folder}: another process works on this folder; wait until it has ended, or "
                    "choose another folder"
                )
            time.sleep(PAUSE)
        yield Hold(descriptor)
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    """The descriptor of a lock file: its content is never touched, and no link is followed."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "expected a lock file, got a link; remove it") from None
            raise


def _lock(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Whether the lock is held now; None where the file system has none.

    Locks of `lockf` belong to the process: a child that outlives a killed parent does not keep
    them, as it would those of `flock`.
    """
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no locks")
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.lockf(descriptor, mode if wait else mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno in NO_LOCKS:
            log.warning("the file system has no locks: see that one process alone writes there")
            return None
        raise
    return True
