"""Mean, standard deviation and limits of posterior samples."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

LOW, HIGH = 0.05, 0.95  # of the two quantiles


class Posterior(NamedTuple):
    """Moments and quantiles of samples of the posterior.

    Attributes:
        mean: ``(B, *domain_shape)`` mean of the samples, an estimate of the posterior mean: it has
            a smaller error than single samples, but is smoother than a real image.
        std: ``(B, *domain_shape)`` real, standard deviation of each pixel over the samples; 0 for
            one sample. For a complex pixel it is that of the component along the mean, Re(x
            conj(mean)) / |mean|, by which its magnitude varies if that is above the noise. (|x -
            mean| also includes the deviation of the phase, and is sqrt(2) times as large.)
        low: ``(B, 1, H, W)`` real, `prediction_quantile` of 0.05 of each pixel of the images as
            they are shown, complex ones as magnitudes; for one sample its own values.
        high: that of 0.95.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor


def posterior_moments(
    draw: Callable[[int], Tensor],
    num_samples: int,
    *,
    scale: float = 1.0,
    shown: Callable[[Tensor], Tensor] | None = None,
) -> Posterior:
    """Moments and quantiles of ``draw(0)``, ``draw(1)``, ...

    Moments are computed by Welford's running formulas (Technometrics 1962). For complex images,
    E |e|^2 and E e^2 of e = x - mean are kept: the variance along a direction exp(i phi) is
    (E |e|^2 + Re(exp(-2 i phi) E e^2)) / 2. For the quantiles all images are kept, on the CPU.

    Args:
        draw: number of a sample -> images ``(B, *domain_shape)``; its random numbers have to depend
            on that number, for example through `operators.batch.derive_seed`.
        num_samples: number of samples, at least 1.
        scale: factor by which the samples are taken to differ from their mean; quantiles are
            scaled about the mean of the shown images.
        shown: images ``(B, *domain_shape)`` -> ``(B, 1, H, W)`` real, as they are shown, of complex
            ones not negative; None for `magnitude`.

    Raises:
        ValueError: fewer than one sample.
    """
    if num_samples < 1:
        raise ValueError(f"expected num_samples of at least 1, got {num_samples}")
    shown = shown or magnitude
    mean = draw(0)
    squares, products = torch.zeros_like(mean.real), torch.zeros_like(mean)
    images = [shown(mean).cpu()]
    for n in range(1, num_samples):
        x = draw(n)
        before = x - mean
        mean = mean + before / (n + 1)
        squares = squares + (before * (x - mean).conj()).real
        if mean.is_complex():
            products = products + before * (x - mean)
        images.append(shown(x).cpu())
    if mean.is_complex():
        squares = (squares + (torch.sgn(mean).conj().square() * products).real) / 2
    std = scale * torch.sqrt(squares.clamp(min=0) / max(num_samples - 1, 1))
    if num_samples == 1:
        return Posterior(mean, std, shown(mean), shown(mean))
    stacked = torch.stack(images)  # (N, B, 1, H, W)
    middle = stacked.mean(0)
    limits = [middle + scale * (prediction_quantile(stacked, p) - middle) for p in (LOW, HIGH)]
    if mean.is_complex():  # magnitudes
        limits = [limit.clamp(min=0) for limit in limits]
    return Posterior(mean, std, *(limit.to(mean.device) for limit in limits))


def magnitude(images: Tensor) -> Tensor:
    """Images as they are shown: real ones as they are, ``(B, S, H, W)`` complex as (B, 1, H, W).

    Several images a sample are joined by the root of the sum of their squares.
    """
    if not images.is_complex():
        return images
    return torch.linalg.vector_norm(images, dim=1, keepdim=True)


def quantile_kind(count: int) -> str:
    """How `prediction_quantile` finds the 5 and 95 % quantiles of `count` samples, in words."""
    return "of the order of the samples" if LOW * (count + 1) >= 1 else "of Student's t"


def prediction_quantile(samples: Tensor, p: float) -> Tensor:
    """Limit below which another draw lies with probability p, from N independent draws of the same.

    The draw that is predicted is the true value, where samples are of the posterior. The quantile
    of the N samples themselves would be too narrow a limit: of 16 samples, a fraction of 15/17 of
    other draws lies between the least and the largest. Therefore

    - with 1 <= p (N + 1) <= N, the order statistic of number p (N + 1), interpolated linearly: for
      whole numbers exact for every continuous distribution (Wilks 1941);
    - for fewer samples, which have no such limit, mean + t s sqrt(1 + 1/N) with the quantile t of
      Student's distribution of N - 1 degrees of freedom: exact for a Gaussian.

    5 and 95 % take 19 samples for the first.

    Args:
        samples: ``(N, ...)`` real, at least 2.
        p: probability, between 0 and 1.

    Returns:
        ``(...)``, in the precision of the samples.

    Raises:
        ValueError: fewer than two samples, or a p outside of (0, 1).
    """
    count = len(samples)
    if count < 2 or not 0 < p < 1:
        raise ValueError(f"expected two samples or more and p in (0, 1), got {count} and {p}")
    place = p * (count + 1)
    if not 1 <= place <= count:
        reach = float(stdtrit(count - 1, p)) * math.sqrt(1 + 1 / count)
        return samples.mean(0) + reach * samples.std(0)
    below = math.floor(place)
    part = place - below
    lower = samples.kthvalue(below, dim=0).values
    if not part:
        return lower
    return lower + part * (samples.kthvalue(below + 1, dim=0).values - lower)
