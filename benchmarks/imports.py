"""Imports between the modules and folders of the project: ``python -m benchmarks.imports [ROOT]``.

Prints how many modules import how many others, within a folder and between folders, for the whole
project and for `evaluation`, and the arrows between folders. ROOT is another checkout to count.
`tests/test_layers_of_the_project.py` says which arrows may be there.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LEFT_OUT = {"tests", "benchmarks"}

Arrow = tuple[str, str]  # paths of a module and of one that it imports, without suffix


def arrows(root: Path) -> set[Arrow]:
    """Imports of modules of the project in the checkout `root` by others of its modules."""
    files = [p.relative_to(root) for folder in ("*.py", "*/**/*.py") for p in root.glob(folder)]
    files = [f for f in files if f.parts[0] not in LEFT_OUT and f.parts[0][0] != "."]
    modules = {_name(file) for file in files}
    return {
        (_name(file), module)
        for file in files
        for name in _imported((root / file).read_text())
        for module in [_longest(name.split("."), modules)]
        if module not in ("", _name(file))
    }


def folder(module: str) -> str:
    """Folder of a module; "." for the root."""
    return module.rpartition("/")[0] or "."


def _name(file: Path) -> str:
    return file.with_suffix("").as_posix()


def _imported(text: str) -> Iterator[str]:
    """Dotted names that the text of a module imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _longest(parts: list[str], modules: set[str]) -> str:
    """Longest beginning of a dotted name that is a module or package; "" if none is."""
    for end in range(len(parts), 0, -1):
        path = "/".join(parts[:end])
        for module in (path, f"{path}/__init__"):
            if module in modules:
                return module
    return ""


def main() -> None:
    """Print the counts and the arrows between folders."""
    found = arrows(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE)
    inside = {a for a in found if all(module.startswith("evaluation/") for module in a)}
    for name, some in (("project", found), ("evaluation", inside)):
        between = {a for a in some if folder(a[0]) != folder(a[1])}
        folders = {(folder(a), folder(b)) for a, b in between}
        print(
            f"{name}: {len(some)} imports of modules, {len(some) - len(between)} within a folder, "
            f"{len(between)} between folders, {len(folders)} pairs of folders"
        )
    for pair in sorted({(folder(a), folder(b)) for a, b in found if folder(a) != folder(b)}):
        print("  {} -> {}".format(*pair))


if __name__ == "__main__":
    main()
