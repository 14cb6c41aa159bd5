"""Annealed Langevin dynamics for posterior sampling: Jalal et al., NeurIPS 2021 (algorithm 1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand, norm
from operators.solvers import power_method
from samplers.levels import study_levels
from samplers.watch import Callback, Watch, empty_images, level
from sde import VESDE, Score

STEP_PART = 0.5  # of sigma_min^2: the study's step_scale of 5e-5 at its sigma_min of 0.01
INNER_STEPS = 3  # Langevin steps a level
START_SIGMA = 1.0  # images in [0, 1] plus unit noise: what x ~ N(0, I) looks like
STARTS = ("normal", "uniform")
DATA_WEIGHT = {"norm_ratio": 5.0, "gaussian": 1.0}  # by likelihood
NORM_STEPS = 20  # of the power method; a per cent or so is enough

NUM_STEPS = 500  # default number of noise levels
# docs/samplers.md
SPREAD = "samples know nothing of the noise: their spread is not the posterior's"
STUDY = {"study_skips": 2024}
STUDY_2026 = {"study_skips": 2026}
STUDY_2026_CT = STUDY_2026 | {"study_adjoint": True}
# csgm-mri-langevin as published: its ladder is VESDE(0.0066, 232) with num_steps=2311, of which it
# skips the first 1156; images there are divided by the 99th percentile of their magnitude. (An
# earlier version of that code has 9e-7 with the gradient g / sigma^2.)
CSGM = {
    "step_scale": 5e-5,
    "inner_steps": 3,
    "data_weight": 5.0,
    "start_sigma": 1.235,  # between level 1155, 1.2374, and 1156, 1.2318
    "start": "uniform",
}

# (x, its score, sigma) -> what is subtracted from the score
Gradient = Callable[[Tensor, Tensor, float], Tensor]


@torch.no_grad()
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
    data_weight: float | None = None,
    start: str = "normal",
    start_sigma: float = START_SIGMA,
    likelihood: str = "norm_ratio",
    sigma_y: float | Tensor = 0.0,
    gamma: float = 1.0,
    operator_norm: float | None = None,
    study_skips: int | None = None,
    study_adjoint: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """Annealed Langevin dynamics (Jalal et al., NeurIPS 2021, algorithm 1) given y = A x.

    At falling noise levels sigma, x += eta (s - g_y) + sqrt(2 eta) z, where s is the score, g_y the
    gradient of the likelihood's negative logarithm, z white noise, and
    eta = step_scale (sigma / sigma_min)^2.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its noise schedule.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the start, then before each score evaluation the noise
            of the step (of complex images the whole real part first).
        num_steps: number N of noise levels of the whole ladder; those above `start_sigma` are
            skipped.
        step_scale: eta at sigma_min; None: `STEP_PART` sigma_min^2.
        inner_steps: steps per level.
        data_weight: weight w of the likelihood; None: `DATA_WEIGHT` of the likelihood.
        start: ``"normal"``: x ~ N(0, I); ``"uniform"``: uniform in [0, 1) (for complex images the
            real and the imaginary part each).
        start_sigma: the first level is the largest one that is not above this.
        likelihood: with r = A x - y and g = A^H r, ``"norm_ratio"``: g_y = w |s| g / |g|, the
            heuristic of the original; ``"gaussian"``: g_y = w A^H (sigma_y^2 + (gamma sigma)^2
            C)^-1 r, the gradient of a Gaussian likelihood that takes the noise in x into account (w
            = 1 is its scale). C replaces A A^H and is at least as large: |A|^2, or for CT the
            spectrum that the operator's `gram_inverse` approximates, scaled so that this holds.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``; not used by
            ``"norm_ratio"``.
        gamma: factor of the noise level in ``"gaussian"``.
        operator_norm: n, to set C = n^2 in ``"gaussian"``; at least |A|.
        study_skips: 2024 or 2026: skip the levels that the study's code of that year skips
            (`levels.SKIPPED`), instead of those above `start_sigma`.
        study_adjoint: whether ``"norm_ratio"`` takes a parallel beam's `study_adjoint`, the study's
            back-projection, for A^H.
        callback: called after each level with (number of the level, sigma, x).

    Returns:
        ``(B, *domain_shape)`` images, noisy samples as in the algorithm, complex if the operator's
        are.

    Raises:
        ValueError: an unknown likelihood or start, a `start_sigma` below all levels, or steps with
            which the iteration cannot be stable.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
    """
    if likelihood not in DATA_WEIGHT:
        known = tuple(DATA_WEIGHT)
        raise ValueError(f"expected likelihood to be one of {known}, got {likelihood!r}")
    if start not in STARTS:
        raise ValueError(f"expected start to be one of {STARTS}, got {start!r}")
    if step_scale is None:
        step_scale = STEP_PART * sde.sigma_min**2
    if not 0 < step_scale < 2 * sde.sigma_min**2:
        # the score's slope is up to 1 / sigma^2, eta = (step_scale / sigma_min^2) sigma^2
        raise ValueError(
            f"expected step_scale between 0 and 2 sigma_min^2 = {2 * sde.sigma_min**2:.3g}, got "
            f"{step_scale:.3g}; half of sigma_min^2 is the study's choice"
        )
    weight = DATA_WEIGHT[likelihood] if data_weight is None else data_weight
    if likelihood == "norm_ratio":
        own = study_adjoint and hasattr(operator, "study_adjoint")
        back_project = operator.study_adjoint if own else operator.adjoint
        gradient = _norm_ratio(operator, y, weight, back_project)
    else:
        covariance = _Covariance(operator, y, operator_norm)
        _check_stable(step_scale / sde.sigma_min**2, weight * covariance.slope / gamma**2)
        gradient = _gaussian(operator, y, covariance, weight, sigma_y, gamma)
    if study_skips is None:
        sigmas = _not_above(sde.ladder(num_steps).flip(0).tolist(), start_sigma)
    else:
        sigmas = study_levels(sde, num_steps, study_skips)
    x = empty_images(operator, y)
    x = rng.uniform_like(x) if start == "uniform" else rng.normal_like(x)
    watch = Watch(rng, callback)
    for sigma in sigmas:  # falling levels, with inner_steps Langevin steps each
        eta = step_scale * (sigma / sde.sigma_min) ** 2
        label = level(x, sigma)
        for _ in range(inner_steps):
            z = rng.normal_like(x)
            s = score(x, label)
            x = x + eta * (s - gradient(x, s, sigma)) + (2 * eta) ** 0.5 * z
        watch(sigma, x)
    return watch.finish(x)


def _not_above(sigmas: list[float], start_sigma: float) -> list[float]:
    below = [sigma for sigma in sigmas if sigma <= start_sigma]
    if not below:
        raise ValueError(f"expected start_sigma of at least {sigmas[-1]:.4g}, got {start_sigma}")
    return below


def _norm_ratio(
    operator: LinearOperator, y: Tensor, weight: float, back_project: Callable[[Tensor], Tensor]
) -> Gradient:
    def gradient(x: Tensor, s: Tensor, sigma: float) -> Tensor:
        g = back_project(operator.forward(x) - y)
        # a measurement that is met exactly has no direction to go
        length = norm(g)
        factor = torch.where(length > 0, norm(s) / length, 0.0)
        return weight * expand(factor, g) * g

    return gradient


class _Covariance:
    """C, an upper bound of A A^H, in the covariance of y given the noise in x and in y.

    Attributes:
        slope: largest eigenvalue of A^H C^-1 A.
    """

    def __init__(self, operator: LinearOperator, y: Tensor, operator_norm: float | None):
        zero = torch.zeros(1, dtype=y.real.dtype, device=y.device)
        self.filter = operator.gram_inverse if operator_norm is None else None
        metric = self.filter and self.filter(zero)
        found = power_method(
            operator, metric=metric, num_iterations=NORM_STEPS, dtype=y.real.dtype, device=y.device
        )
        self.square = found.square() if operator_norm is None else zero + operator_norm**2
        self.slope = float((found.square() / self.square).max())

    def solve(self, r: Tensor, variance: Tensor, sigma: float) -> Tensor:
        """Approximation of (variance + sigma^2 C)^-1 r, for a variance ``(B,)`` or ``(1,)``."""
        scale = self.square * sigma**2  # (B,) or (1,)
        filtered = self.filter and self.filter(variance / scale)
        if filtered is None:
            return r / expand(variance + scale, r)
        return filtered(r) / expand(scale, r)


def _gaussian(
    operator: LinearOperator,
    y: Tensor,
    covariance: _Covariance,
    weight: float,
    sigma_y: float | Tensor,
    gamma: float,
) -> Gradient:
    variance = torch.as_tensor(sigma_y).to(y.real).square().reshape(-1)  # (1,) or (B,)

    def gradient(x: Tensor, s: Tensor, sigma: float) -> Tensor:
        residual = operator.forward(x) - y
        return weight * operator.adjoint(covariance.solve(residual, variance, gamma * sigma))

    return gradient


def _check_stable(step: float, slope: float) -> None:
    """Raise a ValueError if steps cannot be stable.

    Args:
        step: eta in units of sigma^2.
        slope: what the data add to the slope of the score, which is up to 1, in units of 1 /
            sigma^2.
    """
    if not step * (1 + slope) < 2:
        raise ValueError(
            f"expected step_scale, data_weight, gamma and operator_norm with which steps are "
            f"stable: step_scale / sigma_min^2 (1 + data_weight (|A| / operator_norm / gamma)^2) "
            f"below 2, got {step * (1 + slope):.3g}; leave operator_norm at None and data_weight "
            f"at {DATA_WEIGHT['gaussian']:g}, or take a smaller step_scale"
        )
