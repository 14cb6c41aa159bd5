"""Reconstruct a user's own measurement: k-space, sinograms, or images to simulate one of.

    python reconstruct.py --input=scan.h5 --out=results/scan

Every field of configs/reconstruct.py is a flag (``--config.sampler.num_samples=8``); files and
units are in docs/reconstruct.md. Run again, it continues where it was stopped.
"""

import hashlib
import inspect
import io
import json
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from absl import app, flags
from ml_collections import ConfigDict
from torch import Tensor
from tqdm import tqdm

import configs
from datasets.export import write_dicom, write_hdf5, write_nifti, write_plain_nifti
from evaluation.inputs import Input, digest, open_input
from evaluation.methods import PRECISIONS, check_options
from evaluation.metrics import all_metrics
from evaluation.preview import preview
from evaluation.provenance import code_version
from evaluation.results import write_atomically
from models.checkpoint import load, load_prior, resolve_prior
from operators import BatchGenerator
from operators.batch import derive_seed
from operators.problem import Problem
from samplers import SAMPLERS, NonFiniteError, Posterior, Progress, posterior_moments
from sde import VESDE, Score, complex_score
from sde.padding import padded_score

POINT, POSTERIOR = "pnp", "dds"  # the default for one image, and for several samples
# by default; samplers of coil images apart have no place here: maps are given or estimated
NUM_STEPS = {
    "pnp": 50,
    "dds": 50,
    "diffpir": 50,
    "dps": 50,
    "predictor_corrector": 500,
    "annealed_langevin": 500,
}
MAY_CHANGE = ("batch_size",)
PREVIEWS = 4  # slices in the preview


class Method(NamedTuple):
    """A sampler with its keywords and prior."""

    name: str
    num_steps: int
    num_samples: int
    options: dict
    sigma_y: float | None
    score: Score
    sde: VESDE


class Slice(NamedTuple):
    """The result of a slice, in the unit of the measurement; images ``(H, W)``."""

    image: np.ndarray  # float32, or complex64 for k-space: the mean over samples
    std: np.ndarray
    direct: np.ndarray
    scale: np.ndarray  # (): what 1 was for the prior
    seconds: np.ndarray  # ()


def reconstruct(config: ConfigDict, source: Path, out: Path, device: str) -> dict:
    """Reconstruct the slices that `out` does not have yet, then write all files.

    Args:
        config: as `configs.reconstruct`.
        source: the input, see `evaluation.inputs.open_input`.
        out: folder of the results; made if missing.
        device: of the network.

    Returns:
        The summary, as in ``summary.json``.

    Raises:
        ConfigError, DataError, CheckpointError, ValueError, FileNotFoundError: before any
            reconstruction, if something does not fit.
        FloatingPointError: some slices became NaN or infinite; the others are kept.
    """
    _check_folders(source, out)
    method = create_method(config, device)
    opened = open_input(source, config)
    settings = _settings(config, source, opened, method)
    configs.check_same(out / "config.json", settings, ignore=MAY_CHANGE)
    for text in _announce(opened, method):
        print(text)
    summary = out / "summary.json"
    if summary.is_file():
        print(f"{out} is complete")
        return json.loads(summary.read_text())

    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "config.json", configs.to_json(settings).encode())
    items = range(len(opened.keys))
    todo = [item for item in items if not _part(parts, item).is_file()]
    # the noise level of a batch is one number, and in the prior's unit slices differ
    size = 1 if method.sigma_y else config.batch_size
    failures: dict[str, str] = {}
    with tqdm(total=len(items), initial=len(items) - len(todo), unit="slice") as bar:
        for first in range(0, len(todo), size):
            batch = todo[first : first + size]
            failures |= _reconstruct_batch(opened, method, config.seed, batch, parts, device)
            bar.update(len(batch))
    if failures:
        raise FloatingPointError(
            f"{len(failures)} slices failed, the others are kept in {parts}:\n  "
            + "\n  ".join(failures.values())
        )
    slices = [_load_part(_part(parts, item)) for item in items]
    result = write_results(out, opened, slices, settings, method)
    shutil.rmtree(parts)
    return result


def create_method(config: ConfigDict, device: str) -> Method:
    """The sampler of `config.sampler` and the prior, checked.

    Raises:
        ValueError: an unknown sampler or keyword, or several samples of a point estimate.
        FileNotFoundError, CheckpointError: no such prior, or one that cannot be read.
    """
    options = {k: v for k, v in config.sampler.items() if v is not None}
    num_samples, sigma_y = options.pop("num_samples"), options.get("sigma_y")
    name = options.pop("name") or (POINT if num_samples == 1 else POSTERIOR)
    if name not in NUM_STEPS:
        raise ValueError(f"unknown sampler '{name}'; known: {', '.join(NUM_STEPS)}")
    num_steps = options.pop("num_steps", NUM_STEPS[name])
    check_options(SAMPLERS[name], options)
    if num_samples < 1 or (num_samples > 1 and name == POINT):
        raise ValueError(
            f"expected sampler.num_samples of 1 for {POINT}, a point estimate, of 1 or more for "
            f"others, got {num_samples} for {name}; set sampler.name to {POSTERIOR}"
        )
    if sigma_y is not None and sigma_y < 0:
        raise ValueError(f"expected sampler.sigma_y of 0 or more, got {sigma_y}")
    if config.batch_size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {config.batch_size}")
    if config.precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {config.precision!r}")
    score, sde = load_prior(config.prior, device, autocast=PRECISIONS[config.precision])
    depth = len(load(resolve_prior(config.prior))["config"]["model"]["ch_mult"])
    # complex images go through in parts, so that padding has to know real ones only
    score = complex_score(padded_score(score, 2 ** (depth - 1)))
    return Method(name, num_steps, num_samples, options, sigma_y, score, sde)


def _reconstruct_batch(
    opened: Input, method: Method, seed: int, items: list[int], parts: Path, device: str
) -> dict[str, str]:
    """Reconstruct and store the chosen slices `items`; returns what failed, by key."""
    keys = [opened.keys[item] for item in items]
    begin = time.perf_counter()
    problem = opened.problem(items).to(device)
    if bool((problem.scale > 0).any()):
        moments, failures = sample(problem, method, seed, keys)
    else:  # nothing was measured
        moments, failures = Posterior(problem.direct, problem.direct.abs()), {}
    seconds = np.array((time.perf_counter() - begin) / len(items))
    images, stds, directs = (
        opened.finish(values).cpu().numpy()[:, 0]  # (B, H, W)
        for values in (
            problem.restore(torch.where(_there(problem), moments.mean, 0.0)),
            torch.where(_there(problem), moments.std, 0.0) * problem.scale[:, None, None, None],
            problem.restore(problem.direct),
        )
    )
    for b, (item, key) in enumerate(zip(items, keys, strict=True)):
        if key not in failures:
            scale = problem.scale[b].cpu().numpy()
            _save_part(_part(parts, item), Slice(images[b], stds[b], directs[b], scale, seconds))
    return failures


def _there(problem: Problem) -> Tensor:
    """``(B, 1, 1, 1)``: whether anything was measured of a slice."""
    return problem.scale[:, None, None, None] > 0


def sample(
    problem: Problem, method: Method, seed: int, keys: list[str]
) -> tuple[Posterior, dict[str, str]]:
    """Mean and standard deviation in the prior's unit, and the slices that failed, by key."""
    failures: dict[str, str] = {}
    options = dict(method.options)
    if method.sigma_y:
        options["sigma_y"] = method.sigma_y / float(problem.scale[0])
    if _warm(method):
        options["initial"] = problem.direct

    def draw(number: int) -> Tensor:
        seeds = [derive_seed(seed, "sampler", key, number) for key in keys]
        try:
            with Progress(problem.operator, problem.y, method.num_steps, leave=False) as progress:
                return SAMPLERS[method.name](
                    method.score,
                    method.sde,
                    problem.operator,
                    problem.y,
                    rng=BatchGenerator(seeds, keys),
                    num_steps=method.num_steps,
                    callback=progress,
                    **options,
                )
        except NonFiniteError as error:  # the other slices of the batch are as good as ever
            for index, key, step, sigma in error.failures:
                failures[keys[index]] = f"{key}: not finite at step {step}, sigma {sigma:.4g}"
            blank = torch.full_like(problem.direct, torch.nan)
            return blank if error.images is None else error.images

    with torch.no_grad():  # not inference mode: dps takes gradients inside
        return posterior_moments(draw, method.num_samples), failures


def _warm(method: Method) -> bool:
    """Whether the sampler starts from the direct reconstruction."""
    takes = "initial" in inspect.signature(SAMPLERS[method.name]).parameters
    # the predictor-corrector starts from the prior unless a level says otherwise
    return takes and (method.name != "predictor_corrector" or "start_sigma" in method.options)


# ---------------------------------------------------------------------------------------- results


def write_results(
    out: Path, opened: Input, slices: list[Slice], settings: ConfigDict, method: Method
) -> dict:
    """All files of the folder but the parts; the summary comes last and says that it is complete.

    Returns:
        The summary.
    """
    images = np.stack([s.image for s in slices])  # (n, H, W)
    std = np.stack([s.std for s in slices]) if method.num_samples > 1 else None
    magnitudes = np.abs(images) if np.iscomplexobj(images) else images
    arrays = {
        "reconstruction": magnitudes,
        "direct": np.stack([_shown(s.direct) for s in slices]),
        "scale": np.array([s.scale for s in slices], dtype=np.float64),
        "slice": np.array(opened.numbers),
        "key": np.array(opened.keys, dtype="S"),
    }
    if std is not None:
        arrays["std"] = std
    if np.iscomplexobj(images):
        arrays["reconstruction_complex"] = images
    text = configs.to_json(settings)
    attributes = {
        "unit": opened.unit,
        "result": describe(method),
        "direct": opened.direct,
        "settings": text,
        "prior": settings.prior,
        "mask_sha256": opened.facts.get("mask_sha256", ""),
        "code_version": json.dumps(code_version()),
    }
    write_hdf5(out / "reconstruction.h5", arrays, attributes)
    volumes = {"reconstruction": magnitudes} | ({} if std is None else {"std": std})
    identity = hashlib.sha256(text.encode()).hexdigest()
    for name, volume in volumes.items():
        _write_volume(out, name, volume, opened, f"{identity}{name}", describe(method))
    _write_preview(out / "preview.png", opened, slices, method)
    result = {
        "input": settings.input,
        "result": describe(method),
        "sampler": method.name,
        "num_steps": method.num_steps,
        "num_samples": method.num_samples,
        "slices": len(slices),
        "unit": opened.unit,
        **opened.facts,
        "notes": opened.notes,
        "seconds_a_slice": round(float(np.mean([s.seconds for s in slices])), 3),
        "prior": settings.prior,
        "code_version": code_version(),
        "torch": str(torch.__version__),
    }
    if opened.truth(0) is not None:
        result["metrics"] = _metrics(opened, slices)
    write_atomically(out / "summary.json", (json.dumps(result, indent=2) + "\n").encode())
    return result


def describe(method: Method) -> str:
    """What the result is."""
    if method.name == POINT:
        return f"point estimate by {method.name}, {method.num_steps} steps"
    what = "sample" if method.num_samples == 1 else f"mean of {method.num_samples} samples"
    return f"{what} of the posterior by {method.name}, {method.num_steps} steps"


def _write_volume(
    out: Path, name: str, volume: np.ndarray, opened: Input, identity: str, text: str
) -> None:
    """NIfTI where the input was NIfTI, or k-space or sinograms of several slices; else DICOM."""
    if opened.series is None:
        if len(volume) > 1 and find_spec("nibabel"):
            write_plain_nifti(out / f"{name}.nii.gz", volume, opened.voxel_size)
    elif opened.series.volume is not None:
        path = out / f"{name}.nii.gz"
        write_nifti(path, volume, opened.series.volume, first=opened.numbers.start)
    else:
        sources = [opened.series.files[number] for number in opened.numbers]
        write_dicom(
            out / f"dicom_{name}",
            volume,
            sources,
            description=f"{name}: {text}",
            identity=identity,
        )


def _write_preview(path: Path, opened: Input, slices: list[Slice], method: Method) -> None:
    """A few slices, evenly chosen."""
    chosen = sorted({round(i) for i in np.linspace(0, len(slices) - 1, PREVIEWS)})
    rows = []
    for item in chosen:
        part, truth = slices[item], opened.truth(item)
        row = [] if truth is None else [("truth", truth)]
        row += [(opened.direct, _shown(part.direct)), ("reconstruction", _shown(part.image))]
        row += [("std", part.std)] if method.num_samples > 1 else []
        rows.append((opened.keys[item], row))
    preview(path, rows)


def _metrics(opened: Input, slices: list[Slice]) -> dict[str, dict[str, float]]:
    """Mean over the slices that are not constant, of images scaled to [0, 1] each."""
    found: dict[str, list[dict]] = {"direct": [], "reconstruction": []}
    for item, part in enumerate(slices):
        truth = opened.truth(item)
        if part.scale > 0:
            images = (truth, part.direct, part.image)
            target, direct, image = ((i - truth.min()) / part.scale for i in images)
            found["direct"].append(all_metrics(target, direct))
            found["reconstruction"].append(all_metrics(target, image))
    return {name: _mean(rows) for name, rows in found.items()}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def _shown(image: np.ndarray) -> np.ndarray:
    return np.abs(image) if np.iscomplexobj(image) else image


def _part(parts: Path, item: int) -> Path:
    return parts / f"{item:05d}.npz"


def _save_part(path: Path, part: Slice) -> None:
    content = io.BytesIO()
    np.savez(content, **part._asdict())
    write_atomically(path, content.getvalue())


def _load_part(path: Path) -> Slice:
    with np.load(path) as file:
        return Slice(**file)


# --------------------------------------------------------------------------------------- settings


def _settings(config: ConfigDict, source: Path, opened: Input, method: Method) -> ConfigDict:
    """The config with what the defaults stand for, and hashes of every file that is read."""
    settings = ConfigDict(config.to_dict())
    settings.sampler.name, settings.sampler.num_steps = method.name, method.num_steps
    settings.input = source.resolve().name
    settings.sha256 = ConfigDict(
        {
            "input": digest(opened.sources),
            "others": digest(opened.others),
            "prior": digest([resolve_prior(config.prior)]),
        }
    )
    return settings


def _check_folders(source: Path, out: Path) -> None:
    """Refuse to write between the files that are read, or over them."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder for --out, got a file")
    folder = source.resolve() if source.is_dir() else source.resolve().parent
    inside = out.resolve().is_relative_to(folder) if source.is_dir() else out.resolve() == folder
    if inside:
        raise ValueError(f"{out}: is the input's folder, or in it; choose another --out")


def _announce(opened: Input, method: Method) -> list[str]:
    """What is about to be done, in a few lines."""
    facts = ", ".join(
        f"{name} {value}" for name, value in opened.facts.items() if name != "mask_sha256"
    )
    lines = [f"input: {len(opened.keys)} slices of {opened.kind}; {facts}"]
    lines += [f"note: {note}" for note in opened.notes]
    return [*lines, f"result: {describe(method)}"]


def main(_) -> None:
    """Command line."""
    out = Path(flags.FLAGS.out)
    with configs.clear_errors():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        summary = reconstruct(flags.FLAGS.config, Path(flags.FLAGS.input), out, device)
    for name, metrics in summary.get("metrics", {}).items():
        print(f"{name}: {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.4f}")
    print(f"results: {out} (look at {out / 'preview.png'})")


if __name__ == "__main__":
    configs.define_flags(
        "configs/reconstruct.py",
        input="file or folder: k-space, sinogram, or images (docs/reconstruct.md)",
        out="folder of the results",
    )
    app.run(main)
