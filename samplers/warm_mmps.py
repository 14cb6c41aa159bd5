"""Posterior samples around a point estimate: plug and play, then moment matching."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator
from samplers.mmps import PRECONDITION_STEPS, RIDGE, mmps
from samplers.moment_matching import MAX_PRODUCTS
from samplers.warm_start import POINT_STEPS, point_estimate, start_level
from samplers.watch import Callback
from sde import VESDE, Score

NUM_STEPS = 6  # noise levels, beside those of the point estimate
# docs/calibration.md
SPREAD = "their limits of 90 % held 78 to 89 % of the pixels of test images (on a grid, CT)"
FROM_POINT = True  # all samples of a measurement share their first image, `point_estimate`
# first level over the direct image's estimated error (docs/calibration.md)
START_FACTOR = 3.0
ESTIMATED_FACTOR = 2.0  # where a network call estimates it
LEVELS_SPAN = 15.0  # first level over the last
TOLERANCE = 0.2


@torch.no_grad()
def warm_mmps(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    initial: Tensor | None = None,
    point_steps: int = POINT_STEPS,
    start_sigma: float | None = None,
    end_sigma: float | None = None,
    sigma_y: float | Tensor = 0.0,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
    ridge: float = RIDGE,
    precondition_steps: int = PRECONDITION_STEPS,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """`samplers.mmps` from a level that is high against the error of `pnp`, and from its image.

    A level sigma that drowns what the posterior leaves open need not be reached from above
    (Chung et al., CVPR 2022, "Come-Closer-Diffuse-Faster"). Where the posterior is a Gaussian of
    standard deviation s, a first draw from its mean with noise of sigma has the variance

        s^2 (1 - s^4 / (s^2 + sigma^2)^2),

    0.96 s^2 for sigma = 2 s; and most of the Jacobian products of `mmps` are at higher levels. It
    also ends sooner: at its last level the draw has the variance that the level leaves, so that
    nothing is lost by levels far below the errors of the image.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, through which autograd can go.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the numbers of `mmps`.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`, with one
            network call each and the products of its Jacobian that the tolerance asks for.
        initial: ``(B, *domain_shape)`` point estimates; None: `pnp` with `point_steps` calls, which
            samples of one measurement can share if they are given it (`point_estimate`).
        point_steps: number of network calls of `pnp`.
        start_sigma: first noise level, at most sigma_max; None: for each sample the
            estimated error of the direct image (`levels.error_level`), `START_FACTOR` times;
            without `LinearOperator.direct_error`, as for CT, `ESTIMATED_FACTOR` times, with one
            network call more.
        end_sigma: last noise level; None: the first one over `LEVELS_SPAN`, at least sigma_min.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        tolerance: as `samplers.mmps` has it.
        max_products: as `samplers.mmps` has it.
        ridge: as `samplers.mmps` has it.
        precondition_steps: as `samplers.mmps` has it.
        cg_steps: of `pnp` and the estimate of its start, largest number of iterations of a data
            step; None: `denoise.data_step` chooses.
        callback: called after each step at `num_steps` levels with (step, sigma, x0); of different
            levels the largest.

    Returns:
        ``(B, *domain_shape)`` images, complex if the operator's are.

    Raises:
        ValueError: levels outside the network's range, too few steps, or a keyword out of range.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
        RuntimeError: under `torch.inference_mode`, or the score has no gradient.
    """
    if initial is None:
        initial = point_estimate(
            score,
            sde,
            operator,
            y,
            rng=rng,
            point_steps=point_steps,
            sigma_y=sigma_y,
            cg_steps=cg_steps,
        )
    start = start_sigma
    if start is None:
        start = start_level(
            score,
            sde,
            operator,
            y,
            factor=START_FACTOR,
            estimated_factor=ESTIMATED_FACTOR,
            end_sigma=end_sigma,
            cg_steps=cg_steps,
        )
    end = end_sigma
    if end is None:
        end = (torch.as_tensor(start) / LEVELS_SPAN).clamp(min=sde.sigma_min)
    return mmps(
        score,
        sde,
        operator,
        y,
        rng=rng,
        num_steps=num_steps,
        initial=initial,
        start_sigma=start,
        end_sigma=end,
        sigma_y=sigma_y,
        tolerance=tolerance,
        max_products=max_products,
        ridge=ridge,
        precondition_steps=precondition_steps,
        callback=callback,
    )
