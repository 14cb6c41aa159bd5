"""From slices to rows of results: simulate measurements, reconstruct, compute metrics."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from configs import is_out_of_memory
from datasets import Sample, collate
from evaluation.baselines import direct
from evaluation.metrics import all_metrics
from evaluation.run.lesions import lesion_metrics
from evaluation.run.measurements import build_operator
from evaluation.run.methods import Reconstructor
from evaluation.run.provenance import fingerprint, peak_memory, reset_peak_memory, sampling
from operators import LinearOperator
from operators.batch import norm

ERROR_LENGTH = 500  # largest number of characters kept of an exception's text


class Outcome(NamedTuple):
    """Result of one slice: `row` and images ``(H, W)``, or an `error` message."""

    key: str
    error: str = ""
    row: dict[str, float | str] | None = None
    target: np.ndarray | None = None
    direct: np.ndarray | None = None  # zero-filled or FBP
    image: np.ndarray | None = None
    std: np.ndarray | None = None


def run_slices(
    config: ConfigDict,
    method: Reconstructor,
    samples: Sequence[Sample],
    with_panel: set[str],
    device: str,
) -> list[Outcome]:
    """Simulate measurements of slices of one size, reconstruct them and compute metrics.

    Args:
        config: an evaluation config.
        method: from `create_reconstructor`.
        samples: the slices.
        with_panel: keys of the slices that get a panel, and so need their direct reconstruction.
        device: device of the reconstruction.

    Raises:
        ValueError: a measurement is not finite.
    """
    batch = collate(samples)
    keys = batch.key
    operator = build_operator(config, tuple(batch.image.shape[-2:]), keys)
    y = measure(operator, batch.image)
    check_finite(y, keys)
    on_device, y_on_device = operator.to(device), y.to(device)
    reset_peak_memory(device)
    begin = time.perf_counter()
    images, calls, failures, stds = method(on_device, y_on_device, keys)
    images = images.cpu()
    shared = {"seconds": round((time.perf_counter() - begin) / len(keys), 3), "nfe": calls}
    shared["memory_mib"] = round(peak_memory(device), 1)

    slices = []
    for b, key in enumerate(keys):
        error = failures.get(key, "")
        if not error and not torch.isfinite(images[b]).all():
            error = "NaN or infinite values in the reconstruction"
        if error:
            slices.append(Outcome(key, error=error))
            continue
        own, y_b, x_b = operator[b], y[b : b + 1], images[b : b + 1]
        target, image = batch.image[b, 0].numpy(), images[b, 0].numpy()
        row = {
            **all_metrics(target, image, study=config.protocol == "study"),
            **shared,
            "residual": float(norm(own.forward(x_b) - y_b) / norm(y_b)),
            **sampling(own),
            "measurement_hash": fingerprint(y_b),
            **lesion_metrics(target, image, batch.extras, b),
        }
        slices.append(
            Outcome(
                key,
                row=row,
                target=target,
                direct=direct(own, y_b)[0, 0].numpy() if key in with_panel else None,
                image=image,
                std=None if stds is None else stds[b, 0].cpu().numpy(),
            )
        )
    return slices


def measure(operator: LinearOperator, image: Tensor) -> Tensor:
    """Measurement of images ``(B, 1, H, W)``, of each slice alone, so that no bit depends on B."""
    return torch.cat([operator[b].forward(image[b : b + 1]) for b in range(len(image))])


def measurement_hash(config: ConfigDict, sample: Sample) -> str:
    """`fingerprint` of the simulated measurement of a slice."""
    operator = build_operator(config, tuple(sample.image.shape[-2:]), [sample.key])
    return fingerprint(measure(operator, sample.image[None]))


def check_finite(value: Tensor, keys: tuple[str, ...]) -> None:
    """Raise a ValueError that names the slices with NaN or infinite values."""
    bad = [k for k, v in zip(keys, value, strict=True) if not torch.isfinite(v).all()]
    if bad:
        raise ValueError(f"NaN or infinite values in the measurement of {', '.join(bad)}")


def describe_error(error: Exception) -> str:
    """Text of an exception of one slice, on one line."""
    text = " ".join(str(error).split())[:ERROR_LENGTH]
    if is_out_of_memory(error):
        return f"out of memory with one slice at a time: {text}"
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
