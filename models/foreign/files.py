"""Weights and keywords from the files of other code bases; no code is run from them."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.foreign import FORMATS, SETTINGS
from models.plain import CheckpointError, read_plain

FOLDERS = ("", "unet")  # where the network lies in a folder of diffusers
NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def weights_file(format: str, path: Path) -> Path:
    """The file with the weights: `path` itself, or that in a folder of diffusers.

    Args:
        format: a key of `FORMATS`.
        path: a file; for diffusers the folder of a UNet2DModel or of its pipeline.

    Raises:
        ValueError: an unknown format.
        FileNotFoundError: there is no such file.
    """
    if format not in FORMATS:
        raise ValueError(
            f"expected a format of a prior out of {', '.join(FORMATS)}, or module:function of "
            f"your own Python, got {format!r}"
        )
    if path.is_file():
        return path
    if format == "diffusers" and path.is_dir():
        for folder in FOLDERS:
            for name in NAMES:
                if (path / folder / name).is_file():
                    return path / folder / name
        raise FileNotFoundError(f"{path}: expected {' or '.join(NAMES)} there or in its unet/")
    raise FileNotFoundError(f"{path}: no such file of weights")


def read_file(
    format: str, path: Path, keywords: Mapping | None = None
) -> tuple[dict, dict[str, Tensor]]:
    """Keywords and averaged weights of a network.

    Keywords are those in the file, ``{"keywords": ..., "state": ...}``, then those in the JSON file
    of its name beside it (diffusers: its ``config.json`` and ``scheduler_config.json``), then
    those that are given.

    Args:
        format: a key of `FORMATS`.
        path: as of `weights_file`.
        keywords: further keywords.

    Raises:
        ValueError: an unknown format, or averages that do not fit.
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, or does not hold plain tensors.
        ImportError: the package safetensors is needed and missing.
    """
    path = weights_file(format, path)
    payload, found = _load(path), {}
    if isinstance(payload, dict) and {"keywords", "state"} <= payload.keys():
        found, payload = dict(payload["keywords"]), payload["state"]
    for name, file in keyword_files(format, path):
        found |= {name: read_keywords(str(file))} if name else read_keywords(str(file))
    if format == "diffusers" and not found:
        raise FileNotFoundError(f"{path.parent}: expected config.json beside the weights")
    found |= keywords or {}
    try:
        read = getattr(FORMATS[format], "read", None)
        own = {name: value for name, value in found.items() if name not in SETTINGS[format]}
        state = payload if read is None else read(payload, own)
    except (TypeError, AttributeError, IndexError) as error:  # anything may be in a file
        raise CheckpointError(f"{path}: expected a file of format {format}: {error}") from None
    is_state = isinstance(state, dict) and all(isinstance(w, Tensor) for w in state.values())
    if not is_state or not state:
        raise CheckpointError(
            f"{path}: expected a state dict of format {format}, got "
            f"{'other values in it' if isinstance(state, dict) else type(state).__name__}"
        )
    return found, state


def read_keywords(text: str) -> dict:
    """Keywords from a JSON file, or from JSON itself.

    Raises:
        ValueError: neither.
    """
    source = Path(text).read_text() if Path(text[:250]).is_file() else text
    try:
        found = json.loads(source)
    except ValueError as error:
        raise ValueError(
            f"expected keywords as JSON, or a file of it, got {text!r}: {error}"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"expected keywords as a JSON object, got {type(found).__name__}")
    return found


def _load(path: Path) -> object:
    if path.suffix != ".safetensors":
        return read_plain(path, "cpu")
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ImportError(
            f"{path}: needs the package safetensors: pip install safetensors"
        ) from None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from None


def keyword_files(format: str, path: Path) -> list[tuple[str, Path]]:
    """The JSON files that say what the weights in a file are, each with the keyword that it is.

    Args:
        format: a key of `FORMATS`.
        path: the file with the weights.

    Returns:
        ``("", file)`` for one that holds keywords, ``("scheduler", file)`` for that one's content.
    """
    if format != "diffusers":
        beside = path.with_suffix(".json")
        return [("", beside)] if beside.is_file() else []
    found = [("", path.parent / "config.json")]
    for folder in (path.parent, path.parent / "scheduler", path.parent.parent / "scheduler"):
        found.append(("scheduler", folder / "scheduler_config.json"))
    return [pair for pair in found if pair[1].is_file()][:2]
