"""Shape of a distribution of gradients in two numbers: exponent and kurtosis."""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln

EXPONENTS = 0.1, 10.0  # range in which an exponent is sought


def shape_of(places: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Exponent and kurtosis of a distribution that is symmetric about 0, from its histogram.

    The exponent e is that of the generalised normal density ~ exp(-|g / s|^e) with the same

        E[|g|]^2 / E[g^2] = Gamma(2 / e)^2 / (Gamma(1 / e) Gamma(3 / e))

    (S. G. Mallat, IEEE Trans. Pattern Anal. Mach. Intell. 11, 1989): 2 for a normal distribution, 1
    for Laplace's, less for images of flat regions and edges. The kurtosis is E[g^4] / E[g^2]^2: 3
    for a normal distribution, 6 for Laplace's.

    Args:
        places: ``(n,)`` middle of each bin.
        counts: ``(n,)`` how many gradients each bin has.

    Returns:
        Both numbers, NaN if all gradients are 0 or there are none; the nearer end of `EXPONENTS`
        for an exponent outside of it.
    """
    size, total = np.abs(places), max(counts.sum(), 1)
    first, second, fourth = ((size**power * counts).sum() / total for power in (1, 2, 4))
    if not second > 0:
        return math.nan, math.nan
    ratio = first**2 / second

    def excess(exponent: float) -> float:
        one, two, three = (gammaln(k / exponent) for k in (1, 2, 3))
        return math.exp(2 * two - one - three) - ratio

    least, most = EXPONENTS
    if excess(least) >= 0:
        exponent = least
    elif excess(most) <= 0:
        exponent = most
    else:
        exponent = brentq(excess, least, most)
    return float(exponent), float(fourth / second**2)
