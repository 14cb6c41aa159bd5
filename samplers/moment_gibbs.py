"""Split Gibbs sweeps with the clean image's covariance, from samples of `mmps`."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand
from operators.gaussian import coupled_draw, coupled_misfit, largest_eigenvalue
from samplers.denoise import schedule
from samplers.mmps import PRECONDITION_STEPS, RIDGE, mmps
from samplers.moment_matching import (
    MAX_PRODUCTS,
    TOLERANCE,
    bridge,
    check_iterations,
    draw_clean,
)
from samplers.particles import resample
from samplers.watch import Callback, Watch
from sde import VESDE, Score

NUM_STEPS = 16  # sweeps where none are asked for
SPREAD = "exact where a denoiser is; on images not yet trusted"  # docs/calibration.md
START_STEPS = 12  # levels of `mmps`
INNER_STEPS = 6  # levels of a prior step
WIDEST = 4.0  # first coupling over the last
HELD = 4  # of so many sweeps one has the last coupling
OVERRELAXATION = 0.8  # of z, from sweep to sweep
LEAST = 2.0  # last coupling over the last noise level, below which no sweep is made


@torch.no_grad()
def moment_gibbs(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    initial: Tensor | None = None,
    start_steps: int = START_STEPS,
    start_sigma: float | None = None,
    end_sigma: float | None = None,
    widest: float = WIDEST,
    inner_steps: int = INNER_STEPS,
    particles: int = 1,
    overrelaxation: float = OVERRELAXATION,
    sigma_y: float | Tensor = 0.0,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
    ridge: float = RIDGE,
    precondition_steps: int = PRECONDITION_STEPS,
    callback: Callback | None = None,
) -> Tensor:
    """Posterior samples by split Gibbs sweeps that start from `mmps` and end without coupling.

    A sweep draws z ~ p(y | z) N(z; x, rho^2) and then x ~ p(x) N(z; x, rho^2), as PnP-DM (Wu et
    al.) and DPnP (Xu & Chi, both NeurIPS 2024) do. Four things are different:

    - the chain starts from a sample of `samplers.mmps`, which is one of the posterior where the
      prior is Gaussian: what the data do not decide need not be walked through;
    - the noise of p(y | z) makes up for the coupling (`operators.gaussian.coupled_draw`), so that
      at the last rho = sigma_y / |A| the posterior is the sweep's own, and no smaller, slower rho
      is needed;
    - z is overrelaxed (Adler, Phys. Rev. D 1981): drawn on the other side of its mean than the last
      one was, which is as right and walks farther;
    - the prior step draws with the covariance of the clean image, in `inner_steps` levels from rho
      to `end_sigma`, `moment_matching.draw_clean` and `bridge`, which is exact for Gaussian priors
      and, with many levels, for all.

    Modes far apart are chosen at high couplings, where the data count less than they should, and
    few sweeps change that later. With several `particles` a sample has so many chains, which from
    coupling to coupling are resampled by what the data then say more, p(y | x) at the next rho over
    that at this; the weights cost no network call. One of them goes on at the last coupling. They
    need a `widest` at which chains walk between the modes, and few measured numbers: of many, one
    particle would have all the weight.

    What is left of the errors of `mmps` where p(x_0 | x) is no Gaussian goes with the sweeps. A
    level costs a network call and the Jacobian products that the tolerance asks for, each about two
    calls. Needs several times the memory of the others, and a score that autograd can go through.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its range of noise levels.
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws `mmps`'s numbers, then each sweep's, those of
            all particles one after the other, and one to resample them.
        num_steps: number of sweeps: of geometric couplings, and a quarter at the last one.
        initial: ``(B, *domain_shape)`` images for `mmps`; None: D^-1 A^H y.
        start_steps: number of noise levels of `mmps`.
        start_sigma: first level of `mmps`; None: 20, or sigma_max if that is lower.
        end_sigma: last noise level of `mmps` and of the prior steps; None: sigma_min.
        widest: first coupling over the last, sigma_y / |A|; above 1.
        inner_steps: levels of a prior step, 2 or more.
        particles: images of a sample, each with its own sweeps down to the last coupling.
        overrelaxation: how far z is on the other side, from 0, where it does not depend on the last
            one, to below 1.
        sigma_y: standard deviation of the measurement noise (for complex y that of the real and of
            the imaginary part each), of all samples or of each ``(B,)``.
        tolerance: iterations end where a further product changes the image by less than this
            fraction of the level's noise (root mean square).
        max_products: largest number of Jacobian products of a draw, and as many for the data in
            `mmps`.
        ridge: of `mmps`.
        precondition_steps: of `mmps`.
        callback: called with (step, rho, x) after `mmps`, with the last rho, and after each sweep;
            of different rho the largest.

    Returns:
        ``(B, *domain_shape)``: the last x. Where sigma_y / |A| is below twice `end_sigma`, as
        without noise, no coupling is without an error that the prior's noise levels allow, and it
        is the sample of `mmps`.

    Raises:
        ValueError: levels that the network does not know, fewer than two of them or sweeps, or
            another keyword out of range.
        NonFiniteError: some images became NaN or infinite; the others are in it.
        RuntimeError: under `torch.inference_mode`, or the score has no gradient.
    """
    check_iterations(tolerance, max_products)
    if min(num_steps, inner_steps) < 2 or not widest > 1 or particles < 1:
        raise ValueError(
            "expected num_steps and inner_steps of 2 or more, widest above 1 and particles of 1 or "
            f"more, got {num_steps}, {inner_steps}, {widest} and {particles}"
        )
    if not 0 <= overrelaxation < 1:
        raise ValueError(f"expected an overrelaxation from 0 to below 1, got {overrelaxation}")
    iterations = {"tolerance": tolerance, "max_products": max_products}
    levels = {"start_sigma": start_sigma, "end_sigma": end_sigma}
    images = {"initial": initial, "sigma_y": sigma_y, "num_steps": start_steps}
    solution = {"ridge": ridge, "precondition_steps": precondition_steps}
    given = images | levels | iterations | solution
    first = mmps(score, sde, operator, y, rng=rng, **given)
    noise = torch.as_tensor(sigma_y).to(first.real).expand(len(first))  # (B,)
    largest = largest_eigenvalue(operator, first)
    least = LEAST * (sde.sigma_min if end_sigma is None else end_sigma)
    last = (noise / largest.sqrt()).double().cpu()  # (B,)
    swept = last >= least
    last = last.clamp(least, sde.sigma_max / widest)
    watch = Watch(rng, callback)
    watch(float(last.max()), first)
    if not swept.any():
        return watch.finish(first)
    held = num_steps // HELD
    couplings = schedule(sde, num_steps - held, widest * last, last, len(first))

    def sweep(chain: Chain, x: Tensor, z: Tensor | None, coupling: Tensor) -> tuple[Tensor, Tensor]:
        z = coupled_draw(
            chain.operator,
            chain.y,
            x,
            coupling.to(x.real),
            sigma_y=chain.noise,
            largest=chain.largest,
            rng=chain.rng,
            last=z,
            overrelaxation=overrelaxation,
        )
        sigmas = schedule(sde, inner_steps, coupling, end_sigma, len(x)).to(x.real)
        return prior_draw(score, z, sigmas, rng=chain.rng, **iterations), z

    chain = Chain(operator, y, noise, largest, rng)
    many = chain.repeat(particles)
    x, z = first.repeat(particles, *[1] * (first.ndim - 1)), None  # (P B, ...)
    for pair in pairwise(couplings):
        coupling, following = (rho.repeat(particles) for rho in pair)
        x, z = sweep(many, x, z, coupling)
        if particles > 1:
            weights = many.log_weights(x, coupling, following)
            x, z = resample(torch.stack([x, z], dim=1), weights, rng).unbind(1)
        z = x + expand((following / coupling).to(x.real), x) * (z - x)
        watch(float(coupling.max()), x[: len(first)])
    x, z = x[: len(first)], None if z is None else z[: len(first)]
    for _ in range(1 + held):
        x, z = sweep(chain, x, z, last)
        watch(float(last.max()), x)
    return watch.finish(torch.where(expand(swept.to(x.device), x), x, first))


class Chain(NamedTuple):
    """What the sweeps of a batch are given: A, y, sigma_y, |A|^2 and a generator of each sample."""

    operator: LinearOperator
    y: Tensor
    noise: Tensor
    largest: Tensor
    rng: BatchGenerator

    def repeat(self, times: int) -> "Chain":
        """For a batch that holds these samples `times` times, one batch after the other."""
        return Chain(
            self.operator.repeat(times),
            self.y.repeat(times, *[1] * (self.y.ndim - 1)),
            self.noise.repeat(times),
            self.largest.repeat(times),
            self.rng.repeat(times),
        )

    def log_weights(self, x: Tensor, coupling: Tensor, following: Tensor) -> Tensor:
        """log p(y | x) at the next coupling less that at this, ``(B,)``, up to a constant."""
        residual = self.y - self.operator.forward(x)
        now, then = (
            coupled_misfit(
                self.operator, residual, rho.to(x.real), sigma_y=self.noise, largest=self.largest
            )
            for rho in (coupling, following)
        )
        return now - then


def prior_draw(
    score: Score,
    x: Tensor,
    sigmas: Tensor,
    *,
    rng: BatchGenerator,
    tolerance: float,
    max_products: int,
) -> Tensor:
    """A sample of the clean images of which x is one with noise of the first level.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        x: ``(B, *domain_shape)``.
        sigmas: ``(levels, B)``, falling; a network call each.
        rng: draws z of each level's draw, then that of its bridge.
        tolerance: of `moment_matching.draw_clean`.
        max_products: of that, too.
    """
    iterations = {"tolerance": tolerance, "max_products": max_products}
    for sigma, following in zip(sigmas, [*sigmas[1:], None], strict=True):
        clean, *_ = draw_clean(score, x, sigma, rng=rng, **iterations)
        if following is None:
            return clean
        x = bridge(x, clean, sigma, following, rng)
    raise AssertionError("unreachable: at least two levels")
