"""The figure of the study in small."""

import math
from itertools import product

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from configs.small_study import SIZES
from evaluation.results.cells import label
from evaluation.show.style import STYLE, WIDTH, prior_colors
from evaluation.study.small_cells import MEDICAL
from evaluation.study.small_findings import MAIN, baseline_mean, sets_of
from evaluation.study.small_model import Estimate, Scores, contrast

ROW = 1.5  # inches
DODGE = 0.12  # distance between priors
NAMES = {"jalal": "Jalal", "warm_dds": "warm DDS"}


@rc_context(STYLE)
def draw_study(scores: Scores) -> Figure:
    """Mean PSNR by size, in and out of each medical prior's distribution, beside photographs'.

    A row a sampler; error bars are 95 % intervals of the mean over people; a grey line shows TV.
    Sizes are in the order of `configs.small_study.SIZES`.
    """
    rows = [s for s in MAIN if any(scores.sizes(m, s) for _, m in MEDICAL)]
    columns = list(product(MEDICAL, ("in", "out")))
    figure = Figure(figsize=(WIDTH, ROW * max(len(rows), 1) + 0.7), layout="constrained")
    axes = figure.subplots(max(len(rows), 1), len(columns), squeeze=False, sharex=True)
    for (i, sampler), (j, ((prior, measurement), where)) in product(
        enumerate(rows), enumerate(columns)
    ):
        axis = axes[i, j]
        sets = sets_of(prior, measurement, where)
        reference = baseline_mean(scores, "tv", measurement, sets)
        if not math.isnan(reference):
            axis.axhline(reference, color="0.6", linewidth=1, label="TV")
        for k, (name, color) in enumerate(prior_colors(["natural", prior]).items()):
            found = [
                contrast(scores, {(name, size): 1.0}, measurement, sampler, sets) for size in SIZES
            ]
            _draw(axis, found, (k - 0.5) * DODGE, color, name)
        axis.set_xticks(range(len(SIZES)), list(map(label, SIZES)), rotation=45, ha="right")
        if i == 0:
            words = "in" if where == "in" else "out of"
            axis.set_title(f"{measurement.upper()}, {words} distribution\nof the {prior} prior")
        if j == 0:
            axis.set_ylabel(f"{NAMES.get(sampler) or label(sampler)}: PSNR (dB)")
    shown = [axis.get_legend_handles_labels() for axis in axes[0]]
    entries = {name: handle for of_one in shown for handle, name in zip(*of_one, strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=len(entries))
    return figure


def _draw(axis: Axes, found: list[Estimate], aside: float, color: str, name: str) -> None:
    places = [i for i, e in enumerate(found) if not math.isnan(e.interval.mean)]
    means = [found[i].interval.mean for i in places]
    ends = [
        [0 if math.isnan(found[i].interval.low) else abs(found[i].interval[k] - means[n])]
        for k in (1, 2)
        for n, i in enumerate(places)
    ]
    bars = [[end[0] for end in ends[: len(places)]], [end[0] for end in ends[len(places) :]]]
    axis.errorbar(
        [i + aside for i in places],
        means,
        bars,
        color=color,
        label=label(name),
        marker="o",
        markersize=3,
        linestyle=":",
        elinewidth=0.6,
    )
