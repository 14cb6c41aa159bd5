"""Moment-matching posterior sampling: the denoiser's Jacobian is the covariance of the image."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from operators.gaussian import gain_product, nearest_fit
from samplers.denoise import first_image, schedule
from samplers.moment_matching import (
    MAX_PRODUCTS,
    TOLERANCE,
    bridge,
    check_iterations,
    draw_clean,
)
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 16  # noise levels where none are asked for
# docs/calibration.md
SPREAD = "exact for a Gaussian prior; on images see warm_mmps"
START_SIGMA = 20.0  # at most: wide against what is not known of an image in [0, 1]
RIDGE = 0.03  # part of sigma^2 below which a variance is left to lower levels
PRECONDITION_STEPS = 20  # with A alone; more would cost more than the products that they save


@torch.no_grad()
def mmps(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    initial: Tensor | None = None,
    start_sigma: float | Tensor | None = None,
    end_sigma: float | Tensor | None = None,
    sigma_y: float | Tensor = 0.0,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
    ridge: float = RIDGE,
    precondition_steps: int = PRECONDITION_STEPS,
    callback: Callback | None = None,
) -> Tensor:
    """Posterior samples by moment matching, MMPS (Rozet et al., NeurIPS 2024), with its covariance.

    Each noise level has a draw of the clean image, x0 ~ N(D, V) given y, and a step to the next
    level, x' ~ q(x' | x, x0). With an exact score of a Gaussian prior both are exact.

    D = E[x_0 | x] and V = sigma^2 dD/dx are mean and covariance of the clean image given the noisy
    one (Tweedie's formulas of first and second order). A sample of that Gaussian given y = A x_0 +
    n is drawn by perturbing and solving,

        x0' = D + V^(1/2) z,    x0 = x0' + V A^H (A V A^H + sigma_y^2)^-1 (y + sigma_y z' - A x0'),

    and the next level from the bridge between x0 and x,

        x' = r x + (1 - r) x0 + sigma' sqrt(1 - r) z'',    r = (sigma' / sigma)^2.

    For a Gaussian prior every step is exact, however few there are. V A^H (...)^-1 is the guidance
    of Rozet et al. (NeurIPS 2024, MMPS) and Boys et al. (TMLR 2024, TMPD); they take x0 as the mean
    and leave out its covariance, without which samples spread too little. V^(1/2) z is by Lanczos'
    method, the solution by `operators.gaussian.gain_product`: a step costs a network call and the
    products of its Jacobian that the tolerance asks for, each about two calls. Needs several times
    the memory of the others, and a score that autograd can go through.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the noise of the start, then each step's z, z', z''.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`.
        initial: ``(B, *domain_shape)`` images to which the first noise is added; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first level, of all samples or of each ``(B,)``; None: `START_SIGMA`, or
            sigma_max if that is lower.
        end_sigma: last level, of all samples or of each ``(B,)``; None: sigma_min.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        tolerance: both iterations end where a further product changes the image by less than this
            fraction of the level's noise (root mean square).
        max_products: largest number of Jacobian products of a step for V^(1/2) z, and as many for
            the data.
        ridge: part of sigma^2 below which a variance of the clean image along the data is left to
            lower levels, as they are too small to be known. The default is for networks; with an
            exact score 0.001 is better (docs/calibration.md).
        precondition_steps: largest number of iterations, without products of the Jacobian, of the
            preconditioner of the iteration for the data.
        callback: called after each step with (step, sigma, x0); of different levels the largest.

    Returns:
        ``(B, *domain_shape)``: the last x0; without noise the nearest image that fits the data.

    Raises:
        ValueError: levels that the network does not know, or fewer than two,
            or a `tolerance`, `max_products`, `ridge` or `precondition_steps` out of range.
        NonFiniteError: some images became NaN or infinite; the others are in it.
        RuntimeError: under `torch.inference_mode`, or the score has no gradient.
    """
    check_iterations(tolerance, max_products)
    if not ridge >= 0 or precondition_steps < 1:
        raise ValueError(
            "expected a ridge of 0 or more and precondition_steps of 1 or more, got "
            f"{ridge} and {precondition_steps}"
        )
    watch = Watch(rng, callback)
    x0 = first_image(operator, y, initial)
    start = min(START_SIGMA, sde.sigma_max) if start_sigma is None else start_sigma
    levels = schedule(sde, num_steps, start, end_sigma, len(x0))
    sigmas = levels.to(x0.real)  # (num_steps, B)
    noise = torch.as_tensor(sigma_y).to(x0.real).expand(len(x0))  # (B,)
    size = math.sqrt(x0[0].numel() * (2 if x0.is_complex() else 1))
    measured = operator.measured().to(y.device)
    x = x0 + expand(sigmas[0], x0) * rng.normal_like(x0)
    ends = [*sigmas[1:], torch.zeros_like(sigmas[0])]
    for sigma, following, peak in zip(sigmas, ends, levels.amax(1).tolist(), strict=True):
        drawn, jacobian, mean = draw_clean(
            score, x, sigma, rng=rng, tolerance=tolerance, max_products=max_products
        )
        disturbed = y + expand(noise, y) * rng.normal_like(y) * measured
        x0 = drawn + gain_product(
            operator,
            disturbed - operator.forward(drawn),
            lambda v, jacobian=jacobian, sigma=sigma: expand(sigma**2, v) * jacobian(v),
            sigma_y=noise,
            level=sigma**2 * mean.clamp(min=0),
            ridge=ridge * sigma**2,
            largest=sigma**2,
            max_products=max_products,
            length=tolerance * sigma * size,
            precondition_steps=precondition_steps,
        )
        watch(peak, x0)
        x = bridge(x, x0, sigma, following, rng)
    exact = expand(noise == 0, x0)
    if exact.any():
        fitted = nearest_fit(operator, y, x0)
        x0 = torch.where(exact, fitted, x0)
    return watch.finish(x0)
