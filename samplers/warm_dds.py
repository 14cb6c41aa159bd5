"""Posterior samples around a point estimate: plug and play, then diffusion from a low level."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator
from samplers.dds import dds
from samplers.warm_start import POINT_STEPS, point_estimate, start_level
from samplers.watch import Callback
from sde import VESDE, Score

NUM_STEPS = 20  # default number of noise levels, beside those of the point estimate
# docs/calibration.md
SPREAD = "their limits of 90 % held 59 to 82 % of the pixels of test images"
FROM_POINT = True  # all samples of a measurement share their first image, `point_estimate`
# first level over the direct image's estimated error (docs/calibration.md)
START_FACTOR = 1.0
ESTIMATED_FACTOR = 0.75  # where a network call estimates it


@torch.no_grad()
def warm_dds(
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
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Samples from a level that is high against the error of `pnp`, down from `pnp` and its noise.

    At a level sigma that drowns what the posterior leaves open, the posterior with noise of sigma
    is nearly a Gaussian around any image that is near to the truth, and need not be reached from
    above: that is the warm start of Chung et al. (CVPR 2022, "Come-Closer-Diffuse-Faster"), here
    from the plug-and-play image. All steps are then spent where samples differ. They are those of
    `samplers.dds` with the noise of the exact step back and of the image after the data step, which
    keep what the data leave open (docs/calibration.md); all noise new, the default there, loses
    half of the variance.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the noise of the start, then that of each step.
        num_steps: number of geometric noise levels from `start_sigma` to `end_sigma`, with one
            network call each.
        initial: ``(B, *domain_shape)`` point estimates; None: `pnp` with `point_steps` calls, which
            samples of one measurement can share if they are given it (`point_estimate`).
        point_steps: number of network calls of `pnp`.
        start_sigma: first noise level, at most sigma_max; None: for each sample the estimated error
            of the direct image (`levels.error_level`), `START_FACTOR` times; without
            `LinearOperator.direct_error`, as for CT, `ESTIMATED_FACTOR` times, with one network
            call more.
        end_sigma: last noise level; None: sigma_min.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.
        callback: called after each step at `num_steps` levels with (step, sigma, x0'); of different
            levels the largest.

    Returns:
        ``(B, *domain_shape)`` images, complex if the operator's are.

    Raises:
        ValueError: levels outside the network's range, or too few steps.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
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
    return dds(
        score,
        sde,
        operator,
        y,
        rng=rng,
        num_steps=num_steps,
        initial=initial,
        start_sigma=start,
        end_sigma=end_sigma,
        ancestral=True,
        old_noise="data",
        sigma_y=sigma_y,
        cg_steps=cg_steps,
        callback=callback,
    )
