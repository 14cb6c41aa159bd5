"""Calibration of the samplers on toy posteriors in closed form.

    python -m benchmarks.gaussian_posterior

prints the calibration table of docs/samplers.md. With the exact score of a Gaussian prior whose
covariance is not stationary, the posterior of y = A x + n is Gaussian with known mean and
covariance. Every sampler draws many samples from it; the table compares their mean and variance
with the truth, separately on the subspace that the measurement sees and on its null space.
"""

import argparse
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from operators import (
    BatchGenerator,
    LinearOperator,
    ParallelBeamCT,
    SingleCoilMRI,
    Unmeasured,
)
from operators.batch import expand, norm
from operators.ct import few_view_angles
from operators.masks import make_mask
from samplers import SAMPLERS
from sde import VESDE, Score

SIDE = 8  # pixels
SDE = VESDE(0.01, 20.0)


class Gaussian(NamedTuple):
    """Gaussian distribution N(mean, covariance) of flattened images, float64."""

    mean: Tensor
    covariance: Tensor

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Exact score of the noisy density: x ``(B, ...)`` with noise levels sigma ``(B,)``."""
        values, vectors = torch.linalg.eigh(self.covariance)
        difference = (self.mean - x.flatten(1)) @ vectors  # (B, n)
        scaled = difference / (values + sigma[:, None] ** 2)  # (B, n)
        return (scaled @ vectors.T).reshape(x.shape)


def gaussian_prior() -> Gaussian:
    """Prior whose standard deviation and correlation length of pixels vary over the image."""
    rows, columns = (axis.flatten() for axis in np.mgrid[:SIDE, :SIDE])
    std = 0.1 + 0.2 * columns / SIDE
    length = 0.7 + 2.0 * rows / SIDE
    distance2 = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    mixed = (length[:, None] ** 2 + length**2) / 2
    # Gibbs' kernel: positive definite for any length scale (2-D, Paciorek & Schervish 2004)
    kernel = (length[:, None] * length / mixed) * np.exp(-distance2 / (2 * mixed))
    covariance = np.outer(std, std) * kernel + 1e-4 * np.eye(SIDE**2)
    mean = 0.5 + 0.3 * np.sin(rows / 2.0) * np.cos(columns / 3.0)
    return Gaussian(torch.from_numpy(mean), torch.from_numpy(covariance))


def capped(score: Score, factor: float = 1.2) -> Score:
    """`score` limited to |s| <= factor sqrt(n) / sigma, about that of a network far from its data.

    The norm-ratio heuristic needs the limit: its data step is as long as the score, so that with an
    unbounded score both grow to infinity.
    """

    def bounded(x: Tensor, sigma: Tensor) -> Tensor:
        s = score(x, sigma)
        limit = factor * s[0].numel() ** 0.5 / (expand(sigma, s) * expand(norm(s), s))
        return s * limit.clamp(max=1)

    return bounded


def mixture_score(components: list[Gaussian], weights: list[float]) -> Score:
    """Exact score of a mixture of Gaussians."""

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        flat = x.flatten(1)
        logs, scores = [], []
        for component, weight in zip(components, weights, strict=True):
            noisy = component.covariance + sigma[0] ** 2 * torch.eye(flat.shape[1], dtype=x.dtype)
            density = torch.distributions.MultivariateNormal(component.mean, noisy)
            logs.append(density.log_prob(flat) + np.log(weight))
            scores.append(component.score(x, sigma).flatten(1))
        share = torch.softmax(torch.stack(logs), dim=0)  # (components, B)
        return (share[..., None] * torch.stack(scores)).sum(0).reshape(x.shape)

    return score


def dense(operator: LinearOperator) -> Tensor:
    """Real matrix ``(M, n)`` of A on flattened images, with rows for real and imaginary parts."""
    eye = torch.eye(SIDE**2, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE)
    columns = operator.forward(eye).flatten(1)
    if columns.is_complex():
        columns = torch.cat([columns.real, columns.imag], dim=1)
    return columns.T


def condition(prior: Gaussian, matrix: Tensor, values: Tensor, noise: float) -> Gaussian:
    """Posterior of y = A x + n with n ~ N(0, noise^2)."""
    gain_t = torch.linalg.solve(
        matrix @ prior.covariance @ matrix.T
        + (noise**2 + 1e-12) * torch.eye(len(matrix), dtype=torch.float64),
        matrix @ prior.covariance,
    )
    mean = prior.mean + gain_t.T @ (values - matrix @ prior.mean)
    return Gaussian(mean, prior.covariance - gain_t.T @ matrix @ prior.covariance)


class Calibration(NamedTuple):
    """Comparison of samples with the true posterior on a subspace.

    Attributes:
        mean_error: |sample mean - posterior mean| / sqrt(trace of the posterior covariance).
        chance: expected `mean_error` of the same number of exact samples.
        variance_ratio: trace of the sample covariance / trace of the posterior covariance.
    """

    mean_error: float
    chance: float
    variance_ratio: float


def compare(samples: Tensor, truth: Gaussian, basis: Tensor) -> Calibration:
    """Comparison of samples ``(S, ...)`` with the truth on the span of the rows of `basis`."""
    projected = samples.flatten(1).double() @ basis.T  # (S, k)
    covariance = basis @ truth.covariance @ basis.T
    scale = covariance.trace().clamp(min=1e-12).sqrt()
    error = (projected.mean(0) - basis @ truth.mean).norm() / scale
    ratio = projected.var(0).sum() / covariance.trace().clamp(min=1e-12)
    return Calibration(float(error), len(samples) ** -0.5, float(ratio))


def subspaces(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal bases (rows) of the row space of A and of its null space."""
    _, values, vectors = torch.linalg.svd(matrix, full_matrices=True)
    rank = int((values > 1e-8).sum())
    return vectors[:rank], vectors[rank:]


def toy_mri() -> SingleCoilMRI:
    """Toy MRI that measures 3 of 8 columns of k-space."""
    mask = make_mask("gaussian1d", (SIDE, SIDE), seed=3, acceleration=2.6, center_fraction=0.2)
    return SingleCoilMRI(mask)


def draw(
    name: str,
    score: Score,
    operator: LinearOperator,
    y: Tensor,
    *,
    count: int,
    num_steps: int,
    options: dict,
    seed: int = 0,
) -> Tensor:
    """Samples given one measurement ``(1, ...)``: float64 ``(count, 1, SIDE, SIDE)``."""
    rng = BatchGenerator(range(seed, seed + count))
    repeated = y.expand(count, *y.shape[1:])
    return SAMPLERS[name](score, SDE, operator, repeated, rng=rng, num_steps=num_steps, **options)


def measurement(operator: LinearOperator, prior: Gaussian, noise: float) -> Tensor:
    """Measurement ``(1, *range_shape)`` of an image drawn from the prior."""
    generator = torch.Generator().manual_seed(1)
    root = torch.linalg.cholesky(prior.covariance)
    x = prior.mean + root @ torch.randn(SIDE**2, generator=generator, dtype=torch.float64)
    y = operator.forward(x.reshape(1, 1, SIDE, SIDE))
    if not y.is_complex():
        return y + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    n = torch.view_as_complex(torch.randn(*y.shape, 2, generator=generator, dtype=torch.float64))
    return y + noise * n * operator.mask


def toy_ct() -> ParallelBeamCT:
    """Toy CT with 4 views of 12 bins."""
    return ParallelBeamCT(SIDE, few_view_angles(4))


GAUSSIAN = {"likelihood": "gaussian"}
# sampler, keywords, operator, standard deviation of the measurement noise
ROWS = [
    ("predictor_corrector", {}, toy_mri, 0.0),
    ("predictor_corrector", {"final": "sample"}, toy_mri, 0.0),
    ("predictor_corrector", {"weight": 0.3}, toy_mri, 0.0),
    ("predictor_corrector", {}, toy_mri, 0.1),
    ("predictor_corrector", {"weight": 0.3}, toy_mri, 0.1),
    ("predictor_corrector", {}, toy_ct, 0.0),
    ("annealed_langevin", {}, toy_mri, 0.0),
    ("annealed_langevin", {}, toy_mri, 0.1),
    ("annealed_langevin", GAUSSIAN, toy_mri, 0.0),
    ("annealed_langevin", {**GAUSSIAN, "sigma_y": 0.1}, toy_mri, 0.1),
    ("annealed_langevin", {**GAUSSIAN, "sigma_y": 0.1, "step_scale": 5e-6}, toy_mri, 0.1),
    ("annealed_langevin", {**GAUSSIAN, "sigma_y": 0.5}, toy_ct, 0.5),
    ("dds", {}, toy_mri, 0.0),
    ("dds", {"sigma_y": 0.1}, toy_mri, 0.1),
    ("dds", {"sigma_y": 0.1, "eta": 0.3}, toy_mri, 0.1),
    ("dds", {"sigma_y": 0.1, "eta": 0.3, "old_noise": "network"}, toy_mri, 0.1),
    ("dds", {}, toy_ct, 0.0),
    ("diffpir", {}, toy_mri, 0.0),
    ("diffpir", {"sigma_y": 0.1}, toy_mri, 0.1),
    ("dps", {}, toy_mri, 0.0),
    ("pnp", {}, toy_mri, 0.0),
]


# rows of the coverage table: sampler, keywords, number of steps
COVERAGE_ROWS = [
    ("predictor_corrector", {}, 500),
    ("annealed_langevin", {**GAUSSIAN, "sigma_y": 0.1}, 500),
    ("dds", {"sigma_y": 0.1}, 50),
    ("diffpir", {"sigma_y": 0.1}, 50),
    ("dps", {}, 50),
]
FEW = 8  # number of samples per measurement


def coverage(name: str | None, options: dict, num_steps: int, problems: int) -> float:
    """Fraction of pixels of the truth within one standard deviation of the mean of `FEW` samples.

    The measurement is MRI with noise of 0.1 of truths from the prior. Exact samples, which `name`
    None draws, give about 0.62 (Student's t).
    """
    prior, operator, noise = gaussian_prior(), toy_mri(), 0.1
    generator = torch.Generator().manual_seed(2)
    normal = torch.randn(problems, SIDE**2, generator=generator, dtype=torch.float64)
    truths = prior.mean + normal @ torch.linalg.cholesky(prior.covariance).T  # (P, n)
    matrix = dense(operator)
    measured = truths @ matrix.T
    measured = measured + noise * torch.randn(measured.shape, generator=generator).double()
    if name is None:
        posteriors = [condition(prior, matrix, values, noise) for values in measured]
        root = torch.linalg.cholesky(posteriors[0].covariance)
        means = torch.stack([p.mean for p in posteriors])[:, None]  # (P, 1, n)
        draws = torch.randn(problems, FEW, SIDE**2, generator=generator).double()
        samples = means + draws @ root.T
    else:
        y = torch.complex(*measured.chunk(2, dim=1)).reshape(-1, 1, SIDE, SIDE) * operator.mask
        rng = BatchGenerator(range(problems * FEW))
        repeated = y.repeat_interleave(FEW, dim=0)
        x = SAMPLERS[name](
            prior.score, SDE, operator, repeated, rng=rng, num_steps=num_steps, **options
        )
        samples = x.reshape(problems, FEW, -1)
    inside = (truths - samples.mean(1)).abs() <= samples.std(1)  # (P, n)
    return float(inside.double().mean())


def run_row(name: str, options: dict, make_operator, noise: float, count: int, steps: int) -> str:
    """One row of the table as Markdown."""
    prior, operator = gaussian_prior(), make_operator()
    y = measurement(operator, prior, noise)
    values = torch.cat([y.real.flatten(), y.imag.flatten()]) if y.is_complex() else y.flatten()
    matrix = dense(operator)
    truth = condition(prior, matrix, values, noise)
    heuristic = name == "annealed_langevin" and "likelihood" not in options
    score = capped(prior.score) if heuristic else prior.score
    samples = draw(name, score, operator, y, count=count, num_steps=steps, options=options)
    seen, unseen = subspaces(matrix)
    hidden, visible = compare(samples, truth, unseen), compare(samples, truth, seen)
    text = ", ".join(f"{k}={v}" for k, v in options.items()) or "defaults"
    text += ", score capped" if heuristic else ""
    # without noise the measured part is known exactly; its spread is relative to the prior's
    scale = (seen @ prior.covariance @ seen.T).trace()
    spread = (samples.flatten(1) @ seen.T).var(0).sum()
    measured = (
        f"{visible.mean_error:.3f} | {visible.variance_ratio:.3f}"
        if noise
        else f"- | {float(spread / scale):.1e} of the prior's"
    )
    return (
        f"| {name} | {text} | {make_operator.__name__[4:].upper()} | {noise:g} "
        f"| {hidden.mean_error:.3f} | {hidden.variance_ratio:.3f} | {measured} |"
    )


def unconditional_row(score: Score, truth: Gaussian, what: str, options: dict, count, steps) -> str:
    """Row of the table for samples of the prior."""
    samples = draw_prior(score, count, steps, options)
    c = compare(samples, truth, torch.eye(SIDE**2, dtype=torch.float64))
    text = ", ".join(f"{k}={v}" for k, v in options.items())
    return (
        f"| predictor_corrector | {text} | none, {what} | - | {c.mean_error:.3f} "
        f"| {c.variance_ratio:.3f} | - | - |"
    )


def draw_prior(score: Score, count: int, steps: int, options: dict) -> Tensor:
    """Unconditional samples of the predictor-corrector sampler."""
    operator = Unmeasured((1, SIDE, SIDE))
    nothing = torch.empty(1, 0, dtype=torch.float64)
    return draw(
        "predictor_corrector",
        score,
        operator,
        nothing,
        count=count,
        num_steps=steps,
        options=options,
    )


def two_modes() -> tuple[list[Gaussian], list[float]]:
    """Mixture whose components differ along a direction that `toy_mri` measures partially."""
    prior = gaussian_prior()
    shift = 0.35 * torch.from_numpy(np.cos(np.mgrid[:SIDE, :SIDE][1].flatten() * 2.2))
    narrow = 0.2 * prior.covariance
    modes = [Gaussian(prior.mean + shift, narrow), Gaussian(prior.mean - shift, narrow)]
    return modes, [0.3, 0.7]


def moments(components: list[Gaussian], weights: list[float]) -> Gaussian:
    """Mean and covariance of a mixture."""
    mean = sum(w * c.mean for c, w in zip(components, weights, strict=True))
    covariance = sum(
        w * (c.covariance + torch.outer(c.mean - mean, c.mean - mean))
        for c, w in zip(components, weights, strict=True)
    )
    return Gaussian(mean, covariance)


def mixture_posterior(noise: float = 0.0) -> tuple[SingleCoilMRI, Tensor, list[float]]:
    """Operator, a measurement of the mixture, and the posterior weights of its components."""
    components, weights = two_modes()
    operator = toy_mri()
    y = measurement(operator, moments(components, weights), noise)
    y = 0.2 * y + 0.8 * operator.forward(moments(components, weights).mean.reshape(1, 1, SIDE, -1))
    values = torch.cat([y.real.flatten(), y.imag.flatten()])
    seen, _ = subspaces(dense(operator))
    projected = seen @ torch.linalg.lstsq(dense(operator), values).solution
    logs = [
        np.log(w)
        + torch.distributions.MultivariateNormal(
            seen @ c.mean, seen @ c.covariance @ seen.T
        ).log_prob(projected)
        for c, w in zip(components, weights, strict=True)
    ]
    return operator, y, torch.softmax(torch.stack(logs), dim=0).tolist()


def share_of_first(samples: Tensor) -> float:
    """Fraction of samples for which the first component of `two_modes` has the larger density."""
    components, _ = two_modes()
    densities = [
        torch.distributions.MultivariateNormal(c.mean, c.covariance).log_prob(samples.flatten(1))
        for c in components
    ]
    return float((densities[0] > densities[1]).double().mean())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--num_steps", type=int, default=1000)
    parser.add_argument("--only", default="", help="rows of this sampler, without the mixture")
    arguments = parser.parse_args()
    count, steps = arguments.count, arguments.num_steps
    print(f"{count} samples, N = {steps}, mean error of exact samples about {count**-0.5:.3f}")
    print(
        "| sampler | keywords | operator | noise | unmeasured: mean error | variance ratio "
        "| measured: mean error | variance ratio |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for row in ROWS:
        if arguments.only and row[0] == arguments.only:
            print(run_row(*row, count, steps), flush=True)
    if arguments.only:
        return
    prior = gaussian_prior()
    for predictor in ("reverse_diffusion", "euler_maruyama"):
        options = {"final": "sample", "predictor": predictor}
        print(unconditional_row(prior.score, prior, "Gaussian", options, count, steps), flush=True)
    components, weights = two_modes()
    mixture = mixture_score(components, weights)
    options = {"final": "sample"}
    truth = moments(components, weights)
    print(unconditional_row(mixture, truth, "mixture", options, count, steps), flush=True)
    for name, options, make_operator, noise in ROWS:
        print(run_row(name, options, make_operator, noise, count, steps), flush=True)

    print(f"\n| sampler | keywords | steps | one standard deviation of {FEW} samples covers |")
    print("|---|---|---:|---:|")
    print(f"| exact samples | | | {coverage(None, {}, 0, count // FEW):.2f} |")
    for name, options, num_steps in COVERAGE_ROWS:
        text = ", ".join(f"{k}={v}" for k, v in options.items()) or "defaults"
        covered = coverage(name, options, num_steps, count // FEW)
        print(f"| {name} | {text} | {num_steps} | {covered:.2f} |", flush=True)

    samples = draw_prior(mixture, count, steps, {"final": "sample"})
    print(f"\nmixture, share of the first component: unconditional {share_of_first(samples):.3f} ")
    print(f"  (true {weights[0]:.3f}, chance +- {(0.21 / count) ** 0.5:.3f})")
    operator, y, posterior = mixture_posterior()
    for name, options in (
        ("predictor_corrector", {"final": "sample"}),
        ("annealed_langevin", GAUSSIAN),
    ):
        samples = draw(name, mixture, operator, y, count=count, num_steps=steps, options=options)
        share = share_of_first(samples)
        print(f"  given a measurement, {name}: {share:.3f} (true {posterior[0]:.3f})")


if __name__ == "__main__":
    main()
