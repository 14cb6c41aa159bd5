"""Configurations: plain Python files with a `get_config`, every field of which is a flag."""

import difflib
import importlib.util
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

log = logging.getLogger("absl")


class ConfigError(ValueError):
    """A config that does not fit: an unknown field, or a folder made with another one."""


def load_config(spec: str) -> ConfigDict:
    """The config of ``PATH.py`` or ``PATH.py:ARGUMENT``, as ``--config=`` takes it.

    Raises:
        ConfigError: no such file.
    """
    path, _, argument = spec.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"{path}: expected a config file such as configs/demo.py")
    module_spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()


def define_flags(default: str | None, **folders: str) -> None:
    """Define ``--config`` with a flag for every field, and required flags that name folders.

    Args:
        default: the config file used where ``--config`` is not given; None: it has to be given.
        folders: name of a flag -> its help.
    """
    with clear_errors():
        check_overrides(sys.argv[1:], default)
    config_flags.DEFINE_config_file("config", default, "FILE.py or FILE.py:ARGUMENT")
    for name, text in folders.items():
        flags.DEFINE_string(name, None, text)
    flags.mark_flags_as_required([*folders, *(["config"] if default is None else [])])


def check_overrides(arguments: list[str], default: str | None) -> None:
    """Raise a ConfigError for a ``--config.FIELD`` that the config does not have.

    ml_collections refuses it, too, but does not say which fields there are.
    """
    specs = [a.partition("=")[2] for a in arguments if re.match(r"--?config=", a)] or [default]
    if not specs[-1]:
        return
    known = flatten(load_config(specs[-1]).to_dict())
    for argument in arguments:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match and match[1] not in known:
            close = difflib.get_close_matches(match[1], known, n=3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ConfigError(
                f"unknown config field {match[1]!r}; {hint}The fields are: {', '.join(known)}"
            )


def to_json(config: ConfigDict) -> str:
    """The resolved config as indented JSON; tuples become lists."""
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
    """Compare a folder's `config.json` with `config`; no file is fine.

    Args:
        path: the JSON file.
        config: the config of this run.
        ignore: dotted names of fields that may differ.

    Raises:
        ConfigError: the fields that differ, with both values.
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


# of RuntimeErrors: PyTorch's CPU allocator, CUDA's libraries
MEMORY_TEXTS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
)
INTERRUPTED = 130  # exit code of shells after Ctrl-C


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, a GPU's or the machine's, was not enough."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY_TEXTS)


@contextmanager
def clear_errors(memory: str = "close other programs, or take a smaller batch") -> Iterator[None]:
    """Turn errors about input into one line and exit code 1; ``--verbosity=1`` has the traceback.

    Wraps the work of every command: errors about config, data, checkpoints and files are
    ValueErrors or OSErrors whose text says what to do. Any other error but a want of memory is the
    program's own and keeps its traceback.

    Args:
        memory: what to do where memory is not enough.
    """
    try:
        yield
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
    """The text of an error; of one of the system, the file and what is wrong with it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
