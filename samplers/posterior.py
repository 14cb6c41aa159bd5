"""Mean and standard deviation over posterior samples, one sample in memory at a time."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Posterior(NamedTuple):
    """Moments of samples of the posterior.

    Attributes:
        mean: ``(B, *domain_shape)`` mean of the samples, an estimate of the posterior mean: it has
            a smaller error than single samples, but is smoother than a real image.
        std: ``(B, *domain_shape)`` real, standard deviation of each pixel over the samples; 0 for
            one sample. For a complex pixel it is that of the component along the mean, Re(x
            conj(mean)) / |mean|, by which its magnitude varies if that is above the noise. (|x -
            mean| also includes the deviation of the phase, and is sqrt(2) times as large.)
    """

    mean: Tensor
    std: Tensor


def posterior_moments(draw: Callable[[int], Tensor], num_samples: int) -> Posterior:
    """Moments of ``draw(0)``, ``draw(1)``, ... by Welford's running formulas (Technometrics 1962).

    For complex images, E |e|^2 and E e^2 of e = x - mean are kept: the variance along a direction
    exp(i phi) is (E |e|^2 + Re(exp(-2 i phi) E e^2)) / 2.

    Args:
        draw: number of a sample -> images ``(B, *domain_shape)``; its random numbers have to depend
            on that number, for example through `operators.batch.derive_seed`.
        num_samples: number of samples, at least 1.

    Raises:
        ValueError: fewer than one sample.
    """
    if num_samples < 1:
        raise ValueError(f"expected num_samples of at least 1, got {num_samples}")
    mean = draw(0)
    squares, products = torch.zeros_like(mean.real), torch.zeros_like(mean)
    for n in range(1, num_samples):
        x = draw(n)
        before = x - mean
        mean = mean + before / (n + 1)
        squares = squares + (before * (x - mean).conj()).real
        if mean.is_complex():
            products = products + before * (x - mean)
    if mean.is_complex():
        squares = (squares + (torch.sgn(mean).conj().square() * products).real) / 2
    return Posterior(mean, torch.sqrt(squares.clamp(min=0) / max(num_samples - 1, 1)))
