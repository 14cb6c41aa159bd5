"""Proximal step of the data term by its dual problem, for operators with a preconditioner."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import dot, expand
from operators.solvers import FLOOR, Solution, frozen_ratio, frozen_update, regularization_weight


def solve_dual(
    operator: LinearOperator,
    y: Tensor,
    x0: Tensor,
    *,
    regularization: float | Tensor = 0.0,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
) -> Solution:
    """Proximal step of the data term, by preconditioned conjugate residuals on the dual problem.

    Solves argmin_x ||A x - y||^2 + regularization ||x - x0||^2, as `solve_normal_equations`
    does, in the dual form

        (A A^H + regularization) u = y - A x0,    x = x0 + A^H u,

    with the preconditioner M = `operator.gram_inverse`. Every iterate differs from x0 by an
    element of the range of A^H; a preconditioner of A^H A would change x where A measures nothing.
    Conjugate residuals minimise the M-norm of the residual. Without regularization, if no image
    fits y (more rays than pixels, noise), they converge to the least-squares solution weighted
    with M, where conjugate gradients overshoot. A sample that has converged no longer changes.

    Args:
        operator: A, with a `gram_inverse`.
        y: ``(B, *range_shape)`` measurement.
        x0: ``(B, *domain_shape)``, the start and the centre of the penalty.
        regularization: 0 or more, one number or ``(B,)``.
        max_iterations: maximum number of iterations, each one product with A and one with A^H.
        tolerance: value of `Solution.residual` at which a sample stops; at least `FLOOR` machine
            epsilons.

    Returns:
        The solution, iterations, residual and convergence of each sample. `residual` is the norm
        of the gradient of the M-weighted misfit relative to that at x0; if the iterations run
        out, that before the last one.

    Raises:
        ValueError: a wrong shape, a negative regularization, or an operator without a
            `gram_inverse`.
        TypeError: `y` or `x0` is real but should be complex, or the other way round.

    Source: Y. Saad, Iterative Methods for Sparse Linear Systems (2003), algorithm 6.20.
    """
    weight = regularization_weight(regularization, y)
    precondition = operator.gram_inverse(weight)
    if precondition is None:
        raise ValueError(f"{type(operator).__name__} has no gram_inverse: solve_normal_equations")
    weight = expand(weight, y)  # (B or 1, 1, ...)
    residual = y - operator.forward(x0)
    filtered = precondition(residual)
    image = operator.adjoint(filtered)
    product = operator.forward(image) + weight * filtered  # (A A^H + regularization) M r
    direction, step_image = product, image
    square = first = dot(filtered, product)  # (B,)
    x = x0
    tolerance = max(tolerance, FLOOR * torch.finfo(y.real.dtype).eps)
    iterations = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    active = square > 0
    for remaining in reversed(range(max_iterations)):
        if not active.any():
            break
        turned = precondition(direction)
        step = frozen_ratio(square, dot(direction, turned), active)
        x = frozen_update(x, step, step_image, active)
        iterations = iterations + active
        filtered = frozen_update(filtered, -step, turned, active)
        if not remaining:  # the next direction costs as much as a step
            break
        image = operator.adjoint(filtered)
        product = operator.forward(image) + weight * filtered
        previous, square = square, torch.where(active, dot(filtered, product), square)
        ratio = frozen_ratio(square, previous, active)
        step_image = frozen_update(image, ratio, step_image, active)
        direction = frozen_update(product, ratio, direction, active)
        active = active & (square > tolerance**2 * first)
    relative = (square / torch.where(first > 0, first, 1.0)).clamp(min=0).sqrt()
    return Solution(x, iterations, relative, relative <= tolerance)
