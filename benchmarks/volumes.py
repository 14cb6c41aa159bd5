"""Volumes: slices reconstructed together against slice by slice, at equal cost of the network.

    python -m benchmarks.volumes --data=FOLDER --split=val --methods=all     which coupling
    python -m benchmarks.volumes --data=FOLDER --split=test                  what it is worth
    python -m benchmarks.volumes --data=FOLDER --split=test --figure=volume.png

Measurements are simulated from volumes of ``shared/data`` (12 slices each, 160 x 160). Through the
plane, PSNR is the mean over sagittal slices that cut the object, as in the plane over axial ones,
both of images in [0, 1]; "step error" is the root mean square error of the steps from slice to
slice, which tells how smooth the view through the plane is (`evaluation.metrics.across_metrics`).
``ratio`` is the mean step from slice to slice over that from pixel to pixel, in the truth. The
couplings:

- planes W: `samplers.volume.pnp_volume` with the weight W; auto: `evaluation.own.volume.weight_of`
  the ratio that `look_at_volume` would find in reconstructions slice by slice.
- TV T: after each call of the network, the proximal map of T times the total variation along z
  (Chung et al., CVPR 2023, whose data step has the same penalty), solved by ADMM.
- local E: the same with a quadratic penalty weighted by E^2 over the local mean square of the step.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import nibabel
import numpy as np
import torch
from matplotlib import pyplot as plt
from skimage.transform import resize
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from evaluation.baselines import direct
from evaluation.metrics import across_metrics, psnr
from evaluation.own.volume import CALLS, probes, unlikeness, weight_of
from models.checkpoint import load_prior
from operators import BatchGenerator, LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.ct import few_view_angles
from operators.masks import make_mask
from samplers import pnp
from samplers.denoise import denoise_turned
from samplers.levels import START_FACTOR, first_level, last_level, noise_levels
from samplers.pnp import splitting
from samplers.volume import pnp_volume
from sde import Prior

SIDE, COUNT, STEPS = 160, 12, 30
VOLUMES = {  # name -> file, first slice, slice spacing in mm
    "val": {
        "Gd, 1 mm": ("mri/MR_Gd.nii.gz", 70, 1),
        "Gd, every 2nd": ("mri/MR_Gd.nii.gz", 60, 2),
        "03 T1, 3 mm": ("mr_people/patient03_study2_T1W.nii.gz", 18, 1),
        "01 FLAIR, 4 mm": ("mr_people/patient01_study1_FLAIR.nii.gz", 12, 1),
        "CT, 10 mm": ("ct_lung.h5:Lung_Dx-A0001_3.000000-5mm-41315", 8, 1),
    },
    "test": {
        "ICBM 152, 0.74 mm": ("mri/spm152.nii.gz", 100, 1),
        "PD, 2.4 mm": ("mri/chris_PD.nii.gz", 22, 1),
        "04 T1, 3 mm": ("mr_people/patient04_study1_T1W.nii.gz", 18, 1),
        "12 T2, 3.3 mm": ("mr_people/patient12_study1_T2W.nii.gz", 16, 1),
        "CT, 10 mm": ("ct_lung.h5:Lung_Dx-A0002_3.000000-ThoraxRouti", 1, 1),
    },
}
# name -> kind, acceleration or views, whether each slice has a mask of its own, noise
PROBLEMS = {
    "MR 4x": ("mri", 4, True, 0.0),
    "MR 4x, noise": ("mri", 4, True, 0.03),
    "MR 4x, one mask, noise": ("mri", 4, False, 0.03),
    "MR 8x": ("mri", 8, True, 0.0),
    "CT 30 views, noise": ("ct", 30, False, 0.4),
}
TV, LOCAL, PLANES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3), (0.005, 0.01), (0.4, 2 / 3)
ADMM_STEPS, RADIUS = 20, 2


class Measured(NamedTuple):
    """Slices ``(N, 1, H, W)`` of a volume, their operator, measurement and its noise."""

    images: Tensor
    operator: LinearOperator
    y: Tensor
    noise: float


def read_volume(path: str, first: int, step: int, count: int = COUNT) -> Tensor:
    """Slices ``(count, 1, SIDE, SIDE)`` in about [0, 1], padded to squares."""
    file, _, name = path.partition(":")
    chosen = slice(first, first + count * step, step)
    if name:
        with h5py.File(file) as opened:
            volume = (np.clip(opened[name][chosen], -1000, 1500) + 1000).astype(np.float32)
    else:
        volume = np.moveaxis(np.asarray(nibabel.load(file).dataobj, dtype=np.float32), 2, 0)[chosen]
    side = max(volume.shape[1:])
    margins = [((side - n) // 2, side - n - (side - n) // 2) for n in volume.shape[1:]]
    volume = np.pad(volume, [(0, 0), *margins])
    volume = np.stack([resize(x, (SIDE, SIDE), order=1, anti_aliasing=True) for x in volume])
    return torch.from_numpy(volume / np.quantile(volume, 0.9995))[:, None].float()


def measure(images: Tensor, kind: str, amount: int, own_masks: bool, noise: float) -> Measured:
    """Simulated measurement of a volume, its noise seeded per slice."""
    white = BatchGenerator(list(range(len(images))))
    if kind == "ct":
        operator: LinearOperator = ParallelBeamCT(SIDE, few_view_angles(amount, 180.0))
        y = operator.forward(images)
        return Measured(images, operator, y + noise * white.normal_like(y), noise)
    how = {"acceleration": amount, "center_fraction": 0.04}
    seeds = [k if own_masks else 0 for k in range(len(images))]
    masks = [make_mask("gaussian1d", (SIDE, SIDE), seed=seed, **how) for seed in seeds]
    operator = SingleCoilMRI(torch.stack(masks)[:, None])
    y = operator.forward(images)
    return Measured(images, operator, y + noise * white.normal_like(y) * operator.mask, noise)


def some(problem: Measured) -> Measured:
    """The slices of a problem that `look_at_volume` would look at."""
    images, operator, y, noise = problem
    items = probes(len(images))
    if operator.batch_size is not None:
        operator = SingleCoilMRI(operator.mask[items])
    return Measured(images[items], operator, y[items], noise)


def by_slices(prior: Prior, problem: Measured, steps: int = STEPS) -> Tensor:
    """`pnp`, slice by slice."""
    operator, y = problem.operator, problem.y
    first = direct(operator, y)
    return pnp(*prior, operator, y, num_steps=steps, initial=first, sigma_y=problem.noise)


def by_planes(prior: Prior, problem: Measured, weight: float | None) -> Tensor:
    """`pnp_volume`; a weight of None is found from a few slices."""
    _, operator, y, noise = problem
    first = direct(operator, y)
    end = last_level(prior[1], operator, y, noise)
    start = first_level(*prior, operator, y, first, factor=START_FACTOR, end_sigma=end)
    if weight is None:
        weight = weight_of(unlikeness(by_slices(prior, some(problem), steps=CALLS)))
        if not weight:
            return by_slices(prior, problem)
    return pnp_volume(
        *prior,
        operator,
        y,
        weight=weight,
        start_sigma=float(start.max()),
        end_sigma=float(end.median()),
        num_steps=STEPS,
        initial=first,
        sigma_y=noise,
        size=4,
    )


def by_penalty(prior: Prior, problem: Measured, smooth: Callable[[Tensor], Tensor]) -> Tensor:
    """`pnp` whose denoised slices are smoothed along z."""
    score, sde = prior
    _, operator, y, noise = problem
    first = direct(operator, y)
    end = last_level(sde, operator, y, noise)
    levels = noise_levels(
        score, sde, operator, y, first, num_steps=STEPS, start_sigma=None, end_sigma=end
    )
    return splitting(
        lambda x, sigma, step: smooth(denoise_turned(score, x, sigma, turn=step)),
        *(sde, operator, y, first, levels),
        sigma_y=noise,
    )


def tv_along_z(x: Tensor, threshold: float) -> Tensor:
    """argmin_u |u - x|^2 / 2 + threshold sum |u[k + 1] - u[k]| by ADMM: ``(N, 1, H, W)``."""
    steps = torch.eye(len(x)).diff(dim=0)  # (N - 1, N)
    inverse = torch.linalg.inv(torch.eye(len(x)) + steps.T @ steps)
    split = dual = torch.zeros_like(x[1:])
    u = x
    for _ in range(ADMM_STEPS):
        back = torch.einsum("dn,d...->n...", steps, split - dual)
        u = torch.einsum("mn,n...->m...", inverse, x + back)
        moved = u.diff(dim=0) + dual
        split = moved.sign() * (moved.abs() - threshold).clamp(min=0)
        dual = moved - split
    return u


def local_along_z(x: Tensor, error: float) -> Tensor:
    """argmin_u |u - x|^2 + sum w |u[k + 1] - u[k]|^2, w = error^2 over the local mean step^2."""
    steps = pad(x.diff(dim=0).square(), (RADIUS,) * 4, mode="replicate")
    mean = avg_pool2d(steps, 2 * RADIUS + 1, 1)  # (N - 1, 1, H, W)
    weight = error**2 / (mean + error**2 / 10)
    none = torch.zeros_like(x[:1])
    below, above = torch.cat([none, weight]), torch.cat([weight, none])
    # Thomas' algorithm for (1 + below + above) u[k] - below u[k - 1] - above u[k + 1] = x[k]
    upper, right = [], []
    for k in range(len(x)):
        pivot = 1 + below[k] + above[k] - (below[k] * upper[-1] if k else 0)
        right.append((x[k] + (below[k] * right[-1] if k else 0)) / pivot)
        upper.append(above[k] / pivot)
    u = [right[-1]]
    for k in reversed(range(len(x) - 1)):
        u.append(right[k] + upper[k] * u[-1])
    return torch.stack(u[::-1])


def methods(which: str) -> dict[str, Callable[[Prior, Measured], Tensor]]:
    """Couplings by name."""
    found: dict[str, Callable[[Prior, Measured], Tensor]] = {"slice by slice": by_slices}
    if which == "default":
        return found | {"planes auto": partial(by_planes, weight=None)}
    if which == "all":
        found |= {
            f"TV {t:g}": partial(by_penalty, smooth=partial(tv_along_z, threshold=t)) for t in TV
        }
        found |= {
            f"local {e:g}": partial(by_penalty, smooth=partial(local_along_z, error=e))
            for e in LOCAL
        }
    return found | {f"planes {w:.2g}": partial(by_planes, weight=w) for w in PLANES}


def scores(images: Tensor, truth: Tensor) -> tuple[float, float, float]:
    """PSNR in the plane, PSNR of sagittal images, and the step error, of the range [0, 1]."""
    x, t = images[:, 0].numpy(), truth[:, 0].numpy()  # (N, H, W)
    in_plane = np.mean([psnr(target, image) for target, image in zip(t, x, strict=True)])
    across = across_metrics(t, x, peak=1.0)
    return float(in_plane), across["psnr_columns"], across["step_error"]


def figure(path: Path, truth: Tensor, found: dict[str, Tensor]) -> None:
    """Picture of a sagittal slice: truth, reconstructions, and their errors below."""
    middle = SIDE // 2 + 8
    columns = {"truth": truth} | found
    box, axes = plt.subplots(2, len(columns), figsize=(3.2 * len(columns), 3.0))
    show = {"aspect": SIDE / len(truth) / 2, "cmap": "gray", "interpolation": "nearest"}
    for k, (name, images) in enumerate(columns.items()):
        view = images[:, 0, :, middle]  # (N, H)
        axes[0, k].imshow(view, vmin=0, vmax=1, **show)
        axes[0, k].set_title(name)
        axes[1, k].imshow((view - truth[:, 0, :, middle]).abs(), vmin=0, vmax=0.15, **show)
    for axis in axes.flat:
        axis.axis("off")
    box.tight_layout()
    box.savefig(path, dpi=80)


@torch.no_grad()
def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.volumes")
    parser.add_argument("--data", type=Path, required=True, help="shared/data")
    parser.add_argument("--split", choices=list(VOLUMES), default="test")
    parser.add_argument("--methods", choices=("default", "planes", "all"), default="default")
    parser.add_argument("--volumes", default="", help="names that contain this")
    parser.add_argument("--problems", default="", help="names separated by semicolons")
    parser.add_argument("--count", type=int, default=COUNT, help="slices of a volume")
    parser.add_argument("--figure", type=Path, help="PNG of a sagittal slice of the last problem")
    args = parser.parse_args()
    prior = load_prior("natural_small")
    chosen = args.problems.split(";") if args.problems else list(PROBLEMS)
    print("| volume | ratio | measurement | method | in plane | through | step error | seconds |")
    print("|---|---:|---|---|---:|---:|---:|---:|")
    for volume, (file, first, step) in VOLUMES[args.split].items():
        if args.volumes not in volume:
            continue
        images = read_volume(str(args.data / file), first, step, args.count)
        ratio = unlikeness(torch.cat([images[:-1], images[1:]], 1).reshape(-1, 1, SIDE, SIDE))
        for name in chosen:
            if volume.startswith("CT") and not name.startswith("CT"):
                continue
            problem, found = measure(images, *PROBLEMS[name]), {}
            for method, run in methods(args.methods).items():
                begin = time.perf_counter()
                found[method] = run(prior, problem)
                seconds = time.perf_counter() - begin
                row = "{:.2f} | {:.2f} | {:.4f}".format(*scores(found[method], images))
                print(
                    f"| {volume} | {ratio:.2f} | {name} | {method} | {row} | {seconds:.0f} |",
                    flush=True,
                )
    if args.figure:
        figure(args.figure, images, found)


if __name__ == "__main__":
    main()
