"""All of k-space except a centred square."""

import torch
from torch import Tensor

from operators.masks.sampling import Shape, center_block, check_fraction, check_shape


def outer(
    shape: Shape,
    *,
    center_fraction: float,
    acceleration: float | None = None,
    seed: int | None = None,
    study: bool = False,
) -> Tensor:
    """All of k-space except a central block, to test a prior on missing low frequencies.

    Args:
        shape: (H, W).
        center_fraction: side of the block as a fraction of each axis.
        acceleration: not used, as the block determines it.
        seed: not used, as nothing is drawn.
        study: not used.

    Returns:
        bool ``(H, W)``, False on ``round(H * center_fraction)`` x ``round(W * center_fraction)``.

    Raises:
        ValueError: the block is empty or covers all of k-space.
    """
    shape = check_shape(shape)
    left_out = center_block(shape, check_fraction(center_fraction))
    if not left_out.any() or left_out.all():
        raise ValueError(
            f"expected center_fraction to leave out some but not all of {shape}, "
            f"got {center_fraction}"
        )
    return torch.from_numpy(~left_out)
