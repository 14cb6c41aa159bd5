"""Whether data are still those that a folder of results or a training run was made of."""

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from datasets import dataset_options
from datasets.bad_input import reading
from datasets.files import read_text, to_csv, write_atomically
from datasets.sample import DataError

COLUMNS = ("file", "bytes", "digest")
WHOLE = 2**16  # bytes up to which a file is hashed whole
PIECE = 2**14  # bytes of the start, the middle and the end of longer ones
MOST_NAMED = 5

Described = dict[str, tuple[str, str]]  # path -> size and digest


def check_outside(folder: Path, data: Mapping[str, Any], flag: str) -> None:
    """Refuse to write into the folder of the data, where the next run would read it as data.

    Args:
        folder: to be written to.
        data: as of `datasets.create_dataset`.
        flag: what chose the folder, for the message.

    Raises:
        DataError: it is the data's folder, or in it.
    """
    root = dataset_options(data).get("root")
    if root and Path(folder).resolve().is_relative_to(Path(root).expanduser().resolve()):
        raise DataError(
            f"{folder}: lies in the folder of the data, data.root={root}, where what is written "
            f"would become data; choose another {flag}"
        )


def check_files(path: Path, dataset: Dataset, data: Mapping[str, Any]) -> None:
    """Compare a data set's files with the CSV file `path`, or write it.

    Args:
        path: in the folder of the run.
        dataset: its attribute `files` is read.
        data: as of `datasets.create_dataset`.

    Raises:
        DataError: files have changed, come or gone; names some.
    """
    old, now = read_files(path), describe_files(dataset, data)
    if old:
        refuse_changed(path, changed_files(old, now))
    if old != now:
        write_files(path, now)


def changed_files(old: Described, now: Described) -> list[str]:
    """Files that are different, or only in one of both."""
    return sorted(name for name in old.keys() | now.keys() if old.get(name) != now.get(name))


def refuse_changed(path: Path, changed: Sequence[str]) -> None:
    """Raise a DataError if something has `changed` since `path` was written; names some of it."""
    if changed:
        more = f", and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
        raise DataError(
            f"{path.parent} was made of other data ({path.name}): these have changed, come or "
            f"gone: {', '.join(changed[:MOST_NAMED])}{more}; bring the old ones back, or choose "
            "another folder"
        )


def describe_files(dataset: Dataset, data: Mapping[str, Any]) -> Described:
    """Size and digest of a data set's files, by their paths below data.root.

    Where the root lies, and the files' times, do not matter. Of files above 64 KiB, 16 KiB each of
    the start, the middle and the end are hashed.
    """
    root = dataset_options(data).get("root")
    base = os.path.abspath(Path(root).expanduser()) if root else ""
    paths = [os.path.abspath(path) for path in dataset.files]
    if not base or not all(path.startswith(base) for path in paths):
        base = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return {os.path.relpath(path, base): _describe(Path(path)) for path in paths}


def _describe(path: Path) -> tuple[str, str]:
    with reading(path, "a file that can be read"), path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE:
            content = file.read()
        else:
            starts = (0, (size - PIECE) // 2, size - PIECE)
            content = b"".join(os.pread(file.fileno(), PIECE, start) for start in starts)
    return str(size), hashlib.blake2b(content, digest_size=8).hexdigest()


def read_files(path: Path) -> Described:
    """What `write_files` wrote; nothing where there is no file.

    Raises:
        DataError: damaged.
    """
    if not path.is_file():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
        return {row["file"]: (row["bytes"], row["digest"]) for row in rows}
    except (csv.Error, KeyError):
        raise DataError(f"{path}: damaged; remove it to go on without its check") from None


def write_files(path: Path, described: Described) -> None:
    """Write a CSV file with the columns `COLUMNS`."""
    rows = [dict(zip(COLUMNS, (name, *described[name]), strict=True)) for name in sorted(described)]
    write_atomically(path, to_csv(rows, COLUMNS))
