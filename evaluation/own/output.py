"""The files of a reconstruction's folder: HDF5, NIfTI or DICOM, a picture, the summary."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict

import configs
from datasets.export import write_dicom, write_hdf5, write_nifti, write_plain_nifti
from datasets.files import write_atomically
from evaluation.metrics import LEAST_SLICES, across_metrics, all_metrics
from evaluation.own.base import Input
from evaluation.own.engine import Sampling, describe, describe_outputs, noise_origin
from evaluation.own.parts import Part
from evaluation.own.preview import preview
from evaluation.own.validation import in_a_line
from evaluation.run.provenance import code_version
from evaluation.show.sampling_picture import sampling_picture
from evaluation.show.undecided import IN_WORDS as UNDECIDED
from evaluation.show.undecided import OPEN, undecided

PREVIEWS = 4  # slices in the preview
SPREAD = ("std", "quantile_05", "quantile_95", "undecided")  # how samples differ


def write_results(
    out: Path,
    opened: Input,
    slices: list[Part],
    settings: ConfigDict,
    sampling: Sampling,
    validation: dict | None = None,
    last_level: dict | None = None,
    noise_level: dict | None = None,
    together: dict | None = None,
) -> dict:
    """Write all files of a results folder; last the summary, which marks it as complete.

    Args:
        out: the folder.
        opened: the input.
        slices: results of all chosen slices.
        settings: all settings, see `evaluation.own.settings.describe_settings`.
        sampling: choice of the sampler.
        validation: result of `evaluation.own.validation.validate`, if there is one.
        last_level: result of `evaluation.own.last_level.find_last_level`, if there is one.
        noise_level: result of `evaluation.own.noise_factor.find_noise_factor`, if there is one.
        together: result of `evaluation.own.volume.look_at_volume`, if slices may be reconstructed
            together.

    Returns:
        The summary.
    """
    words = describe_outputs(sampling, opened)
    arrays = _arrays(opened, slices, sampling)
    noise = {"origin": noise_origin(opened, sampling)}
    if "sigma_y" in arrays:
        noise |= {"least": float(arrays["sigma_y"].min()), "most": float(arrays["sigma_y"].max())}
    text = configs.to_json(settings)
    write_hdf5(
        out / "reconstruction.h5", arrays, _attributes(opened, settings, text, sampling), words
    )
    identity = hashlib.sha256(text.encode()).hexdigest()
    for name in ("reconstruction", *SPREAD):
        if name in arrays:
            _write_volume(out, name, arrays[name], opened, f"{identity}{name}", words[name])
    _write_preview(out / "preview.png", opened, slices, sampling, validation)
    sampled = sampling_picture(opened.first_operator())
    if sampled:
        write_atomically(out / f"sampling{sampled.suffix}", sampled.content)
    result = {
        "input": settings.input,
        "kind": opened.kind,
        "result": describe(sampling),
        "outputs": words,
        "sampler": sampling.sampler,
        "num_steps": sampling.num_steps,
        "num_samples": sampling.num_samples,
        "slices": len(slices),
        "unit": opened.unit,
        "noise": noise,
        **opened.facts,
        "sampling": sampled.caption if sampled else "",
        "notes": opened.notes,
        "seconds_a_slice": round(float(np.mean([s.seconds for s in slices])), 3),
        "prior": settings.prior,
        "code_version": code_version(),
        "torch": str(torch.__version__),
    }
    found = {
        "validation": validation,
        "noise_level": noise_level,
        "last_level": last_level,
        "volume": together,
        **(_all_metrics(opened, slices) if "truth" in arrays else {}),
    }
    result |= {name: value for name, value in found.items() if value is not None}
    write_atomically(out / "summary.json", json.dumps(result, indent=2) + "\n")
    return result


def _arrays(opened: Input, slices: list[Part], sampling: Sampling) -> dict[str, np.ndarray]:
    """Content of the HDF5 file: arrays whose first axis is that of the slices."""
    images = np.stack([s.image for s in slices])  # (n, H, W)
    arrays = {
        "reconstruction": _shown(images),
        "direct": np.stack([_shown(s.direct) for s in slices]),
        "scale": np.array([s.scale for s in slices], dtype=np.float64),
        "slice": np.array(opened.numbers),
        "key": np.array([key.encode("utf-8", "surrogateescape") for key in opened.keys]),
    }
    if sampling.num_samples > 1:
        arrays |= spread_images(slices)
    if np.iscomplexobj(images):
        arrays["reconstruction_complex"] = images
    if opened.truth(0) is not None:
        arrays["truth"] = _truth(opened)
    if sampling.uses_noise:
        arrays["sigma_y"] = np.array([s.sigma_y for s in slices], dtype=np.float64)
    return arrays


def _attributes(
    opened: Input, settings: ConfigDict, text: str, sampling: Sampling
) -> dict[str, str]:
    """Attributes of the HDF5 file; `text` is that of the settings."""
    return {
        "unit": opened.unit,
        "result": describe(sampling),
        "direct": opened.direct,
        "noise": noise_origin(opened, sampling),
        "settings": text,
        "prior": settings.prior,
        "mask_sha256": opened.facts.get("mask_sha256", ""),
        "code_version": json.dumps(code_version()),
    }


def spread_images(slices: list[Part]) -> dict[str, np.ndarray]:
    """Images ``(n, H, W)`` of how samples differ, by their name in the results, see `SPREAD`."""
    maps = (
        [s.std for s in slices],
        [s.low for s in slices],
        [s.high for s in slices],
        [undecided(_shown(s.image), s.std) for s in slices],
    )
    return {name: np.stack(images) for name, images in zip(SPREAD, maps, strict=True)}


def _write_volume(
    out: Path, name: str, volume: np.ndarray, opened: Input, identity: str, text: str
) -> None:
    """Write NIfTI if the input was NIfTI, or several slices of a measurement; otherwise DICOM."""
    if opened.series is None:
        if len(volume) > 1 and find_spec("nibabel"):
            write_plain_nifti(out / f"{name}.nii.gz", volume, _spacing(opened))
    elif opened.series.volume is not None:
        path = out / f"{name}.nii.gz"
        write_nifti(path, volume, opened.series.volume, numbers=opened.numbers)
    else:
        sources = [opened.series.files[number] for number in opened.numbers]
        write_dicom(
            out / f"dicom_{name}",
            volume,
            sources,
            description=f"{name}: {text}",
            identity=identity,
        )


def _spacing(opened: Input) -> tuple[float, float, float] | None:
    """Row, column and slice spacing in mm of the chosen slices, if known."""
    if opened.voxel_size is None:
        return None
    rows, columns, between = opened.voxel_size
    return rows, columns, between * opened.numbers.step


def _write_preview(
    path: Path, opened: Input, slices: list[Part], sampling: Sampling, validation: dict | None
) -> None:
    """Write a picture of a few evenly spaced slices."""
    chosen = sorted({round(i) for i in np.linspace(0, len(slices) - 1, PREVIEWS)})
    rows = []
    for item in chosen:
        part, truth = slices[item], opened.truth(item)
        row = [] if truth is None else [("truth", truth)]
        row += [(opened.direct, _shown(part.direct)), ("reconstruction", _shown(part.image))]
        if sampling.num_samples > 1:
            row += [("std", part.std), (OPEN, undecided(_shown(part.image), part.std))]
        rows.append((opened.keys[item], row))
    notes = [] if validation is None else [in_a_line(validation)]
    if sampling.num_samples > 1:
        notes.append(f"{OPEN} (orange): {UNDECIDED}")
    preview(path, rows, note="; ".join(notes), unit=opened.unit)


def _all_metrics(opened: Input, slices: list[Part]) -> dict[str, dict]:
    """Metrics of simulated measurements: in the slices, and across them where they are a stack."""
    found = {"metrics": _metrics(opened, slices)}
    if len(slices) >= LEAST_SLICES and opened.numbers.step == 1:
        found["metrics_across"] = _metrics_across(opened, slices)
    return found


def _metrics(opened: Input, slices: list[Part]) -> dict[str, dict[str, float]]:
    """Mean metrics over the slices that are not constant, of images scaled to [0, 1] each."""
    found: dict[str, list[dict]] = {"direct": [], "reconstruction": []}
    for item, part in enumerate(slices):
        truth = opened.truth(item)
        if part.scale > 0:
            images = (truth, part.direct, part.image)
            target, direct, image = ((i - truth.min()) / part.scale for i in images)
            found["direct"].append(all_metrics(target, direct))
            found["reconstruction"].append(all_metrics(target, image))
    return {name: _mean(rows) for name, rows in found.items() if rows}


def _metrics_across(opened: Input, slices: list[Part]) -> dict[str, dict[str, float | None]]:
    """`across_metrics` of the direct images and of the reconstructions, as volumes."""
    truth = _truth(opened)
    volumes = {"direct": [s.direct for s in slices], "reconstruction": [s.image for s in slices]}
    lowest = truth.min()
    if not truth.max() > lowest:
        return {}
    return {
        name: _mean([across_metrics(truth - lowest, np.stack(images) - lowest)])
        for name, images in volumes.items()
    }


def _truth(opened: Input) -> np.ndarray:
    """True images of all chosen slices, ``(n, H, W)``."""
    return np.stack([opened.truth(item) for item in range(len(opened.keys))])


def _mean(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """Mean of each column; None instead of NaN and infinity, which JSON does not have."""
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {name: round(mean, 4) if np.isfinite(mean) else None for name, mean in means.items()}


def _shown(image: np.ndarray) -> np.ndarray:
    return np.abs(image) if np.iscomplexobj(image) else image
