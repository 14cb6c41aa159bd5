"""A simulated series in time, reconstructed frame by frame and as a volume along t.

    python -m benchmarks.series --out=series.h5     # writes its k-space, too
    python reconstruct.py --input=series.h5 --out=results/series --config.data.first_axis=slices \
        --config.volume.weight=auto

An embedded validation slice of a brain (128 x 128) whose middle beats, with a contrast agent that
comes and goes in a quarter of it: 24 frames of one beat, each with its own mask (gaussian1d 8x),
noise and a phase. What is printed: mean PSNR of the frames (images in [0, 1]), and the root mean
square error of the steps from frame to frame, over the whole frame and where the contrast agent is.
"""

import argparse
import math
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from datasets.embedded import open_samples
from operators.fourier import fft2c
from operators.masks import make_mask
from reconstruct import reconstruct

SIDE, FRAMES, ACCELERATION, NOISE = 128, 24, 8, 0.01
BEAT, CONTRAST = 0.04, 0.6  # of the side; of the image's own intensity


def beating(image: Tensor, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """One beat of an image: ``(frames, H, W)``, and where the contrast agent is, ``(H, W)`` bool.

    Args:
        image: ``(H, W)`` in [0, 1].
        frames: number of frames.
    """
    height, width = image.shape
    axes = (torch.linspace(-1, 1, n) for n in (height, width))
    y, x = torch.meshgrid(*axes, indexing="ij")
    bump = torch.exp(-(x**2 + y**2) / 0.18)
    region = (x > 0) & (y > 0) & (image > 0.1)
    moving = []
    for frame in range(frames):
        time = frame / frames
        grow = 1 - 2 * BEAT * math.sin(2 * math.pi * time) * bump
        grid = torch.stack([x * grow, y * grow], dim=-1)[None]  # (1, H, W, 2)
        bolus = 1 + CONTRAST * math.exp(-(((time - 0.5) / 0.15) ** 2)) * region
        shown = (image * bolus)[None, None]
        moving.append(grid_sample(shown, grid, align_corners=True)[0, 0])
    series = torch.stack(moving)
    return series / series.max(), region


def measure(series: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """K-space ``(frames, 1, H, W)`` complex64, and the masks ``(frames, H, W)`` of the frames."""
    shape = tuple(series.shape[1:])
    how = {"acceleration": ACCELERATION, "center_fraction": 0.08}
    masks = torch.stack([make_mask("gaussian1d", shape, seed=k, **how) for k in range(len(series))])
    ramp = torch.linspace(-1.0, 1.0, shape[1])
    images = torch.polar(series, (0.5 + ramp + 0.5 * ramp[:, None] ** 2).expand_as(series))
    generator = torch.Generator().manual_seed(0)
    white = torch.complex(*(torch.randn(series.shape, generator=generator) for _ in range(2)))
    kspace = (fft2c(images) + NOISE * white) * masks
    return kspace[:, None].numpy(), masks.numpy()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.series")
    parser.add_argument("--out", type=Path, help="HDF5 file of the k-space")
    args = parser.parse_args()
    brain = open_samples("val", subset="brain")[0].image[None]  # (1, 1, 256, 256)
    image = interpolate(brain, (SIDE, SIDE), mode="bilinear", antialias=True)[0, 0].clamp(min=0)
    series, region = beating(image)
    kspace, masks = measure(series)
    if args.out:
        with h5py.File(args.out, "w") as file:
            file["kspace"], file["mask"] = kspace[:, 0], masks
    truth = series.numpy()
    print("| | weight | PSNR (dB) | step error | where the contrast changes |")
    print("|---|---:|---:|---:|---:|")
    for name, weight in (("frame by frame", 0), ("together", "auto")):
        result = reconstruct(kspace, mask=masks, volume=weight)
        error = np.abs(result.image) - truth
        psnr = -10 * np.log10(np.square(error).mean((1, 2))).mean()
        steps = np.diff(error, axis=0)
        whole, local = (math.sqrt(np.square(s).mean()) for s in (steps, steps[:, region.numpy()]))
        used = (result.volume or {"weight": 0})["weight"]
        print(f"| {name} | {used:.2f} | {psnr:.2f} | {whole:.4f} | {local:.4f} |", flush=True)


if __name__ == "__main__":
    main()
