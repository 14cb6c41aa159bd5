"""Checkpoint files: written atomically, read without executing code, loaded strictly.

A checkpoint is a `torch.save` of plain tensors and JSON-able values:
``{"format", "config", "model", "ema", "step", ...}``; `train.py` adds its state to resume from.
"""

import re
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from datasets.files import replacing
from models.plain import CheckpointError, read_plain

FORMAT = "score-priors/1"
SUFFIX = ".pt"


def save(path: str | Path, payload: dict) -> None:
    """Write a checkpoint atomically: a crash or a full disk leaves the old file unchanged.

    Args:
        path: the file to write.
        payload: tensors and JSON-able values.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as file:
        torch.save({"format": FORMAT, **payload}, file)


def load(path: str | Path, map_location: str | torch.device = "cpu") -> dict:
    """Content of a checkpoint in this project's format.

    Args:
        path: the file.
        map_location: device of the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file does not hold plain tensors and values, or has another format.
    """
    payload = read_plain(path, map_location)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {FORMAT!r}, got {found!r}; for one of the "
            "original code run: python -m models.checkpoint import ORIGINAL OUT --config=..."
        )
    return payload


def find_latest(folder: str | Path) -> Path | None:
    """Newest readable ``step_*.pt`` of `folder`, or None; warns of unreadable ones."""
    for path in sorted(Path(folder).glob(f"step_*{SUFFIX}"), key=step_of, reverse=True):
        try:
            load(path)
        except CheckpointError as error:
            warnings.warn(f"passed over {error}", stacklevel=2)
        else:
            return path
    return None


def step_of(path: Path) -> int:
    """Step number in a checkpoint's name, ``step_00001000.pt`` -> 1000; -1 for other names."""
    match = re.fullmatch(rf"step_(\d+){re.escape(SUFFIX)}", path.name)
    return int(match.group(1)) if match else -1


def load_weights(net: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load a state dict in this project's format into `net`, strictly.

    Args:
        net: the network.
        state: its state dict.
        source: file that the weights come from, for error messages.

    Raises:
        CheckpointError: a missing, extra or misshapen entry (another architecture).
    """
    try:
        net.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:  # `state` comes from a file
        lines = [line.strip() for line in str(error).splitlines()]
        raise CheckpointError(
            f"{source}: the checkpoint is of another architecture than the config's:\n  "
            + "\n  ".join(lines[:8] + ["..."] * (len(lines) > 8))
        ) from None
