"""The items of all data sets, one `Sample` per slice, and their collation to batches."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class DataError(ValueError):
    """Unusable data; the message names the file, what was expected, and the remedy."""


class Sample(NamedTuple):
    """Image of a data set, or a batch of images (from `collate`).

    Attributes:
        image: ``(1, H, W)`` float32, scaled to [0, 1] over this slice (or its volume, see
            ``data.normalize``); complex64 with largest magnitude 1 if computed from k-space.
            In a batch ``(B, 1, H, W)``.
        scale: ``(minimum, maximum)`` in the unit of the file, so that the original image is
            ``image * (maximum - minimum) + minimum``. For complex images the minimum is 0, as
            division alone keeps the phase and the linear relation to k-space. In a batch float64
            ``(B, 2)``.
        key: unique key in the data set, equal on every machine, such as ``"file1000001.h5:12"``
            (file and index of the slice). In a batch a tuple of str.
        extras: further tensors by name, documented by each data set.
    """

    image: Tensor
    scale: tuple[float, float] | Tensor
    key: str | tuple[str, ...]
    extras: Mapping[str, Tensor]


def make_sample(
    image: np.ndarray,
    key: str,
    extras: Mapping[str, Tensor] | None = None,
    *,
    bounds: tuple[float, float] | None = None,
) -> Sample:
    """Sample of a real image, scaled to [0, 1].

    Args:
        image: real ``(H, W)`` in its own unit; not changed in place. Other dtypes than float32 are
            computed in float64.
        key: key of the sample.
        extras: extras of the sample.
        bounds: values that become 0 and 1, such as those of the volume; None for the range of the
            slice.

    Raises:
        DataError: the slice is constant, or has NaN or infinite values.
    """
    image = np.asarray(image)
    if image.dtype != np.float32:
        image = image.astype(np.float64)
    low, high = finite_range(image, key)
    if not low < high:
        raise DataError(
            f"{key}: expected an image, got the constant {low:g}; "
            "leave the slice out (data.slices) or the file out of the data"
        )
    low, high = bounds or (low, high)
    scaled = (image - low).astype(np.float32, copy=False)
    scaled /= np.float32(high - low)
    return Sample(torch.from_numpy(scaled)[None], (low, high), key, dict(extras or {}))


def make_complex_sample(
    image: np.ndarray, key: str, extras: Mapping[str, Tensor] | None = None
) -> Sample:
    """Sample of a complex image, divided by its largest magnitude; complex64.

    Args:
        image: complex ``(H, W)`` in its own unit; not changed in place.
        key: key of the sample.
        extras: extras of the sample.

    Raises:
        DataError: the slice is 0, or has NaN or infinite values.
    """
    peak = finite_range(np.abs(image), key)[1]
    if not peak > 0:
        raise DataError(f"{key}: expected an image, got zeros; leave the slice or the file out")
    scaled = np.ascontiguousarray((image / peak).astype(np.complex64))
    return Sample(torch.from_numpy(scaled)[None], (0.0, peak), key, dict(extras or {}))


def finite_range(image: np.ndarray, key: str) -> tuple[float, float]:
    """Smallest and largest value of a real array.

    Raises:
        DataError: the array, named by `key`, has NaN or infinite values.
    """
    low, high = float(image.min()), float(image.max())  # NaN if there is one in the image
    if not (math.isfinite(low) and math.isfinite(high)):
        count = int((~np.isfinite(image)).sum())
        raise DataError(
            f"{key}: expected finite values, got {count} NaN or infinite of {image.size}; "
            "repair the file or leave it out of the data"
        )
    return low, high


def collate(samples: Sequence[Sample]) -> Sample:
    """Batch of samples of equal shape, the `collate_fn` of a `DataLoader`.

    Raises:
        DataError: no samples, or images or extras differ in shape, or extras in their names.
    """
    if not samples:
        raise DataError("expected at least one sample to collate, got none")
    names = {sample.key: sorted(sample.extras) for sample in samples}
    if len(set(map(tuple, names.values()))) > 1:
        raise DataError(f"expected the same extras in every sample of a batch, got {names}")
    extras = {
        name: _stack(name, samples, [sample.extras[name] for sample in samples])
        for name in samples[0].extras
    }
    return Sample(
        image=_stack("image", samples, [sample.image for sample in samples]),  # (B, 1, H, W)
        scale=torch.tensor([sample.scale for sample in samples], dtype=torch.float64),  # (B, 2)
        key=tuple(sample.key for sample in samples),
        extras=extras,
    )


def _stack(name: str, samples: Sequence[Sample], tensors: Sequence[Tensor]) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        shapes = ", ".join(
            f"{sample.key} {tuple(tensor.shape)}"
            for sample, tensor in zip(samples, tensors, strict=True)
        )
        raise DataError(
            f"expected equal shapes of {name} in a batch, got {shapes}; "
            "set data.image_size, or use batch size 1"
        )
    return torch.stack(list(tensors))
