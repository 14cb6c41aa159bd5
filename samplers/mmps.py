"""Moment-matching posterior sampling: the denoiser's Jacobian is the covariance of the image."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from operators.gaussian import gain_product, lanczos_sqrt, nearest_fit
from samplers.denoise import denoise, first_image, schedule
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 12  # noise levels where none are asked for
SPREAD = "exact for a Gaussian prior; on images not yet trusted"  # docs/calibration.md
START_SIGMA = 20.0  # at most: wide against what is not known of an image in [0, 1]
MAX_PRODUCTS = 30  # for each of the two, a step
TOLERANCE = 0.05  # change by a further product, in standard deviations of the level's noise
EXACT_STEPS = 100  # of the last projection where there is no noise
RIDGE = 1e-3  # part of sigma^2 below which a variance is left to lower levels


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
    start_sigma: float | None = None,
    end_sigma: float | None = None,
    sigma_y: float | Tensor = 0.0,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
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
    method, the solution by conjugate gradients: a step costs a network call and the products of its
    Jacobian that the tolerance asks for, each about two calls. Needs several times the memory of
    the others, and a score that autograd can go through.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the noise of the start, then each step's z, z', z''.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`.
        initial: ``(B, *domain_shape)`` images to which the first noise is added; None: D^-1 A^H y
            (`LinearOperator.correct` of zeros).
        start_sigma: first level; None: `START_SIGMA`, or sigma_max if that is lower.
        end_sigma: last noise level; None: sigma_min.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        tolerance: both iterations end where a further product changes the image by less than this
            fraction of the level's noise (root mean square).
        max_products: largest number of Jacobian products of a step for V^(1/2) z, and as many for
            the data.
        callback: called after each step with (step, sigma, x0); of different levels the largest.

    Returns:
        ``(B, *domain_shape)``: the last x0; without noise the nearest image that fits the data.

    Raises:
        ValueError: levels that the network does not know, or fewer than two,
            or a `tolerance` or `max_products` out of range.
        NonFiniteError: some images became NaN or infinite; the others are in it.
        RuntimeError: under `torch.inference_mode`.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("expected to run without torch.inference_mode: mmps needs gradients")
    if max_products < 1 or not tolerance >= 0:
        raise ValueError(
            "expected max_products of 1 or more and a tolerance of 0 or more, got "
            f"{max_products} and {tolerance}"
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
        clean, jacobian = linearise(score, x, sigma)
        root, mean = lanczos_sqrt(
            jacobian, rng.normal_like(x), max_products=max_products, tolerance=tolerance
        )
        drawn = clean + expand(sigma, x) * root
        disturbed = y + expand(noise, y) * rng.normal_like(y) * measured
        x0 = drawn + gain_product(
            operator,
            disturbed - operator.forward(drawn),
            lambda v, jacobian=jacobian, sigma=sigma: expand(sigma**2, v) * jacobian(v),
            sigma_y=noise,
            level=sigma**2 * mean.clamp(min=0),
            ridge=RIDGE * sigma**2,
            largest=sigma**2,
            max_products=max_products,
            length=tolerance * sigma * size,
        )
        watch(peak, x0)
        share = expand((following / sigma) ** 2, x)
        spread = expand(following, x) * torch.sqrt(1 - share)
        x = x0 + share * (x - x0) + spread * rng.normal_like(x)
    exact = expand(noise == 0, x0)
    if exact.any():
        fitted = nearest_fit(operator, y, x0, max_products=EXACT_STEPS)
        x0 = torch.where(exact, fitted, x0)
    return watch.finish(x0)


def linearise(score: Score, x: Tensor, sigma: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """E[x_0 | x] and the products v -> (dE[x_0 | x] / dx)^T v, without a further network call."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        clean = denoise(score, x, sigma)

    def product(v: Tensor) -> Tensor:
        return torch.autograd.grad(clean, x, v, retain_graph=True)[0]

    return clean.detach(), product
