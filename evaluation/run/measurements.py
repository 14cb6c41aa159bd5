"""The operator of a batch of slices that a config describes."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from operators import LinearOperator
from operators.create import create_operator


def build_operator(
    config: ConfigDict, shape: tuple[int, int], keys: Sequence[str]
) -> LinearOperator:
    """Measurement operator of a batch of slices.

    Args:
        config: an evaluation config; its `operator`, `seed` and `protocol` are read.
        shape: ``(H, W)`` of the images in pixels.
        keys: keys of the slices, in the order of the batch.

    Raises:
        ValueError: an unknown operator or mask (the known ones are listed), or an invalid value.
    """
    study = config.protocol == "study"
    fields = config.operator.to_dict()
    return create_operator(fields, shape, seed=config.seed, keys=keys, study=study)
