"""Images of a prior without any measurement, to look at, and their statistics.

    python -m evaluation.sample --out=results/samples/natural_small --config.prior=natural_small
    python -m evaluation.sample --out=... --config.prior=... --config.compare=200 \
        --config.data.root=data/photos_cc      beside the images that it was trained on

The folder receives `samples.png` (of complex images magnitudes, and below them phases),
`statistics.csv` (mean, deviation, and kurtosis of the gradients, 3 for a Gaussian),
`spectrum.csv` (radial power spectrum), `gradients_*.csv` (histograms) and the images,
`images/*.npy`. Running the same command again continues; a larger `num_images` adds images.
"""

import io
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from absl import flags
from ml_collections import ConfigDict
from torch import Tensor

import configs
from configs.progress import SliceProgress
from configs.ranges import check_numbers
from datasets import create_dataset
from datasets.files import holding, to_csv, write_atomically
from datasets.identity import check_outside
from datasets.stream import TrainingStream
from evaluation.image_statistics import image_statistics, write_csv
from evaluation.run.batching import choose_size, in_batches, unfinished
from evaluation.run.methods import PRECISIONS, counted
from evaluation.run.provenance import check_prior, describe_prior, environment
from evaluation.show.contact_sheet import contact_sheet, png
from models import checkpoint
from models.checkpoint import keyword_files, load_prior, open_prior, resolve_prior
from operators.batch import BatchGenerator, derive_seed
from samplers.unconditional import unconditional
from sde import Prior

log = logging.getLogger(__name__)

# they change no image
MAY_CHANGE = (
    "prior",
    "prior_format",
    "num_images",
    "batch_size",
    "columns",
    "compare",
    "data.root",
)
# arguments of `TrainingStream` and what they are where a checkpoint's config has none
AUGMENTATION = {
    "flip": False,
    "rotate": False,
    "shrink": 1.0,
    "gamma": 0.0,
    "invert": 0.0,
    "shading": 0.0,
    "background": 0.0,
    "phase": 0.0,
}
RINGS = 32  # of the power spectrum, from 0 to 0.5 cycles a pixel
CHUNK = 16  # training images at a time


def sample(config: ConfigDict, out: Path, device: str) -> None:
    """Draw the images that `out` does not have yet, then write the picture and the statistics.

    Args:
        config: as configs/sample.py.
        out: folder of the results; made if missing.
        device: of the network.

    Raises:
        ConfigError, DataError, CheckpointError, ValueError, FileNotFoundError: before any image,
            if config, folder, prior or training images are invalid.
        NonFiniteError: some images became NaN or infinite; finished batches are kept.
    """
    check_numbers(config)
    if config.precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {config.precision!r}")
    path = resolve_prior(config.prior, config.prior_format)
    opened = open_prior(path, config.prior_format)
    trained = checkpoint.training_config(opened)
    side = config.image_size or trained.data.get("crop") or trained.data.image_size
    if not side:
        raise ValueError("the prior was trained on images of any size; set image_size")
    if config.num_steps < 2:
        raise ValueError(f"expected num_steps of at least 2, got {config.num_steps}")
    if config.compare and not trained.data.name:
        raise ValueError("expected compare=0: this prior does not say what it was trained on")
    if config.compare:
        check_outside(out, {**trained.data.to_dict(), "root": config.data.root}, "--out")
    size, known = (
        choose_size(config.batch_size, device),
        describe_prior(path, keyword_files(path, config.prior_format)),
    )
    training = training_images(trained, config.data.root, config.compare, side, config.seed)
    prior = load_prior(opened, device, autocast=PRECISIONS[config.precision])
    print(f"prior: {checkpoint.describe(opened)}")
    del opened  # frees a second copy of the weights
    with holding(out):
        configs.check_same(out / "config.json", config, ignore=MAY_CHANGE)
        check_prior(out, known)
        info = {**environment(device), "prior": known}
        write_atomically(out / "config.json", configs.to_json(config))
        write_atomically(out / "info.json", configs.to_json(ConfigDict(info)))
        draw_missing(config, out / "images", prior, side, size, device)
        images = torch.stack([read_image(out / "images", n) for n in range(config.num_images)])
        columns = min(config.columns, config.num_images)
        write_atomically(out / "samples.png", png(contact_sheet(images, columns)))
        groups = {"samples": images} | ({} if training is None else {"training": training})
        write_statistics(out, groups)


def draw_missing(
    config: ConfigDict, folder: Path, prior: Prior, side: int, size: int, device: str
) -> None:
    """Draw the images that are not in `folder`, in batches of `size`, and write one file each."""
    todo = unfinished(range(config.num_images), size, lambda n: read_image(folder, n) is not None)
    progress = SliceProgress()
    score = counted(prior.score, progress.call)

    def work(batch: list[int]) -> None:
        progress.begin(len(batch))
        images = unconditional(
            score,
            prior.sde,
            (side, side),
            rng=BatchGenerator(
                [derive_seed(config.seed, "sample", n) for n in batch],
                [f"image {n}" for n in batch],
            ),
            num_steps=config.num_steps,
            device=device,
        )
        for n, image in zip(batch, images.cpu().numpy(), strict=True):
            content = io.BytesIO()
            np.save(content, image)
            write_atomically(folder / f"{n:05d}.npy", content.getvalue())

    with progress.start(len(todo), config.num_steps, done=config.num_images - len(todo)):
        for _, outcome in in_batches(todo, size, work):
            if isinstance(outcome, Exception):
                raise outcome
            progress.finish()


def read_image(folder: Path, n: int) -> Tensor | None:
    """Image number n ``(1, H, W)`` of a folder; None if there is none, or a damaged one."""
    path = folder / f"{n:05d}.npy"
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        return None
    except Exception as error:  # damaged files raise anything
        log.warning("%s: damaged, and drawn again (%s)", path, error)
        return None


def training_images(
    trained: ConfigDict, root: str, count: int, side: int, seed: int
) -> Tensor | None:
    """Images as a prior saw them in its training: ``(count, 1, H, W)``, real or complex.

    Args:
        trained: config of the prior's training.
        root: folder of its images.
        count: number of images; for 0 the result is None.
        side: of the images in pixels.
        seed: of their choice, crops and augmentation.

    Raises:
        DataError: the images are missing or cannot be read.
    """
    if not count:
        return None
    crop = trained.data.get("crop", 0)
    fields = {"root": root, "image_size": trained.data.image_size if crop else side}
    stream = TrainingStream(
        create_dataset({**trained.data.to_dict(), **fields}, "train"),
        seed=seed,
        shuffle=True,
        crop=side if crop else 0,
        **{name: trained.data.get(name, value) for name, value in AUGMENTATION.items()},
    )
    images = torch.cat(
        [stream.__getitems__(range(n, min(n + CHUNK, count))) for n in range(0, count, CHUNK)]
    )
    return torch.complex(*images.split(1, dim=1)) if images.shape[1] == 2 else images


def write_statistics(out: Path, groups: Mapping[str, Tensor]) -> None:
    """Write `statistics.csv`, `spectrum.csv` and `gradients_NAME.csv`.

    Args:
        out: the folder.
        groups: name -> images ``(B, 1, H, W)``.
    """
    rows = [{"images": name, **statistics(images)} for name, images in groups.items()]
    write_atomically(out / "statistics.csv", to_csv(rows, list(rows[0])))
    spectra = {name: radial_spectrum(images) for name, images in groups.items()}
    middles = (np.arange(RINGS) + 0.5) / (2 * RINGS)
    lines = [
        {"cycles_per_pixel": f"{f:.5f}"} | {name: f"{s[k]:.5g}" for name, s in spectra.items()}
        for k, f in enumerate(middles)
    ]
    write_atomically(out / "spectrum.csv", to_csv(lines, list(lines[0])))
    for name, images in groups.items():
        write_csv(out / f"gradients_{name}.csv", image_statistics([images]))


def statistics(images: Tensor) -> dict[str, str]:
    """Number, mean, deviation and gradients of images, of complex ones of their magnitude.

    `std` is the root mean variance inside an image; `gradient_std` and `gradient_kurtosis`,
    E[g^4] / E[g^2]^2, are those of differences of neighbouring pixels in both directions.

    Args:
        images: ``(B, 1, H, W)``.
    """
    values = images.abs().double() if images.is_complex() else images.double()
    gradients = torch.cat([values.diff(dim=-1).flatten(), values.diff(dim=-2).flatten()])
    power = gradients.square().mean()
    found = {
        "mean": values.mean(),
        "std": values.flatten(1).var(1, correction=0).mean().sqrt(),
        "gradient_std": power.sqrt(),
        "gradient_kurtosis": gradients.pow(4).mean() / power.square(),
    }
    return {"count": str(len(images))} | {name: f"{value:.4g}" for name, value in found.items()}


def radial_spectrum(images: Tensor) -> np.ndarray:
    """Power spectrum of images, averaged over them and over rings of frequencies: ``(RINGS,)``.

    White noise of variance 1 (of complex images of both parts together) has the spectrum 1. Images
    are multiplied by a Hann window, as they are not periodic. Rings without a frequency are NaN.

    Args:
        images: ``(B, 1, H, W)``, square; their means are subtracted.
    """
    values = images[:, 0].to(torch.complex128)  # (B, H, W)
    values = values - values.mean((-2, -1), keepdim=True)
    hann = torch.hann_window(values.shape[-1], periodic=False, dtype=torch.float64)
    window = hann[:, None] * hann
    power = torch.fft.fft2(values * window).abs().square().mean(0) / window.square().sum()
    f = torch.fft.fftfreq(values.shape[-1], dtype=torch.float64)
    radius = torch.hypot(f[:, None], f)
    ring = (radius * 2 * RINGS).long().flatten()
    inside = ring < RINGS  # corners are left out
    sums = torch.zeros(RINGS, dtype=torch.float64)
    sums = sums.index_add(0, ring[inside], power.flatten()[inside])
    return (sums / torch.bincount(ring[inside], minlength=RINGS)).numpy()


def main(_) -> None:
    """Run the command line."""
    out = Path(flags.FLAGS.out)
    with configs.clear_errors():
        if not flags.FLAGS.config.compare:
            configs.note_idle({"data.root": "compare is 0"})
        sample(flags.FLAGS.config, out, "cuda" if torch.cuda.is_available() else "cpu")
    print(f"results: {out} (look at {out / 'samples.png'})")


if __name__ == "__main__":
    configs.define_flags("configs/sample.py", out="folder of the results")
    configs.run(main)
