"""Images of a prior without any measurement, to look at, and their statistics.

    python -m evaluation.sample --out=results/samples/natural_small --config.prior=natural_small
    python -m evaluation.sample --out=... --config.prior=... --config.compare=200 \
        --config.data.root=data/photos_cc      beside the images that it was trained on
    python -m evaluation.sample --config.compare=12 --config.data.name=samples \
        --config.data.subset=natural           beside embedded photographs
    python -m evaluation.sample --config.sampler.name=probability_flow --config.num_steps=18

The folder receives `samples.png` (of complex images magnitudes, and below them phases),
`statistics.csv` and `.json` (mean, deviation, and kurtosis of the gradients, 3 for a Gaussian),
`spectrum.csv` (radial power spectrum), `gradients_*.csv` (histograms), `statistics.png` (spectra
and histograms), and the images, `images/*.npy`. Without --out that is
results/samples/NAME of the prior. Running the same command again continues; a larger number adds
images.
"""

import inspect
import io
import json
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
from evaluation.image_statistics import bin_centres, image_statistics, negative_log, write_csv
from evaluation.run.batching import choose_size, in_batches, unfinished
from evaluation.run.keywords import check_options
from evaluation.run.methods import PRECISIONS
from evaluation.run.posterior_samples import counted
from evaluation.run.provenance import check_prior, describe_prior, environment
from evaluation.show.contact_sheet import contact_sheet, png
from evaluation.show.sample_statistics import draw
from evaluation.show.style import PNG_DPI, write_figure
from models import checkpoint
from models.checkpoint import keyword_files, load_prior, open_prior, resolve_prior
from operators.batch import BatchGenerator, derive_seed
from samplers.unconditional import UNCONDITIONAL
from sde import Prior

log = logging.getLogger(__name__)

# they change no image
MAY_CHANGE = (
    "prior",
    "prior_format",
    "num_images",
    "num",
    "batch_size",
    "columns",
    "compare",
    "data.root",
    "data.name",
    "data.subset",
    "data.split",
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
SAMPLER = "ancestral"  # where none is named


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
    count = config.num_images if config.num is None else config.num
    sampler_options(config)  # raises for unfit ones
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
    if config.compare and not (config.data.name or trained.data.name):
        raise ValueError(
            "expected compare=0, or data.name: this prior does not say what it was trained on"
        )
    if config.compare and not config.data.name:
        check_outside(out, {**trained.data.to_dict(), "root": config.data.root}, "--out")
    size, known = (
        choose_size(config.batch_size, device),
        describe_prior(path, keyword_files(path, config.prior_format)),
    )
    others = "given" if config.data.name else "training"
    if config.data.name:
        compared = given_images(config, side)
    else:
        compared = training_images(trained, config.data.root, config.compare, side, config.seed)
    prior = load_prior(opened, device, autocast=PRECISIONS[config.precision])
    print(f"prior: {checkpoint.describe(opened)}")
    del opened  # frees a second copy of the weights
    with holding(out):
        configs.check_same(out / "config.json", config, ignore=MAY_CHANGE)
        check_prior(out, known)
        info = {**environment(device), "prior": known}
        write_atomically(out / "config.json", configs.to_json(config))
        write_atomically(out / "info.json", configs.to_json(ConfigDict(info)))
        draw_missing(config, out / "images", prior, side, size, device, count)
        images = torch.stack([read_image(out / "images", n) for n in range(count)])
        columns = min(config.columns, count)
        write_atomically(out / "samples.png", png(contact_sheet(images, columns)))
        groups = {"samples": images} | ({} if compared is None else {others: compared})
        write_statistics(out, groups)


def sampler_options(config: ConfigDict) -> tuple[str, dict]:
    """Name of the sampler of a config, and its keywords that are set.

    Raises:
        ValueError: an unknown name or keyword; the known ones are listed.
    """
    options = {k: v for k, v in config.sampler.items() if v is not None}
    name = options.pop("name", SAMPLER)
    if name not in UNCONDITIONAL:
        raise ValueError(f"expected sampler.name out of {', '.join(UNCONDITIONAL)}, got {name!r}")
    check_options(UNCONDITIONAL[name], options)
    return name, options


def calls_a_level(name: str, options: Mapping) -> int:
    """Network calls for each level of a sampler, at most."""
    parameters = inspect.signature(UNCONDITIONAL[name]).parameters
    if name == "predictor_corrector":
        return 1 + options.get("corrector_steps", parameters["corrector_steps"].default)
    return options.get("order", parameters["order"].default) if "order" in parameters else 1


def draw_missing(
    config: ConfigDict,
    folder: Path,
    prior: Prior,
    side: int,
    size: int,
    device: str,
    count: int,
) -> None:
    """Draw the images that are not in `folder`, in batches of `size`, and write one file each."""
    name, options = sampler_options(config)
    todo = unfinished(range(count), size, lambda n: read_image(folder, n) is not None)
    progress = SliceProgress()
    score = counted(prior.score, progress.call)

    def work(batch: list[int]) -> None:
        progress.begin(len(batch))
        images = UNCONDITIONAL[name](
            score,
            prior.sde,
            (side, side),
            rng=BatchGenerator(
                [derive_seed(config.seed, "sample", n) for n in batch],
                [f"image {n}" for n in batch],
            ),
            num_steps=config.num_steps,
            device=device,
            **options,
        )
        for n, image in zip(batch, images.cpu().numpy(), strict=True):
            content = io.BytesIO()
            np.save(content, image)
            write_atomically(folder / f"{n:05d}.npy", content.getvalue())

    calls = config.num_steps * calls_a_level(name, options)
    with progress.start(len(todo), calls, done=count - len(todo)):
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


def given_images(config: ConfigDict, side: int) -> Tensor | None:
    """The middle of the first images of `config.data`: ``(compare, 1, side, side)``.

    None where `config.compare` is 0.

    Raises:
        DataError: the images are missing or cannot be read.
        ValueError: there are fewer images, or smaller ones.
    """
    if not config.compare:
        return None
    data = {k: v for k, v in config.data.items() if v is not None}
    dataset = create_dataset(data, data.pop("split", "train"))
    if config.compare > len(dataset):
        raise ValueError(f"expected compare of at most {len(dataset)}, got {config.compare}")
    images = []
    for n in range(config.compare):
        image = dataset[n].image
        height, width = image.shape[-2:]
        if min(height, width) < side:
            raise ValueError(
                f"expected images of at least {side} x {side} pixels to compare with, got "
                f"{height} x {width}; set image_size"
            )
        top, left = (height - side) // 2, (width - side) // 2
        images.append(image[..., top : top + side, left : left + side])
    return torch.stack(images)


def write_statistics(out: Path, groups: Mapping[str, Tensor]) -> None:
    """Write `statistics.csv`, `.json` and `.png`, `spectrum.csv` and `gradients_NAME.csv`.

    Args:
        out: the folder.
        groups: name -> images ``(B, 1, H, W)``.
    """
    rows = [{"images": name, **statistics(images)} for name, images in groups.items()]
    write_atomically(out / "statistics.csv", to_csv(rows, list(rows[0])))
    numbers = {
        row["images"]: {k: json.loads(v) for k, v in row.items() if k != "images"} for row in rows
    }
    write_atomically(out / "statistics.json", json.dumps(numbers, indent=2) + "\n")
    spectra = {name: radial_spectrum(images) for name, images in groups.items()}
    middles = (np.arange(RINGS) + 0.5) / (2 * RINGS)
    lines = [
        {"cycles_per_pixel": f"{f:.5f}"} | {name: f"{s[k]:.5g}" for name, s in spectra.items()}
        for k, f in enumerate(middles)
    ]
    write_atomically(out / "spectrum.csv", to_csv(lines, list(lines[0])))
    gradients = {}
    for name, images in groups.items():
        found = image_statistics([images])
        write_csv(out / f"gradients_{name}.csv", found)
        both = negative_log(found.horizontal + found.vertical)
        gradients[name] = bin_centres()[1:-1], both
    kurtosis = {row["images"]: row["gradient_kurtosis"] for row in rows}
    figure = draw(middles, spectra, gradients, kurtosis)
    write_figure(figure, out / "statistics.png", dpi=PNG_DPI)


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
    config = flags.FLAGS.config
    out = Path(flags.FLAGS.out or Path("results") / "samples" / Path(config.prior).stem)
    with configs.clear_errors():
        if not config.compare:
            fields = ("root", "name", "subset", "split")
            configs.note_idle({f"data.{field}": "compare is 0" for field in fields})
        sample(config, out, "cuda" if torch.cuda.is_available() else "cpu")
    print(f"results: {out} (look at {out / 'samples.png'})")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "folder of the results; results/samples/NAME without")
    configs.define_flags("configs/sample.py")
    configs.run(main)
