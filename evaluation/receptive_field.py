r"""Effective receptive fields of priors, beside the theoretical ones: a figure and a CSV file.

    python -m evaluation.receptive_field runs/celeba_2026_1 runs/celeba_2026_4 --out=results/field

For each noise level, the gradient of a denoised pixel on noisy test images, as energy by offset,
with the radii that hold 50, 80 and 95 % of it. --study adds the recipe of the study's 2026 code,
whose result depends on the smallest noise levels that it draws:

    python -m evaluation.receptive_field runs/celeba_2026_4 --raw --study=1000 --out=results/field

Writes receptive_field.{csv,png,pdf} and receptive_field.npz, which has the fields.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from configs import clear_errors
from datasets import create_dataset
from datasets.files import to_csv, write_atomically
from evaluation.run.receptive_field import (
    LEVELS,
    SHARES,
    Field,
    denoiser_field,
    outside,
    study_diameter,
    study_field,
)
from evaluation.show.fields import Row, draw_fields
from evaluation.show.style import save
from models import checkpoint
from models.checkpoint import load_prior, resolve_prior
from models.receptive_field import theoretical_field

COLUMNS = (
    *("prior", "weights", "recipe", "sigma", "images", "pixels"),
    *(f"radius_{100 * share:g}" for share in SHARES),
    *("diameter", "theoretical", "outside"),
)
NAME = "receptive_field"


class Measured(NamedTuple):
    """Fields of one prior; `study` is None without ``--study``."""

    name: str
    theoretical: int | None
    fields: list[Field]
    study: np.ndarray | None


def measure(name: str, arguments: argparse.Namespace, images: Tensor) -> Measured:
    """Effective receptive fields of a prior.

    Args:
        name: of a prior as `load_prior` takes it.
        arguments: of the command line.
        images: ``(B, 1, H, W)`` test images.

    Raises:
        ValueError: a prior of complex images, or noise levels that it does not know.
    """
    score, sde = load_prior(name, depth=arguments.depth, averaged=not arguments.raw)
    if getattr(score, "joint", False):
        raise ValueError(f"{name}: expected a prior of real images, got one of complex ones")
    levels = [sigma for sigma in arguments.levels if sde.sigma_min <= sigma <= sde.sigma_max]
    if not levels:
        raise ValueError(
            f"{name}: knows noise levels {sde.sigma_min:g} to {sde.sigma_max:g}, none of "
            f"{arguments.levels}; give others by --levels"
        )
    given = {"pixels": arguments.pixels, "seed": arguments.seed}
    found = [denoiser_field(score, images.to(score.device), s, **given) for s in levels]
    study = None
    if arguments.study:
        study = study_field(
            score,
            images.shape[-1],
            repetitions=arguments.study,
            seed=arguments.seed,
            device=score.device,
        )
    config = ConfigDict(checkpoint.load(resolve_prior(name))["config"])
    depth = "" if arguments.depth is None else f", depth {arguments.depth}"
    label = f"{Path(name).name}{depth}"
    return Measured(label, theoretical_field(config, arguments.depth), found, study)


def rows_of(found: Measured, arguments: argparse.Namespace) -> list[dict]:
    """Rows of the CSV file."""
    shared = {
        "prior": found.name,
        "weights": "raw" if arguments.raw else "averaged",
        "theoretical": "all" if found.theoretical is None else found.theoretical,
    }
    rows = [
        {
            **shared,
            "recipe": "denoiser",
            "sigma": field.sigma,
            "images": arguments.images,
            "pixels": arguments.pixels,
            **{
                f"radius_{100 * s:g}": round(r, 3) for s, r in zip(SHARES, field.radii, strict=True)
            },
            "outside": f"{outside(field.energy, found.theoretical):.3g}",
        }
        for field in found.fields
    ]
    if found.study is not None:
        whole = {"recipe": "study", "images": arguments.study, "pixels": 1}
        rows.append({**shared, **whole, "diameter": study_diameter(found.study)})
    return [dict.fromkeys(COLUMNS, "") | row for row in rows]


def open_images(arguments: argparse.Namespace) -> Tensor:
    """Test images ``(B, 1, H, W)`` of the embedded data, their central parts."""
    data = {"name": "samples", "subset": arguments.subset, "image_size": 0}
    dataset = create_dataset(data, "test")
    step = max(len(dataset) // arguments.images, 1)
    side = arguments.size
    found = []
    for i in range(0, len(dataset), step)[: arguments.images]:
        image = dataset[i].image  # (1, H, W)
        if min(image.shape[1:]) < side:
            raise ValueError(
                f"{dataset.keys[i]}: expected at least {side} pixels a side, got "
                f"{image.shape[1]} x {image.shape[2]}; lower --size"
            )
        top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
        found.append(image[:, top : top + side, left : left + side])
    return torch.stack(found)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.receptive_field",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("priors", nargs="+", metavar="PRIOR", help="shipped ones, runs or files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--depth", type=int, help="of nested priors; default: full depth")
    parser.add_argument("--raw", action="store_true", help="raw weights instead of averaged ones")
    parser.add_argument("--subset", default="brain", help="embedded images: brain, ct or natural")
    parser.add_argument("--size", type=int, default=128, help="pixels a side; default %(default)s")
    parser.add_argument("--images", type=int, default=4, help="test images; default %(default)s")
    parser.add_argument("--pixels", type=int, default=4, help="of each image; default %(default)s")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, metavar="SIGMA")
    parser.add_argument(
        "--study", type=int, default=0, metavar="N", help="the study's recipe, N repetitions"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    for name in ("size", "images", "pixels"):
        if getattr(arguments, name) < 1:
            parser.error(f"expected --{name} of at least 1, got {getattr(arguments, name)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = parse(argv)
    with clear_errors("take smaller images (--size), or fewer (--images)"):
        images = open_images(arguments)
        found = [measure(name, arguments, images) for name in arguments.priors]
        rows = [row for one in found for row in rows_of(one, arguments)]
        text = to_csv(rows, COLUMNS)
        write_atomically(arguments.out / f"{NAME}.csv", text)
        arrays = {f"{one.name} sigma {f.sigma:g}": f.energy for one in found for f in one.fields}
        arrays |= {f"{one.name} study": one.study for one in found if one.study is not None}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_atomically(arguments.out / f"{NAME}.npz", content.getvalue())
        figure = draw_fields([Row(*one) for one in found])
        paths = save(figure, arguments.out, NAME)
    print(text, end="")
    print(f"figure: {paths[-1]}")


if __name__ == "__main__":
    main()
