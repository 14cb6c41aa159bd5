"""The fastMRI U-Net: published weights, or trained by `evaluation.train_unet`."""

import warnings
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from evaluation.baselines.direct import direct
from models import checkpoint as checkpoints
from models.checkpoint import CheckpointError
from models.unet import UNet, unet_from_state_dict
from operators import LinearOperator
from operators.batch import expand

LIMIT = 6.0  # standard deviations: inputs beyond are clipped, as fastMRI does
FRACTION_TOLERANCE = 0.02  # of the measured part of k-space, before it counts as another


def unet(operator: LinearOperator, y: Tensor, *, checkpoint: str) -> Tensor:
    """The U-Net applied to the zero-filled image or FBP, `direct`.

    The input is the magnitude, less its mean, over its standard deviation, per slice; the output
    is scaled back. Zbontar et al., arXiv:1811.08839 (2018).

    Args:
        operator: measurement model. A checkpoint of `evaluation.train_unet` says what it was
            trained for: another kind of operator is an error, another part of k-space or other
            views are a warning. Published weights do not say.
        y: ``(B, *range_shape)`` measurement.
        checkpoint: a file of ours or of published weights, or a training run's folder.

    Returns:
        ``(B, 1, H, W)`` real images; magnitudes where images are complex.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not readable, or not of a U-Net.
        ValueError: trained for another kind of operator.
    """
    net, trained_for = load_unet(checkpoint)
    compare_measurements(trained_for, operator.facts(), checkpoint)
    with torch.no_grad():
        return apply_unet(net.to(y.device), direct(operator, y))


def apply_unet(net: UNet, images: Tensor) -> Tensor:
    """Normalise, apply, scale back: ``(B, 1, H, W)``, real or complex, to the same, real."""
    images, mean, deviation = normalise(images)
    output = net(images)
    return output * expand(deviation, output) + expand(mean, output)  # (B, 1, H, W)


def normalise(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Magnitudes with mean 0 and standard deviation 1 each, clipped; the mean and deviation.

    Real images keep their sign.
    """
    images = images.abs() if images.is_complex() else images
    mean = images.flatten(1).mean(1)  # (B,)
    deviation = images.flatten(1).std(1).clamp(min=1e-11)  # (B,)
    scaled = (images - expand(mean, images)) / expand(deviation, images)
    return scaled.clamp(-LIMIT, LIMIT), mean, deviation


def load_unet(name: str | Path) -> tuple[UNet, dict]:
    """A trained U-Net, and what it was trained for ({} where the file does not say).

    Args:
        name: a checkpoint file, or the folder of a run.

    Raises:
        FileNotFoundError: no such file, or a folder without a checkpoint.
        CheckpointError: not readable as plain tensors, or not of a U-Net.
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
    """Kept, so that batches of one evaluation share the network."""
    payload = checkpoints.read_plain(path, "cpu")  # foreign files, too
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path}: expected a state dict, got {type(payload).__name__}")
    ours = payload.get("format") == checkpoints.FORMAT
    try:
        net = unet_from_state_dict(payload["model"] if ours else payload)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return net.eval().requires_grad_(False), payload.get("measurement", {}) if ours else {}


def compare_measurements(trained: dict, present: dict, source: str | Path) -> None:
    """Raise or warn where a network meets another measurement than it was trained for."""
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
