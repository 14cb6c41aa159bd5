"""A report's page as a file, with its images in a folder beside it where they are many."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from datasets.files import naming, write_atomically
from evaluation.show.report_slices import Store

MOST_EMBEDDED = 40e6  # pixels of all images up to which they are in the page: about as many bytes
UNFINISHED = ".part"
FILES = (".js", ".webp", UNFINISHED)  # of the folder of images


def write_page(out: Path, make: Callable[[Store | None], str], *, beside: bool) -> list[Path]:
    """Write a page, and OUT_files beside it if its images are to be there.

    The page is written last, and only then are files removed that an earlier one used.

    Args:
        out: path of the page.
        make: text of the page, given what stores its images, or None to have them in the page.
        beside: whether images are in a folder of their own.

    Returns:
        The paths that were written: the page, and the folder if there is one.
    """
    folder = out.with_name(f"{out.stem}_files")
    written: set[str] = set()

    def store(end: str, content: str | bytes) -> str:
        raw = content.encode() if isinstance(content, str) else content
        name = f"{hashlib.blake2b(raw, digest_size=8).hexdigest()}{end}"
        _write_quickly(folder / name, raw)
        written.add(name)
        return f"{folder.name}/{name}"

    text = make(store if beside else None)
    write_atomically(out, text.encode("utf-8", "replace"))
    for suffix in FILES:
        for old in folder.glob(f"{'[0-9a-f]' * 16}{suffix}"):
            if old.name not in written:
                old.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return [out, folder] if beside else [out]


def _write_quickly(path: Path, content: bytes) -> None:
    """Write a file whose name says what is in it; unlike a result it need not survive a power cut.

    The file is there as a whole or not at all; one that is there is kept.
    """
    if path.is_file() and path.stat().st_size == len(content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(UNFINISHED)
    with naming(path):
        unfinished.write_bytes(content)
        unfinished.replace(path)
