"""Atomic writing of files, and locks on folders.

Every file of results, runs and caches is written by `replacing` or `write_atomically`. All layers
above may import this module, also `models` for its checkpoints; it imports none of them.
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
except ImportError:  # Windows has no locks, but can load weights
    fcntl = None

log = logging.getLogger(__name__)

NEW = ".new-"  # prefix of temporary files
ABANDONED = 600.0  # seconds without a write after which a temporary file is abandoned
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
TRIES = 10  # to make a file in a folder that another process keeps removing
LOCK = ".lock"  # lock file of a folder that processes work on
PATIENCE, PAUSE = 3.0, 0.1  # seconds to wait for a process that may be about to finish


class FolderInUseError(ValueError):
    """Another process works on a folder that only one process may work on."""


class NewFile(io.RawIOBase):
    """Unbuffered binary file for writing, created under the umask.

    An error of the disk is stored instead of raised, and nothing more is written, because libraries
    convert such errors into others (HDF5 into pages of text). `finish` raises it.

    Args:
        path: the file, which must not exist.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.name = str(path)
        self.error: OSError | None = None
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self.descriptor = os.open(path, flags, 0o666)

    def write(self, data) -> int:
        """Write all bytes of `data`; returns their number."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and len(rest):
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError as error:
            self.error = error
        return size

    def readinto(self, buffer) -> int:
        """Read into `buffer`; returns the number of bytes, see `io.RawIOBase`."""
        view = memoryview(buffer).cast("B")
        content = os.read(self.descriptor, len(view))
        view[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset and return the position, see `io.RawIOBase`."""
        return os.lseek(self.descriptor, offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file and return it, see `io.RawIOBase`."""
        size = self.tell() if size is None else size
        try:
            os.ftruncate(self.descriptor, size)
        except OSError as error:
            self.error = self.error or error
        return size

    def readable(self) -> bool:
        """True, as HDF5 also reads what it has written."""
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
            OSError: a write or the flush has failed.
        """
        if self.error is not None:
            raise self.error
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file; further calls do nothing."""
        if not self.closed:
            os.close(self.descriptor)
        super().close()


@contextmanager
def replacing(path: str | Path) -> Iterator[NewFile]:
    """Context with a new file that atomically replaces `path` at the end.

    The file is written under a temporary name in the same folder (created if missing) and flushed
    to the disk before it is renamed, so that `path` is always the complete old or new file. After
    an error the new file is removed. A symbolic link is replaced, not followed.

    Raises:
        OSError: the disk is full or not writable; the error names `path`, which is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f"{NEW}{uuid.uuid4().hex}")
    with naming(path):
        file = _new_file(temporary)
    try:
        try:
            yield file
        except Exception:
            if file.error is None:
                raise  # otherwise it is a consequence of the disk's error, which `finish` raises
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


def _new_file(path: Path) -> NewFile:
    """A new file, and its folder, which another process may remove as long as it is empty."""
    for _ in range(TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return NewFile(path)
        except FileNotFoundError:
            continue
    return NewFile(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context whose OSErrors name `path` and, for a full disk, the remedy."""
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error)
        if error.errno in FULL:
            text += " (an older file of that name is as it was; free some space)"
        raise OSError(error.errno, text, str(path)) from None


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Replace the content of `path` atomically.

    Args:
        path: the file.
        content: bytes, or text to encode as UTF-8; surrogates (from file names that are not UTF-8)
            are written as their original bytes.

    Raises:
        OSError: the disk is full or not writable; the error names `path`, which is unchanged.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    with replacing(path) as file:
        file.write(content)


def read_text(path: Path) -> str:
    """Text of a file written by `write_atomically`; invalid UTF-8 becomes surrogates."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def to_csv(rows: Iterable[Mapping], columns: Sequence[str], *, header: bool = True) -> str:
    """Text of a CSV file.

    Args:
        rows: mappings from column to value; missing values become empty, other keys are ignored.
        columns: names of the columns, in order.
        header: whether to begin with a row of the names.
    """
    text = io.StringIO()
    how = {"restval": "", "lineterminator": "\n", "extrasaction": "ignore"}
    writer = csv.DictWriter(text, columns, **how)
    careful = csv.DictWriter(text, columns, quoting=csv.QUOTE_ALL, **how)
    if header:
        writer.writeheader()
    for row in rows:  # csv quotes line feeds by itself, but not carriage returns
        (careful if any("\r" in str(value) for value in row.values()) else writer).writerow(row)
    return text.getvalue()


def remove_abandoned(folder: Path, older: float = ABANDONED) -> None:
    """Remove temporary files of processes that were killed in `replacing`.

    Args:
        folder: folder of the temporary files.
        older: smallest number of seconds since the last write.
    """
    for path in folder.glob(f"{NEW}*"):
        with suppress(FileNotFoundError):  # another process may remove it at the same time
            if time.time() - path.stat().st_mtime >= older:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure, if the system supports it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open a folder
        return
    try:
        with suppress(OSError):  # some network file systems cannot flush folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------ locks


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Context that holds a lock file exclusively, after waiting for other processes.

    Args:
        path: the lock file, created with its folder if missing; it is not removed.
        waiting: end of the warning "waiting for another process that ..."; "" for no warning.

    Raises:
        OSError: the file cannot be created or opened, or is a symbolic link.
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
    """The hold of this process on a folder, from `holding`."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def is_last(self) -> bool:
        """Whether no other process works on the folder; if so, none can start from then on."""
        return _lock(self._descriptor) is True


@contextmanager
def holding(folder: Path, *, shared: bool = False) -> Iterator[Hold]:
    """Context in which no other process works on a folder.

    The system releases the hold when the process ends for any reason; forked processes do not
    inherit it. On a network file system with locks it is valid on all machines.

    Args:
        folder: the folder, created if missing; its file ``.lock`` is not removed.
        shared: whether other processes with a shared hold may also work on it.

    Raises:
        FolderInUseError: another process works on the folder.
        OSError: the lock file cannot be created or opened, or is a symbolic link.
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
    """Descriptor of a lock file, opened without following links or changing its content."""
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
    """Try to lock a file: True if locked, False if another process has it, None without locks.

    Locks of `lockf` belong to the process: unlike those of `flock`, they are not kept by a child
    that outlives a killed parent.
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
