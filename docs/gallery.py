"""Draw what is registered: each mask, each operator's measurement, each sampler's reconstruction.

    python docs/gallery.py FOLDER

writes pictures and the page `index.md` that shows them. What is registered appears by itself; an
operator that the command lines cannot create needs a line in `by_hand`.
"""

import inspect
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from datasets.embedded import open_samples
from evaluation.metrics import psnr
from models.checkpoint import load_prior
from operators import OPERATORS, BatchGenerator, LinearOperator
from operators.create import create_operator
from operators.masks import MASKS, effective_acceleration, make_mask
from operators.simulation import birdcage_maps, smooth_phase
from samplers import NUM_STEPS, SAMPLERS
from sde import Prior

SIZE = 96
MOST_STEPS = 50  # of a sampler: those of the study have 500 by default
SIGMA_Y = 0.02
COILS = ("ssos", "hybrid")  # need coil images
MASK = {"seed": 0, "acceleration": 4.0, "center_fraction": 0.08}


def main(folder: Path) -> None:
    """Draw all pictures into `folder` and write the page."""
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    mr = open_samples("test", subset="brain", image_size=SIZE, fit="resize")[24].image[None]
    ct = open_samples("test", subset="ct", image_size=SIZE)[0].image[None]
    parts = {
        "Masks": (
            f"`make_mask(NAME, ({SIZE}, {SIZE}), seed=0, acceleration=4, center_fraction=0.08)`; "
            "white is measured, the origin of k-space is in the middle. Below each mask the image "
            "that zero-filling makes of it.",
            [draw_mask(folder, name, mr) for name in MASKS],
        ),
        "Operators": (
            "An image, its measurement y = A x (of complex numbers the logarithm of the "
            "magnitude, of several coils side by side the first four), and the reconstruction in "
            "one step that the operator itself knows.",
            [draw_operator(folder, name, mr, ct) for name in OPERATORS],
        ),
        "Samplers": (
            f"Brain MR of a test person, gaussian1d 4x, noise of {SIGMA_Y}; `{'`, `'.join(COILS)}` "
            f"with four coils. The shipped priors, default keywords, at most {MOST_STEPS} noise "
            "levels: the study's samplers are made for 500, and better with them. Right: the "
            "error, five times as bright. One slice compares nothing: see "
            "[Samplers](../samplers.md).",
            [draw_sampler(folder, name, mr) for name in SAMPLERS],
        ),
    }
    (folder / "index.md").write_text(page(parts))


def page(parts: dict[str, tuple[str, list[str]]]) -> str:
    """The page in Markdown."""
    text = "# Gallery\n\nDrawn by `docs/gallery.py` when this site was built.\n"
    for title, (words, figures) in parts.items():
        cards = "\n".join(figures)
        kind = "gallery wide" if title == "Operators" else "gallery"
        text += f"\n## {title}\n\n{words}\n\n````{{container}} {kind}\n{cards}````\n"
    return text


def card(name: str, words: str) -> str:
    """A figure of the page."""
    kind, _, name = name.partition("-")
    text = f"**{name}**: {words}" if words else f"**{name}**"
    return f"```{{figure}} {kind}-{name}.png\n:alt: {name}\n\n{text}\n```\n"


def draw_mask(folder: Path, name: str, image: Tensor) -> str:
    """Draw a mask and its zero-filled image."""
    mask = make_mask(name, (SIZE, SIZE), **MASK)
    operator = OPERATORS["mri"](mask)
    direct = operator.adjoint(operator.forward(image))
    save(folder / f"mask-{name}.png", [mask[None, None].float(), direct], vertical=True)
    return card(f"mask-{name}", f"{effective_acceleration(mask):.2f}x")


def by_hand() -> dict[str, Callable[[], LinearOperator]]:
    """Operators that `operators.create.create_operator` does not make, by name."""
    mask = make_mask("gaussian1d", (SIZE, SIZE), **MASK)
    holes = make_mask("uniform2d", (SIZE, SIZE), seed=0, acceleration=3.0, center_fraction=0.0)
    angles = np.arange(30) * 6.0
    rays = create_operator({"name": "ct", "num_views": 30}, (SIZE, SIZE), seed=0, keys=["0"])
    falling = torch.linspace(1.5, 0.5, rays.range_shape[1])[:, None].expand(rays.range_shape)
    maps = birdcage_maps(4, (SIZE, SIZE))
    return {
        "soft_sense_mri": lambda: OPERATORS["soft_sense_mri"](
            mask, torch.stack([maps, maps.roll(SIZE // 2, 1)])
        ),
        "study_ct": lambda: OPERATORS["study_ct"](SIZE, angles),
        "inpainting": lambda: OPERATORS["inpainting"](holes),
        "unmeasured": lambda: OPERATORS["unmeasured"]((1, SIZE, SIZE)),
        "whitened": lambda: OPERATORS["whitened"](rays, falling[None].contiguous()),
    }


def create(name: str) -> LinearOperator:
    """The operator of a name, for images of SIZE pixels."""
    made = by_hand()
    if name in made:
        return made[name]()
    return create_operator({"name": name, "num_views": 30}, (SIZE, SIZE), seed=0, keys=["0"])


def draw_operator(folder: Path, name: str, mr: Tensor, ct: Tensor) -> str:
    """Draw an image, its measurement and the direct reconstruction."""
    operator = create(name)
    x = ct if operator.direct_name == "FBP" else mr
    if operator.domain_complex:
        x = x * smooth_phase((SIZE, SIZE), rng=BatchGenerator([0]))
    x = x.expand(1, *operator.domain_shape).contiguous()
    y = operator.forward(x)
    images = [x[:, :1], seen(y), operator.direct(y)[:, :1] if y.numel() else torch.zeros_like(mr)]
    save(folder / f"operator-{name}.png", images)
    return card(f"operator-{name}", f"{type(operator).__name__}; right: {operator.direct_name}")


def seen(y: Tensor) -> Tensor:
    """A measurement as an image ``(1, 1, H, W)`` in [0, 1]."""
    if not y.numel():
        return torch.zeros(1, 1, SIZE, SIZE)
    y = torch.cat(list(y[0, :4]), dim=-1)[None, None]  # coils side by side
    values = torch.log(1e-3 + y.abs() / y.abs().max()) if y.is_complex() else y
    return (values - values.min()) / (values.max() - values.min())


def problem(name: str, image: Tensor) -> tuple[LinearOperator, Tensor, Tensor, Prior]:
    """Operator, noisy measurement, target and prior of a sampler."""
    mask = make_mask("gaussian1d", (SIZE, SIZE), **MASK)
    if name in COILS:
        image = image * smooth_phase((SIZE, SIZE), rng=BatchGenerator([0]))
        operator = OPERATORS["multicoil_mri"](mask, birdcage_maps(4, (SIZE, SIZE)))
        prior = load_prior("natural_complex_small")
    else:
        operator, prior = OPERATORS["mri"](mask), load_prior("natural_small")
    y = operator.forward(image)
    noise = torch.randn(2, *y.shape, generator=torch.Generator().manual_seed(1))
    y = y + SIGMA_Y * torch.complex(*noise) * operator.measured()
    return operator, y, image.abs(), prior


def draw_sampler(folder: Path, name: str, image: Tensor) -> str:
    """Draw a reconstruction and its error."""
    operator, y, target, (score, sde) = problem(name, image)
    sampler, num_steps = SAMPLERS[name], min(NUM_STEPS[name], MOST_STEPS)
    knows_noise = "sigma_y" in inspect.signature(sampler).parameters
    options = {"sigma_y": SIGMA_Y} if knows_noise else {}
    begin, rng = time.monotonic(), BatchGenerator([0])
    x = sampler(score, sde, operator, y, rng=rng, num_steps=num_steps, **options).abs()
    print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    save(folder / f"sampler-{name}.png", [x, 5 * (x - target).abs()])
    value = psnr(target[0, 0].numpy(), x[0, 0].numpy())
    return card(f"sampler-{name}", f"{num_steps} levels, {value:.1f} dB")


def save(path: Path, images: list[Tensor], vertical: bool = False) -> None:
    """Write images ``(1, 1, H, W)`` with values from 0 to 1 side by side, or below each other."""
    widths = [image.shape[-1] / image.shape[-2] for image in images]
    widths = [min(max(width, 0.5), 2.0) for width in widths]
    if vertical:
        figure, axes = plt.subplots(len(images), 1, figsize=(1.8, 1.8 * len(images)))
    else:
        ratios = {"width_ratios": widths}
        size = (1.8 * sum(widths), 1.8)
        figure, axes = plt.subplots(1, len(images), figsize=size, gridspec_kw=ratios)
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    for axis, image in zip(axes, images, strict=True):
        axis.imshow(image[0, 0].abs().numpy(), cmap="gray", vmin=0, vmax=1, aspect="auto")
        axis.axis("off")
    figure.savefig(path, dpi=142)
    plt.close(figure)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    main(Path(sys.argv[1]))
