"""Accelerated proximal gradient method, for each sample of a batch independently."""

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from operators import LinearOperator
from operators.batch import dot, expand, norm
from operators.solvers import power_method

log = logging.getLogger(__name__)

REFRESH = 20  # iterations after which A x is recomputed to limit rounding errors
SLACK = 1e-3  # relative tolerance of backtracking, so that rounding does not reject its own step
CONTINUATION = 10.0  # ratio of successive weights
COARSE = 10.0  # factor on the tolerance for all weights but the last


class Objective(NamedTuple):
    """Objective F(x) = 1/2 |A x - y|^2 + R(x) + G(x) on ``(B, ...)``, with a metric P for steps.

    Attributes:
        forward: x -> A x, or A^H A x (see `data_terms`).
        adjoint: r -> A^H r, or r.
        y: the measurement, or A^H y.
        smooth: z -> the gradient of R at z, and a function d -> ``(B,)`` that is an upper bound of
            2 [R(z + d) - R(z) - <grad R(z), d>].
        prox: (v, step ``(B,)``) -> argmin_x G(x) + |x - v|_P^2 / (2 step).
        metric: d -> P d, positive definite.
        inverse_metric: g -> P^-1 g.
        energy: (x, forward(x)) -> |A x|^2, ``(B,)``.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    y: Tensor
    smooth: Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]
    prox: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor], Tensor]
    inverse_metric: Callable[[Tensor], Tensor]
    energy: Callable[[Tensor, Tensor], Tensor] = lambda x, Ax: dot(Ax, Ax)


class Minimum(NamedTuple):
    """Result of `minimise`, with its convergence per sample."""

    x: Tensor  # (B, ...)
    iterations: Tensor  # (B,) int64
    change: Tensor  # (B,) length of the last proximal gradient step / |x|
    converged: Tensor  # (B,) bool, change <= tolerance


def minimise(
    objective: Objective, start: Tensor, *, max_iterations: int, tolerance: float
) -> Minimum:
    """FISTA: accelerated proximal gradients with backtracking and adaptive restart.

    A sample stops when the step from its extrapolated point is at most tolerance * |x|, and no
    longer changes. Momentum is reset when it points uphill (the gradient scheme). Between restarts
    the step size only shrinks, as momentum requires; a restart doubles it.

    Args:
        objective: F.
        start: ``(B, ...)`` start.
        max_iterations: maximum number of iterations, 0 or more.
        tolerance: relative length of the step at which a sample stops; 0 runs all iterations.

    Returns:
        The minimiser and its convergence. Running out of iterations raises no error; check
        `converged`.

    Raises:
        ValueError: negative `max_iterations` or `tolerance`.

    Source: A. Beck, M. Teboulle, SIAM J. Imaging Sci. 2 (2009) 183-202, section 4 (FISTA with
    backtracking); B. O'Donoghue, E. Candes, Found. Comput. Math. 15 (2015) 715-732 (restart).
    """
    if max_iterations < 0 or not tolerance >= 0:
        raise ValueError(
            f"expected max_iterations and tolerance of 0 or more, got {max_iterations}, {tolerance}"
        )
    x = previous = start
    Ax = Ax_previous = objective.forward(start)
    theta = torch.ones(len(x), dtype=x.real.dtype, device=x.device)  # (B,)
    step = torch.ones_like(theta)
    change = torch.full_like(theta, torch.inf)
    iterations = torch.zeros_like(theta, dtype=torch.int64)
    active = torch.ones_like(theta, dtype=torch.bool)

    for k in range(1, max_iterations + 1):
        if k % REFRESH == 0:
            Ax, Ax_previous = objective.forward(x), objective.forward(previous)
        next_theta = (1 + torch.sqrt(1 + 4 * theta**2)) / 2
        momentum = (theta - 1) / next_theta  # (B,)
        z = x + expand(momentum, x) * (x - previous)
        Az = Ax + expand(momentum, Ax) * (Ax - Ax_previous)

        d, Ad, Pd, step = _descend(objective, z, Az, step, active)
        new, Anew = z + d, Az + Ad
        uphill = dot(Pd, new - x) < 0  # -P d / step is the gradient at z

        keep = expand(active, x)
        previous, x = torch.where(keep, x, previous), torch.where(keep, new, x)
        keep = expand(active, Ax)
        Ax_previous, Ax = torch.where(keep, Ax, Ax_previous), torch.where(keep, Anew, Ax)
        theta = torch.where(uphill, 1.0, next_theta)
        step = torch.where(uphill, 2 * step, step)
        change = torch.where(active, norm(d) / norm(x).clamp(min=_tiny(theta)), change)
        iterations = iterations + active
        active = active & (change > tolerance)
        if not active.any():
            break
    return Minimum(x, iterations, change, change <= tolerance)


def minimise_from_above(
    objective: Callable[[float], Objective],
    start: Tensor,
    weight: float,
    *,
    first: float,
    max_iterations: int,
    tolerance: float,
) -> Minimum:
    """Minimum for a small weight of the penalty, by continuation from larger weights.

    Each weight is `CONTINUATION` times smaller than the previous one, from whose minimum it starts;
    all but the last are solved with a coarser tolerance.

    Args:
        objective: weight -> F.
        start: ``(B, ...)`` start for the largest weight.
        weight: the final weight, above 0.
        first: upper bound of the largest weight; if it is below 10 times `weight`, there is only
            `weight`.
        max_iterations: maximum number of iterations for each weight.
        tolerance: relative length of the step at which a sample stops, for the final weight.

    Returns:
        The minimiser and its convergence; `iterations` is the sum over all weights.

    Raises:
        ValueError: `weight` is not positive, or `max_iterations` or `tolerance` is negative.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"expected a positive weight, got {weight}")
    weights = [weight]
    while weights[0] * CONTINUATION <= first:
        weights.insert(0, weights[0] * CONTINUATION)
    x, iterations = start, 0
    for stage in weights:
        found = minimise(
            objective(stage),
            x,
            max_iterations=max_iterations,
            tolerance=tolerance * (1 if stage == weight else COARSE),
        )
        x, iterations = found.x, iterations + found.iterations
    return found._replace(iterations=iterations)


def warn_of_late(name: str, found: Minimum) -> None:
    """Log a warning if samples had not converged when the iterations ran out."""
    late = int((~found.converged).sum())
    if late:
        log.warning(
            "%s: %d of %d images have not converged after %d iterations; raise max_iterations",
            name,
            late,
            len(found.converged),
            int(found.iterations.max()),
        )


def _descend(
    objective: Objective, z: Tensor, Az: Tensor, step: Tensor, active: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Proximal gradient step d from z, with A d, P d, and the step size after backtracking.

    With an upper bound q(d) of the curvature of 1/2 |A x - y|^2 + R along d, a step is accepted if
    step * q(d) <= |d|_P^2; otherwise the step size becomes |d|_P^2 / q(d).
    """
    gradient, curvature = objective.smooth(z)
    direction = objective.inverse_metric(gradient + objective.adjoint(Az - objective.y))
    while True:
        d = objective.prox(z - expand(step, z) * direction, step) - z
        Ad, Pd = objective.forward(d), objective.metric(d)
        bound = objective.energy(d, Ad) + curvature(d)  # (B,)
        size = dot(d, Pd)
        too_long = active & (step * bound > size * (1 + SLACK))
        if not too_long.any():
            return d, Ad, Pd, step
        step = torch.where(too_long, size / bound.clamp(min=_tiny(bound)), step)


def data_terms(
    operator: LinearOperator,
    y: Tensor,
    *,
    synthesis: Callable[[Tensor], Tensor] = lambda x: x,
    analysis: Callable[[Tensor], Tensor] = lambda x: x,
) -> dict:
    """The fields of `Objective` that belong to 1/2 |A S x - y|^2.

    Where A^H A is faster than A and A^H, they are those of 1/2 <S x, A^H A S x> - <S x, A^H y>,
    which differs by a constant.

    Args:
        operator: A.
        y: ``(B, *range_shape)`` measurement.
        synthesis: S.
        analysis: S^H.
    """
    if operator.fast_normal:
        return {
            "forward": lambda x: analysis(operator.normal(synthesis(x))),
            "adjoint": lambda r: r,
            "y": analysis(operator.adjoint(y)),
            "energy": lambda x, Nx: dot(x, Nx).clamp(min=0),
        }
    return {
        "forward": lambda x: operator.forward(synthesis(x)),
        "adjoint": lambda r: analysis(operator.adjoint(r)),
        "y": y,
    }


def squared_norm(operator: LinearOperator, y: Tensor) -> Tensor:
    """Squared operator norm |A|^2, the largest eigenvalue of A^H A: real ``(B,)``.

    It is the unit of penalty weights, so that these do not depend on the scale of A.

    Args:
        operator: A.
        y: ``(B, *range_shape)`` measurement, for batch size, precision and device.
    """
    norms = power_method(operator, dtype=y.real.dtype, device=y.device)  # (1 or B,)
    return norms.square().clamp(min=_tiny(norms)).expand(len(y))


def fitted(operator: LinearOperator, y: Tensor, image: Tensor) -> Tensor:
    """`image` scaled by the real factor per sample that brings A x nearest to `y`.

    Unlike A^H y, such a start has the right intensity for any scale of A.
    """
    projected = operator.forward(image)
    factor = dot(projected, y) / dot(projected, projected).clamp(min=_tiny(y.real))  # (B,)
    return expand(factor, image) * image


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
