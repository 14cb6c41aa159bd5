"""Predictor-corrector sampling of coil images: Chung & Ye, MedIA 2022, section 3.4 (SSOS, hybrid).

A prior knows single images. Each coil image is therefore sampled separately, all coils of all
samples in one batch, and the root sum of squares of the coil images is the result.
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

NUM_STEPS = 500  # default number of noise levels
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
    """SSOS (Chung & Ye, MedIA 2022, section 3.4): every coil image is sampled separately.

    After the corrector and after the predictor of every step, measured k-space replaces that of the
    coil images, as in `samplers.predictor_corrector`. The coils of a sample are neighbours in the
    batch of B C images.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, of coil images.
        sde: its noise schedule.
        operator: measurement model, whose sensitivity maps are not used.
        y: complex ``(B, C, H, W)`` measured k-space, 0 where not measured.
        rng: one generator per sample. Each draw takes the real parts of all coils of the sample,
            coil by coil, then their imaginary parts.
        num_steps: number of noise levels N; the score is called (1 + corrector_steps) N times.
        snr: signal-to-noise ratio r of the corrector, whose step is 2 (r |z| / |s|)^2.
        corrector_steps: Langevin steps per level.
        weight: lambda, relaxation of the data consistency in every step.
        callback: called after each step with (step, sigma, coil images ``(B C, 1, H, W)``).

    Returns:
        ``(B, 1, H, W)`` real: root sum of squares of the coil images.

    Raises:
        ValueError: the operator is no `MultiCoilMRI`, or `y` has another shape.
        NonFiniteError: some coil images became NaN or infinite; it holds the others.
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
    """Hybrid (Chung & Ye, MedIA 2022, section 3.4): SSOS with regular SENSE corrections.

    Every `every` steps the coil images are corrected: with the combined image v = sum_c conj(S_c)
    x_c, x_c <- x_c + lambda S_c A^H (y - A v), where lambda changes linearly over the steps. (The
    original code applies A to each coil image as if it were the combined one, and adds the same
    image to all coils.) The correction comes last in its step, so that the next step restores
    measured positions that it has moved; in the last step it is applied to the coil images that are
    returned.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, of coil images.
        sde: its noise schedule.
        operator: measurement model, with sensitivity maps S_c.
        y: complex ``(B, C, H, W)`` measured k-space, 0 where not measured.
        rng: one generator per sample. Each draw takes the real parts of all coils of the sample,
            coil by coil, then their imaginary parts.
        num_steps: number of noise levels N; the score is called (1 + corrector_steps) N times.
        snr: signal-to-noise ratio r of the corrector, whose step is 2 (r |z| / |s|)^2.
        corrector_steps: Langevin steps per level.
        weight: lambda, relaxation of the data consistency in every step.
        every: m, steps between corrections; the first step has one.
        weight_first: lambda of the correction in the first step.
        weight_last: lambda of the correction in the last step.
        callback: called after each step with (step, sigma, coil images ``(B C, 1, H, W)``).

    Returns:
        ``(B, 1, H, W)`` real: root sum of squares of the coil images.

    Raises:
        ValueError: the operator is no `MultiCoilMRI`, or `y` has another shape.
        NonFiniteError: some coil images became NaN or infinite; it holds the others.
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
