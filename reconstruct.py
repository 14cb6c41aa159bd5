"""Reconstruct a user's own measurement: k-space, sinograms, or images to simulate one of.

    python reconstruct.py --input=scan.h5 --out=results/scan

Every field of configs/reconstruct.py is a flag (``--config.sampler.num_samples=8``); files and
units are in docs/reconstruct.md. Run again, it continues where it was stopped.
"""

# first: says what to do where one of the packages below is missing
import configs.installed

# isort: split
import hashlib
import io
import json
import logging
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from absl import flags
from ml_collections import ConfigDict
from torch import Tensor

import configs
from configs.numbers import check_numbers
from configs.progress import SliceProgress
from datasets.export import write_dicom, write_hdf5, write_nifti, write_plain_nifti
from datasets.files import holding, remove_abandoned, write_atomically
from evaluation.metrics import all_metrics
from evaluation.own import Input, digest, open_input
from evaluation.own.base import SIMULATED
from evaluation.own.preview import preview
from evaluation.results.files import read_json
from evaluation.run.batching import check_alike, choose_size, in_batches, unfinished
from evaluation.run.methods import (
    PRECISIONS,
    check_noise,
    check_options,
    counted,
    draw_samples,
    expected_calls,
    starts_warm,
    uses_noise,
)
from evaluation.run.provenance import code_version
from evaluation.run.slices import describe_error
from models.checkpoint import load_prior, resolve_prior
from operators.problem import Problem
from samplers import POINT_ESTIMATES, SAMPLERS, Posterior, spread
from sde import VESDE, Score

log = logging.getLogger(__name__)

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
    sigma_y: float | None  # in the measurement's unit; 0: no noise, None: estimated
    score: Score
    sde: VESDE


class Slice(NamedTuple):
    """The result of a slice, in the unit of the measurement; images ``(H, W)``."""

    image: np.ndarray  # float32, or complex64 for k-space: the mean over samples
    std: np.ndarray
    direct: np.ndarray
    scale: np.ndarray  # (): what 1 was for the prior
    sigma_y: np.ndarray  # (): noise of the measurement, given or estimated
    seconds: np.ndarray  # ()


def reconstruct(config: ConfigDict, source: Path, out: Path, device: str) -> dict:
    """Reconstruct the slices that `out` does not have yet, then write all files.

    Args:
        config: as `configs.reconstruct`.
        source: the input, see `evaluation.own.open_input`.
        out: folder of the results; made if missing.
        device: of the network.

    Returns:
        The summary, as in ``summary.json``.

    Raises:
        ConfigError, DataError, CheckpointError, ValueError, FileNotFoundError: before any
            reconstruction, if something does not fit; a ValueError, too, at the end, if some slices
            failed: the others are kept.
    """
    _check_folders(source, out)
    check_numbers(config)
    method = create_method(config, device)
    opened = open_input(source, config)
    settings = _settings(config, source, opened, method)
    configs.check_same(out / "config.json", settings, ignore=MAY_CHANGE)
    for text in _announce(opened, method):
        print(text)
    with holding(out):
        configs.check_same(out / "config.json", settings, ignore=MAY_CHANGE)
        return _reconstruct_missing(config, out, device, opened, settings, method)


def _reconstruct_missing(
    config: ConfigDict, out: Path, device: str, opened: Input, settings: ConfigDict, method: Method
) -> dict:
    """`reconstruct`, of what it has opened and checked."""
    summary = out / "summary.json"
    if summary.is_file():
        print(f"{out} is complete")
        return read_json(summary)

    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for folder in (out, parts):
        remove_abandoned(folder, older=0)
    write_atomically(out / "config.json", configs.to_json(settings))
    items = range(len(opened.keys))
    size = choose_size(config.batch_size, device)
    there = [_load_part(_part(parts, item)) is not None for item in items]
    todo = unfinished(items, size, there.__getitem__)
    failures: dict[str, str] = {}

    progress = SliceProgress()
    method = method._replace(score=counted(method.score, progress.call))

    def work(batch: list[int]) -> dict[str, str]:
        progress.begin(len(batch))
        return _reconstruct_batch(opened, method, config.seed, batch, parts, device)

    calls = expected_calls(method.name, method.num_steps, method.num_samples, method.options)
    with progress.start(len(todo), calls, done=len(items) - len(todo)):
        for batch, outcome in in_batches(todo, size, work):
            if isinstance(outcome, Exception):
                outcome = {opened.keys[batch[0]]: describe_error(outcome)}
            failures |= outcome
            if not any(parts.iterdir()):
                check_alike(failures.values())
            progress.finish()
    if failures:
        raise ValueError(
            f"{len(failures)} slices failed, the others are kept in {parts}; the same command "
            "tries them again:\n  "
            + "\n  ".join(f"{key}: {reason}" for key, reason in failures.items())
        )
    slices = [_load_part(_part(parts, item)) for item in items]
    if None in slices:
        raise ValueError(f"{parts}: slices have gone while others were done; run this again")
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
    num_samples = options.pop("num_samples")
    name = options.pop("name") or (POINT if num_samples == 1 else POSTERIOR)
    if name not in NUM_STEPS:
        raise ValueError(f"unknown sampler '{name}'; known: {', '.join(NUM_STEPS)}")
    num_steps = options.pop("num_steps", NUM_STEPS[name])
    check_options(SAMPLERS[name], options)
    check_noise(name, options)
    sigma_y = options.pop("sigma_y", None)
    if num_samples < 1 or (num_samples > 1 and name == POINT):
        raise ValueError(
            f"expected sampler.num_samples of 1 for {POINT}, a point estimate, of 1 or more for "
            f"others, got {num_samples} for {name}; set sampler.name to {POSTERIOR}"
        )
    choose_size(config.batch_size, device)  # so that a wrong one is found now
    if config.precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {config.precision!r}")
    score, sde = load_prior(
        config.prior, device, autocast=PRECISIONS[config.precision], compiled=config.compile
    )
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
    sigma_y = (noise_level(problem, method) * problem.scale).cpu().numpy()  # (B,)
    scale = problem.scale.cpu().numpy()
    for b, (item, key) in enumerate(zip(items, keys, strict=True)):
        if key not in failures:
            part = Slice(images[b], stds[b], directs[b], scale[b], sigma_y[b], seconds)
            _save_part(_part(parts, item), part)
    return failures


def _there(problem: Problem) -> Tensor:
    """``(B, 1, 1, 1)``: whether anything was measured of a slice."""
    return problem.scale[:, None, None, None] > 0


def sample(
    problem: Problem, method: Method, seed: int, keys: list[str]
) -> tuple[Posterior, dict[str, str]]:
    """Mean and standard deviation in the prior's unit, and the slices that failed, by key."""
    options = dict(method.options)
    if uses_noise(method.name, options):
        options["sigma_y"] = noise_level(problem, method)
    return draw_samples(
        method.name,
        method.score,
        method.sde,
        problem.operator,
        problem.y,
        num_steps=method.num_steps,
        num_samples=method.num_samples,
        seed=seed,
        keys=keys,
        initial=problem.direct if starts_warm(method.name, options) else None,
        options=options,
    )


def noise_level(problem: Problem, method: Method) -> Tensor:
    """Standard deviation of the measurement's noise ``(B,)`` in the prior's unit."""
    if method.sigma_y is None:
        return problem.noise
    return method.sigma_y / torch.where(problem.scale > 0, problem.scale, 1.0)


def noise_origin(opened: Input, method: Method) -> str:
    """Where the noise level is from that the sampler is told."""
    if not uses_noise(method.name, method.options):
        return f"not used by {method.name}"
    if method.sigma_y is not None:
        return "given" if method.sigma_y else "none: sampler.sigma_y is 0"
    return "none: simulated without" if opened.kind == "images" else "estimated"


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
        "key": np.array([key.encode("utf-8", "surrogateescape") for key in opened.keys]),
    }
    if std is not None:
        arrays["std"] = std
    if np.iscomplexobj(images):
        arrays["reconstruction_complex"] = images
    noise = {"origin": noise_origin(opened, method)}
    if uses_noise(method.name, method.options):
        arrays["sigma_y"] = np.array([s.sigma_y for s in slices], dtype=np.float64)
        noise |= {"least": float(arrays["sigma_y"].min()), "most": float(arrays["sigma_y"].max())}
    text = configs.to_json(settings)
    attributes = {
        "unit": opened.unit,
        "result": describe(method),
        "direct": opened.direct,
        "noise": noise["origin"],
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
        "noise": noise,
        **opened.facts,
        "notes": opened.notes,
        "seconds_a_slice": round(float(np.mean([s.seconds for s in slices])), 3),
        "prior": settings.prior,
        "code_version": code_version(),
        "torch": str(torch.__version__),
    }
    if opened.truth(0) is not None:
        result["metrics"] = _metrics(opened, slices)
    write_atomically(out / "summary.json", json.dumps(result, indent=2) + "\n")
    return result


def describe(method: Method) -> str:
    """What the result is, and of samples what is known of their spread."""
    how = f"by {method.name}, {method.num_steps} steps"
    if method.name in POINT_ESTIMATES:
        return f"point estimate {how}"
    what = "sample" if method.num_samples == 1 else f"mean of {method.num_samples} samples"
    found = spread(method.name, method.options)
    return f"{what} {how}; {found}" if found else f"{what} of the posterior {how}"


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


def _mean(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """JSON has no NaN, such as the SSIM of thin images."""
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {name: None if np.isnan(mean) else round(mean, 4) for name, mean in means.items()}


def _shown(image: np.ndarray) -> np.ndarray:
    return np.abs(image) if np.iscomplexobj(image) else image


def _part(parts: Path, item: int) -> Path:
    return parts / f"{item:05d}.npz"


def _save_part(path: Path, part: Slice) -> None:
    content = io.BytesIO()
    np.savez(content, **part._asdict())
    write_atomically(path, content.getvalue())


def _load_part(path: Path) -> Slice | None:
    """A finished slice; None if there is none, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Slice(**file)
    except FileNotFoundError:
        return None
    except Exception as error:  # damaged files raise anything
        log.warning("%s: damaged, and done again (%s)", path, error)
        return None


# --------------------------------------------------------------------------------------- settings


def _settings(config: ConfigDict, source: Path, opened: Input, method: Method) -> ConfigDict:
    """The config with what the defaults stand for, and hashes of every file that is read."""
    settings = ConfigDict(config.to_dict())
    settings.sampler.name, settings.sampler.num_steps = method.name, method.num_steps
    for name, value in SIMULATED.items():  # so that None and the value it stands for are alike
        section, field = name.split(".")
        if settings[section][field] is None:
            settings[section][field] = value
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
    origin = noise_origin(opened, method)
    value = f", {method.sigma_y:g}" if origin == "given" else ""
    return [*lines, f"noise: {origin}{value}", f"result: {describe(method)}"]


def main(_) -> None:
    """Command line."""
    out = Path(flags.FLAGS.out)
    with configs.clear_errors():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        summary = reconstruct(flags.FLAGS.config, Path(flags.FLAGS.input), out, device)
    noise = summary["noise"]
    if noise["origin"] == "estimated":
        print(f"estimated noise: {noise['least']:.3g} to {noise['most']:.3g} (sampler.sigma_y)")
    for name, metrics in summary.get("metrics", {}).items():
        print(f"{name}: {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.4f}")
    print(f"results: {out} (look at {out / 'preview.png'})")


if __name__ == "__main__":
    configs.define_flags(
        "configs/reconstruct.py",
        input="file or folder: k-space, sinogram, or images (docs/reconstruct.md)",
        out="folder of the results",
    )
    configs.run(main)
