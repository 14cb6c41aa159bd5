"""Where an image is not decided by its measurement, and how to show it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from scipy.ndimage import gaussian_filter

WINDOW = 2.0  # standard deviation, in pixels, of the neighbourhood in which detail is measured
LEAST = 0.01  # of the image's range: contrast that does not count as detail
ORANGE = "#E66100"
COLORS = LinearSegmentedColormap.from_list("undecided", ["#808080", ORANGE])  # over grey
OPEN = "not decided by the data"  # title of the map
IN_WORDS = (
    "the part of the detail within some 3 pixels that differs from sample to sample (contrasts of "
    "less than 1 % of the range left out); errors that all samples share are not in it"
)


def undecided(image: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Part of the local detail in which posterior samples differ, from 0 to 1.

    The variance of a sample's pixels in the neighbourhood of a pixel is, on average over the
    samples, that of their mean image there, which all samples share, plus the mean of the variances
    from sample to sample. The second over the sum is the part of the detail that the measurement
    leaves open: at 0 what is seen there is in all samples, at 1 nothing is. A contrast of 1 % of
    the image's range is added to the sum, so that smooth places whose deviations are invisible are
    not counted as open.

    It is as good as the samples' spread. Errors that all samples share, such as those of a prior
    that is sure of the wrong thing or of a wrong model of the measurement, are not in it.

    Args:
        image: ``(H, W)`` real mean of the samples (magnitude of complex ones).
        std: ``(H, W)`` standard deviation of the samples.

    Returns:
        float32 ``(H, W)``.
    """
    image, variance = image.astype(np.float64), std.astype(np.float64) ** 2
    seen = gaussian_filter(image**2, WINDOW) - gaussian_filter(image, WINDOW) ** 2
    left_open = gaussian_filter(variance, WINDOW)
    least = (LEAST * (image.max() - image.min())) ** 2
    total = np.maximum(seen, 0) + left_open + least
    return (left_open / np.where(total > 0, total, 1)).astype(np.float32)


def draw_undecided(
    axis: Axes, image: np.ndarray, part: np.ndarray, low: float, high: float
) -> None:
    """Draw an image in grey and over it, in orange, what is not decided, with a colour bar.

    Args:
        axis: where to draw.
        image: ``(H, W)`` real.
        part: ``(H, W)`` from `undecided`: the opacity of the orange.
        low: value of the image that is black.
        high: value of the image that is white.
    """
    grey = np.clip((image - low) / ((high - low) or 1.0), 0, 1)
    axis.imshow(over_grey(grey, part), interpolation="nearest")
    scale = ScalarMappable(Normalize(0, 1), COLORS)
    axis.figure.colorbar(scale, ax=axis, fraction=0.046, ticks=[0, 0.5, 1])


def over_grey(image: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Grey levels with orange of the opacity `part` over them, as RGB bytes ``(H, W, 3)``.

    Args:
        image: ``(H, W)`` in [0, 1].
        part: ``(H, W)`` in [0, 1].
    """
    opacity = np.clip(part, 0, 1)[..., None]
    mixed = (1 - opacity) * np.clip(image, 0, 1)[..., None] + opacity * np.array(to_rgb(ORANGE))
    return np.round(255 * mixed).astype(np.uint8)
