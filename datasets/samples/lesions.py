"""Lesion masks of FLAIR volumes: what is brighter than the brain around it, inside the brain.

No drawing by a person: bright spots of white matter, found by thresholds that were chosen by
looking at the outlines (README.md in this folder). Cortex, which is brighter than white matter on
FLAIR, and the borders of the ventricles are left out, and true lesions there with them.
"""

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import disk

FOREGROUND = 0.85  # of Otsu's threshold: grey level from which pixels belong to the head
TISSUE = 0.6  # of the median in the brain; below it is fluid
SHADING_MM = 20  # width of the Gaussian that finds the coils' shading
DEPTH_MM = 8  # from the surface of the brain: the cortex is not looked at
BRIGHT, SEED = 2.2, 3.5  # robust standard deviations above the median: of all pixels, of one
MIDLINE_MM = 9  # from the middle of the brain: cortex of the fissure, septum and fornix
SMALLEST_MM2 = 8
RING_PIXELS = 2  # width of the surroundings ...
MOST_FLUID = 0.08  # ... whose part of fluid tells the border of a ventricle


def find_lesions(volume: np.ndarray, pixel: float) -> np.ndarray:
    """Lesion mask of a FLAIR volume, bool ``(slices, H, W)``.

    Args:
        volume: ``(slices, H, W)`` axial slices of the whole head.
        pixel: side of a pixel in mm.
    """
    head = threshold_otsu(volume[volume > 0]) * FOREGROUND
    brain = np.stack([_brain(image > head, pixel) for image in volume])
    tissue = brain & (volume > TISSUE * np.median(volume[brain]))
    flat = np.stack(
        [_flatten(*pair, SHADING_MM / pixel) for pair in zip(volume, tissue, strict=True)]
    )
    inner = np.stack([_white_matter(part, pixel) for part in brain])
    values = flat[tissue & inner]
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))
    above = np.where(inner, (flat - median) / deviation, 0)
    fluid = brain & (flat < TISSUE)
    return np.stack(
        [_spots(*pair, SMALLEST_MM2 / pixel**2) for pair in zip(above, fluid, strict=True)]
    )


def _brain(bright: np.ndarray, pixel: float) -> np.ndarray:
    """The largest bright region, without thin bridges to the scalp, and with the ventricles."""
    regions = label(ndimage.binary_opening(bright, disk(round(2.5 / pixel))))
    if not regions.any():
        return np.zeros_like(bright)
    largest = regions == 1 + np.argmax(np.bincount(regions.ravel())[1:])
    closed = ndimage.binary_closing(largest, disk(round(4 / pixel)))
    return ndimage.binary_fill_holes(closed)


def _white_matter(brain: np.ndarray, pixel: float) -> np.ndarray:
    """The brain without its surface and its middle: mostly white matter."""
    if not brain.any():
        return brain
    columns = np.abs(np.arange(brain.shape[1]) - np.nonzero(brain)[1].mean())
    deep = ndimage.distance_transform_edt(brain) * pixel > DEPTH_MM
    return deep & (columns * pixel > MIDLINE_MM)


def _flatten(image: np.ndarray, tissue: np.ndarray, width: float) -> np.ndarray:
    """Image over the local mean of its tissue."""
    total = ndimage.gaussian_filter(np.where(tissue, image, 0.0), width)
    weight = ndimage.gaussian_filter(tissue.astype(float), width)
    return image * weight / np.maximum(total, 1e-6)


def _spots(above: np.ndarray, fluid: np.ndarray, smallest: float) -> np.ndarray:
    """Bright regions with a very bright pixel that do not lie at fluid."""
    found = np.zeros(above.shape, dtype=bool)
    regions = label(above > BRIGHT)
    for region in regionprops(regions, intensity_image=above):
        spot = regions == region.label
        near = ndimage.binary_dilation(spot, disk(RING_PIXELS))
        if (
            region.area >= smallest
            and region.intensity_max > SEED
            and fluid[near & ~spot].mean() < MOST_FLUID
        ):
            found |= spot
    return found
