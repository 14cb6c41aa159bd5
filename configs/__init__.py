"""Configurations: Python files with a function `get_config`; every field is a command-line flag."""

import configs.installed  # noqa: F401 -- before the packages that it looks for

# isort: split
import difflib
import importlib.util
import inspect
import json
import logging
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from configs import fields

log = logging.getLogger("absl")
HELP = {"--help", "-help", "-h", "--helpshort"}


class ConfigError(ValueError):
    """An invalid config, such as an unknown field, or one that differs from a folder's."""


def project_version(root: Path = fields.FOLDER.parent) -> str:
    """Version of the project, that of `pyproject.toml` in its checkout."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]


def find_config(spec: str) -> str:
    """`spec` with the file's path, looked up in the working directory, then in the checkout."""
    path, colon, argument = spec.partition(":")
    inside = fields.FOLDER.parent / path
    here = Path(path).is_file() or not inside.is_file()
    return spec if here else f"{inside}{colon}{argument}"


def load_config(spec: str) -> ConfigDict:
    """Config of a file.

    Args:
        spec: ``PATH.py`` or ``PATH.py:ARGUMENT``, as for ``--config=``.

    Raises:
        ConfigError: there is no such file, it has no `get_config`, or that takes no argument.
    """
    path, _, argument = find_config(spec).partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"{path}: expected a config file such as configs/demo.py")
    module_spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if module_spec is None:
        raise ConfigError(f"{path}: expected a Python file such as configs/demo.py")
    module = importlib.util.module_from_spec(module_spec)
    module.__builtins__ = __builtins__  # so that its imports resolve like those of this file
    module_spec.loader.exec_module(module)
    function = getattr(module, "get_config", None)
    if function is None:
        raise ConfigError(f"{path}: expected a config file, with a function get_config")
    if argument and not inspect.signature(function).parameters:
        raise ConfigError(f"{spec}: {path} takes no argument; leave out ':{argument}'")
    return function(argument) if argument else function()


def define_flags(default: str | None, *, reads: str = "", **folders: str) -> None:
    """Define ``--config`` with a flag for every field, and required flags for folders.

    Call it after defining a command's other flags: for ``--help`` it prints all flags and exits,
    for ``--version`` the project's version.

    Args:
        default: config file used without ``--config``, with all fields that the command reads;
            None for a training config, which then has to be given.
        reads: prefix of the names of the fields that the command needs; "" for all.
        folders: name of a required flag -> its help text.
    """
    kind = Path(default).name if default else fields.TRAINING
    default = find_config(default) if default else None
    sys.argv[1:] = _found_configs(sys.argv[1:])
    for name, text in folders.items():
        flags.DEFINE_string(name, None, text)
    with quiet_pipe(), clear_errors():
        if "--version" in sys.argv[1:]:
            print(f"score-priors {project_version()}")
            sys.exit()
        spec = config_spec(sys.argv[1:]) or default
        if not HELP.isdisjoint(sys.argv[1:]):
            print(help_text(spec, kind, required=[*folders]))
            sys.exit()
        if spec:
            config = load_config(spec)
            check_kind(config, spec, kind, reads)
            check_overrides(sys.argv[1:], config)
    config_flags.DEFINE_config_file("config", default, "FILE.py or FILE.py:ARGUMENT")
    flags.mark_flags_as_required([*folders, *(["config"] if default is None else [])])


def run(main: Callable[[list[str]], None]) -> None:
    """Run a command whose flags `define_flags` defined, as ``main(argv)``.

    An argument that is not a flag is an error.
    """

    def checked(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(
                f"error: unexpected argument {argv[1]!r}: everything is a flag, such as "
                "--config.seed=1; --help lists them"
            )
        main(argv)

    with quiet_pipe():
        app.run(checked)


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """Context that exits without a traceback once standard output is closed, as by ``| head``."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # discard what is still buffered; otherwise Python reports an error at exit
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        sys.exit(128 + 13)  # exit code of a shell for a program that SIGPIPE ended


def _found_configs(arguments: Sequence[str]) -> list[str]:
    """Arguments with the paths of ``--config`` resolved by `find_config`."""
    found, is_spec = [], False
    for argument in arguments:
        match = re.fullmatch(r"(--?config=)(.+)", argument)
        spec = f"{match[1]}{find_config(match[2])}" if match else argument
        found.append(find_config(argument) if is_spec else spec)
        is_spec = argument in ("--config", "-config")
    return found


def config_spec(arguments: Sequence[str]) -> str:
    """Value of the last ``--config`` of a command line; "" without one."""
    spec = ""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        match = re.fullmatch(r"--?config(?:=(.*))?", argument)
        if match:
            spec = following if match[1] is None else match[1]
    return spec


def help_text(spec: str | None, kind: str, required: Sequence[str]) -> str:
    """Help text of a command: all flags with their defaults and meanings.

    Args:
        spec: the given config file, or the command's default; None if there is neither.
        kind: a value of `fields.KINDS`.
        required: names of flags without a default.
    """
    shown = spec or str(fields.FOLDER / kind)
    config = load_config(shown)
    check_kind(config, shown, kind)
    flat = flatten(config.to_dict())
    types = {name: _type_of(config, name) for name, value in flat.items() if value is None}
    own = {f.name: f for f in flags.FLAGS.flags_by_module_dict().get(sys.argv[0], ())}
    lines = [f"  --{name}: {flags.FLAGS[name].help} (required)" for name in required]
    lines += [f"  --{f.name}={_shown(f.default)}: {f.help}" for f in own.values()]
    lines += [f"  --config=FILE.py or FILE.py:ARGUMENT: {_default_of(spec, kind)}"]
    text = (sys.modules["__main__"].__doc__ or "").strip()
    path = shown.partition(":")[0]
    title = f"Fields of {Path(path).name if spec is None else shown}:"
    return "\n".join(
        [text, "", "Flags:", *lines, "", title, fields.describe(flat, types, path)],
    )


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _default_of(spec: str | None, kind: str) -> str:
    if spec is None:
        return f"required, such as {fields.example(kind)}; with --help, its values are shown"
    return f"here {spec}"


def _type_of(config: ConfigDict, name: str) -> str:
    section, _, field = name.rpartition(".")
    for part in filter(None, section.split(".")):
        config = config[part]
    return config.get_type(field).__name__


def check_kind(config: ConfigDict, spec: str, kind: str, reads: str = "") -> None:
    """Raise a ConfigError for a config of another kind, such as training instead of evaluation.

    Args:
        config: the config of `spec`.
        spec: the config file.
        kind: the expected kind, a value of `fields.KINDS`.
        reads: prefix of the names of the fields that are needed; "" for all.
    """
    purposes = {file: purpose for purpose, file in fields.KINDS.items()}
    missing = _needed(kind, reads) - flatten(config.to_dict()).keys()
    if not missing:
        return
    given = flatten(config.to_dict()).keys()
    other = [file for file in purposes if file != kind and _needed(file, "") <= given]
    what = f"that is for {purposes[other[0]]}" if other else f"without {', '.join(sorted(missing))}"
    raise ConfigError(
        f"{spec}: expected a config for {purposes[kind]}, such as {fields.example(kind)}, "
        f"got one {what}"
    )


def _needed(kind: str, reads: str) -> set[str]:
    """Names of the fields of a kind of config, except those of `model`, which differ."""
    flat = flatten(load_config(str(fields.FOLDER / kind)).to_dict())
    return {name for name in flat if name.startswith(reads) and not name.startswith("model.")}


def check_overrides(arguments: Sequence[str], config: ConfigDict) -> None:
    """Raise a ConfigError for a ``--config.FIELD`` that the config does not have.

    A ``--FIELD`` without "config." is an error as well. ml_collections rejects both, but does not
    list the known fields.
    """
    known = flatten(config.to_dict())
    for name in overridden(arguments):
        if name not in known:
            close = _close(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown config field {name!r}; {hint} (--help explains all)")
    for argument in arguments:
        match = re.match(r"--?(?:no)?([a-z_.]+)", argument)
        if match and match[1] not in flags.FLAGS and not re.match(r"config\b", match[1]):
            close = [name for name in known if match[1] in (name, name.rpartition(".")[2])]
            if close:
                meant = " or ".join(f"--config.{name}" for name in close)
                raise ConfigError(f"unknown flag {match[0]!r}; did you mean {meant}?")


def overridden(arguments: Sequence[str]) -> list[str]:
    """Names of the config fields that a command line sets."""
    matches = (re.match(r"--?(?:no)?config\.([^=]+)", argument) for argument in arguments)
    return [match[1] for match in matches if match]


def note_idle(reasons: Mapping[str, str]) -> None:
    """Note on standard error for each field that the command line sets without effect.

    Args:
        reasons: name of a field that has no effect -> the reason.
    """
    for name in overridden(sys.argv[1:]):
        if name in reasons:
            print(f"note: config.{name} has no effect: {reasons[name]}", file=sys.stderr)


def _close(name: str, known: Iterable[str]) -> list[str]:
    """Known fields with a name similar to `name`, in the same or another section."""
    found = difflib.get_close_matches(name, known, n=3)
    last = {field.rpartition(".")[2]: field for field in known}
    same = difflib.get_close_matches(name.rpartition(".")[2], last, n=3, cutoff=0.8)
    return found or [f for f in known if f.rpartition(".")[2] in same]


def to_json(config: ConfigDict) -> str:
    """Resolved config as indented JSON; tuples become lists."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def flatten(config: dict, prefix: str = "") -> dict:
    """Nested dicts as one dict with dotted names."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def check_same(path: Path, config: ConfigDict, ignore: tuple[str, ...] = ()) -> None:
    """Raise a ConfigError if a folder's `config.json` differs from `config`.

    Args:
        path: the JSON file, which may be missing.
        config: the config of this run.
        ignore: dotted names of fields that may differ.

    Raises:
        ConfigError: fields differ (they are listed with both values), or the file is damaged.
    """
    if not path.is_file():
        return
    try:
        old = flatten(json.loads(path.read_bytes()))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: expected a config as JSON, got a damaged one ({error}); restore it, or "
            "choose another folder"
        ) from None
    new = flatten(json.loads(to_json(config)))
    differing = [
        f"{name}: {old.get(name, '(absent)')!r} there, {new.get(name, '(absent)')!r} now"
        for name in sorted(old.keys() | new.keys())
        if name not in ignore and old.get(name) != new.get(name)
    ]
    if differing:
        raise ConfigError(
            f"{path.parent} was made with another config ({path.name}); choose another folder, or "
            "go back to the old values:\n  " + "\n  ".join(differing)
        )


# texts of RuntimeErrors from PyTorch's CPU allocator and CUDA's libraries
MEMORY_TEXTS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
)
INTERRUPTED = 130  # exit code of shells after Ctrl-C


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the memory of the GPU or the machine was exhausted."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY_TEXTS)


@contextmanager
def clear_errors(memory: str = "close other programs, or take a smaller batch") -> Iterator[None]:
    """Context that turns errors of the input into one line and exit code 1.

    It wraps the work of every command. Errors of config, data, checkpoints and files are
    ValueErrors or OSErrors whose text states the remedy; running out of memory gets a remedy here.
    Any other error is a bug and keeps its traceback. ``--verbosity=1`` shows all tracebacks.

    Args:
        memory: remedy when memory is exhausted.
    """
    try:
        yield
    except BrokenPipeError:  # handled by `quiet_pipe`
        raise
    except (ValueError, OSError, FloatingPointError) as error:
        log.debug("traceback:", exc_info=True)
        raise SystemExit(f"error: {describe(error)}") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        log.debug("traceback:", exc_info=True)
        raise SystemExit(f"error: out of memory; {memory} ({describe(error)})") from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def describe(error: BaseException) -> str:
    """Text of an error; for an OSError the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
