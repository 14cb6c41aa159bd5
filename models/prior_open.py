"""What a prior's file holds, its config and its description, before a network is made of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict
from torch import Tensor, nn

from models import foreign
from models.checkpoint_file import load
from models.foreign import files
from models.plain import CheckpointError
from models.prior_path import resolve_prior
from sde import VESDE, create_sde

FEW_MILLIONS = 1.0  # parameters of a network that is called small


class Opened(NamedTuple):
    """A prior's file, read once: what describes and loads a prior takes it in place of the file.

    Attributes:
        path: the file.
        format: as of `load_prior`.
        payload: content of the checkpoint, or what it would hold of a file of another code base;
            empty for ``module:function``.
    """

    path: Path
    format: str
    payload: dict


def open_prior(name_or_path: str | Path | Opened, format: str = "") -> Opened:
    """Read a prior's file; one that is open already is returned as it is.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `load_prior`.
    """
    if isinstance(name_or_path, Opened):
        return name_or_path
    path = resolve_prior(name_or_path, format)
    if ":" in format:
        return Opened(path, format, {})
    return Opened(path, format, foreign_payload(path, format) if format else load(path))


def foreign_payload(path: Path, format: str, keywords: Mapping | None = None) -> dict:
    """What a checkpoint in this project's format holds of a file of another code base."""
    found, state = files.read_file(format, path, keywords)
    seen, sde = build_foreign(path, format, found, state)
    side = found.get("img_resolution") or found.get("image_size") or found.get("sample_size") or 0
    turned = bool(found.get("symmetric"))
    config = {
        "model": {"name": format, "num_channels": seen.num_channels},
        "sde": {"name": "ve", "sigma_min": sde.sigma_min, "sigma_max": sde.sigma_max},
        "data": {"name": "", "image_size": side, "crop": 0, "flip": turned, "rotate": turned},
        "training": {"num_steps": 0},
    }
    described = {"format": format, "keywords": found}
    return {"config": config, "foreign": described, "ema": state, "step": 0}


def build_foreign(
    path: Path, format: str, keywords: Mapping, state: dict[str, Tensor]
) -> tuple[nn.Module, VESDE]:
    """The score of a network of another code base, and its levels.

    Raises:
        CheckpointError: keywords, weights and levels do not fit.
    """
    try:
        net = foreign.build(format, keywords, state)
        return foreign.view(format, net, net.keywords)
    except (ValueError, TypeError, KeyError) as error:  # the values come from a file
        raise CheckpointError(f"{path}: {error}") from error


def training_config(name_or_path: str | Path | Opened, format: str = "") -> ConfigDict:
    """Config of a prior's training; of another code base's, what is known: image size 0, no data.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `load_prior`.
    """
    payload = open_prior(name_or_path, format).payload
    if not payload:
        return ConfigDict({"data": {"name": "", "image_size": 0, "crop": 0}})
    return ConfigDict(payload["config"])


def describe(name_or_path: str | Path | Opened, format: str = "") -> str:
    """A prior in one line: its file, number of parameters, whether that is few, noise levels.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError, CheckpointError: as `load_prior`.
    """
    path, format, payload = open_prior(name_or_path, format)
    if not payload:
        return f"{path.name}: by {format}"
    millions = sum(weight.numel() for weight in payload["ema"].values()) / 1e6
    size = "a small network of " if millions < FEW_MILLIONS else ""
    sde = create_sde(payload["config"]["sde"]).ve
    levels = f"noise levels {sde.sigma_min:.3g} to {sde.sigma_max:.3g}"
    return f"{path.name}: {size}{millions:.2g} million parameters, {levels}"
