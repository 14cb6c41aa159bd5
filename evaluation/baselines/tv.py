"""Total variation, smoothed by Charbonnier's function, minimised to convergence."""

import math

import torch
from torch import Tensor

from evaluation.baselines.accelerated import (
    Minimum,
    Objective,
    data_terms,
    fitted,
    minimise,
    minimise_from_above,
    squared_norm,
    warn_of_late,
)
from evaluation.baselines.direct import direct
from operators import LinearOperator
from operators.batch import expand
from operators.fourier import fft2, ifft2

# Fraction of the penalty's largest curvature, weight / smoothing, in the metric, and smallest
# eigenvalue of the metric relative to |A|^2. They change only the speed of convergence.
FLAT_PART = 0.3
# likewise along trajectories, whose |A|^2 is that of the densely covered centre of k-space: weights
# are larger in the rest, and edges are what converges last
FLAT_PART_ALONG = 0.1
FLOOR = 1e-3
FIRST_WEIGHT = 3e-4  # smaller weights are reached by continuation from about this one


def tv(
    operator: LinearOperator,
    y: Tensor,
    *,
    weight: float = 3e-6,
    smoothing: float = 1e-3,
    num_iterations: int | None = None,
    start: str = "direct",
    max_iterations: int = 3000,
    tolerance: float = 5e-7,
) -> Tensor:
    """Reconstruction with smoothed total variation.

    It minimises 1/2 |A x - y|^2 + weight |A|^2 sum_p sqrt(|grad x(p)|^2 + smoothing^2) over x. The
    penalty is isotropic: |grad x(p)|^2 sums over both directions, and over real and imaginary
    parts. A logged warning gives the number of samples that had not converged when the iterations
    ran out.

    Args:
        operator: measurement operator A.
        y: ``(B, *range_shape)`` measurement.
        weight: weight of the penalty in units of |A|^2, above 0, for images in [0, 1].
        smoothing: smoothing in image units per pixel, above 0: smaller gradients are not
            penalised as edges. The limit 0 is total variation itself.
        num_iterations: exact number of iterations (the study: 200); None to iterate until each
            sample has converged.
        start: with `num_iterations`: ``"direct"``, the direct reconstruction scaled to fit, or
            ``"back_projection"``, D^-1 A^H y, as in the study of 2026.
        max_iterations: maximum number of iterations for each weight of the continuation.
        tolerance: length of a step relative to the image at which a sample has converged.

    Returns:
        ``(B, *domain_shape)``.

    Raises:
        ValueError: an invalid weight, smoothing, tolerance or number of iterations, or an unknown
            start.

    Source: L. Rudin, S. Osher, E. Fatemi, Physica D 60 (1992) 259-268; P. Charbonnier et al., IEEE
    Trans. Image Process. 6 (1997) 298-311. `docs/baselines.md` describes the algorithm.
    """
    if start not in STARTS:
        raise ValueError(f"expected start to be one of {tuple(STARTS)}, got {start!r}")
    if num_iterations is not None:
        first, scale = STARTS[start](operator, y), squared_norm(operator, y)
        objective = tv_objective(operator, y, weight * scale, smoothing)
        return minimise(objective, first, max_iterations=num_iterations, tolerance=0.0).x
    found = tv_minimum(
        operator,
        y,
        weight=weight,
        smoothing=smoothing,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    warn_of_late("tv", found)
    return found.x


def tv_minimum(
    operator: LinearOperator,
    y: Tensor,
    *,
    weight: float,
    smoothing: float,
    max_iterations: int,
    tolerance: float,
) -> Minimum:
    """Total-variation reconstruction with its convergence; the arguments are those of `tv`."""
    scale = squared_norm(operator, y)
    return minimise_from_above(
        lambda stage: tv_objective(operator, y, stage * scale, smoothing),
        _start(operator, y),
        weight,
        first=FIRST_WEIGHT,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )


def _start(operator: LinearOperator, y: Tensor) -> Tensor:
    return fitted(operator, y, direct(operator, y))


def _back_projection(operator: LinearOperator, y: Tensor) -> Tensor:
    return operator.correct(torch.zeros_like(operator.adjoint(y)), y)


STARTS = {"direct": _start, "back_projection": _back_projection}


def tv_objective(
    operator: LinearOperator, y: Tensor, weight: Tensor, smoothing: float
) -> Objective:
    """Objective 1/2 |A x - y|^2 + weight sum sqrt(|grad x|^2 + smoothing^2), with a metric.

    The metric is diagonal in Fourier space: the convolution part of A^H A (all of it for
    single-coil MRI, nearly all for a parallel beam) plus a Laplacian, which is the Hessian of the
    penalty for small gradients. If the measurement is weighted (`operators.whitened`), it is that
    without the weights: theirs is no convolution, and takes several times as many iterations.

    Args:
        operator: A.
        y: ``(B, *range_shape)`` measurement.
        weight: ``(B,)``, above 0.
        smoothing: above 0.

    Raises:
        ValueError: `smoothing` is not positive.
    """
    if not (math.isfinite(smoothing) and smoothing > 0):
        raise ValueError(f"expected a positive smoothing, got {smoothing}")
    spectrum = _spectrum(operator.without_weights(y)[0], y)  # (1 or B, 1, H, W)
    floor = FLOOR * spectrum.amax(dim=(1, 2, 3), keepdim=True)
    laplacian = _laplacian(operator.domain_shape[-2:], spectrum)  # (H, W)
    part = FLAT_PART_ALONG if operator.fast_normal else FLAT_PART
    flat = expand(weight, spectrum) * part / smoothing
    # if the response to a point is tiny or zero, the penalty sets the scale
    floor = torch.maximum(floor, FLOOR * flat)
    eigenvalues = spectrum.clamp(min=0) + floor + flat * laplacian  # (B, 1, H, W)

    def filtered(x: Tensor, factors: Tensor) -> Tensor:
        image = ifft2(fft2(x) * factors)
        return image if x.is_complex() else image.real

    def smooth(z: Tensor):
        size = _smoothed_magnitude(gradient(z), smoothing)  # (B, 1, H, W)

        # The square root is concave in |grad x|^2, so that its tangent is an upper bound.
        def curvature(d: Tensor) -> Tensor:
            return weight * (gradient(d).abs().square() / size).flatten(1).sum(1)

        return expand(weight, z) * gradient_adjoint(gradient(z) / size), curvature

    return Objective(
        **data_terms(operator, y),
        smooth=smooth,
        prox=lambda v, step: v,
        metric=lambda d: filtered(d, eigenvalues),
        inverse_metric=lambda g: filtered(g, 1 / eigenvalues),
    )


def gradient(x: Tensor) -> Tensor:
    """Image gradient, ``(B, S, H, W)`` to ``(B, 2, S, H, W)``.

    The components are differences to the right and to the lower neighbour, 0 at the border.
    """
    right, down = torch.zeros_like(x), torch.zeros_like(x)
    right[..., :-1] = x[..., 1:] - x[..., :-1]
    down[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    return torch.stack([right, down], dim=1)  # (B, 2, S, H, W)


def gradient_adjoint(field: Tensor) -> Tensor:
    """Adjoint of `gradient`, the negative divergence: ``(B, 2, S, H, W)`` to ``(B, S, H, W)``."""
    right, down = field[:, 0, ..., :-1], field[:, 1, ..., :-1, :]
    x = torch.zeros_like(field[:, 0])
    x[..., :-1] -= right
    x[..., 1:] += right
    x[..., :-1, :] -= down
    x[..., 1:, :] += down
    return x  # (B, S, H, W)


def total_variation(x: Tensor, smoothing: float) -> Tensor:
    """Smoothed total variation sum_p sqrt(|grad x(p)|^2 + smoothing^2) of each sample: ``(B,)``."""
    return _smoothed_magnitude(gradient(x), smoothing).flatten(1).sum(1)


def _smoothed_magnitude(field: Tensor, smoothing: float) -> Tensor:
    squares = field.abs().square().sum(1, keepdim=True)
    return torch.sqrt(squares + smoothing**2)  # (B, 1, S, H, W)


def _spectrum(operator: LinearOperator, y: Tensor) -> Tensor:
    """Eigenvalues of the convolution that approximates A^H A: ``(1 or B, 1, H, W)``.

    They are the Fourier transform of its response to a point at the centre of the image.
    """
    height, width = operator.domain_shape[-2:]
    dtype = y.real.dtype.to_complex() if operator.domain_complex else y.real.dtype
    shape = (operator.batch_size or 1, *operator.domain_shape)
    point = torch.zeros(shape, dtype=dtype, device=y.device)
    point[..., height // 2, width // 2] = 1
    response = operator.normal(point).roll((-(height // 2), -(width // 2)), dims=(-2, -1))
    return fft2(response).real * math.sqrt(height * width)


def _laplacian(shape: tuple[int, int], like: Tensor) -> Tensor:
    """Eigenvalues of `gradient_adjoint` after `gradient` with periodic boundaries: ``(H, W)``."""
    rows, columns = (
        2 - 2 * torch.cos(2 * math.pi * torch.arange(n, dtype=torch.float64) / n) for n in shape
    )
    return (rows[:, None] + columns).to(like)
