"""The first step of a sampler on a tiny problem: invalid keywords are found before long work."""

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from operators import BatchGenerator, LinearOperator, ParallelBeamCT, SingleCoilMRI
from samplers import COILS_APART, SAMPLERS, NonFiniteError
from sde import VESDE

SIDE = 16  # pixels of the problem


class _FirstStep(BaseException):  # no error: the way out of a sampler
    """Ends the rehearsal."""


def rehearse(
    name: str,
    sde: VESDE,
    *,
    num_steps: int,
    options: Mapping,
    warm: bool,
    ct: bool,
    is_complex: bool,
    knows_error: bool = True,
) -> None:
    """Raise the ValueError that a sampler's keywords would raise at the first slice.

    The sampler runs up to the end of its first step, on an image of 16 x 16 pixels whose prior is a
    standard normal distribution: its checks see the true noise levels and numbers of steps.

    Args:
        name: name of the sampler.
        sde: the prior's range of noise levels.
        num_steps: number of its steps.
        options: its further keywords.
        warm: whether it starts from the direct reconstruction.
        ct: whether sinograms are measured, else k-space.
        is_complex: whether images are complex.
        knows_error: whether the operator tells the direct reconstruction's error
            (`LinearOperator.direct_error`); else samplers may take a network call to find it.

    Raises:
        ValueError: a keyword has an invalid value.
    """
    if name in COILS_APART:  # they take another kind of operator
        return
    operator = _operator(ct, is_complex, knows_error)
    dtype = torch.complex64 if is_complex else torch.float32
    y = operator.forward(torch.full((1, 1, SIDE, SIDE), 0.5, dtype=dtype))
    given = {**options, "initial": operator.direct(y)} if warm else options
    with suppress(_FirstStep, NonFiniteError):  # the latter tells of this problem, not of keywords
        SAMPLERS[name](
            _score,
            sde,
            operator,
            y,
            rng=BatchGenerator([0]),
            num_steps=num_steps,
            callback=_stop,
            **given,
        )


class _OfUnknownError(SingleCoilMRI):
    def direct_error(self, y: Tensor) -> None:
        return None


def _operator(ct: bool, is_complex: bool, knows_error: bool) -> LinearOperator:
    if ct:
        return ParallelBeamCT(SIDE, np.arange(0, 180, 22.5))
    mask = torch.ones(SIDE, dtype=torch.bool)
    mask[1::2] = False
    kind = SingleCoilMRI if knows_error else _OfUnknownError
    return kind(mask.expand(SIDE, SIDE), real=not is_complex)


def _score(x: Tensor, sigma: Tensor) -> Tensor:
    return -x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


def _stop(step: int, sigma: float, image: Tensor) -> None:
    raise _FirstStep
