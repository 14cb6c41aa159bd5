"""Measurements of a batch of slices as a config describes them, and their inverse problems."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import Tensor

from datasets import DataError, Sample
from evaluation.run.coil_maps import estimate_maps
from evaluation.run.protocols import protocol_of
from operators import BatchGenerator, LinearOperator, MultiCoilMRI
from operators.batch import derive_seed, expand
from operators.create import create_operator, default_of, operator_class
from operators.fourier import ifft2c
from operators.inverse_problem import InverseProblem, mri_problem
from operators.measurement_noise import create_noise
from operators.multicoil import rss
from operators.noise import kspace_noise
from operators.simulation import refine, smooth_phase
from operators.whitened import Whitened, noise_weights

ONE_COIL, COILS = "mri", "multicoil_mri"  # names of operators
HALF_TURN = 180.0  # what configs of operators that have no angles say, so that folders continue
TARGETS = ("mvue", "rss", "sense")  # of measured coils; the first is the default


class Measurement(NamedTuple):
    """Measurement of a batch of slices, in units of images whose peak is 1.

    Attributes:
        operator: A.
        y: ``(B, *range_shape)``, with its noise.
        std: standard deviation of the noise that was added, ``(B, 1, ...)`` or, if it differs
            within a sample, ``(B, *range_shape)``.
        is_kspace: whether images have a phase that is estimated from y, as in `mri_problem`.
        has_own_noise: whether the data came with noise, beside what was added.
    """

    operator: LinearOperator
    y: Tensor
    std: Tensor
    is_kspace: bool = False
    has_own_noise: bool = False


def check_measurement(config: ConfigDict) -> None:
    """Raise a ValueError for fields of the measurement that are unknown or contradict each other.

    Args:
        config: an evaluation config; its `noise` and `target` are read.
    """
    noise = create_noise(config.noise)
    if config.noise.weights is not None and noise.photons is None:
        raise ValueError("noise.weights are those of counted rays; set noise.photons as well")
    if config.noise.fine and not operator_class(config.operator.name).integrates_rays:
        raise ValueError(
            f"noise.fine needs line integrals, such as operator.name=ct, got {config.operator.name}"
            ": others have no finer model; leave it out"
        )
    if config.target not in (None, *TARGETS):
        raise ValueError(f"expected target to be one of {TARGETS}, got {config.target!r}")


def with_end_angle(config: ConfigDict) -> ConfigDict:
    """A copy of a config in which an `operator.end_angle` of None is the operator's default.

    Raises:
        ValueError: an unknown operator.
    """
    filled = config.copy_and_resolve_references()
    if filled.operator.end_angle is None:
        own = default_of(filled.operator.name, "end_angle")
        filled.operator.end_angle = HALF_TURN if own is None else own
    return filled


def build_operator(
    config: ConfigDict, shape: tuple[int, int], keys: Sequence[str], **fields: object
) -> LinearOperator:
    """Measurement operator of a batch of slices.

    Args:
        config: an evaluation config; its `operator`, `seed` and `protocol` are read.
        shape: ``(H, W)`` of the images in pixels.
        keys: keys of the slices, in the order of the batch.
        fields: fields of `operator` with values other than the config's.

    Raises:
        ValueError: an unknown operator or mask (the known ones are listed), or an invalid value.
    """
    study = protocol_of(config).operators
    given = config.operator.to_dict() | fields
    return create_operator(given, shape, seed=config.seed, keys=keys, study=study)


def measure(config: ConfigDict, batch: Sample) -> Measurement:
    """Measurement of a batch of slices.

    It is simulated from the images; complex ones are measured by one coil where the operator is
    `mri`, and real ones get a smooth random phase where it is `multicoil_mri`. If the data set has
    the k-space of several coils, `multicoil_mri` undersamples that. Noise is added at last. Each
    slice is measured alone, so that no bit depends on the batch, and its random numbers follow from
    the seed and its key.

    Args:
        config: an evaluation config.
        batch: batch of samples, see `datasets.collate`.

    Raises:
        ValueError: an operator that is unknown or does not fit the images, or invalid fields.
    """
    if "mask" in batch.extras:
        raise DataError(
            f"{batch.key[0]}: undersampled when it was measured, so that there is no target; "
            "reconstruct it with reconstruct.py, or evaluate fully measured files"
        )
    is_complex, has_coils = batch.image.is_complex(), _has_coils(config, batch)
    one_coil = config.operator.name == ONE_COIL and is_complex
    is_kspace = one_coil or config.operator.name == COILS
    fields = {"name": COILS, "coils": 1} if one_coil or has_coils else {}
    operator = build_operator(config, tuple(batch.image.shape[-2:]), batch.key, **fields)
    if has_coils:
        y, operator = _undersampled(config, batch, operator.mask)
    else:
        with_phase = is_kspace or operator.domain_complex
        y = _apply(config, operator, _with_phase(config, batch) if with_phase else batch.image)
    noise = create_noise(config.get("noise") or {})  # old folders have none
    y, std = noise.add(operator, y, _generators(config, "noise", batch.key))
    return Measurement(operator, y, std, is_kspace, is_kspace and is_complex)


def pose(config: ConfigDict, measurement: Measurement) -> InverseProblem:
    """Inverse problem of a measurement, as one who has measured it would pose it.

    Coil maps and the phase of images are estimated from k-space (see
    `operators.inverse_problem.mri_problem`), the maps of several coils by ESPIRiT unless
    `operator.maps` says that they are known. Nothing else is estimated, and the scale is 1. The
    noise is what was added; if the data came with noise, it is estimated, and at least what was
    added. Rays with counted photons are weighted by the standard deviation that follows from their
    counts (`operators.whitened`), unless `noise.weights` is False: then all rays have one weight,
    and the noise is its root mean square.

    Args:
        config: an evaluation config.
        measurement: result of `measure`.

    Raises:
        ValueError: a centre of k-space that is too small for coil maps.
    """
    operator, y = measurement.operator, measurement.y
    if measurement.is_kspace:
        return _joined([_kspace_problem(config, measurement, b) for b in range(len(y))])
    std = measurement.std
    level = std.double().flatten(1).square().mean(1).sqrt().to(std.dtype)  # (B,)
    factor = None
    if operator.domain_complex:
        found = [operator[b].slow_phase(y[b : b + 1]) for b in range(len(y))]
        if found[0] is not None:
            factor = torch.cat(found)
            operator = operator.times(factor)
    direct = torch.cat([operator[b].direct(y[b : b + 1]) for b in range(len(y))])
    if std.shape == y.shape and (config.noise.weights in (None, True)):
        weights, level = noise_weights(std)
        operator, y = Whitened(operator, weights), y * weights
    ones = torch.ones(len(y))
    return InverseProblem(operator, y, direct, ones, torch.zeros_like(ones), level, factor)


def targets(config: ConfigDict, batch: Sample) -> Tensor:
    """Targets that reconstructions are compared with: ``(B, 1, H, W)``, of peak 1.

    They are the images themselves. Of measured coils x_c with maps S_c they are the combination
    `config.target`, of which

        rss: sqrt(sum_c |x_c|^2),  mvue: |sum_c conj(S_c) x_c| / sqrt(sum_c |S_c|^2),
        sense: |sum_c conj(S_c) x_c| / sum_c |S_c|^2.

    Args:
        config: an evaluation config.
        batch: batch of samples, see `datasets.collate`.
    """
    if not _has_coils(config, batch):
        return batch.image
    target = _combined(config, batch)
    return target / target.amax((1, 2, 3), keepdim=True)


def _has_coils(config: ConfigDict, batch: Sample) -> bool:
    """Whether the measurement is of k-space of several coils that the data set has."""
    return config.operator.name == COILS and {"kspace", "sens_maps"} <= batch.extras.keys()


def _combined(config: ConfigDict, batch: Sample) -> Tensor:
    """Combination of measured coils as `config.target` says: real ``(B, 1, H, W)``."""
    coils, maps = ifft2c(batch.extras["kspace"]), batch.extras["sens_maps"]  # (B, C, H, W)
    name = config.get("target") or TARGETS[0]
    if name == "rss":
        return rss(coils)
    size = rss(maps)  # (B, 1, H, W)
    image = (maps.conj() * coils).sum(1, keepdim=True).abs()
    power = size if name == "mvue" else size.square()
    return torch.where(size > 0, image / torch.where(size > 0, power, 1.0), 0.0)


def _undersampled(config: ConfigDict, batch: Sample, mask: Tensor) -> tuple[Tensor, MultiCoilMRI]:
    """Measured k-space in units of the target's peak, undersampled; and its operator."""
    peak = _combined(config, batch).amax((1, 2, 3))  # (B,)
    kspace = batch.extras["kspace"] / expand(peak, batch.extras["kspace"])
    of_all = mask[0, 0] if len(mask) == 1 else mask
    return kspace * mask, MultiCoilMRI(of_all, batch.extras["sens_maps"])


def _with_phase(config: ConfigDict, batch: Sample) -> Tensor:
    """Complex images; real ones are multiplied by a smooth random phase."""
    if batch.image.is_complex():
        return batch.image
    rng = _generators(config, "phase", batch.key)
    return batch.image * smooth_phase(tuple(batch.image.shape[-2:]), rng=rng)


def _apply(config: ConfigDict, operator: LinearOperator, images: Tensor) -> Tensor:
    """Noise-free measurement of each image, with `noise.fine` of a finer one."""
    slices = [(operator[b], images[b : b + 1]) for b in range(len(images))]
    if (config.get("noise") or {}).get("fine"):
        return torch.cat([own.measure_finely(refine(image)) for own, image in slices])
    return torch.cat([own.forward(image) for own, image in slices])


def _generators(config: ConfigDict, purpose: str, keys: Sequence[str]) -> BatchGenerator:
    return BatchGenerator([derive_seed(config.seed, purpose, key) for key in keys], keys)


def _kspace_problem(config: ConfigDict, measurement: Measurement, b: int) -> InverseProblem:
    """Inverse problem of one slice's k-space."""
    operator, y = measurement.operator[b], measurement.y[b : b + 1]
    noise = measurement.std[b].reshape(1)
    if measurement.has_own_noise:
        noise = torch.maximum(noise, kspace_noise(y))
    known = len(y[0]) == 1 or config.operator.get("maps") == "known"
    maps = operator.sens_maps if known else _estimated(y[0])[None]
    return mri_problem(y, operator.mask, maps, noise=noise, estimated_maps=not known)


def _estimated(kspace: Tensor) -> Tensor:
    try:
        return estimate_maps(kspace)
    except ValueError as error:
        raise ValueError(
            f"{error}; raise operator.center_fraction, or set operator.maps to known"
        ) from None


def _joined(problems: Sequence[InverseProblem]) -> InverseProblem:
    """Inverse problem of a batch from those of its slices, of `MultiCoilMRI`."""
    mask = torch.cat([p.operator.mask for p in problems])
    maps = torch.cat([p.operator.sens_maps for p in problems])
    rest = [torch.cat(parts) for parts in zip(*(p[1:] for p in problems), strict=True)]
    return InverseProblem(MultiCoilMRI(mask, maps), *rest)
