"""The measurement that a config describes, as an operator for a batch of slices."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from ml_collections import ConfigDict

from operators import LinearOperator, ParallelBeamCT, SingleCoilMRI, StudyParallelBeamCT
from operators.batch import derive_seed
from operators.ct import few_view_angles
from operators.masks import make_mask


def build_mri(config: ConfigDict, shape: tuple[int, int], keys: Sequence[str]) -> SingleCoilMRI:
    """Single-coil MRI of real images with the config's mask, one for all slices or one a slice."""
    o = config.operator

    def mask(seed: int) -> torch.Tensor:
        return make_mask(
            o.mask,
            shape,
            seed=seed,
            acceleration=o.acceleration,
            center_fraction=o.center_fraction,
            num_spokes=o.num_spokes,
            study=config.protocol == "study",
        )

    if o.mask_per_slice:
        masks = [mask(derive_seed(config.seed, "mask", key)) for key in keys]
        return SingleCoilMRI(torch.stack(masks)[:, None])
    return SingleCoilMRI(mask(config.seed))


def build_ct(config: ConfigDict, shape: tuple[int, int], keys: Sequence[str]) -> ParallelBeamCT:
    """Parallel-beam CT with the config's views; the study's back-projection in its protocol."""
    o = config.operator
    return _parallel_beam(shape, o.num_views, o.end_angle, config.protocol == "study")


@lru_cache(maxsize=4)
def _parallel_beam(
    shape: tuple[int, int], num_views: int, end_angle: float, study: bool
) -> ParallelBeamCT:
    """Kept, so that batches of one size share the system matrix."""
    kind = StudyParallelBeamCT if study else ParallelBeamCT
    return kind(shape, few_view_angles(num_views, end_angle))


# key of operators.OPERATORS -> function of (config, image shape, keys of the slices)
MEASUREMENTS = {
    "mri": build_mri,
    "ct": build_ct,
}


def build_operator(
    config: ConfigDict, shape: tuple[int, int], keys: Sequence[str]
) -> LinearOperator:
    """The forward model of a batch.

    Args:
        config: an evaluation config; its `operator`, `seed` and `protocol` are read.
        shape: ``(H, W)`` of the images in pixels.
        keys: of the slices, in the order of the batch.

    Raises:
        ValueError: unknown operator or mask (the known ones are listed), or unfit parameters.
    """
    name = config.operator.name
    if name not in MEASUREMENTS:
        raise ValueError(f"unknown operator '{name}'; known: {', '.join(sorted(MEASUREMENTS))}")
    return MEASUREMENTS[name](config, shape, keys)
