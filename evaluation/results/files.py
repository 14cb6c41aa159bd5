"""Text files of a results folder: CSV, JSON, and the checksums of a finished folder."""

import csv
import hashlib
import io
import json
from pathlib import Path

from configs import ConfigError
from datasets.files import read_text, write_atomically

SUMS = "SHA256SUMS"  # in the format of `sha256sum`
# files listed in it; recon.h5 has its own checksums
SEALED = (
    "config.json",
    "info.json",
    "keys.txt",
    "files.csv",
    "metrics.csv",
    "failures.csv",
    "volumes.csv",
)


def write_sums(folder: Path) -> None:
    """Write the checksums of the text files of a results folder that no process works on."""
    there = [name for name in SEALED if (folder / name).is_file()]
    write_atomically(folder / SUMS, "".join(f"{_sha256(folder / n)}  {n}\n" for n in there))


def check_sums(folder: Path) -> None:
    """Verify the checksums of the text files of a results folder, if there are any.

    Raises:
        ConfigError: a file was damaged or edited.
    """
    path = folder / SUMS
    try:
        text = read_text(path)
    except FileNotFoundError:
        return
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        if name not in SEALED or _sha256(folder / name) != digest:
            if not path.is_file():  # meanwhile a process has started to write to the folder
                return
            file = name if name in SEALED else SUMS
            raise ConfigError(
                f"{folder / file}: not as it was written, by its checksum: damaged, or edited; "
                f"bring it back, or remove {SUMS} to take it as it is"
            )


def _sha256(path: Path) -> str:
    """SHA-256 of a file; "" if there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def read_json(path: Path) -> dict:
    """Content of a JSON file with one object.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: expected JSON with names and values, got a damaged file ({error}); bring it "
            "back, or choose another folder"
        ) from None
    return content


def read_csv(path: Path, *, growing: bool = False) -> list[dict[str, str]]:
    """Rows of a CSV file with a header.

    Args:
        path: the file.
        growing: whether rows are still appended; incomplete rows are then left out.

    Raises:
        ConfigError: the file is damaged.
    """
    text = read_text(path)
    whole = text[: text.rfind("\n") + 1] if growing else text
    try:
        rows = list(csv.DictReader(io.StringIO(whole)))
    except csv.Error as error:
        raise ConfigError(f"{path}: damaged ({error}); bring it back") from None
    bad = [i for i, row in enumerate(rows) if None in row or None in row.values()]
    if bad and growing:
        return [row for i, row in enumerate(rows) if i not in set(bad)]
    if bad:
        raise ConfigError(f"{path}: row {bad[0] + 1} is damaged; bring the file back")
    return rows
