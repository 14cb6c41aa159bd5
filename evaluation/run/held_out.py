"""Reconstructions of a few held-out images with a prior that is being trained.

The measurements are those of the quick comparisons elsewhere: k-space along columns, gaussian1d 4x,
and CT from 30 parallel views, both free of noise. `measure` simulates them; `add_tv` makes what the
prior is compared with beside the direct reconstruction, once; `reconstruct` is the prior's turn, as
often as wanted. Nothing here draws from a global generator.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.baselines.direct import DIRECT
from evaluation.baselines.tv import tv
from evaluation.metrics import all_metrics
from operators import LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.batch import derive_seed
from operators.ct import few_view_angles
from operators.masks import make_mask
from samplers.pnp import pnp
from sde import VESDE, Score

NAMES = ("mri", "ct")
ACCELERATION, CENTRE_FRACTION = 4.0, 0.04
NUM_VIEWS = 30
PRIOR = "prior"  # the method that is under training


class Measured(NamedTuple):
    """Held-out images, their simulated measurement, and what it gives without a prior.

    Attributes:
        name: one of `NAMES`.
        operator: measurement operator.
        y: ``(B, *range_shape)`` measurement.
        images: ``(B, 1, H, W)`` targets, real or complex.
        baselines: reconstructions ``(B, 1, H, W)`` by name: the direct one, then TV (`add_tv`).
    """

    name: str
    operator: LinearOperator
    y: Tensor
    images: Tensor
    baselines: dict[str, Tensor]


def parse(names: str) -> list[str]:
    """The measurements in a list such as ``"mri,ct"``.

    Raises:
        ValueError: one of them is unknown, or there is none.
    """
    found = [name.strip() for name in names.split(",")]
    unknown = [name for name in found if name not in NAMES]
    if unknown:
        raise ValueError(f"expected measurements out of {', '.join(NAMES)}, got {names!r}")
    return list(dict.fromkeys(found))


def stack(images: Sequence[Tensor]) -> Tensor:
    """Held-out images as a batch ``(B, 1, H, W)``: those as large as the first one.

    Args:
        images: ``(1, H, W)`` real, or ``(2, H, W)``, real and imaginary part, made complex.
    """
    batch = torch.stack([image for image in images if image.shape == images[0].shape])
    if batch.shape[1] == 2:
        return torch.complex(*batch.chunk(2, dim=1))  # (B, 1, H, W)
    return batch


def create_operator(name: str, images: Tensor, *, seed: int) -> LinearOperator:
    """Operator of a measurement of `images` ``(B, 1, H, W)``, on the CPU; masks differ by image.

    Raises:
        ValueError: the images are too small for it, or complex in CT.
    """
    if name == "ct":
        if images.is_complex():
            raise ValueError("expected real images for CT, got complex ones (data.phase)")
        return ParallelBeamCT(images.shape[-2:], few_view_angles(NUM_VIEWS))
    masks = [
        make_mask(
            "gaussian1d",
            tuple(images.shape[-2:]),
            seed=derive_seed(seed, "held out", i),
            acceleration=ACCELERATION,
            center_fraction=CENTRE_FRACTION,
        )
        for i in range(len(images))
    ]
    return SingleCoilMRI(torch.stack(masks)[:, None], real=not images.is_complex())


@torch.no_grad()
def measure(images: Tensor, names: Iterable[str], *, seed: int, device: str) -> list[Measured]:
    """Simulate measurements of `images`, and reconstruct them directly.

    Args:
        images: ``(B, 1, H, W)`` in [0, 1], or complex.
        names: some of `NAMES`.
        seed: seed of the masks.
        device: device of the results.

    Raises:
        ValueError: see `create_operator`.
    """
    found = []
    targets = images.to(device)
    for name in names:
        operator = create_operator(name, images, seed=seed).to(device)
        y = operator.forward(targets)
        baselines = {DIRECT[operator.direct_name]: operator.direct(y)}
        found.append(Measured(name, operator, y, targets, baselines))
    return found


@torch.no_grad()
def add_tv(measured: Measured) -> None:
    """Add the converged TV reconstruction to the baselines, unless it is there already."""
    if "tv" not in measured.baselines:
        measured.baselines["tv"] = tv(measured.operator, measured.y)


def reconstruct(measured: Measured, score: Score, sde: VESDE, *, num_steps: int) -> Tensor:
    """Reconstruction ``(B, 1, H, W)`` by `samplers.pnp`, as `evaluation.evaluate` calls it.

    It starts from the direct reconstruction, and nothing in it is random.

    Args:
        measured: the measurement.
        score: score of the prior.
        sde: its range of noise levels.
        num_steps: number of network calls.

    Raises:
        NonFiniteError: the prior leads to infinite values, as it may early in training.
    """
    operator, y = measured.operator, measured.y
    return pnp(score, sde, operator, y, num_steps=num_steps, initial=operator.direct(y))


def rows(measured: Measured, images: Tensor, *, step: int) -> list[dict]:
    """PSNR (dB) and SSIM of each image by the prior and by the baselines.

    Args:
        measured: the measurement and its baselines.
        images: ``(B, 1, H, W)`` by the prior.
        step: number of training steps.

    Returns:
        Dicts of step, measurement, image (its number), method, psnr and ssim.
    """
    found = []
    for method, batch in {PRIOR: images, **measured.baselines}.items():
        pairs = zip(measured.images, batch, strict=True)
        for number, (target, image) in enumerate(pairs):
            metrics = all_metrics(target[0].cpu().numpy(), image[0].cpu().numpy())
            row = {"step": step, "measurement": measured.name, "image": number, "method": method}
            found.append(row | {name: metrics[name] for name in ("psnr", "ssim")})
    return found


def picture(measured: Measured, images: Tensor) -> Tensor:
    """Magnitudes for a contact sheet of B columns, ``(n B, 1, H, W)``.

    The rows are target, baselines, and that by the prior.
    """
    batches = [measured.images, *measured.baselines.values(), images]
    magnitudes = [batch.abs() if batch.is_complex() else batch for batch in batches]
    return torch.cat(magnitudes).cpu()
