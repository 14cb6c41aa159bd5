"""DiffPIR: denoise, proximal data step, noise along the direction that the data step left."""

import math

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from samplers.dds import START_SIGMA
from samplers.denoise import data_step, denoise, direction, first_image
from samplers.levels import noise_levels
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 50  # noise levels where none are asked for
SPREAD = "samples spread a little less than the posterior"  # docs/samplers.md
ZETA = 0.3  # part of new noise (Zhu et al. 2023, table 5: 0.1 to 1 by task)
STRENGTH = 1.0  # lambda of the data step


@torch.no_grad()
def diffpir(
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
    zeta: float = ZETA,
    strength: float = STRENGTH,
    sigma_y: float | Tensor = 0.0,
    cg_steps: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """x0' = data step from E[x_0 | x]; x = x0' + sigma' (sqrt(1 - zeta) e + sqrt(zeta) z).

    e = (x - x0') / sigma: unlike in `dds`, what the data step changed counts as noise. After Zhu et
    al., CVPR workshops 2023 (algorithm 1), in sigma space. One network call a step.

    Args: as `dds`, but

        zeta: variance of new noise in each step's noise, 0 to 1.
        strength: lambda: the data step's penalty is lambda sigma_y^2 / sigma^2.

    Returns, raises: as `dds`.
    """
    if not 0 <= zeta <= 1:
        raise ValueError(f"expected zeta in [0, 1], got {zeta}")
    watch = Watch(rng, callback)
    fitted = first_image(operator, y, initial)
    levels = noise_levels(
        score,
        sde,
        operator,
        y,
        fitted,
        num_steps=num_steps,
        start_sigma=start_sigma,
        end_sigma=end_sigma,
        cg_steps=cg_steps,
    )
    sigmas = levels.to(fitted.real)  # (num_steps, B)
    x = fitted + expand(sigmas[0], fitted) * rng.normal_like(fitted)
    noise_level = math.sqrt(strength) * sigma_y
    for sigma, following, peak in zip(
        sigmas, [*sigmas[1:], None], levels.amax(1).tolist(), strict=True
    ):
        clean = denoise(score, x, sigma)
        fitted = data_step(operator, y, clean, sigma, sigma_y=noise_level, cg_steps=cg_steps)
        watch(peak, fitted)
        if following is not None:
            old = math.sqrt(1 - zeta) * direction(x, fitted, sigma)
            x = fitted + expand(following, x) * (old + math.sqrt(zeta) * rng.normal_like(x))
    return watch.finish(fitted)
