"""The fastMRI U-Net: published weights, or trained by `evaluation.train_unet`."""

import warnings
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from evaluation.baselines.direct import direct
from models import checkpoint as checkpoints
from models.checkpoint import CheckpointError
from models.plain import read_plain
from models.unet import UNet, unet_from_state_dict
from operators import LinearOperator
from operators.batch import expand

LIMIT = 6.0  # standard deviations at which inputs are clipped, as in fastMRI
FRACTION_TOLERANCE = 0.02  # accepted difference of the measured fraction of k-space


def unet(operator: LinearOperator, y: Tensor, *, checkpoint: str) -> Tensor:
    """U-Net applied to the direct reconstruction (zero-filled image or FBP).

    The input is the magnitude, normalised to mean 0 and standard deviation 1 per slice; the output
    is scaled back.

    Args:
        operator: measurement operator.
        y: ``(B, *range_shape)`` measurement.
        checkpoint: a checkpoint of `evaluation.train_unet`, a file of published weights, or the
            folder of a training run.

    Returns:
        ``(B, 1, H, W)`` real images; magnitudes for complex images.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is unreadable, or not of a U-Net.
        ValueError: the network was trained for another kind of operator.

    Warns:
        UserWarning: the network was trained for another fraction of k-space or other views.
            Published weights do not contain this information.

    Source: J. Zbontar et al., fastMRI, arXiv:1811.08839 (2018).
    """
    net, trained_for = load_unet(checkpoint)
    compare_measurements(trained_for, operator.facts(), checkpoint)
    with torch.no_grad():
        return apply_unet(net.to(y.device), direct(operator, y))


def apply_unet(net: UNet, images: Tensor) -> Tensor:
    """Output of a U-Net, ``(B, 1, H, W)`` real, for real or complex images ``(B, 1, H, W)``."""
    images, mean, deviation = normalise(images)
    output = net(images)
    return output * expand(deviation, output) + expand(mean, output)  # (B, 1, H, W)


def normalise(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images normalised to mean 0 and standard deviation 1, and clipped, as in fastMRI.

    Args:
        images: ``(B, 1, H, W)``; of complex images the magnitude is taken, real ones keep their
            sign.

    Returns:
        The normalised images, means ``(B,)`` and standard deviations ``(B,)``.
    """
    images = images.abs() if images.is_complex() else images
    mean = images.flatten(1).mean(1)  # (B,)
    deviation = images.flatten(1).std(1).clamp(min=1e-11)  # (B,)
    scaled = (images - expand(mean, images)) / expand(deviation, images)
    return scaled.clamp(-LIMIT, LIMIT), mean, deviation


def load_unet(name: str | Path) -> tuple[UNet, dict]:
    """A trained U-Net, and the description of its measurement ({} if the file has none).

    Args:
        name: a checkpoint file, or the folder of a run.

    Raises:
        FileNotFoundError: there is no such file, or the folder has no checkpoint.
        CheckpointError: the file does not hold plain tensors, or not a U-Net.
    """
    path = Path(name)
    if path.is_dir():
        latest = checkpoints.find_latest(path / "checkpoints")
        if latest is None:
            raise FileNotFoundError(f"{path}: expected a training run with checkpoints/step_*.pt")
        path = latest
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such U-Net checkpoint; set sampler.checkpoint")
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(path: Path, _changed: int) -> tuple[UNet, dict]:
    """The last U-Net is cached, so that the batches of one evaluation share it."""
    payload = read_plain(path, "cpu")  # also reads other formats
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path}: expected a state dict, got {type(payload).__name__}")
    ours = payload.get("format") == checkpoints.FORMAT
    try:
        net = unet_from_state_dict(payload["model"] if ours else payload)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return net.eval().requires_grad_(False), payload.get("measurement", {}) if ours else {}


def compare_measurements(trained: dict, present: dict, source: str | Path) -> None:
    """Compare a measurement with the one that a network was trained for.

    Args:
        trained: `LinearOperator.facts` in training; {} if unknown.
        present: `LinearOperator.facts` of the measurement.
        source: file of the network, for messages.

    Raises:
        ValueError: another kind of operator.

    Warns:
        UserWarning: other views, or another fraction of k-space.
    """
    if not trained:
        return
    if trained["operator"] != present["operator"]:
        raise ValueError(
            f"{source}: the U-Net was trained for {trained['operator']}, got "
            f"{present['operator']}; train one with evaluation.train_unet"
        )
    if "angles_deg" in trained and trained["angles_deg"] != present["angles_deg"]:
        warnings.warn(
            f"{source}: the U-Net was trained for {len(trained['angles_deg'])} other views than "
            f"the {len(present['angles_deg'])} it is given",
            stacklevel=3,
        )
    fractions = [d.get("measured_fraction", 1.0) for d in (trained, present)]
    if abs(fractions[0] - fractions[1]) > FRACTION_TOLERANCE:
        warnings.warn(
            f"{source}: the U-Net was trained with {fractions[0]:.1%} of k-space measured, here "
            f"it is {fractions[1]:.1%}",
            stacklevel=3,
        )
