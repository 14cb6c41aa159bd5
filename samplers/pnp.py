"""Plug-and-play half-quadratic splitting with momentum: Zhang et al. (DPIR), TPAMI 2022."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.denoise import data_step, denoise_turned, first_image
from samplers.levels import last_level, noise_levels
from samplers.stopping import StoppingCriterion
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # default number of noise levels
SPREAD = "nothing is random"  # docs/samplers.md
POINT_ESTIMATE = True  # nothing is random: every sample is the same image
STRENGTH = 0.23  # lambda of DPIR
# first, last; chosen on validation slices and with noise on real k-space, too (docs/samplers.md)
MOMENTUM, NOISY_MOMENTUM = (0.5, 0.8), (0.5, 0.5)

Denoiser = Callable[[Tensor, Tensor, int], Tensor]


@torch.no_grad()
def pnp(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator | None = None,
    num_steps: int,
    initial: Tensor | None = None,
    start_sigma: float | None = None,
    end_sigma: float | None = None,
    momentum: float | tuple[float, float] | None = None,
    turns: bool | None = None,
    strength: float = STRENGTH,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
    tolerance: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """Plug-and-play reconstruction, DPIR (Zhang et al., TPAMI 2022), with momentum.

    Half-quadratic splitting at falling noise levels, in which the score network is the denoiser: x'
    = data step from E[x_0 | x], where x is taken for an image with noise of sigma; x = x' + m d,
    where d is the change of x' in the last step and m the momentum, as in Nesterov's method
    (Kamilov et al., IEEE Signal Process. Lett. 2017). Nothing is random: the result is a point
    estimate, no sample of the posterior.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: names the samples in errors; may be None, as no random number is drawn.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`, with one
            network call each.
        initial: ``(B, *domain_shape)`` images to start from; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first noise level, at most sigma_max; None: a level for each sample, estimated
            from the measurement (`levels.noise_levels`; without `LinearOperator.direct_error`, as
            for CT, this takes one of the `num_steps` network calls).
        end_sigma: last noise level; None: the noise that the measurement's noise causes in an image
            (`levels.last_level`), below which a denoiser removes structures. The last data step
            regards the denoised image as one of sigma_min whatever the level is, so that the
            measured noise does not come back.
        momentum: m, from 0 (none) to below 1; of two numbers, m of the first and of the last step,
            linear in between; None: `MOMENTUM`, and `NOISY_MOMENTUM` for samples with noise.
        turns: whether to show the network the image in the eight orientations of the square in
            turn, step by step, as its errors differ between them ("periodical geometric
            self-ensemble", section 4.2 of DPIR). Only for priors to which all orientations are
            alike; None: if the score's attribute `symmetric` says so, which
            `models.checkpoint.load_prior` sets.
        strength: lambda; the penalty of the data step is lambda sigma_y^2 / sigma^2.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.
        tolerance: a sample is finished when its image and its misfit change by less than this,
            relatively, in `stopping.PATIENCE` successive steps; 0: go to the last level.
        callback: called after each step with (step, sigma, x'); of different levels the largest.

    Returns:
        ``(B, *domain_shape)`` images, complex if the operator's are.

    Raises:
        ValueError: levels outside the network's range, too few steps, a momentum outside [0, 1), or
            a negative `tolerance`.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
    """
    turns = getattr(score, "symmetric", False) if turns is None else turns
    x = first_image(operator, y, initial)
    if end_sigma is None:
        end_sigma = last_level(sde, operator, y, sigma_y)
    levels = noise_levels(
        score,
        sde,
        operator,
        y,
        x,
        num_steps=num_steps,
        start_sigma=start_sigma,
        end_sigma=end_sigma,
        cg_steps=cg_steps,
    )
    return splitting(
        lambda x, sigma, step: denoise_turned(score, x, sigma, turn=step if turns else 0),
        sde,
        operator,
        y,
        x,
        levels,
        rng=rng,
        momentum=momentum,
        strength=strength,
        sigma_y=sigma_y,
        cg_steps=cg_steps,
        tolerance=tolerance,
        callback=callback,
    )


def splitting(
    denoiser: Denoiser,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    x: Tensor,
    levels: Tensor,
    *,
    rng: BatchGenerator | None = None,
    momentum: float | tuple[float, float] | None = None,
    strength: float = STRENGTH,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
    tolerance: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """The iteration of `pnp` around any denoiser, at given levels.

    Args:
        denoiser: ``(x, sigma, step)`` -> denoised images of the shape of x.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        x: ``(B, *domain_shape)`` images to start from.
        levels: ``(num_steps, B)`` falling noise levels.
        rng: as in `pnp`, like all that follow.
        momentum: extrapolation of the image's last change.
        strength: lambda.
        sigma_y: standard deviation of the measurement noise.
        cg_steps: largest number of iterations of a data step.
        tolerance: of the image's and the misfit's change.
        callback: called after each step.

    Returns:
        ``(B, *domain_shape)`` images.

    Raises:
        ValueError, NonFiniteError: as `pnp`.
    """
    first, last = momenta(momentum, torch.as_tensor(sigma_y).expand(len(y)))
    watch = Watch(rng, callback)
    fits = levels.clone()  # of the data steps
    fits[-1] = sde.sigma_min
    noise_level = math.sqrt(strength) * sigma_y
    stopping = StoppingCriterion(operator, y, tolerance)
    image = x
    for step, (peak, sigma, fit) in enumerate(
        zip(levels.amax(1).tolist(), levels.to(x.real), fits.to(x.real), strict=True)
    ):
        clean = denoiser(x, sigma, step)
        fitted = data_step(operator, y, clean, fit, sigma_y=noise_level, cg_steps=cg_steps)
        before, image = image, stopping.keep(image, fitted)
        # the first image is no step of the iteration: nothing to extrapolate from
        m = torch.lerp(first, last, step / (len(levels) - 1)).to(x.real)  # (B,)
        x = image + expand(m, image) * (image - before) if step else image
        watch(peak, image)
        if stopping.finished():
            break
    return watch.finish(image)


def momenta(momentum: float | tuple[float, float] | None, sigma_y: Tensor) -> tuple[Tensor, Tensor]:
    """Momentum of the first and of the last step of each sample: float64 ``(B,)``, on the CPU.

    Args:
        momentum: as `pnp` takes it.
        sigma_y: ``(B,)`` noise of each sample.

    Raises:
        ValueError: a momentum outside [0, 1).
    """
    quiet, noisy = (MOMENTUM, NOISY_MOMENTUM) if momentum is None else (momentum, momentum)
    quiet, noisy = (m if isinstance(m, tuple) else (m, m) for m in (quiet, noisy))
    if not all(0 <= m < 1 for m in quiet + noisy):
        raise ValueError(f"expected momentum in [0, 1), got {momentum}")
    pairs = torch.tensor([quiet, noisy], dtype=torch.float64)[(sigma_y.cpu() > 0).long()]
    return pairs[:, 0], pairs[:, 1]
