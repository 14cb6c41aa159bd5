"""Predictor-corrector on coil images: Chung & Ye, MedIA 2022, section 3.4 (SSOS and hybrid).

The prior knows single images, so each coil image is sampled apart, all coils of all samples as
one batch; their root sum of squares is the result.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from operators.batch import BatchGenerator, GroupedGenerator
from operators.mri import SingleCoilMRI
from operators.multicoil import MultiCoilMRI, rss
from samplers.predictor_corrector import SNR, predictor_corrector
from samplers.watch import Callback
from sde import VESDE, Score

NUM_STEPS = 500  # noise levels where none are asked for
COILS_APART = True  # no maps: reconstruct.py, which has or estimates them, leaves these out
SPREAD = "the spread of samples was not measured"  # docs/samplers.md
EVERY = 50  # m, steps between SENSE corrections (Chung & Ye 2022)
WEIGHT_FIRST, WEIGHT_LAST = 1.0, 0.2  # lambda of the first and the last step, linear between


@torch.no_grad()
def ssos(
    score: Score,
    sde: VESDE,
    operator: MultiCoilMRI,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    snr: float = SNR,
    corrector_steps: int = 1,
    weight: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Sample every coil image apart; the operator's sensitivity maps are not used.

    Measured k-space is put in after the corrector and after the predictor of every step, as in
    `predictor_corrector`. A sample's coils lie side by side in the batch of B C images, and each
    draw takes the real parts of all of them, coil by coil, then the imaginary parts, from its
    generator.

    Args and errors: as `predictor_corrector`; the callback gets coil images ``(B C, 1, H, W)``.

    Returns:
        ``(B, 1, H, W)`` real: the root sum of squares of the coil images.
    """
    sample = _coil_sampler(score, sde, operator, y, rng, num_steps, snr, corrector_steps, weight)
    return sample(None, callback)


@torch.no_grad()
def hybrid(
    score: Score,
    sde: VESDE,
    operator: MultiCoilMRI,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    snr: float = SNR,
    corrector_steps: int = 1,
    weight: float = 1.0,
    every: int = EVERY,
    weight_first: float = WEIGHT_FIRST,
    weight_last: float = WEIGHT_LAST,
    callback: Callback | None = None,
) -> Tensor:
    """As `ssos`, with a SENSE correction of the coil images every `every` steps.

    With v = sum_c conj(S_c) x_c the combined image, x_c <- x_c + lambda S_c A^H (y - A v), lambda
    falling linearly over the steps. (The original code applies A to each coil image as if it were
    the combined one and adds the same image to all coils.) It comes last in its step, so that what
    it moves of measured positions is put back in the next one; in the last step it is made to the
    coil images that are returned.

    Args and errors: as `predictor_corrector`, and

        every: m, steps between corrections, the first step being one.
        weight_first: lambda at the first step.
        weight_last: lambda at the last step.

    Returns:
        ``(B, 1, H, W)`` real: the root sum of squares of the coil images.
    """

    def correct(step: int, x: Tensor) -> Tensor:
        if step % every:
            return x
        progress = step / (num_steps - 1)
        factor = weight_first + progress * (weight_last - weight_first)
        return sense_correction(operator, x, y, factor)

    sample = _coil_sampler(score, sde, operator, y, rng, num_steps, snr, corrector_steps, weight)
    return sample(correct, callback)


def sense_correction(operator: MultiCoilMRI, x: Tensor, y: Tensor, weight: float) -> Tensor:
    """x_c + weight * S_c A^H (y - A sum_c conj(S_c) x_c) of coil images ``(B C, 1, H, W)``."""
    coils = x.reshape(y.shape)  # (B, C, H, W)
    maps = operator.sens_maps.to(x.dtype)  # (1 or B, C, H, W)
    combined = (maps.conj() * coils).sum(1, keepdim=True)  # (B, 1, H, W)
    residual = operator.adjoint(y - operator.forward(combined))  # (B, 1, H, W)
    return (coils + weight * maps * residual).reshape(x.shape)  # (B C, 1, H, W)


def _coil_sampler(
    score: Score,
    sde: VESDE,
    operator: MultiCoilMRI,
    y: Tensor,
    rng: BatchGenerator,
    num_steps: int,
    snr: float,
    corrector_steps: int,
    weight: float,
) -> Callable[[Callable | None, Callback | None], Tensor]:
    """(after_step, callback) -> the combined image."""
    if not isinstance(operator, MultiCoilMRI):
        raise ValueError(f"expected a MultiCoilMRI operator, got {type(operator).__name__}")
    operator.check_measurement(y)
    coils = y.shape[1]
    mask = operator.mask.expand(len(y), -1, -1, -1).repeat_interleave(coils, dim=0)

    def sample(after_step: Callable | None, callback: Callback | None) -> Tensor:
        x = predictor_corrector(
            score,
            sde,
            SingleCoilMRI(mask, real=False),  # (B C, 1, H, W)
            y.flatten(0, 1)[:, None],
            rng=GroupedGenerator(rng, coils),
            num_steps=num_steps,
            snr=snr,
            corrector_steps=corrector_steps,
            weight=weight,
            after_step=after_step,
            callback=callback,
        )
        return rss(x.reshape(y.shape))  # (B, 1, H, W)

    return sample
