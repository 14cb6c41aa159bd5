"""Whether a reconstruction keeps lesions: error inside them against elsewhere, and their contrast.

Data sets with lesion masks have them in their samples' extras (the embedded brains' FLAIR slices).
"""

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import binary_dilation
from torch import Tensor

LESIONS = "lesions"  # name of the extra: bool (1, H, W)
HEAD = 0.05  # part of the target's maximum from which a pixel belongs to the head
GAP, RING = 1, 3  # pixels between a lesion and its surroundings, and width of those


def lesion_metrics(
    target: np.ndarray, image: np.ndarray, extras: Mapping[str, Tensor], b: int
) -> dict[str, float]:
    """Metrics of the lesions of a slice; none if it has no lesion.

    - ``lesion_error``: root mean squared error inside the lesions over that elsewhere in the head
      (target above `HEAD` of its maximum). Above 1, lesions are reconstructed worse than the rest.
    - ``lesion_contrast``: mean inside the lesions minus mean of their surroundings (pixels 2 to 4
      away), of the image over that of the target. 1 where lesions are kept, 0 where they are gone.

    Args:
        target: ``(H, W)``; of a complex image the magnitude is taken.
        image: ``(H, W)``; of a complex image the magnitude is taken.
        extras: extras of a batch of samples; ``"lesions"``: bool ``(B, 1, H, W)``.
        b: number of the slice in the batch.
    """
    if LESIONS not in extras or not extras[LESIONS][b].any():
        return {}
    target, image = (np.abs(x).astype(np.float64) for x in (target, image))
    inside = extras[LESIONS][b, 0].numpy()
    head = (target > HEAD * target.max()) & ~inside
    errors = (np.sqrt(np.mean((image - target)[part] ** 2)) for part in (inside, head))
    contrasts = (_contrast(x, inside, head) for x in (image, target))
    return {"lesion_error": _ratio(*errors), "lesion_contrast": _ratio(*contrasts)}


def _contrast(image: np.ndarray, inside: np.ndarray, head: np.ndarray) -> float:
    """Mean inside the lesions minus mean of their surroundings in the head."""
    near = binary_dilation(inside, iterations=GAP)
    around = binary_dilation(near, iterations=RING) & ~near & head
    return image[inside].mean() - image[around].mean() if around.any() else np.nan


def _ratio(a: float, b: float) -> float:
    """a / b, NaN if b is 0."""
    return float(a / b) if b else float("nan")
