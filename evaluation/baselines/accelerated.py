"""Accelerated proximal gradients, for each sample of a batch on its own."""

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

REFRESH = 20  # iterations after which A x is computed anew, before rounding adds up
SLACK = 1e-3  # relative, of the step that backtracking finds: rounding must not refuse it again
CONTINUATION = 10.0  # the ratio of successive weights
COARSE = 10.0  # larger weights than the last are solved for to so many times the tolerance


class Objective(NamedTuple):
    """F(x) = 1/2 |A x - y|^2 + R(x) + G(x) on ``(B, ...)``, and the metric P to descend in.

    Attributes:
        forward: x -> A x.
        adjoint: r -> A^H r.
        y: the measurement.
        smooth: z -> the gradient of R at z, and d -> ``(B,)``, a number that is at least
            2 [R(z + d) - R(z) - <grad R(z), d>].
        prox: (v, step ``(B,)``) -> argmin_x G(x) + |x - v|_P^2 / (2 step).
        metric: d -> P d, positive definite.
        inverse_metric: g -> P^-1 g.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    y: Tensor
    smooth: Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]
    prox: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor], Tensor]
    inverse_metric: Callable[[Tensor], Tensor]


class Minimum(NamedTuple):
    """What `minimise` found, and how, for each sample."""

    x: Tensor  # (B, ...)
    iterations: Tensor  # (B,) int64
    change: Tensor  # (B,) length of the last proximal gradient step / |x|
    converged: Tensor  # (B,) bool, change <= tolerance


def minimise(
    objective: Objective, start: Tensor, *, max_iterations: int, tolerance: float
) -> Minimum:
    """argmin F by accelerated proximal gradients with backtracking and adaptive restart.

    A sample stops when the step from its extrapolated point is at most tolerance * |x|, and keeps
    its numbers from then on. Momentum is dropped when it points uphill (the gradient scheme).
    Steps only shrink between restarts, as momentum needs; a restart doubles them.

    Args:
        objective: F.
        start: ``(B, ...)``.
        max_iterations: 0 or more.
        tolerance: 0 or more; 0 runs all iterations.

    Returns:
        The minimiser and how it converged. Running out of iterations is no error: look at
        `converged`.

    Raises:
        ValueError: negative iterations or tolerance.

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
    """The minimum for a small weight of the penalty, reached through those for larger ones.

    Each weight is `CONTINUATION` times smaller than the one before, whose minimum it starts from;
    all but the last are solved coarsely.

    Args:
        objective: weight -> F.
        start: ``(B, ...)``.
        weight: above 0.
        first: the largest weight is at most this, or `weight` alone.
        max_iterations: for each weight.
        tolerance: of the last one.

    Returns:
        As `minimise`; `iterations` counts those of all weights.

    Raises:
        ValueError: a weight that is not positive, or what `minimise` raises.
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
    """Log how many samples had not converged when the iterations ran out."""
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
    """A proximal gradient step d from z, A d, P d, and its length after backtracking.

    With q(d) at least the curvature of 1/2 |A x - y|^2 + R along d, a step may be as long as
    step * q(d) <= |d|_P^2; a longer one is cut to where its own direction would have allowed it.
    """
    gradient, curvature = objective.smooth(z)
    direction = objective.inverse_metric(gradient + objective.adjoint(Az - objective.y))
    while True:
        d = objective.prox(z - expand(step, z) * direction, step) - z
        Ad, Pd = objective.forward(d), objective.metric(d)
        bound = dot(Ad, Ad) + curvature(d)  # (B,)
        size = dot(d, Pd)
        too_long = active & (step * bound > size * (1 + SLACK))
        if not too_long.any():
            return d, Ad, Pd, step
        step = torch.where(too_long, size / bound.clamp(min=_tiny(bound)), step)


def squared_norm(operator: LinearOperator, y: Tensor) -> Tensor:
    """|A|^2, the largest eigenvalue of A^H A, for each sample of `y`: ``(B,)`` real.

    Weights of penalties are given in its units, so that they do not depend on the scale of A.
    """
    norms = power_method(operator, dtype=y.real.dtype, device=y.device)  # (1 or B,)
    return norms.square().clamp(min=_tiny(norms)).expand(len(y))


def fitted(operator: LinearOperator, y: Tensor, image: Tensor) -> Tensor:
    """`image` times the real number that brings A x nearest to `y`, for each sample.

    A start of the right size whatever the scale of A, which A^H y has not.
    """
    projected = operator.forward(image)
    factor = dot(projected, y) / dot(projected, projected).clamp(min=_tiny(y.real))  # (B,)
    return expand(factor, image) * image


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
