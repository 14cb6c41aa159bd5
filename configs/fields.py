"""What config files say about their fields: default, meaning, and what a config is for."""

import ast
import io
import shutil
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TRAINING = "base.py"
# what a config is for -> the file with all of its fields
KINDS = {
    "training": TRAINING,
    "evaluation": "evaluate.py",
    "reconstruction": "reconstruct.py",
    "training a U-Net": "unet.py",
}
EXAMPLES = {TRAINING: "configs/demo.py or configs/fastmri_knee.py"}
COLUMN = 42  # where meanings begin


def example(kind: str) -> str:
    """A config file to name in an error, of a value of `KINDS`."""
    return EXAMPLES.get(kind, f"configs/{kind}")


def describe(fields: dict[str, object], types: dict[str, str], path: str | Path) -> str:
    """A line or more for each field: its flag with the default, and what it is.

    Args:
        fields: dotted name -> default.
        types: dotted name -> name of the type, where the default is None.
        path: the config file.
    """
    explained = meanings(path)
    width = max(shutil.get_terminal_size((100, 24)).columns, 2 * COLUMN)
    lines = []
    for field, value in fields.items():
        flag = f"  --config.{field}={value}"
        text = "; ".join(filter(None, [types.get(field), explained.get(field)]))
        indent = " " * COLUMN
        wrapped = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
        if wrapped and len(flag) < COLUMN - 1:
            lines.append(flag.ljust(COLUMN) + wrapped.pop(0)[COLUMN:])
        else:
            lines.append(flag)
        lines += wrapped
    return "\n".join(lines)


def meanings(path: str | Path) -> dict[str, str]:
    """What a field is, by its dotted name without "config.": the comments in a config file.

    A field that the file does not explain is explained by the config that it is derived from,
    or by configs/base.py; where both say something, the file's own words follow in brackets.

    Args:
        path: of the config file.
    """
    found = _meanings(Path(path), None)
    return _comments(FOLDER / TRAINING, None) | found


def _meanings(path: Path, only: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for other, name in _derived_from(path):
        found |= _meanings(other, name)
    for field, text in _comments(path, only).items():
        found[field] = f"{found[field]} ({text})" if field in found else text
    return found


def _derived_from(path: Path) -> Iterator[tuple[Path, str | None]]:
    """The files of this folder that a config file imports, and the function if it is one's."""
    for node in ast.walk(ast.parse(_source(path))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        for alias in node.names:
            if node.module == "configs":
                other, name = FOLDER / f"{alias.name}.py", None
            else:
                package, _, module = node.module.partition(".")
                other, name = FOLDER / f"{module}.py", alias.name
                if package != "configs":
                    continue
            if other.is_file() and other != path.resolve():
                yield other, name


def _comments(path: Path, only: str | None) -> dict[str, str]:
    """The comment beside an assignment ``config.a.b = ...``, or the lines right above it.

    Args:
        path: of the config file.
        only: a function; None: all of the file.
    """
    source = _source(path)
    beside, above = _comment_lines(source)
    found: dict[str, str] = {}
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and only in (None, function.name):
            for field, first, last in _assignments(function):
                rows = [beside[row] for row in range(first, last + 1) if row in beside]
                row = first - 1
                while not beside.keys() & range(first, last + 1) and row in above:
                    rows.insert(0, above[row])
                    row -= 1
                if rows:
                    found[field] = " ".join(rows)
    return found


def _source(path: Path) -> str:
    with tokenize.open(path) as file:  # in the encoding that the file declares
        return file.read()


def _comment_lines(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Comments by row: those beside code, and those that have a row of their own."""
    beside, above = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            alone = not token.line[:column].strip()
            (above if alone else beside)[row] = token.string.lstrip("#").strip()
    return beside, above


def _assignments(function: ast.FunctionDef) -> Iterator[tuple[str, int, int]]:
    """Dotted name, first and last row of each field that is set, in their order."""
    # `config.data = data = ConfigDict()` makes "data" another name of "config.data"; a parameter
    # `sampler` is the section of that name
    prefix = {argument.arg: f"{argument.arg}." for argument in function.args.args}
    prefix["config"] = ""
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        fields = [f for f in (_field(target, prefix) for target in node.targets) if f]
        for target in node.targets:
            if isinstance(target, ast.Name) and fields:
                prefix[target.id] = f"{fields[0]}."
        for field in fields:
            yield field, node.lineno, node.end_lineno or node.lineno


def _field(target: ast.expr, prefix: dict[str, str]) -> str:
    """The field that ``a.b.c`` means; "" for anything else."""
    names = []
    while isinstance(target, ast.Attribute):
        names.insert(0, target.attr)
        target = target.value
    if not names or not isinstance(target, ast.Name) or target.id not in prefix:
        return ""
    return prefix[target.id] + ".".join(names)
