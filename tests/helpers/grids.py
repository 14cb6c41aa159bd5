"""Grids of results folders with given numbers, for tests of what reads finished results."""

import csv
import json
from pathlib import Path

from configs import load_config
from tests.conftest import ROOT

COLUMNS = ("key", "psnr", "ssim", "nmse", "seconds", "nfe")


def write_results(folder: Path, rows, *, effective=4.0, extra=(), **fields) -> Path:
    """A results folder as `evaluation.evaluate` leaves it, without images.

    Args:
        folder: made.
        rows: (key, psnr, ssim, nmse, *extra) of each slice.
        effective: acceleration in info.json; None: none there.
        extra: names of further columns.
        fields: of the config, with ``__`` for the dot.
    """
    folder.mkdir(parents=True)
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    changes = {"sampler.name": "zero_filled"} | {k.replace("__", "."): v for k, v in fields.items()}
    config.update_from_flattened_dict(changes)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    info = {} if effective is None else {"effective_acceleration": effective}
    (folder / "info.json").write_text(json.dumps(info))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *extra])
        for key, psnr, ssim, nmse, *more in rows:
            writer.writerow([key, psnr, ssim, nmse, 2.0, 6, *more])
    return folder


def slices(*psnrs, volume="file.h5", start=0):
    """Rows of a volume with these PSNRs, the other metrics following from them."""
    return [
        (f"{volume}:{start + i}", psnr, psnr / 50, round(1 / psnr, 6))
        for i, psnr in enumerate(psnrs)
    ]
