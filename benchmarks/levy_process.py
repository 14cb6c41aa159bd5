"""Lévy processes with posteriors that can be sampled: increments, Gibbs samplers, denoisers.

A signal x of length d is the sum of its first independent increments u, x_k = u_1 + ... + u_k. The
increments of `INCREMENTS` are Gaussian with a random variance v each, u = v^(1/2) z, so that x is
Gaussian given v and data y = A x + n. Gibbs samplers draw v and x in turn (Bohra et al., IEEE
Trans. Signal Process. 2023; Zach et al., ICLR 2026).
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Increments(NamedTuple):
    """Distribution of an increment u, a normal one with a random variance v.

    Attributes:
        scale: typical size of an increment.
        log_density: of u, of any shape, up to a constant.
        prior: (shape, generator) -> v that an increment has before it is seen; of Bernoulli ones
            if there is a jump.
        given: (u, generator) -> v given u.
        share: part of the increments that are not 0.
        is_normal: whether v is the same for all, so that posteriors are normal.
    """

    scale: float
    log_density: Callable[[Tensor], Tensor]
    prior: Callable[[tuple[int, ...], Generator], Tensor]
    given: Callable[[Tensor, Generator], Tensor]
    share: float = 1.0
    is_normal: bool = False

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Increments u of `shape`, float64."""
        z = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.draw_variances(shape, generator).sqrt() * z

    def draw_variances(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Variances v of `shape`, 0 where there is no jump."""
        jumps = torch.rand(shape, generator=generator, dtype=torch.float64) < self.share
        return self.prior(shape, generator) * jumps


def exponential(shape: tuple[int, ...], mean: float, generator: Generator) -> Tensor:
    """Exponential numbers."""
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    return -mean * torch.log1p(-uniform)


def inverse_gaussian(mean: Tensor, shape: float, generator: Generator) -> Tensor:
    """Inverse Gaussian numbers of density ~ t^(-3/2) exp(-shape (t - mean)^2 / (2 mean^2 t)).

    Source: Michael, Schucany and Haas, The American Statistician 30 (1976) 88-90, with the smaller
    root written without a difference of large numbers.
    """
    normal = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    a = mean * normal**2 / (2 * shape)
    small = mean / (1 + a + (a * (a + 2)).sqrt())
    uniform = torch.rand(mean.shape, generator=generator, dtype=mean.dtype)
    return torch.where(uniform * (mean + small) <= mean, small, mean * (mean / small))


def gamma(shape: float, like: Tensor, generator: Generator) -> Tensor:
    """Gamma-distributed numbers of scale 1, as many as `like` has and of its dtype."""
    if shape != int(shape):
        return torch._standard_gamma(torch.full_like(like, shape), generator=generator)
    uniform = torch.rand((int(shape), *like.shape), generator=generator, dtype=like.dtype)
    return -torch.log1p(-uniform).sum(0)  # of exponential ones, which is faster


def gauss(variance: float) -> Increments:
    """Normal increments of variance `variance`."""

    def constant(shape, generator):
        return torch.full(tuple(shape), variance, dtype=torch.float64)

    return Increments(
        math.sqrt(variance),
        lambda u: -(u**2) / (2 * variance),
        constant,
        lambda u, generator: constant(u.shape, generator),
        is_normal=True,
    )


def laplace(b: float) -> Increments:
    """Laplace increments of density exp(-|u| / b) / (2 b): v is exponential with mean 2 b^2."""

    def given(u: Tensor, generator: Generator) -> Tensor:
        mean = 1 / (b * u.abs()).clamp(min=1e-12)
        return 1 / inverse_gaussian(mean, 1 / b**2, generator)

    return Increments(
        b,
        lambda u: -u.abs() / b,
        lambda shape, generator: exponential(shape, 2 * b**2, generator),
        given,
    )


def bernoulli_laplace(share: float, b: float, width: float = 0.05) -> Increments:
    """Increments that are 0, or with probability `share` those of `laplace`.

    They have no density; `log_density` is of increments with normal noise of `width` b for the 0.
    """

    def log_density(u: Tensor) -> Tensor:
        none = -((u / (width * b)) ** 2) / 2 + math.log(
            (1 - share) / (width * math.sqrt(2 * math.pi))
        )
        return torch.logaddexp(none, math.log(share / 2) - u.abs() / b)

    return laplace(b)._replace(log_density=log_density, share=share)


def student(freedom: float) -> Increments:
    """Student's t increments of scale 1: 1 / v is gamma-distributed."""

    def inverse_gamma(shape, rate: Tensor, generator: Generator) -> Tensor:
        return rate / gamma(shape, rate, generator)

    def prior(shape, generator):
        rate = torch.full(tuple(shape), freedom / 2, dtype=torch.float64)
        return inverse_gamma(freedom / 2, rate, generator)

    return Increments(
        1.0,
        lambda u: -(freedom + 1) / 2 * torch.log1p(u**2 / freedom),
        prior,
        lambda u, generator: inverse_gamma((freedom + 1) / 2, (freedom + u**2) / 2, generator),
    )


INCREMENTS = {  # of the ICLR 2026 benchmark
    "gauss": gauss(0.25),
    "laplace": laplace(1.0),
    "bernoulli-laplace": bernoulli_laplace(0.1, 1.0),
    "student-1": student(1.0),
    "student-2": student(2.0),
    "student-3": student(3.0),
}


def increments_of(x: Tensor) -> Tensor:
    """Increments u of signals along the last axis."""
    return torch.diff(x, dim=-1, prepend=torch.zeros_like(x[..., :1]))


# ------------------------------------------------------------ posteriors given measurements


def posterior_chain(
    increments: Increments,
    matrix: Tensor,
    y: Tensor,
    noise: float,
    generator: Generator,
) -> Iterator[Tensor]:
    """Signals of one Gibbs chain for each measurement, without end: ``(B, d)`` each.

    Args:
        increments: their distribution.
        matrix: A, ``(m, d)``.
        y: ``(B, m)`` measurements.
        noise: standard deviation of the noise, above 0.
        generator: of all random numbers.
    """
    size, length = len(y), matrix.shape[1]
    steps = matrix @ torch.ones(length, length, dtype=matrix.dtype).tril()  # of increments, H
    jumps = torch.ones(size, length, dtype=torch.bool)
    variances = torch.full((size, length), increments.scale**2, dtype=torch.float64)
    while True:
        u = _normal_increments(steps, y, noise, variances * jumps, generator)
        drawn = increments.given(u, generator)
        if increments.share < 1:
            drawn = torch.where(jumps, drawn, increments.prior(drawn.shape, generator))
            jumps = _dense_jumps(increments.share, steps, y, noise, drawn, jumps, generator)
        variances = drawn
        yield u.cumsum(-1)


def _normal_increments(
    steps: Tensor, y: Tensor, noise: float, variances: Tensor, generator: Generator
) -> Tensor:
    """u given v and y: u = v^(1/2) z, where z has the precision 1 + v^(1/2) H^T H v^(1/2) / n^2."""
    roots = variances.sqrt()  # (B, d)
    eye = torch.eye(variances.shape[1], dtype=torch.float64)
    precision = eye + roots[:, :, None] * (steps.T @ steps / noise**2) * roots[:, None, :]
    factor = torch.linalg.cholesky(precision)
    right = (roots * (y @ steps) / noise**2)[..., None]
    normal = torch.randn(right.shape, generator=generator, dtype=torch.float64)
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    z = torch.linalg.solve_triangular(factor.mT, half + normal, upper=True)
    return roots * z[..., 0]


def _dense_jumps(
    share: float,
    steps: Tensor,
    y: Tensor,
    noise: float,
    variances: Tensor,
    jumps: Tensor,
    generator: Generator,
) -> Tensor:
    """Which increments are jumps given `variances` and y, one after the other, without u.

    Given u an increment of 0 would stay 0. H^T S^-1 H and H^T S^-1 y, where S is the covariance of
    y, are kept up to date by rank-one changes.
    """
    jumps = jumps.clone()
    covariance = noise**2 * torch.eye(len(steps), dtype=torch.float64)
    covariance = covariance + (steps * (variances * jumps)[:, None]) @ steps.T  # (B, m, m)
    both = torch.cat([steps.expand(len(y), *steps.shape), y[..., None]], dim=2)
    solved = steps.T @ torch.linalg.solve(covariance, both)  # (B, d, d + 1)
    uniform = torch.rand(jumps.shape, generator=generator, dtype=torch.float64)
    for k in range(steps.shape[1]):
        v, was = variances[:, k], jumps[:, k]
        shrunk = 1 - v * was * solved[:, k, k]
        s, r = solved[:, k, k] / shrunk, solved[:, k, -1] / shrunk  # without this increment
        log_odds = -torch.log1p(v * s) / 2 + v * r**2 / (2 * (1 + v * s)) + _logit(share)
        now = uniform[:, k] < torch.sigmoid(log_odds)
        change = v * (now.double() - was.double())  # (B,)
        part = change / (1 + change * solved[:, k, k])
        solved = solved - part[:, None, None] * solved[:, :, k, None] * solved[:, k, None, :]
        jumps[:, k] = now
    return jumps


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


# ------------------------------------------------------------------ posteriors of noisy signals


class Smoother(NamedTuple):
    """Kalman smoother of white noise on random walks of given variances; d comes first.

    Attributes:
        gain: of the filter, ``(d, ...)``: m_k = m + gain (y_k - m).
        back: of the smoother, ``(d, ...)``: the part of x_k+1 - m_k that x_k takes.
        spread: variance of x_k given x_k+1 and what was seen up to k, ``(d, ...)``.
    """

    gain: Tensor
    back: Tensor
    spread: Tensor

    def mean(self, y: Tensor, normal: Tensor | None = None) -> Tensor:
        """E[x | y], ``(d, ...)``; with white `normal` a sample of x given y instead.

        Without `normal` it is linear in y: C y / sigma^2, where C is the covariance of x given y.
        """
        x = torch.empty_like(y)
        m = torch.zeros_like(y[0])
        for k in range(len(y)):
            m = m + self.gain[k] * (y[k] - m)
            x[k] = m
        if normal is not None:
            x[-1] += self.spread[-1].sqrt() * normal[-1]
        for k in range(len(y) - 2, -1, -1):
            x[k] += self.back[k] * (x[k + 1] - x[k])
            if normal is not None:
                x[k] += self.spread[k].sqrt() * normal[k]
        return x


def smoother(variances: Tensor, sigma: Tensor) -> Smoother:
    """The smoother for increments of `variances` ``(d, ...)`` and noise of sigma, ``(...)``."""
    gain, back, spread = (torch.empty_like(variances) for _ in range(3))
    noise, tiny = sigma**2, torch.finfo(sigma.dtype).tiny
    p = torch.zeros_like(variances[0])
    for k in range(len(variances)):
        before = p + variances[k]
        gain[k] = before / (before + noise)
        p = gain[k] * noise
        if k + 1 < len(variances):
            back[k] = p / (p + variances[k + 1]).clamp(min=tiny)  # 0 / 0 is 0
            spread[k] = back[k] * variances[k + 1]
    back[-1], spread[-1] = 0.0, p
    return Smoother(gain, back, spread)


def _chain_jumps(
    share: float, variances: Tensor, jumps: Tensor, y: Tensor, noise: Tensor, generator: Generator
) -> Tensor:
    """`_dense_jumps` for y = x + n, ``(d, ...)``, in O(d) (Gerlach, Carter and Kohn, JASA 2000).

    What follows k says of x_k is exp(-precision x^2 / 2 + pull x), found backwards; what was before
    is N(m, p), found forwards.
    """
    length = len(y)
    precision, pull = torch.empty_like(y), torch.empty_like(y)  # of x_k, with y_k in it
    j = h = torch.zeros_like(y[0])
    for k in range(length - 1, -1, -1):
        precision[k], pull[k] = j + 1 / noise, h + y[k] / noise
        widened = 1 + variances[k] * jumps[k] * precision[k]
        j, h = precision[k] / widened, pull[k] / widened
    jumps = jumps.clone()
    uniform = torch.rand(y.shape, generator=generator, dtype=y.dtype)
    m = p = torch.zeros_like(y[0])

    def evidence(k: int, s: Tensor) -> Tensor:
        """Log-probability of the data from k on, where x_k is N(m, s) before them; less a constant,
        h m - j m^2 / 2, whose rounding would be felt.
        """
        j = precision[k]
        return (pull[k] - j * m) ** 2 * s / (2 * (1 + s * j)) - torch.log1p(s * j) / 2

    for k in range(length):
        log_odds = evidence(k, p + variances[k]) - evidence(k, p) + _logit(share)
        jumps[k] = uniform[k] < torch.sigmoid(log_odds)
        s = p + variances[k] * jumps[k]
        gain = s / (s + noise)
        m, p = m + gain * (y[k] - m), gain * noise
    return jumps


class Denoised(NamedTuple):
    """Mean and covariance of signals given noisy ones, averages over the sweeps of a chain.

    Attributes:
        mean: ``(d, B)``.
        smoothers: of the kept sweeps, ``(d, sweeps, B)`` each.
        away: conditional mean of each sweep less `mean`, ``(d, sweeps, B)``.
        sigma: ``(B,)``.
    """

    mean: Tensor
    smoothers: Smoother
    away: Tensor
    sigma: Tensor

    def jacobian(self, v: Tensor) -> Tensor:
        """C v / sigma^2 for ``(d, B)``: the derivative of the mean along v (symmetric)."""
        u = v[:, None].to(self.away)
        spread = self.smoothers.mean(u.expand_as(self.away)).mean(1)
        along = (self.away * u).sum(0)  # (sweeps, B)
        return spread.to(v) + (self.away * along).mean(1).to(v) / self.sigma.to(v) ** 2


def denoise(
    increments: Increments,
    y: Tensor,
    sigma: Tensor,
    generator: Generator,
    *,
    burn_in: int = 30,
    sweeps: int = 60,
) -> Denoised:
    """E[x | y] and Cov[x | y] for y = x + sigma n, by Gibbs sampling with conditional means.

    In single precision, except for Gaussian increments.

    Args:
        increments: their distribution.
        y: ``(B, d)`` noisy signals, float64.
        sigma: ``(B,)`` their noise.
        generator: of all random numbers.
        burn_in: sweeps left out.
        sweeps: sweeps taken; 1 is enough for Gaussian increments, and all that is done.
    """
    whole = y
    y = y.T.contiguous()
    if increments.is_normal:
        burn_in, sweeps = 0, 1
    else:  # what sampling adds is more than rounding
        y = y.float()
    sigma = sigma.to(y)
    noise = sigma**2
    variances = torch.full_like(y, increments.scale**2)
    jumps = torch.ones_like(y, dtype=torch.bool)
    kept, means = [], []
    for sweep in range(burn_in + sweeps):
        each = smoother(variances * jumps, sigma)
        if sweep >= burn_in:
            kept.append(each)
            means.append(each.mean(y))
        normal = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        u = increments_of(each.mean(y, normal).T).T
        variances = increments.given(u, generator)
        if increments.share < 1:
            prior = increments.prior(u.shape, generator).to(y)
            variances = torch.where(jumps, variances, prior)
            jumps = _chain_jumps(increments.share, variances, jumps, y, noise, generator)
    found = torch.stack(means, dim=1)
    mean = found.mean(1)  # (d, B)
    together = Smoother(*[torch.stack(parts, dim=1) for parts in zip(*kept, strict=True)])
    return Denoised(mean.to(whole), together, found - mean[:, None], sigma)


class _Denoise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, sigma: Tensor, oracle: Callable) -> Tensor:
        ctx.denoised = oracle(x.flatten(1), sigma)
        return ctx.denoised.mean.T.reshape(x.shape)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        product = ctx.denoised.jacobian(gradient.flatten(1).T)
        return product.T.reshape(gradient.shape), None, None


def score_of(increments: Increments, generator: Generator, **options: int) -> Callable:
    """Score of noisy signals ``(B, ..., d)`` by `denoise`, with its Jacobian for autograd."""

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        clean = _Denoise.apply(
            x, sigma, lambda y, s: denoise(increments, y, s, generator, **options)
        )
        return (clean - x) / (sigma**2).reshape(-1, *[1] * (x.ndim - 1))

    return score
