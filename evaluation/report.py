"""Report on results folders of the same slices, as an HTML page that needs no network.

    python -m evaluation.report results/mri/pd/gaussian1d_4x/* --out=report.html
    python -m evaluation.report results/scan_pnp results/scan_samples --out=scan.html

Of folders of evaluation.evaluate it has a table with intervals, best method first; of folders of
reconstruct.py, all of the same input, what was found, warnings, and how well left-out data were
predicted. Of each slice all images side by side, with zoom, window and level, and maps of the
signed or absolute error, of the difference to any of the images, or of how posterior samples
differ; the sampling, all settings and versions. Large reports keep their images in OUT_files beside
the page, which loads them slice by slice; the page and this folder belong together.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from configs import clear_errors, quiet_pipe
from evaluation.own.report import own_report, write_own_report
from evaluation.own.result import is_own
from evaluation.results.cells import read_cell
from evaluation.show.cell_report import cell_report, count_pixels, ranked
from evaluation.show.report_file import MOST_EMBEDDED, write_page
from evaluation.show.report_slices import Store
from evaluation.tables import flat_table

TITLE = "Reconstructions"


def make_report(
    folders: Sequence[Path],
    *,
    limit: int = 0,
    title: str = "",
    store: Store | None = None,
) -> str:
    """HTML text of the report.

    Args:
        folders: results folders of one kind; the slices that they have in common are shown.
        limit: number of slices, from the first, of `reconstruct.py` evenly spaced; 0 for all.
        title: title of the page; "" for "Reconstructions", of `reconstruct.py` the input's name.
        store: writes the images of a slice into a file of its own, which the page loads when the
            slice is looked at; None to have all in the page.

    Raises:
        ValueError: a folder has no results, they are of both kinds or of different inputs, or have
            no slice in common.
    """
    if are_own(folders):
        return own_report(folders, limit=limit, title=title, store=store)
    cells = ranked([read_cell(folder) for folder in folders])
    how = {"limit": limit, "title": title or TITLE, "store": store}
    return cell_report(cells, flat_table(cells, "both"), folders=folders, **how)


def are_own(folders: Sequence[Path]) -> bool:
    """Whether folders are results of `reconstruct.py`; otherwise of `evaluation.evaluate`.

    Raises:
        ValueError: a folder is neither, or there are some of both.
    """
    for folder in folders:
        if not (folder / "config.json").is_file():
            what = "one without config.json" if folder.is_dir() else "no folder"
            raise ValueError(
                f"{folder}: expected a results folder of evaluation.evaluate or reconstruct.py, "
                f"got {what}"
            )
    own = [folder for folder in folders if is_own(folder)]
    others = [folder for folder in folders if not is_own(folder)]
    if own and others:
        raise ValueError(
            f"expected folders of one kind, got {own[0]} of reconstruct.py and {others[0]} of "
            "evaluation.evaluate, which have other slices and units; make a report of each kind"
        )
    return bool(own)


def write_report(
    folders: Sequence[Path], out: Path, *, limit: int, title: str, files: str = "auto"
) -> list[Path]:
    """Write the report, and where its images are too many for the page, OUT_files beside it.

    Args:
        folders: results folders of one kind.
        out: path of the page.
        limit: number of slices, 0 for all.
        title: title of the page; "" for the default.
        files: "yes" for a folder of images beside the page, "no" to have them in it, "auto" to
            decide by their size.

    Returns:
        The paths that were written: the page, and the folder if there is one.
    """
    if are_own(folders):
        return write_own_report(folders, out, limit=limit, title=title, files=files)
    beside = files == "yes"
    if files == "auto":
        beside = count_pixels([read_cell(folder) for folder in folders], limit) > MOST_EMBEDDED

    def make(store: Store | None) -> str:
        return make_report(folders, limit=limit, title=title, store=store)

    return write_page(out, make, beside=beside)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    parser.add_argument("--limit", type=int, default=200, help="slices, 0: all (default 200)")
    parser.add_argument("--title", default="", help="title of the page")
    parser.add_argument(
        "--files",
        choices=("auto", "yes", "no"),
        default="auto",
        help="images in OUT_files beside the page: auto, from about 40 MB on (default)",
    )
    arguments = parser.parse_args(argv)
    if arguments.limit < 0:
        parser.error(f"expected --limit of 0 (all) or more, got {arguments.limit}")
    with clear_errors():
        paths = write_report(
            arguments.folders,
            arguments.out.absolute(),
            limit=arguments.limit,
            title=arguments.title,
            files=arguments.files,
        )
        size = sum(p.stat().st_size for path in paths for p in (path, *path.glob("*")))
    beside = f" and {paths[1].name}" if len(paths) > 1 else ""
    print(f"report: {arguments.out}{beside} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    with quiet_pipe():
        main()
