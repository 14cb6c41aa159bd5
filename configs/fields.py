"""Help texts of config fields, from the comments of config files, and the kinds of configs."""

import ast
import io
import shutil
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TRAINING = "base.py"
# purpose of a config -> the file with all of its fields
KINDS = {
    "training": TRAINING,
    "evaluation": "evaluate.py",
    "reconstruction": "reconstruct.py",
    "training a U-Net": "unet.py",
    "sampling a prior": "sample.py",
    "likelihoods": "likelihood.py",
}
EXAMPLES = {TRAINING: "configs/demo.py or configs/fastmri_knee.py"}
COLUMN = 42  # column in which meanings begin


def example(kind: str) -> str:
    """Example of a config file for error messages; `kind` is a value of `KINDS`."""
    return EXAMPLES.get(kind, f"configs/{kind}")


def describe(fields: dict[str, object], types: dict[str, str], path: str | Path) -> str:
    """Help text of a config: one or more lines per field, with its flag, default and meaning.

    Args:
        fields: dotted name -> default.
        types: dotted name -> name of the type, for fields whose default is None.
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
    """Meanings of fields by dotted name without "config.", from the comments of a config file.

    A field without comment gets that of the config file it is derived from, or of configs/base.py.
    If both have one, the file's own comment follows in brackets.

    Args:
        path: the config file.
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
    """Files of this folder that a config file imports, each with the imported function or None."""
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
    """Comments by field: the one beside ``config.a.b = ...``, or the lines directly above it.

    Args:
        path: the config file.
        only: name of the only function to read; None for the whole file.
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
    with tokenize.open(path) as file:  # uses the encoding that the file declares
        return file.read()


def _comment_lines(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Comments by row: those beside code, and those on a row of their own."""
    beside, above = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            alone = not token.line[:column].strip()
            (above if alone else beside)[row] = token.string.lstrip("#").strip()
    return beside, above


def _assignments(function: ast.FunctionDef) -> Iterator[tuple[str, int, int]]:
    """Dotted name, first and last row of each field that is set, in order."""
    # `config.data = data = ConfigDict()` makes "data" an alias of "config.data"; a parameter
    # `sampler` stands for the section of that name
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
    """Dotted name of the field that ``a.b.c`` refers to; "" for anything else."""
    names = []
    while isinstance(target, ast.Attribute):
        names.insert(0, target.attr)
        target = target.value
    if not names or not isinstance(target, ast.Name) or target.id not in prefix:
        return ""
    return prefix[target.id] + ".".join(names)
