"""Parts of the samplers that denoise in each step: schedule, denoiser, data step."""

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
        num_steps: number of levels, the first and the last included.
        first: first level, of all samples or of each ``(batch,)``; at most sigma_max.
        last: last level, of all samples or of each ``(batch,)``; at least sigma_min. None:
            sigma_min.
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
    """Images to start from: `initial` or, if that is None, D^-1 A^H y (zero-filled for MRI).

    Args:
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        initial: ``(B, *domain_shape)``, or None.
    """
    zeros = torch.zeros_like(empty_images(operator, y))
    return operator.correct(zeros, y) if initial is None else initial.to(zeros)


def denoise(score: Score, x: Tensor, sigma: Tensor) -> Tensor:
    """Denoised images E[x_0 | x] = x + sigma^2 s(x, sigma) (Tweedie's formula).

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        x: ``(B, *domain_shape)`` noisy images.
        sigma: ``(B,)`` noise levels.

    Raises:
        RuntimeError: the gradient of `x` is asked for, and the score has none.
    """
    value = score(x, sigma)
    if x.requires_grad and not value.requires_grad:
        raise RuntimeError(
            "expected a score that autograd can go through, as this sampler needs its gradient, "
            "got one whose result has none; pnp for one image and warm_dds for several need none"
        )
    return x + expand(sigma, x) ** 2 * value


def aimed_at(
    score: Score,
    x: Tensor,
    sigma: Tensor,
    following: Tensor | None,
    *,
    order: int,
    clean: Tensor | None = None,
) -> Tensor:
    """The image that a step of the probability flow from level to level goes towards.

    The step is x' = c + sigma' / sigma (x - c): of order 1, Euler's, c is E[x_0 | x]; of order 2,
    Heun's, c = x - sigma d with the mean d of the slopes (x - E[x_0 | x]) / sigma at both ends of
    Euler's step (Karras et al., NeurIPS 2022, algorithm 1, in which the last step, to 0, is
    Euler's, too).

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        x: ``(B, *domain_shape)`` noisy images.
        sigma: ``(B,)`` noise levels.
        following: ``(B,)`` next levels sigma', above 0; None for a step to 0.
        order: 1, or 2 with a second network call.
        clean: E[x_0 | x] where it is known, which saves the first call.

    Raises:
        ValueError: another order.
    """
    if order not in (1, 2):
        raise ValueError(f"expected order 1 (Euler) or 2 (Heun), got {order}")
    clean = denoise(score, x, sigma) if clean is None else clean
    if order == 1 or following is None:
        return clean
    slope = direction(x, clean, sigma)
    ahead = clean + expand(following, x) * slope
    second = direction(ahead, denoise(score, ahead, following), following)
    return x - expand(sigma, x) * (slope + second) / 2


def denoise_turned(score: Score, x: Tensor, sigma: Tensor, *, turn: int) -> Tensor:
    """Denoised images as by `denoise`, with x shown to the network in another orientation.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, of images in all orientations.
        x: ``(B, 1, H, W)`` noisy images.
        sigma: ``(B,)`` noise levels.
        turn: number of the orientation, modulo 8: quarter turns, from 4 on of the mirrored image; 0
            is the image as it is.
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
    """Data step: argmin_z |A z - y|^2 / sigma_y^2 + |z - x|^2 / sigma^2, iteratively from x.

    Conjugate gradients, or conjugate residuals with the operator's `gram_inverse` if it has one
    (CT). If sigma_y is 0, the penalty vanishes: the iterations go towards the solution of A z = y
    that is nearest to x (decomposed diffusion sampling, Chung et al., ICLR 2024).

    Args:
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        x: ``(B, *domain_shape)`` images.
        sigma: ``(B,)`` noise level of each sample of x.
        sigma_y: standard deviation of the measurement noise, of all samples or of each ``(B,)``.
        cg_steps: largest number of iterations; None: `FILTERED_STEPS` with `gram_inverse`,
            otherwise `CG_STEPS`, or for several coils as many as `COIL_TOLERANCE` takes for each
            sample, up to `COIL_STEPS`.

    Returns:
        ``(B, *domain_shape)`` images.
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
    """Noise of x relative to x0 in standard deviations: (x - x0) / sigma."""
    return (x - x0) / expand(sigma, x)
