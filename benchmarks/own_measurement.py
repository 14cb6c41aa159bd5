"""Quality of `reconstruct.py` with its defaults on a user's kinds of files.

    python -m benchmarks.own_measurement --slices=2

prints the PSNR of the direct image and of the reconstruction, for k-space of embedded brain test
slices (gaussian1d 4x, 256 x 256, smooth phase, one and four simulated coils) and sinograms of
embedded CT test slices, with and without noise. The noise level is estimated, given, or set
to 0.
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from configs import load_config
from datasets.embedded import open_samples
from evaluation.metrics import psnr
from evaluation.own.folder import reconstruct_file
from operators import BatchGenerator, ParallelBeamCT
from operators.ct import few_view_angles
from operators.fourier import fft2c
from operators.masks import make_mask
from operators.simulation import birdcage_maps, smooth_phase

SIDE = 256
VIEWS = 40
KSPACE_NOISE = 0.01  # std relative to the image's peak, of real and imaginary part each
SINOGRAM_NOISE = 0.5  # std in units of the image's peak times one pixel


def images_of(subset: str, slices: int) -> Tensor:
    """Test slices ``(n, 1, 256, 256)`` in [0, 1]."""
    data = open_samples("test", subset=subset, image_size=SIDE if subset == "ct" else 0)
    return torch.stack([data[i].image for i in range(min(slices, len(data)))])


def kspace(images: Tensor, coils: int, noise: float) -> np.ndarray:
    """Undersampled k-space ``(n, coils, H, W)``, 0 where not measured."""
    rng = BatchGenerator(list(range(len(images))))
    maps = birdcage_maps(coils, (SIDE, SIDE)) if coils > 1 else torch.ones(1, SIDE, SIDE)
    full = fft2c(maps * (images * smooth_phase((SIDE, SIDE), rng=rng)))
    full = full + noise * rng.normal_like(full)
    mask = make_mask("gaussian1d", (SIDE, SIDE), seed=0, acceleration=4, center_fraction=0.08)
    return (full * mask).to(torch.complex64).numpy()


def sinogram(images: Tensor, noise: float) -> np.ndarray:
    """Line integrals ``(n, views, bins)``."""
    y = ParallelBeamCT(SIDE, few_view_angles(VIEWS, 180.0)).forward(images)
    noisy = y + noise * BatchGenerator(list(range(len(y)))).normal_like(y)
    return noisy[:, 0].numpy()


def run(folder: Path, measured: np.ndarray, images: Tensor, device: str, **fields) -> str:
    """Reconstruct a measurement; returns the numbers of a row of the table."""
    source = folder / "measured.npy"
    np.save(source, measured)
    config = load_config("configs/reconstruct.py")
    config.update_from_flattened_dict(fields)
    with redirect_stdout(sys.stderr):  # the table alone goes to standard output
        summary = reconstruct_file(config, source, folder / "out", device)
    with h5py.File(folder / "out" / "reconstruction.h5") as file:
        direct, found = file["direct"][()], file["reconstruction"][()]
    before, after = (
        statistics.fmean(psnr(t[0].numpy(), x) for t, x in zip(images, values, strict=True))
        for values in (direct, found)
    )
    return f"{before:.2f} | {after:.2f} | {summary['seconds_a_slice']:.1f}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_measurement")
    parser.add_argument("--slices", type=int, default=2)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    brain, ct = images_of("brain", args.slices), images_of("ct", args.slices)
    size = {"data.image_size": str(SIDE)}
    cases = [
        ("k-space, 1 coil", 0.0, lambda: kspace(brain, 1, 0.0), brain, {}),
        ("k-space, 4 coils", 0.0, lambda: kspace(brain, 4, 0.0), brain, {}),
        ("k-space, 4 coils", KSPACE_NOISE, lambda: kspace(brain, 4, KSPACE_NOISE), brain, {}),
        (f"sinogram, {VIEWS} views", 0.0, lambda: sinogram(ct, 0.0), ct, size),
        (
            f"sinogram, {VIEWS} views",
            SINOGRAM_NOISE,
            lambda: sinogram(ct, SINOGRAM_NOISE),
            ct,
            size,
        ),
    ]
    print("| measurement | noise | sigma_y | direct (dB) | reconstruction (dB) | s a slice |")
    print("|---|---:|---|---:|---:|---:|")
    for what, noise, measure, images, fields in cases:
        levels = {"estimated": {}, "0": {"sampler.sigma_y": 0.0}}
        if noise:
            levels["given"] = {"sampler.sigma_y": noise}
        for level, chosen in levels.items():
            with tempfile.TemporaryDirectory() as folder:
                numbers = run(Path(folder), measure(), images, device, **fields, **chosen)
            print(f"| {what} | {noise:g} | {level} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
