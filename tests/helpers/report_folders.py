"""Small results folders for reports: TV and a prior, made up of zero-filled slices and targets."""

import csv
import json
import shutil

import h5py
import numpy as np

from configs import load_config
from evaluation import evaluate as evaluation
from evaluation.metrics import all_metrics
from evaluation.results.cells import read_cell
from evaluation.results.files import SUMS
from evaluation.show.cell_images import CellImages
from tests.conftest import ROOT

SIDE = 48


def evaluate_direct(folder, **fields):
    """A results folder of a baseline on embedded slices, such as zero-filled ones of the brain."""
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    given = {"sampler.name": "zero_filled", "data.image_size": SIDE, "panels": 0, "limit": 4}
    config.update_from_flattened_dict(given | fields)
    evaluation.evaluate(config, folder, "cpu")
    return folder


def write_other(source, folder, part):
    """A results folder whose images are `part` target, the rest those of another folder."""
    shutil.copytree(source, folder)
    found = CellImages(read_cell(source))
    images = {k: part * found.target(k) + (1 - part) * found.reconstruction(k) for k in found.keys}
    # so that the orders by either method differ from each other
    worse = found.keys[1]
    images[worse] = 0.8 * images[worse]
    with h5py.File(folder / "recon.h5", "w") as file:
        file["reconstruction"], file["key"] = np.stack(list(images.values())), list(images)
        file["shape"] = [image.shape for image in images.values()]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "psnr", "ssim", "nmse", "seconds", "nfe"])
        for key, image in images.items():
            writer.writerow([key, *all_metrics(found.target(key), image).values(), 2.0, 6])
    config = json.loads((folder / "config.json").read_text())
    config["sampler"]["name"] = "predictor_corrector"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / SUMS).unlink()  # edited on purpose
    return folder


def add_spread(folder):
    """Make the folder one of posterior samples that differ in the upper half of the image only."""
    with h5py.File(folder / "recon.h5", "a") as file:
        std = np.zeros(file["reconstruction"].shape, np.float32)
        std[:, : SIDE // 2] = 0.5
        image = file["reconstruction"][()]
        file["std"], file["quantile_05"], file["quantile_95"] = std, image - std, image + 2 * std
    return folder


def three_methods(root):
    """TV and a prior, the better one, of brain slices; zero-filled itself."""
    direct = evaluate_direct(root / "zero_filled")
    return [
        write_other(direct, root / "tv", 0.3),
        write_other(direct, root / "natural_1_pc", 0.7),
        direct,
    ]
