"""What the samplers that denoise in each step share: schedule, denoiser, data step."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import expand
from operators.dual import solve_dual
from operators.solvers import solve_normal_equations
from samplers.watch import empty_images
from sde import VESDE, Score

CG_STEPS = 8  # one coil needs one to three: A^H A has so many eigenvalues
# several coils: until so much of the normal equations' residual is left, 2 to 4 % of the misfit
COIL_STEPS, COIL_TOLERANCE = 30, 5e-3
FILTERED_STEPS = 3  # with the operator's filter: as good as 8 without (docs/samplers.md)
TOLERANCE = 1e-7


def schedule(
    sde: VESDE,
    num_steps: int,
    first: float | Tensor,
    last: float | Tensor | None,
    batch: int,
) -> Tensor:
    """Geometric noise levels of each sample, falling: ``(num_steps, batch)`` float64, on the CPU.

    Args:
        sde: its range of noise levels.
        num_steps: levels from the first to the last.
        first: for all samples, or for each ``(batch,)``; at most sigma_max.
        last: for all samples, or for each ``(batch,)``; at least sigma_min, which None stands for.
        batch: number of samples.

    Raises:
        ValueError: levels that the network does not know, or fewer than two.
    """
    first, last = (
        torch.as_tensor(level, dtype=torch.float64, device="cpu").expand(batch)
        for level in (first, sde.sigma_min if last is None else last)
    )
    known = (last >= sde.sigma_min) & (last < first) & (first <= sde.sigma_max)
    if not known.all():
        i = int((~known).nonzero()[0])
        raise ValueError(
            f"expected sigma_min = {sde.sigma_min:g} <= end_sigma < start_sigma <= sigma_max = "
            f"{sde.sigma_max:g}, got end_sigma={last[i]:g}, start_sigma={first[i]:g}"
        )
    if num_steps < 2:
        raise ValueError(f"expected num_steps of at least 2, got {num_steps}")
    fraction = torch.linspace(0, 1, num_steps, dtype=torch.float64)[:, None]
    return first * (last / first) ** fraction  # (num_steps, batch)


def first_image(operator: LinearOperator, y: Tensor, initial: Tensor | None) -> Tensor:
    """Where to start: `initial`, or D^-1 A^H y (zero-filled, or back-projected for CT)."""
    zeros = torch.zeros_like(empty_images(operator, y))
    return operator.correct(zeros, y) if initial is None else initial.to(zeros)


def denoise(score: Score, x: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x] = x + sigma^2 s(x, sigma) (Tweedie's formula), sigma ``(B,)``."""
    return x + expand(sigma, x) ** 2 * score(x, sigma)


def denoise_turned(score: Score, x: Tensor, sigma: Tensor, *, turn: int) -> Tensor:
    """`denoise`, the network being shown x in another of the square's eight positions.

    Args:
        score: of images in all positions.
        x: ``(B, 1, H, W)``.
        sigma: ``(B,)``.
        turn: quarter turns, from 4 on of the mirrored image; modulo 8, 0 is as it is.
    """
    quarters, mirrored = turn % 4, turn % 8 >= 4
    shown = x.rot90(quarters, (-2, -1))
    shown = shown.flip(-1) if mirrored else shown
    clean = denoise(score, shown, sigma)
    clean = clean.flip(-1) if mirrored else clean
    return clean.rot90(-quarters, (-2, -1))


def data_step(
    operator: LinearOperator,
    y: Tensor,
    x: Tensor,
    sigma: Tensor,
    *,
    sigma_y: float | Tensor,
    cg_steps: int | None = None,
) -> Tensor:
    """argmin_z |A z - y|^2 / sigma_y^2 + |z - x|^2 / sigma^2, by a few iterations from x.

    Conjugate gradients, or conjugate residuals with the operator's `gram_inverse` where it has
    one (CT). With sigma_y = 0 the penalty vanishes: they go towards the solution of A z = y that is
    nearest to x (decomposed diffusion sampling, Chung et al., ICLR 2024).

    Args:
        operator: A.
        y: ``(B, *range_shape)`` measurement.
        x: ``(B, *domain_shape)`` images.
        sigma: noise level of each ``(B,)``.
        sigma_y: of the measurement, one number or each sample's ``(B,)``.
        cg_steps: iterations at most; None: `FILTERED_STEPS` with the filter, else `CG_STEPS`, or
            with several coils as many as `COIL_TOLERANCE` asks for, each sample its own number, up
            to `COIL_STEPS`.
    """
    penalty = (torch.as_tensor(sigma_y).to(sigma) / sigma) ** 2  # (B,)
    if operator.gram_inverse(penalty) is not None:
        steps = FILTERED_STEPS if cg_steps is None else cg_steps
        return solve_dual(
            operator, y, x, regularization=penalty, max_iterations=steps, tolerance=TOLERANCE
        ).x
    coils = operator.range_shape[0] > 1
    steps, tolerance = (COIL_STEPS, COIL_TOLERANCE) if coils else (CG_STEPS, TOLERANCE)
    if cg_steps is not None:
        steps, tolerance = cg_steps, TOLERANCE
    return solve_normal_equations(
        operator, y, regularization=penalty, x0=x, max_iterations=steps, tolerance=tolerance
    ).x


def direction(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """The noise that x has over x0, in standard deviations: (x - x0) / sigma."""
    return (x - x0) / expand(sigma, x)
