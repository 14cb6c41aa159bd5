"""The proximal step of a data term by its dual problem, for operators with a good filter."""

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
    """argmin_x ||A x - y||^2 + regularization ||x - x0||^2, by preconditioned conjugate residuals

        (A A^H + regularization) u = y - A x0,    x = x0 + A^H u,

    with M = `operator.gram_inverse`: the problem of `solve_normal_equations`, and its solution. In
    front of A^H A a filter would draw x away from x0 where A does not see; here every iterate
    differs from x0 by what A^H gives. Conjugate residuals make the M-norm of the equation's
    residual smallest: for a measurement that no image has (more rays than pixels, noise) and no
    regularization they go to the least squares weighted with M, where conjugate gradients
    overshoot. A sample that has converged keeps its numbers while the others go on.

    Args:
        operator: A, with a `gram_inverse`.
        y: ``(B, *range_shape)`` measurement.
        x0: ``(B, *domain_shape)``, the start and the centre of the penalty.
        regularization: 0 or more, one number or ``(B,)``.
        max_iterations: at most; each is a product with A and one with A^H.
        tolerance: to stop at, of `Solution.residual`; at least `FLOOR` machine epsilons.

    Returns:
        As `conjugate_gradient`, but that `residual` is the norm of the gradient of the M-weighted
        misfit over that at x0, before the last iteration where they ran out.

    Raises:
        ValueError: a wrong shape, a negative regularization, or an operator without the filter.
        TypeError: real where complex is expected, or the other way round.

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
