"""Search for files below a folder."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.sample import DataError


def find_files(folder: Path, suffixes: Sequence[str] = ("",)) -> list[str]:
    """Sorted paths, relative to `folder`, of the files with one of `suffixes` in or below it.

    Links are followed, as they are used to spread data sets over disks; a file that several paths
    lead to is found once, through a link if there is one. Names that begin with a dot are ignored
    with everything below them (``.git``, ``.snapshot``, macOS's ``._*``).

    Args:
        folder: folder to search.
        suffixes: suffixes in lower case, which match names in any case.

    Raises:
        DataError: a folder cannot be read.
    """
    found = {name: os.path.islink(folder / name) for name in _walk(folder)}
    targets = {os.path.realpath(folder / name) for name, linked in found.items() if linked}
    return sorted(
        name
        for name, linked in found.items()
        if name.lower().endswith(tuple(suffixes))
        and (linked or not targets or os.path.realpath(folder / name) not in targets)
    )


def _walk(folder: Path) -> Iterator[str]:
    """Paths, relative to `folder`, of all files that are not hidden."""
    seen = {os.path.realpath(folder)}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        visible = sorted(name for name in folders if not name.startswith("."))
        # links first: the name of a link train -> all/part1 tells more than all/part1
        visible.sort(key=lambda name: not os.path.islink(os.path.join(root, name)))
        folders[:] = [n for n in visible if _is_new(os.path.join(root, n), seen)]
        for name in files:
            if not name.startswith("."):
                yield (Path(root) / name).relative_to(folder).as_posix()


def _is_new(path: str, seen: set[str]) -> bool:
    """Whether a folder is new; adds it to `seen`."""
    target = os.path.realpath(path)
    if target in seen:
        return False
    seen.add(target)
    return True


def _refuse(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); allow it (chmod +rx), or "
        "move it out of the data"
    ) from error
