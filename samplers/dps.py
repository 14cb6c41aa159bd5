"""Diffusion posterior sampling (DPS): Chung et al., ICLR 2023."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, dot, expand, norm
from operators.solvers import power_method
from samplers.dds import START_SIGMA
from samplers.denoise import denoise, first_image
from samplers.levels import noise_levels, study_levels
from samplers.watch import Callback, Watch, empty_images
from sde import VESDE, Score

NUM_STEPS = 50  # default number of noise levels
SPREAD = "samples spread more than the posterior"  # docs/samplers.md
NORM_STEPS = 20  # of the power method; a per cent or so is enough
# zeta at REFERENCE_STEPS (Chung et al. 2023, appendix D: 0.3 to 1 by task, 256 x 256), growing with
# the root of their distance: near the best of six with 20 and 50 steps, one validation slice each
STEP, REFERENCE_STEPS = 0.9, 1000
SQUARED_STEP = 1.5  # of the squared misfit, over A^H A 1; the study's for MRI
MISFITS = ("norm", "squared")
STARTS = ("initial", "unit_noise")

# the study's; its zeta is a `step` for each measurement (evaluation.run.protocols). In CT with
# parallel beams D is twice as large as elsewhere, which halves the step of the start
STUDY_2026 = {
    "misfit": "squared",
    "renoise": True,
    "start": "unit_noise",
    "unused_draw": True,
    "study_skips": 2026,
}
STUDY_2026_CT = STUDY_2026 | {"start_weight": 0.5}


@torch.no_grad()
def dps(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    initial: Tensor | None = None,
    start_sigma: float | None = START_SIGMA,
    end_sigma: float | None = None,
    step: float | None = None,
    misfit: str = "norm",
    renoise: bool = False,
    start: str = "initial",
    start_weight: float = 1.0,
    unused_draw: bool = False,
    study_skips: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Diffusion posterior sampling, DPS (Chung et al., ICLR 2023, algorithm 1), in terms of sigma.

    Each noise level has an ancestral step to the next level, and then a step along the gradient of
    the misfit, x -= step * grad_x |A E[x_0 | x] - y|. As the gradient goes through the network, a
    step takes a network call with its derivative, and several times the memory of the other
    samplers.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the noise of the start, then that of each step.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`, with one
            network call each.
        initial: ``(B, *domain_shape)`` images to which the first noise is added; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first noise level, at most sigma_max; None: a level for each sample, estimated
            from the measurement (`levels.noise_levels`; without `LinearOperator.direct_error`, as
            for CT, this takes one of the `num_steps` network calls).
        end_sigma: last noise level; None: sigma_min.
        step: zeta, length of the gradient step. The norm is not squared, so that its gradient is
            about a unit vector times A^H, and is one in which A has about norm 1 (`misfit_norm`),
            so that zeta does not depend on the operator's scale. None: `STEP` sqrt(1000 /
            num_steps), or for the squared misfit `SQUARED_STEP`.
        misfit: ``"norm"``, that of algorithm 1; ``"squared"``: x -= step * grad_x 1/2 |r|^2 / D
            with D = A^H A 1 for each pixel (1 for MRI), which does not depend on the operator's
            scale either.
        renoise: whether all noise of a step is new, x = E[x_0 | x] + sigma z - step * gradient with
            the next sigma, instead of an ancestral step, which keeps a part of the old; then the
            last x, to which no noise is added, is returned.
        start: ``"initial"``: `initial` plus noise of the first level; ``"unit_noise"``: noise of
            standard deviation 1, whatever the level, made consistent by `start_weight`.
        start_weight: weight of the data-consistency step (`LinearOperator.correct`) at the start.
        unused_draw: whether noise is drawn before the start and thrown away, as in the study's
            code.
        study_skips: 2026: the levels are `levels.study_levels` of the study, instead of geometric
            ones from `start_sigma` to `end_sigma`; `num_steps` counts the skipped ones, too.
        callback: called after each step with (step, sigma, E[x_0 | x]); of different levels the
            largest.

    Returns:
        ``(B, *domain_shape)`` images, E[x_0 | x] at the last level, complex if the operator's are.

    Raises:
        ValueError: levels outside the network's range, too few steps, or an unknown name.
        RuntimeError: called under `torch.inference_mode`; the score has to allow autograd.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("expected to run without torch.inference_mode: dps needs gradients")
    for name, value, known in (("misfit", misfit, MISFITS), ("start", start, STARTS)):
        if value not in known:
            raise ValueError(f"expected {name} to be one of {known}, got {value!r}")
    watch = Watch(rng, callback)
    squared = misfit == "squared"
    distance = half_square if squared else misfit_norm(operator, y)
    x = first_image(operator, y, initial)
    if study_skips is None:
        levels = noise_levels(
            score,
            sde,
            operator,
            y,
            x,
            num_steps=num_steps,
            start_sigma=start_sigma,
            end_sigma=end_sigma,
        )
    else:
        ladder = study_levels(sde, num_steps, study_skips)
        levels = torch.tensor(ladder, dtype=torch.float64)[:, None].expand(-1, len(y))
    if step is None:
        step = SQUARED_STEP if squared else STEP * math.sqrt(REFERENCE_STEPS / num_steps)
    if squared:
        step = step / pixel_weights(operator, y)  # (1 or B, *domain_shape)
    sigmas = levels.to(x.real)  # (number of levels, B)
    if unused_draw:
        rng.normal_like(x)
    z = rng.normal_like(x)
    if start == "unit_noise":
        x = operator.correct(z, y, start_weight)
    else:
        x = x + expand(sigmas[0], x) * z
    ends = [*sigmas[1:], torch.zeros_like(sigmas[0])]
    for sigma, following, peak in zip(sigmas, ends, levels.amax(1).tolist(), strict=True):
        with torch.enable_grad():  # gradient of the misfit of the denoised image
            x = x.detach().requires_grad_()
            clean = denoise(score, x, sigma)  # E[x_0 | x]
            size = distance(operator.forward(clean) - y)  # (B,)
            (gradient,) = torch.autograd.grad(size.sum(), x)
        # a measurement that is met exactly has no direction to go
        gradient = torch.where(expand(size, x) > 0, gradient, 0.0)
        x, clean = x.detach(), clean.detach()
        if renoise:
            x = clean - step * gradient
            if following.any():
                x = x + expand(following, x) * rng.normal_like(x)
            watch(peak, clean)
            continue
        # ancestral step to the next level, then the step along the gradient
        share = expand((following / sigma) ** 2, x)
        spread = expand(following, x) * torch.sqrt(1 - share)
        x = clean + share * (x - clean) + spread * rng.normal_like(x) - step * gradient
        watch(peak, clean)
    return watch.finish(x if renoise else clean)


def half_square(r: Tensor) -> Tensor:
    """1/2 |r|^2 of each sample: ``(B, *range_shape)`` to ``(B,)``."""
    return dot(r, r) / 2


def pixel_weights(operator: LinearOperator, y: Tensor) -> Tensor:
    """D of `LinearOperator.correct` for each pixel: A^H A 1 for CT, 1 for Cartesian MRI.

    It is the ratio of A^H y and D^-1 A^H y for the measurement of ones; 1 where both are 0, as in
    pixels that no ray meets.

    Args:
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement, for precision and device.

    Returns:
        ``(1 or B, *domain_shape)``, real.
    """
    zeros = torch.zeros_like(empty_images(operator, y))
    ones = operator.forward(zeros + 1)
    plain, scaled = operator.adjoint(ones), operator.correct(zeros, ones)
    divisor = torch.where(scaled == 0, 1.0, scaled)
    weights = (plain / divisor).real if divisor.is_complex() else plain / divisor
    return torch.where((scaled == 0) | (weights <= 0), 1.0, weights)


def misfit_norm(operator: LinearOperator, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Norm of residuals in which A has about norm 1: ``(B, *range_shape)`` to ``(B,)``.

    With the operator's `gram_inverse` M it is sqrt(<r, M r>), in which components that A damps
    count as well (as in pseudoinverse-guided sampling, Song et al., ICLR 2023); without one it is
    |r| / |A|.

    Args:
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement, for precision and device.
    """
    zero = torch.zeros(1, dtype=y.real.dtype, device=y.device)
    filtered = operator.gram_inverse(zero)
    if filtered is not None:
        return lambda r: dot(r, filtered(r)).clamp(min=0).sqrt()
    scale = power_method(operator, num_iterations=NORM_STEPS, dtype=zero.dtype, device=y.device)
    return lambda r: norm(r) / scale
