"""Measurement, reconstruction and metrics of slices, which give the rows of results."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from configs import is_out_of_memory
from datasets import Sample, collate
from evaluation.metrics import all_metrics
from evaluation.run.lesions import lesion_metrics
from evaluation.run.measurements import measure, pose, targets
from evaluation.run.methods import Reconstructor
from evaluation.run.protocols import is_clamped, is_stretched, protocol_of
from evaluation.run.provenance import fingerprint, peak_memory, reset_peak_memory, sampling
from operators import LinearOperator
from operators.batch import norm

ERROR_LENGTH = 500  # largest number of characters kept of an exception's text


class Outcome(NamedTuple):
    """Result of one slice: `row` and images ``(H, W)``, or an `error` message.

    The images are real: the magnitude of complex ones.
    """

    key: str
    error: str = ""
    row: dict[str, float | str] | None = None
    target: np.ndarray | None = None
    direct: np.ndarray | None = None  # zero-filled or FBP
    image: np.ndarray | None = None
    spread: dict[str, np.ndarray] | None = None  # std, quantile_05, quantile_95; of several samples


def run_slices(
    config: ConfigDict,
    method: Reconstructor,
    samples: Sequence[Sample],
    with_panel: set[str],
    device: str,
) -> list[Outcome]:
    """Measure slices of one size, reconstruct them and compute metrics.

    Args:
        config: an evaluation config.
        method: reconstruction function of `create_reconstructor`.
        samples: the slices.
        with_panel: keys of the slices that get a panel, and so need their direct reconstruction.
        device: device of the reconstruction.

    Raises:
        ValueError: a measurement is not finite.
    """
    batch = collate(samples)
    keys = batch.key
    measurement = measure(config, batch)
    check_finite(measurement.y, keys)
    problem, target = pose(config, measurement), magnitude(targets(config, batch))
    on_device = problem.to(device)
    reset_peak_memory(device)
    begin = time.perf_counter()
    images, calls, failures, moments = method(on_device, keys)
    images = images.cpu()
    shared = {"seconds": round((time.perf_counter() - begin) / len(keys), 3), "nfe": calls}
    shared["memory_mib"] = round(peak_memory(device), 1)

    restored = magnitude(problem.restore(images))  # (B, 1, H, W)
    if is_clamped(config):
        restored = restored.clamp(0, 1)
    directs = magnitude(problem.restore(problem.direct))
    spread = {}
    if moments is not None:
        spread["std"] = problem.restore_std(moments.std.cpu())
        spread |= {"quantile_05": moments.low.cpu(), "quantile_95": moments.high.cpu()}
    slices = []
    for b, key in enumerate(keys):
        error = failures.get(key, "")
        if not error and not torch.isfinite(images[b]).all():
            error = "NaN or infinite values in the reconstruction"
        if error:
            slices.append(Outcome(key, error=error))
            continue
        own, y_b, x_b = problem.operator[b], problem.y[b : b + 1], images[b : b + 1]
        image = restored[b, 0].numpy()
        compared = [target[b, 0].numpy(), image]
        if is_stretched(config):
            compared = [stretched(x) for x in compared]
        row = {
            **all_metrics(*compared, study=protocol_of(config).nmse),
            **shared,
            "residual": residual(own, x_b, y_b),
            **sampling(own),
            "measurement_hash": fingerprint(measurement.y[b : b + 1]),
            **lesion_metrics(target[b, 0].numpy(), image, batch.extras, b),
        }
        slices.append(
            Outcome(
                key,
                row=row,
                target=target[b, 0].numpy(),
                direct=directs[b, 0].numpy() if key in with_panel else None,
                image=image,
                spread={name: values[b, 0].numpy() for name, values in spread.items()},
            )
        )
    return slices


def stretched(image: np.ndarray) -> np.ndarray:
    """An image scaled from its minimum and maximum to [0, 1]; a constant one becomes 0."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else image - low


def residual(operator: LinearOperator, x: Tensor, y: Tensor) -> float | str:
    """|A x - y| / |y| of one slice; "" for an image whose phase a method has thrown away."""
    if operator.domain_complex and not x.is_complex():
        return ""
    return float(norm(operator.forward(x) - y) / norm(y))


def magnitude(images: Tensor) -> Tensor:
    """Images as the metrics use them: magnitudes of complex ones; real images keep their sign."""
    return images.abs() if images.is_complex() else images


def measurement_hash(config: ConfigDict, sample: Sample) -> str:
    """`fingerprint` of the measurement of a slice."""
    return fingerprint(measure(config, collate([sample])).y)


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
