"""Checks that the data are still those of a results folder or a training run."""

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
WHOLE = 2**16  # size in bytes up to which the whole file is hashed
PIECE = 2**14  # bytes hashed at the start, in the middle and at the end of larger files
MOST_NAMED = 5  # largest number of files named in an error

Described = dict[str, tuple[str, str]]  # path -> size and digest


def check_outside(folder: Path, data: Mapping[str, Any], flag: str) -> None:
    """Reject an output folder inside the data's folder, where the next run would read it as data.

    Args:
        folder: the output folder.
        data: fields of ``config.data``, see `datasets.create_dataset`.
        flag: flag that chose the output folder, for the error.

    Raises:
        DataError: the output folder is the folder of the data, or inside it.
    """
    root = dataset_options(data).get("root")
    if root and Path(folder).resolve().is_relative_to(Path(root).expanduser().resolve()):
        raise DataError(
            f"{folder}: lies in the folder of the data, data.root={root}, where what is written "
            f"would become data; choose another {flag}"
        )


def check_files(path: Path, dataset: Dataset, data: Mapping[str, Any]) -> None:
    """Compare the files of a data set with the record of an earlier run, or write the record.

    Args:
        path: CSV file of the record, in the folder of the run.
        dataset: data set whose attribute `files` is read.
        data: fields of ``config.data``, see `datasets.create_dataset`.

    Raises:
        DataError: files were changed, added or removed; some of them are named.
    """
    old, now = read_files(path), describe_files(dataset, data)
    if old:
        refuse_changed(path, changed_files(old, now))
    if old != now:
        write_files(path, now)


def changed_files(old: Described, now: Described) -> list[str]:
    """Sorted names of files that differ, or are in only one of the two records."""
    return sorted(name for name in old.keys() | now.keys() if old.get(name) != now.get(name))


def refuse_changed(path: Path, changed: Sequence[str]) -> None:
    """Raise a DataError that names some of the `changed` files or keys, if there are any.

    Args:
        path: CSV file of the record, in the folder of the run.
        changed: names of what has changed since the record was written.
    """
    if changed:
        more = f", and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
        raise DataError(
            f"{path.parent} was made of other data ({path.name}): these have changed, come or "
            f"gone: {', '.join(changed[:MOST_NAMED])}{more}; bring the old ones back, or choose "
            "another folder"
        )


def describe_files(dataset: Dataset, data: Mapping[str, Any]) -> Described:
    """Size and digest of the files of a data set by their paths below data.root.

    They do not depend on the location of the root or the times of the files. Of files above 64 KiB,
    16 KiB each at the start, in the middle and at the end are hashed.

    Args:
        dataset: data set whose attribute `files` is read.
        data: fields of ``config.data``, see `datasets.create_dataset`.

    Raises:
        DataError: a file cannot be read.
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
    """Record that `write_files` wrote; empty if there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
        return {row["file"]: (row["bytes"], row["digest"]) for row in rows}
    except (csv.Error, KeyError):
        raise DataError(f"{path}: damaged; remove it to go on without its check") from None


def write_files(path: Path, described: Described) -> None:
    """Write a record of files as CSV with the columns `COLUMNS`."""
    rows = [dict(zip(COLUMNS, (name, *described[name]), strict=True)) for name in sorted(described)]
    write_atomically(path, to_csv(rows, COLUMNS))
