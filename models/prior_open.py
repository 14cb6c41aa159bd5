"""What a prior's file holds, its config and its description, before a network is made of it."""

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict
from torch import Tensor, nn

from models import foreign
from models.checkpoint_file import load
from models.foreign import files
from models.plain import CheckpointError
from models.prior_path import resolve_prior
from sde import VESDE, create_sde

FEW_MILLIONS = 1.0  # parameters of a network that is called small


def open_payload(name_or_path: str | Path, format: str = "") -> dict:
    """Content of a prior's checkpoint, or what it would hold of a file of another code base.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`, but no ``module:function``.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `load_prior`.
    """
    path = resolve_prior(name_or_path, format)
    return foreign_payload(path, format) if format else load(path)


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


def training_config(name_or_path: str | Path, format: str = "") -> ConfigDict:
    """Config of a prior's training; of another code base's, what is known: image size 0, no data.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `load_prior`.
    """
    if ":" in format:
        return ConfigDict({"data": {"name": "", "image_size": 0, "crop": 0}})
    return ConfigDict(open_payload(name_or_path, format)["config"])


def describe(name_or_path: str | Path, format: str = "") -> str:
    """A prior in one line: its file, number of parameters, whether that is few, noise levels.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError, CheckpointError: as `load_prior`.
    """
    path = resolve_prior(name_or_path, format)
    if ":" in format:
        return f"{path.name}: by {format}"
    payload = open_payload(path, format)
    millions = sum(weight.numel() for weight in payload["ema"].values()) / 1e6
    size = "a small network of " if millions < FEW_MILLIONS else ""
    sde = create_sde(payload["config"]["sde"]).ve
    levels = f"noise levels {sde.sigma_min:.3g} to {sde.sigma_max:.3g}"
    return f"{path.name}: {size}{millions:.2g} million parameters, {levels}"
