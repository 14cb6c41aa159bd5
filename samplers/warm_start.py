"""Where samplers begin that begin at a point estimate: that image, and a level that drowns it."""

from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator
from samplers.levels import first_level
from samplers.pnp import NUM_STEPS as POINT_STEPS
from samplers.pnp import pnp
from sde import VESDE, Score


def point_estimate(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator | None = None,
    point_steps: int = POINT_STEPS,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
) -> Tensor:
    """The image that samples start from: `samplers.pnp` from the direct image.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: names the samples in errors; no random number is drawn.
        point_steps: number of network calls.
        sigma_y: standard deviation of the measurement noise, of all samples or of each ``(B,)``.
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.

    Returns:
        ``(B, *domain_shape)``, complex if the operator's images are.

    Raises:
        ValueError: fewer than two calls, or three where one of them finds the first level.
    """
    least = 3 if operator.direct_error(y) is None else 2
    if point_steps < least:
        raise ValueError(f"expected point_steps of at least {least}, got {point_steps}")
    return pnp(
        score,
        sde,
        operator,
        y,
        rng=rng,
        num_steps=point_steps,
        initial=operator.direct(y),
        sigma_y=sigma_y,
        cg_steps=cg_steps,
    )


def start_level(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    factor: float,
    estimated_factor: float,
    end_sigma: float | None,
    cg_steps: int | None = None,
) -> Tensor:
    """First level of each sample ``(B,)``: the direct image's estimated error times a factor.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        factor: of the error that `LinearOperator.direct_error` tells.
        estimated_factor: of the one that a network call estimates (`levels.error_level`), as for
            CT.
        end_sigma: last level; None: sigma_min.
        cg_steps: largest number of iterations of a data step; None: `denoise.data_step` chooses.
    """
    known = operator.direct_error(y) is not None
    return first_level(
        score,
        sde,
        operator,
        y,
        operator.direct(y),
        factor=factor if known else estimated_factor,
        end_sigma=end_sigma,
        cg_steps=cg_steps,
    )
