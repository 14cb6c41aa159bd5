"""Posterior sampling by annealed Langevin dynamics: Jalal et al., NeurIPS 2021 (algorithm 1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand, norm
from samplers.state import Callback, Watch, blank, level
from sde import VESDE, Score

STEP_PART = 0.5  # of sigma_min^2: the study's step_scale of 5e-5 at its sigma_min of 0.01
INNER_STEPS = 3  # Langevin steps a level
DATA_WEIGHT = 5.0  # length of the data step, in lengths of the score
START_SIGMA = 1.0  # images in [0, 1] plus unit noise: what x ~ N(0, I) looks like
LIKELIHOODS = ("norm_ratio", "gaussian")

# levels that the study's code skips, by the number of levels; none for other numbers
SKIPPED = {500: 281, 1000: 551, 2000: 1112}

STUDY = {"study_skips": True}
# csgm-mri-langevin's settings for knees; its ladder is VESDE(0.0066, 232) with num_steps=2311
CSGM = {"step_scale": 9e-7, "inner_steps": 3, "data_weight": 1.0, "start_sigma": 1.24}


def annealed_langevin(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    step_scale: float | None = None,
    inner_steps: int = INNER_STEPS,
    data_weight: float = DATA_WEIGHT,
    start_sigma: float = START_SIGMA,
    likelihood: str = "norm_ratio",
    sigma_y: float | Tensor = 0.0,
    gamma: float = 1.0,
    operator_norm: float = 1.0,
    study_skips: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """x += eta (s - likelihood's gradient) + sqrt(2 eta) z at falling noise levels.

    eta = step_scale (sigma / sigma_min)^2. Random numbers are drawn per sample: x ~ N(0, I), then
    before each score evaluation the step's noise (of complex images the whole real part first).

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its noise schedule.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator a sample.
        num_steps: N, noise levels of the whole ladder; those above `start_sigma` are skipped.
        step_scale: eta at sigma_min; None: `STEP_PART` sigma_min^2.
        inner_steps: steps a level.
        data_weight: w of ``"norm_ratio"``; a factor on the gradient of ``"gaussian"``.
        start_sigma: the first level is the largest that is not above it.
        likelihood: with g = A^H (A x - y), ``"norm_ratio"``: w |s| g / |g|, the original's
            heuristic; ``"gaussian"``: w g / (sigma_y^2 + (gamma |A| sigma)^2), the gradient of a
            Gaussian likelihood whose variance counts the noise on x in (w = 1 is its scale).
        sigma_y: standard deviation of the measurement noise, of all samples or of each ``(B,)``;
            ``"norm_ratio"`` takes no notice of it.
        gamma: factor on the noise level there.
        operator_norm: |A| there: 1 for MRI, else `operators.solvers.power_method`'s.
        study_skips: skip the levels that the original code skips (`SKIPPED`, none for other N).
        callback: called after each level with (level's number, sigma, x).

    Returns:
        ``(B, *domain_shape)`` images: a noisy sample, as the algorithm has it.

    Raises:
        ValueError: unknown likelihood, a `start_sigma` below all levels, or a `step_scale` with
            which the iteration cannot be stable.
        NonFiniteError: some samples became NaN or infinite; the others are in it.
    """
    if step_scale is None:
        step_scale = STEP_PART * sde.sigma_min**2
    if not 0 < step_scale < 2 * sde.sigma_min**2:
        # the score's slope is up to 1 / sigma^2, eta = (step_scale / sigma_min^2) sigma^2
        raise ValueError(
            f"expected step_scale between 0 and 2 sigma_min^2 = {2 * sde.sigma_min**2:.3g}, got "
            f"{step_scale:.3g}; half of sigma_min^2 is the study's choice"
        )
    gradient = _gradient(likelihood, data_weight, sigma_y, gamma * operator_norm)
    sigmas = sde.ladder(num_steps).flip(0).tolist()
    first = _first(sigmas, start_sigma, study_skips)
    x = rng.normal_like(blank(operator, y))
    watch = Watch(rng, callback)
    for sigma in sigmas[first:]:
        eta = step_scale * (sigma / sde.sigma_min) ** 2
        label = level(x, sigma)
        for _ in range(inner_steps):
            z = rng.normal_like(x)
            s = score(x, label)
            g = operator.adjoint(operator.forward(x) - y)
            x = x + eta * (s - gradient(g, s, sigma)) + (2 * eta) ** 0.5 * z
        watch(sigma, x)
    return watch.finish(x)


def _first(sigmas: list[float], start_sigma: float, study_skips: bool) -> int:
    if study_skips:
        return SKIPPED.get(len(sigmas), 0)
    below = [i for i, sigma in enumerate(sigmas) if sigma <= start_sigma]
    if not below:
        raise ValueError(f"expected start_sigma of at least {sigmas[-1]:.4g}, got {start_sigma}")
    return below[0]


def _gradient(
    likelihood: str, weight: float, sigma_y: float | Tensor, gamma: float
) -> Callable[[Tensor, Tensor, float], Tensor]:
    """(g, s, sigma) -> what is subtracted from the score."""
    if likelihood == "norm_ratio":

        def ratio(g: Tensor, s: Tensor, sigma: float) -> Tensor:
            # a measurement that is met exactly has no direction to go
            length = norm(g)
            factor = torch.where(length > 0, norm(s) / length, 0.0)
            return weight * expand(factor, g) * g

        return ratio
    if likelihood == "gaussian":

        def gaussian(g: Tensor, s: Tensor, sigma: float) -> Tensor:
            variance = torch.as_tensor(sigma_y, device=g.device) ** 2 + (gamma * sigma) ** 2
            return weight * g / expand(variance.to(g.real), g)

        return gaussian
    raise ValueError(f"expected likelihood to be one of {LIKELIHOODS}, got {likelihood!r}")
