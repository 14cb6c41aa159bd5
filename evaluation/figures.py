"""Figures of finished results as PDF and PNG.

    python -m evaluation.figures boxplots results/mri --out=figures [--metric=ssim]
    python -m evaluation.figures depth results/mri --out=figures
    python -m evaluation.figures lambda results/ct --out=figures
    python -m evaluation.figures panels results/mri/pd/gaussian1d_4x/{zero_filled,natural_1_pc} \
        --out=figures [--key=KEY] [--inset=ROW,COLUMN,SIDE] [--window=LEVEL,WIDTH]

The first three take grids ROOT/DATA/MEASUREMENT/METHOD and draw one figure per data set; the last
one takes results folders of the same slices.
"""

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from configs import clear_errors, quiet_pipe
from evaluation.results.cells import METRICS, read_cell, read_grid, titles
from evaluation.show.cell_images import CellImages, common_keys
from evaluation.show.panels import Inset, Values, draw_panels, panel
from evaluation.show.plots import draw_boxplots, draw_depth, draw_lambda
from evaluation.show.study_table import is_finished, rows_of
from evaluation.show.style import save
from evaluation.show.windows import HU

__all__ = ["main", "panel"]

log = logging.getLogger(__name__)

PLOTS = {"boxplots": draw_boxplots, "depth": draw_depth, "lambda": draw_lambda}


def make_plots(kind: str, roots: Sequence[Path], metric: str, out: Path) -> list[Path]:
    """Write one figure per data set of the grids, ``KIND_DATA_METRIC.{pdf,png}``.

    Args:
        kind: a key of `PLOTS`.
        roots: root folders of grids.
        metric: a column of the results.
        out: output folder, created if missing.

    Returns:
        The paths of the files.

    Raises:
        ValueError: there are no results of this kind.
    """
    sweep = kind == "lambda"
    cells = [
        c for c in read_grid(roots) if c.method.prior and (c.method.weight is not None) == sweep
    ]
    cells = [cell for cell in cells if cell.rows]
    if not cells:
        form = "PRIOR_SIZE_SAMPLER" + ("_lambda_VALUE" if sweep else "")
        raise ValueError(
            f"expected finished slices of methods {form} below {', '.join(map(str, roots))}"
        )
    for row in rows_of(cells):
        for cell in row:
            if not is_finished(cell, row, metric):
                log.warning("%s: has fewer slices than others it is shown with", cell.folder)
    paths = []
    for data in dict.fromkeys(cell.data for cell in cells):
        figure = PLOTS[kind]([cell for cell in cells if cell.data == data], metric)
        paths += save(figure, out, f"{kind}_{data}_{metric}")
    return paths


def make_panels(
    folders: Sequence[Path],
    out: Path,
    *,
    key: str = "",
    inset: Inset | None = None,
    window: tuple[float, float] | None = None,
) -> list[Path]:
    """Reconstructions of one slice side by side, ``panels_KEY.{pdf,png}``.

    CT whose unit the data set knows is in Hounsfield units, other images in parts of their range.

    Args:
        folders: results folders of the same data, in the order of the images.
        out: output folder, created if missing.
        key: key of the slice; "" for the middle one of those that all folders have.
        inset: detail to enlarge; None for the one with the most edges.
        window: level and width of the grey levels, in the unit; None for the whole range.

    Returns:
        The paths of the files.

    Raises:
        ValueError: the folders do not have this slice, or any slice, in common.
    """
    cells = [read_cell(folder) for folder in folders]
    names = [title.replace(", ", "\n", 1) for title in titles(cells)]
    opened = dict(zip(names, map(CellImages, cells), strict=True))
    keys = common_keys(list(opened.values()))
    key = key or keys[len(keys) // 2]
    if key not in keys:
        raise ValueError(f"no slice {key} in all folders; there are: {', '.join(keys)}")
    captions = {}
    for title, slices in opened.items():
        row = slices.cell.rows[key]
        captions[title] = f"{row['psnr']:.2f} dB, SSIM {row['ssim']:.3f}"
    first = next(iter(opened.values()))
    known = first.hounsfield(key)
    figure = draw_panels(
        first.target(key),
        {title: slices.reconstruction(key) for title, slices in opened.items()},
        captions,
        inset=inset,
        values=Values(*known, HU) if known else None,
        window=window,
    )
    return save(figure, out, f"panels_{key.replace('/', '_').replace(':', '_')}")


def parse_inset(text: str) -> Inset:
    """Inset from the text ``ROW,COLUMN,SIDE`` in pixels; an argparse error for another form."""
    try:
        return Inset(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"expected ROW,COLUMN,SIDE in pixels, got {text!r}"
        ) from None


def parse_levels(text: str) -> tuple[float, float]:
    """Window from the text ``LEVEL,WIDTH``; an argparse error for another form."""
    try:
        level, width = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected LEVEL,WIDTH, got {text!r}") from None
    if not (math.isfinite(level) and 0 < width < math.inf):
        raise argparse.ArgumentTypeError(f"expected LEVEL,WIDTH with WIDTH above 0, got {text!r}")
    return level, width


def _summary(function: Callable) -> str:
    """First line of a function's docstring, escaped for argparse."""
    return function.__doc__.partition("\n")[0].replace("%", "%%")


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, draw in PLOTS.items():
        plot = kinds.add_parser(name, help=_summary(draw))
        plot.add_argument("inputs", nargs="+", type=Path, metavar="ROOT")
        plot.add_argument("--metric", choices=METRICS, default="psnr")
    panels = kinds.add_parser("panels", help=_summary(make_panels))
    panels.add_argument("inputs", nargs="+", type=Path, metavar="FOLDER")
    panels.add_argument("--key", default="", help="key of the slice (default: the middle one)")
    panels.add_argument("--inset", type=parse_inset, help="ROW,COLUMN,SIDE in pixels")
    panels.add_argument(
        "--window", type=parse_levels, help="LEVEL,WIDTH in HU or parts of the range (default: all)"
    )
    for command in (*map(kinds.choices.get, PLOTS), panels):
        command.add_argument("--out", type=Path, default=Path("figures"))
    arguments = parser.parse_args(argv)
    with clear_errors():
        if arguments.kind in PLOTS:
            paths = make_plots(arguments.kind, arguments.inputs, arguments.metric, arguments.out)
        else:
            paths = make_panels(
                arguments.inputs,
                arguments.out,
                key=arguments.key,
                inset=arguments.inset,
                window=arguments.window,
            )
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    with quiet_pipe():
        main()
