"""Mean and standard deviation over posterior samples, one sample in memory at a time."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Posterior(NamedTuple):
    """Moments over samples of the posterior.

    Attributes:
        mean: ``(B, *domain_shape)``, an estimate of the posterior mean: less error than any one
            sample, but smoother than a real image.
        std: ``(B, *domain_shape)`` real, standard deviation of a pixel over the samples; zero for
            one sample. Of a complex pixel that of its part along the mean, Re(x conj(mean)) /
            |mean|: what its magnitude varies by, where that is above the noise. (|x - mean| holds
            the deviation of the phase as well, sqrt(2) times as much in all.)
    """

    mean: Tensor
    std: Tensor


def posterior_moments(draw: Callable[[int], Tensor], num_samples: int) -> Posterior:
    """Welford's running mean and variance (Technometrics 1962) over ``draw(0), draw(1), ...``.

    Of complex images with e = x - mean, E |e|^2 and E e^2 are kept: the variance along a direction
    exp(i phi) is (E |e|^2 + Re(exp(-2 i phi) E e^2)) / 2.

    Args:
        draw: the number of a sample -> images ``(B, *domain_shape)``; its random numbers have to
            depend on that number, e.g. through `operators.batch.derive_seed`.
        num_samples: at least 1.

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
