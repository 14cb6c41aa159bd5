"""Real fan-beam measurements with fewer views: the shipped prior against FBP and total variation.

    python -m benchmarks.fan_beam --data=FOLDER --objects=2 --out=/tmp/fan

FOLDER holds the training objects of the Helsinki Tomography Challenge 2022
(``htc2022_*_full.mat``): 721 views over 360 degrees, the last the first again,
on a flat detector. The reference is the least-squares image of all views with a small Tikhonov
penalty. With half of the views (ta, td) it predicts the others with an rms error of 0.013
and 0.014, filtered back-projection with 0.051, as that assumes that nothing is beside the detector
and all rays through air are 0; repeated rays differ by 0.009 to 0.012. Its own noise is 5 % of the
image, as much as good reconstructions err; the second number of each method compares means of 2 x 2
pixels, in which little of it is left.

Images are what `reconstruct.py` makes of a file with these geometries: `pnp` with its defaults; its
direct image; total variation at the best of the weights, chosen by the reference for each row.
"""

import argparse
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
import torch
from matplotlib import pyplot
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn.functional import avg_pool2d

from configs.reconstruct import get_config
from datasets.array_layout import SINOGRAM
from datasets.measured import measured_array
from evaluation.baselines.tv import tv
from evaluation.own.base import Input
from evaluation.own.engine import choose_sampling, solve_slices
from evaluation.own.last_level import describe_last_level, find_last_level, with_last_level
from evaluation.own.sinogram import open_sinogram
from models.checkpoint import load_prior
from operators.batch import peak
from operators.dual import solve_dual
from sde import Prior

SIDE = 256
PENALTY = 100.0  # Tikhonov weight of the reference, the best of 1 to 3000 for views left out
TV_WEIGHTS = (1e-4, 3e-4, 1e-3, 3e-3)
# name -> indices of the views, half a degree apart
SCANS = {
    "60 views, 360°": slice(0, 720, 12),
    "30 views, 360°": slice(0, 720, 24),
    "20 views, 360°": slice(0, 720, 36),
    "91 views, 90°": slice(0, 181, 2),
}
METHODS = ("FBP", "TV", "pnp")


class Scan(NamedTuple):
    """One measured object: its name, line integrals, angles in degrees, and lengths in mm."""

    name: str
    sinogram: np.ndarray  # (views, bins)
    angles: np.ndarray  # (views,)
    source_distance: float
    detector_distance: float
    bin_spacing: float
    width: float  # of the image


def read_scans(folder: Path) -> list[Scan]:
    """The objects in a folder.

    Raises:
        FileNotFoundError: there are none.
    """
    files = sorted(folder.glob("htc2022_*_full.mat"))
    if not files:
        raise FileNotFoundError(f"{folder}: expected files htc2022_*_full.mat, got none")
    return [_read(file) for file in files]


def _read(file: Path) -> Scan:
    found = scipy.io.loadmat(file, simplify_cells=True)["CtDataFull"]
    facts = found["parameters"]
    source, whole = facts["distanceSourceOrigin"], facts["distanceSourceDetector"]
    return Scan(
        name=file.stem.removeprefix("htc2022_").removesuffix("_full"),
        sinogram=found["sinogram"].astype(np.float32),
        angles=facts["angles"],
        source_distance=source,
        detector_distance=whole - source,
        bin_spacing=facts["pixelSizePost"],
        width=facts["effectivePixelSizePost"] * 512,  # of the segmented references
    )


def open_views(scan: Scan, views: slice) -> Input:
    """Some of the views as `reconstruct.py` reads them from a file."""
    config = get_config()
    config.data.image_size = str(SIDE)
    o: ConfigDict = config.operator
    o.geometry, o.pixel_size, o.bin_spacing = "fan", scan.width / SIDE, scan.bin_spacing
    o.source_distance, o.detector_distance = scan.source_distance, scan.detector_distance
    extras = {"angles": scan.angles[views]}
    return open_sinogram(measured_array(SINOGRAM, scan.sinogram[views], extras), config)


def reference(scan: Scan) -> Tensor:
    """The least-squares image of all views, attenuation per mm: ``(1, 1, H, W)``."""
    opened = open_views(scan, slice(None))
    problem = opened.problem([0])
    found = solve_dual(
        problem.operator,
        problem.y,
        torch.zeros_like(problem.direct),
        regularization=PENALTY,
        max_iterations=40,
    )
    return opened.finish(problem.restore(found.x))


def reconstruct_views(scan: Scan, views: slice, prior: Prior, device: str) -> Iterator[tuple]:
    """Names and images ``(1, 1, H, W)``, TV once for each weight."""
    opened = open_views(scan, views)
    for note in opened.notes:
        print(f"note: {scan.name}: {note}", flush=True)
    sampling = choose_sampling("", num_steps=None, num_samples=1, sigma_y=None, options={})
    chosen = find_last_level(opened, sampling, prior, seed=0, device=device)
    print(describe_last_level(chosen), flush=True)
    sampling = with_last_level(sampling, chosen)
    found = solve_slices(opened, [0], sampling, prior, seed=0, device=device)
    print(f"noise {float(found.sigma_y):.4f}, scale {float(found.scale):.4g}", flush=True)
    yield "FBP", found.direct.cpu()
    yield "pnp", found.image.cpu()
    problem = opened.problem([0])
    for weight in TV_WEIGHTS:
        image = tv(problem.operator, problem.y, weight=weight, max_iterations=500, tolerance=1e-5)
        yield f"TV {weight:g}", opened.finish(problem.restore(image))


def compare(truth: Tensor, image: Tensor) -> tuple[float, ...]:
    """PSNR (dB) of the pixels, and PSNR and relative error of means of 2 x 2 pixels."""
    top, found = float(peak(truth)), []
    for size in (1, 2):
        x, t = (avg_pool2d(values, size) for values in (image, truth))
        found.append(20 * math.log10(top / float((x - t).square().mean().sqrt())))
    return (*found, float((x - t).norm() / t.norm()))


def run(scan: Scan, prior: Prior, device: str, out: Path | None) -> dict[tuple, tuple]:
    """(scan, method) -> PSNR, error, and prints what each gave."""
    truth, rows = reference(scan), {}
    for name, views in SCANS.items():
        images = dict(reconstruct_views(scan, views, prior, device))
        scores = {method: compare(truth, image) for method, image in images.items()}
        best = max((m for m in images if m.startswith("TV")), key=lambda m: scores[m][1])
        images["TV"], scores["TV"] = images[best], scores[best]
        rows |= {(name, method): scores[method] for method in METHODS}
        text = " | ".join(show(scores[m]) for m in METHODS)
        print(f"| {scan.name} | {name} | {text} | {best} |", flush=True)
        if out:
            _draw(out / f"{scan.name}_{views.stop}_{views.step}.png", truth, images)
    return rows


def show(scores: tuple[float, ...]) -> str:
    """The numbers of `compare`."""
    pixels, means, error = scores
    return f"{pixels:.2f} / {means:.2f} ({100 * error:.1f} %)"


def _draw(path: Path, truth: Tensor, images: dict[str, Tensor]) -> None:
    shown = {"reference": truth} | {name: images[name] for name in METHODS}
    figure, axes = pyplot.subplots(2, len(shown), figsize=(3 * len(shown), 6), layout="tight")
    for (above, below), (name, image) in zip(axes.T, shown.items(), strict=True):
        above.imshow(image[0, 0], cmap="gray", vmin=0, vmax=float(peak(truth)))
        below.imshow((image - truth)[0, 0], cmap="gray", vmin=-0.003, vmax=0.003)
        above.set_title(name)
        above.axis("off")
        below.axis("off")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fan_beam")
    parser.add_argument("--data", type=Path, required=True, help="folder of htc2022_*_full.mat")
    parser.add_argument("--objects", type=int, default=5, help="how many, from the first")
    parser.add_argument("--out", type=Path, help="folder of pictures; none without")
    args = parser.parse_args()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    prior = load_prior("natural_small", device)
    scans = read_scans(args.data)[: args.objects]
    print("PSNR of the pixels / of means of 2 x 2, in dB (relative error of these)")
    print(f"| object | scan | {' | '.join(METHODS)} | best TV |")
    print("|---|---|---|---|---|---|")
    found = [run(scan, prior, device, args.out) for scan in scans]
    for name in SCANS:
        means = [
            tuple(statistics.fmean(rows[name, m][part] for rows in found) for part in range(3))
            for m in METHODS
        ]
        text = " | ".join(map(show, means))
        print(f"| mean of {len(found)} | {name} | {text} | |")


if __name__ == "__main__":
    main()
