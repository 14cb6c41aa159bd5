"""Statistics of a prior's samples beside those of images: spectra and gradients."""

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from evaluation.show.style import COLORS, LINES, STYLE, WIDTH

HEIGHT = 2.6  # inches


@rc_context(STYLE)
def draw(
    frequencies: np.ndarray,
    spectra: Mapping[str, np.ndarray],
    gradients: Mapping[str, tuple[np.ndarray, np.ndarray]],
    kurtosis: Mapping[str, str],
) -> Figure:
    """Figure with the radial power spectra and the negative log histograms of the gradients.

    Args:
        frequencies: ``(R,)`` cycles a pixel.
        spectra: group -> ``(R,)`` power; NaN where there is no frequency.
        gradients: group -> gradients ``(N,)``, and minus the log of their histogram.
        kurtosis: group -> kurtosis of the gradients, for the legend.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    power, counts = figure.subplots(1, 2)
    for i, name in enumerate(spectra):
        look = {"color": COLORS[i % len(COLORS)], "linestyle": LINES[i % len(LINES)]}
        power.loglog(frequencies, spectra[name], label=name, **look)
        label = f"{name}: kurtosis {kurtosis[name]}"
        counts.plot(*gradients[name], label=label, linewidth=0.8, **look)
    power.set_xlabel("cycles a pixel")
    power.set_ylabel("power (white noise of variance 1: 1)")
    counts.set_xlabel("gradient of images in [0, 1], a pixel")
    counts.set_ylabel(r"$-$log histogram, shifted to 0")
    for axis in (power, counts):
        axis.grid(axis="both")
        axis.legend(frameon=False)
    return figure
