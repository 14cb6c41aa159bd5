"""Likelihoods of images under a prior, in bits per dimension.

    python -m evaluation.likelihood --out=results/likelihood/brain --config.prior=natural_small
    python -m evaluation.likelihood --out=... --config.data.subset=ct --config.probes=4

writes `likelihood.csv`: of each image its key and person, bits per dimension with the standard
error over probes, the size of the solver's correction (both in bits per dimension), and the number
of network calls. Without --out the folder is results/likelihood/NAME of the prior. Running the same
command again continues; a larger limit adds images.

Images of [0, 1] are rounded to 256 grey levels k and become x = (k + u) / 256 with u uniform in
[0, 1), as Song et al. (2021, section 4.3) do it: the bits, -log2 p(x) / n + 8, are then an upper
bound of those in which the model codes k (Theis et al. 2016). Complex priors see real images with
an imaginary part of that noise alone, and n counts both parts. p is the density at the smallest
noise level (`samplers.likelihood`).
"""

import csv
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from absl import flags
from ml_collections import ConfigDict
from torch import Tensor
from torch.utils.data import Dataset

import configs
from configs.progress import progress_bar
from configs.ranges import check_numbers
from datasets.files import holding, to_csv, write_atomically
from datasets.identity import check_outside
from evaluation.evaluate import open_slices
from evaluation.results.volumes import volume_of
from evaluation.run.batching import choose_size, in_batches, unfinished
from evaluation.run.damage import DAMAGE
from evaluation.run.methods import PRECISIONS
from evaluation.run.provenance import check_prior, describe_prior, environment
from evaluation.show.intervals import mean_interval
from models import checkpoint
from models.checkpoint import keyword_files, load_prior, open_prior
from operators.batch import BatchGenerator, derive_seed
from samplers.likelihood import bits_per_dim, dimensions, log_density
from sde import Prior

# they change no number
MAY_CHANGE = ("prior", "prior_format", "limit", "batch_size", "data.root")
COLUMNS = ("key", "person", "bits_per_dim", "standard_error", "solver_error", "calls")
FILE = "likelihood.csv"
LEVELS = 256  # of the unit of bits where images are not rounded


def likelihood(config: ConfigDict, out: Path, device: str) -> list[dict[str, str]]:
    """Write the likelihoods that `out` does not have yet; returns the rows of all images.

    Args:
        config: as configs/likelihood.py.
        out: folder of the results; made if missing.
        device: of the network.

    Raises:
        ConfigError, DataError, CheckpointError, ValueError, FileNotFoundError: before any image,
            if config, folder, prior or data are invalid.
        ValueError: an image has no finite density; finished batches are kept.
    """
    check_config(config)
    check_outside(out, config.data, "--out")
    opened = open_prior(config.prior, config.prior_format)
    known = describe_prior(opened.path, keyword_files(opened.path, config.prior_format))
    prior = load_prior(opened, device, autocast=PRECISIONS[config.precision])
    print(f"prior: {checkpoint.describe(opened)}", file=sys.stderr)
    del opened  # frees a second copy of the weights
    dataset = open_slices(config)
    keys = list(dataset.keys)[: config.limit or None]
    people = getattr(dataset, "people", {})
    with holding(out):
        configs.check_same(out / "config.json", config, ignore=MAY_CHANGE)
        check_prior(out, known)
        info = {**environment(device), "prior": known}
        write_atomically(out / "config.json", configs.to_json(config))
        write_atomically(out / "info.json", configs.to_json(ConfigDict(info)))
        rows = {row["key"]: row for row in read_rows(out)}
        size = choose_size(config.batch_size, device)
        todo = unfinished(range(len(keys)), size, lambda n: keys[n] in rows)

        def work(batch: list[int]) -> list[dict[str, str]]:
            own = [keys[n] for n in batch]
            images = torch.stack(
                [prepare(config, dataset, n, key) for n, key in zip(batch, own, strict=True)]
            )
            found = measure(config, prior, images.to(device), own)
            return [
                {"key": key, "person": str(people.get(key, volume_of(key))), **row}
                for key, row in zip(own, found, strict=True)
            ]

        with progress_bar(len(todo), "image") as progress:
            for batch, outcome in in_batches(todo, size, work):
                if isinstance(outcome, Exception):
                    raise outcome
                rows |= {row["key"]: row for row in outcome}
                ordered = [rows[key] for key in keys if key in rows]
                write_atomically(out / FILE, to_csv(ordered, COLUMNS))
                progress.update(len(batch))
    return [rows[key] for key in keys]


def check_config(config: ConfigDict) -> None:
    """Raise a ConfigError or ValueError for a field that cannot be."""
    check_numbers(config)
    if config.precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {config.precision!r}")
    if config.damage and config.damage not in DAMAGE:
        raise ValueError(f"expected damage out of {', '.join(DAMAGE)}, got {config.damage!r}")
    if config.num_steps < 2 or config.num_steps % 2:
        raise ValueError(f"expected num_steps even and at least 2, got {config.num_steps}")
    if config.levels == 1:
        raise ValueError("expected levels of at least 2, or 0 for images as they are, got 1")


def prepare(config: ConfigDict, dataset: Dataset, n: int, key: str) -> Tensor:
    """Image number n ``(1, H, W)`` float64 or complex128: damaged, cropped and dequantised.

    Raises:
        ValueError: the image is smaller than the crop, or complex and to be damaged.
    """
    image = dataset[n].image
    if config.damage:
        if image.is_complex():
            raise ValueError(f"{key}: expected a real image for config.damage, got a complex one")
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "damage", key))
        image = DAMAGE[config.damage](image, generator)
    height, width = image.shape[-2:]
    side = config.crop
    if side > min(height, width):
        raise ValueError(f"{key}: expected crop of at most {min(height, width)}, got {side}")
    if side:
        top, left = (height - side) // 2, (width - side) // 2
        image = image[..., top : top + side, left : left + side]
    return dequantise(image, config.levels, derive_seed(config.seed, "dequantise", key))


def dequantise(image: Tensor, levels: int, seed: int) -> Tensor:
    """An image ``(1, H, W)`` rounded to grey levels and spread evenly between them, float64.

    x = (k + u) / levels with k = round((levels - 1) v), of complex images both parts. The image as
    it is where `levels` is 0.
    """
    generator = torch.Generator().manual_seed(seed)
    if image.is_complex():
        parts = (_spread(part, levels, generator) for part in (image.real, image.imag))
        return torch.complex(*parts)
    return _spread(image, levels, generator)


def _spread(values: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    if not levels:
        return values.double()
    drawn = torch.rand(values.shape, generator=generator, dtype=torch.float64)
    return (((levels - 1) * values.double()).round() + drawn) / levels


def measure(config: ConfigDict, prior: Prior, x: Tensor, keys: list[str]) -> list[dict[str, str]]:
    """The numbers of `COLUMNS` of a batch of images ``(B, 1, H, W)``.

    Raises:
        ValueError: an image has no finite density.
    """
    if getattr(prior.score, "joint", False) and not x.is_complex():
        seeds = [derive_seed(config.seed, "imaginary", key) for key in keys]
        imaginary = [dequantise(torch.zeros(x.shape[1:]), config.levels, seed) for seed in seeds]
        x = torch.complex(x, torch.stack(imaginary).to(x))
    rng = BatchGenerator([derive_seed(config.seed, "probes", key) for key in keys], keys)
    found = log_density(*prior, x, rng=rng, num_steps=config.num_steps, probes=config.probes)
    bits = bits_per_dim(found.nats, x, config.levels or LEVELS).cpu()  # (B, P)
    error = found.solver_error.cpu() / (dimensions(x) * np.log(2))  # (B,)
    rows = []
    for key, own, solver in zip(keys, bits.tolist(), error.tolist(), strict=True):
        if not np.isfinite(own).all():
            raise ValueError(f"{key}: no finite density; the image is far from those of the prior")
        spread = statistics.stdev(own) / len(own) ** 0.5 if len(own) > 1 else float("nan")
        rows.append(
            {
                "bits_per_dim": f"{statistics.fmean(own):.5f}",
                "standard_error": f"{spread:.5f}",
                "solver_error": f"{solver:.5f}",
                "calls": str(found.calls),
            }
        )
    return rows


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of `likelihood.csv` of a folder; [] if there is none."""
    path = folder / FILE
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def summary(rows: list[dict[str, str]]) -> str:
    """Mean bits per dimension with the interval over people, in one line."""
    values = {row["key"]: float(row["bits_per_dim"]) for row in rows}
    people = {row["key"]: row["person"] for row in rows}
    found = mean_interval(values, unit=people.__getitem__)
    ends = "" if np.isnan(found.low) else f" ({found.low:.3f} to {found.high:.3f}, 95 %)"
    count = len(set(people.values()))
    return f"{found.mean:.3f}{ends} bits per dimension, {len(rows)} images of {count} people"


def main(_) -> None:
    """Run the command line."""
    config = flags.FLAGS.config
    out = Path(flags.FLAGS.out or Path("results") / "likelihood" / Path(config.prior).stem)
    with configs.clear_errors():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        print(summary(likelihood(config, out, device)))
    print(f"results: {out / FILE}")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "folder of the results; results/likelihood/NAME without")
    configs.define_flags("configs/likelihood.py")
    configs.run(main)
