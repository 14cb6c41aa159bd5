"""Samplers against posteriors that are known: Gaussian priors and mixtures, by network calls.

    python -m benchmarks.calibration --out=results/calibration

appends a row a sampler, budget and problem to gaussian.csv and mixture.csv and goes on where it
stopped; `--print` shows them as the tables of docs/calibration.md. 8 x 8 images, exact scores.
`--noises=0.1,0.3` and `--budgets=300` leave out others.
"""

import argparse
import csv
import functools
import inspect
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.gaussian_posterior import (
    SDE,
    SIDE,
    Gaussian,
    condition,
    gaussian_prior,
    toy_ct,
    toy_mri,
)
from operators import (
    BatchGenerator,
    FanBeamCT,
    Inpainting,
    LinearOperator,
    MultiCoilMRI,
    NonCartesianMRI,
)
from operators.ct import few_view_angles
from operators.simulation import birdcage_maps
from operators.trajectories import radial
from samplers import SAMPLERS
from sde import Score, complex_score

SIZE = SIDE**2
NOISES = (0.0, 0.05, 0.1, 0.3)
CHUNK = 500  # samples drawn together: what fits a cache is twice as fast
TRUTH_SEED = 1
RANK = 1e-6  # singular values below it, relatively, are 0
KNOWN = 1e-8  # a part of the prior's variance below which a direction counts as decided


# ------------------------------------------------------------------------------ measurements


def coil_mri() -> MultiCoilMRI:
    """Eight coils, complex images, 5 of the 64 positions of k-space."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[[4, 4, 2, 6, 3], [4, 2, 5, 4, 6]] = True
    return MultiCoilMRI(mask, birdcage_maps(8, (SIDE, SIDE)))


def fan_ct() -> FanBeamCT:
    """Fan-beam CT with 3 views of 16 bins."""
    views = few_view_angles(3, 360.0)
    return FanBeamCT(SIDE, views, source_distance=16, detector_distance=8, num_bins=16)


def radial_mri() -> NonCartesianMRI:
    """Two coils, complex images, two spokes of 12 positions."""
    return NonCartesianMRI(radial(2, 12), birdcage_maps(2, (SIDE, SIDE)))


def inpainting() -> Inpainting:
    """Four tenths of the pixels, at random."""
    mask = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(3)) < 0.4
    return Inpainting(mask)


OPERATORS = {
    "mri": toy_mri,
    "coils": coil_mri,
    "radial": radial_mri,
    "ct": toy_ct,
    "fan": fan_ct,
    "inpainting": inpainting,
}


def real_vector(x: Tensor) -> Tensor:
    """``(B, ...)``, real or complex, as real ``(B, n)``: real parts, then imaginary ones."""
    flat = x.flatten(1)
    return torch.cat([flat.real, flat.imag], dim=1) if flat.is_complex() else flat


def as_images(vectors: Tensor, operator: LinearOperator) -> Tensor:
    """The inverse of `real_vector` for images: ``(B, *domain_shape)``."""
    if operator.domain_complex:
        vectors = torch.complex(*vectors.chunk(2, dim=1))
    return vectors.reshape(-1, *operator.domain_shape)


def rows_of(operator: LinearOperator, values: Tensor) -> Tensor:
    """The measured numbers of y ``(B, *range_shape)`` as real ``(B, m)``."""
    there = operator.measured().expand(1, *operator.range_shape).flatten()
    there = torch.cat([there, there]) if operator.range_complex else there
    return real_vector(values)[:, there]


def dense(operator: LinearOperator) -> Tensor:
    """A as a real matrix ``(m, n)`` from `real_vector` to `rows_of`, float64."""
    n = SIZE * (2 if operator.domain_complex else 1)
    images = as_images(torch.eye(n, dtype=torch.float64), operator)
    return rows_of(operator, operator.forward(images)).T


def measure(operator: LinearOperator, x: Tensor, noise: float) -> Tensor:
    """y ``(1, *range_shape)`` of the image `x` ``(n,)`` with noise, which has a seed of its own."""
    y = operator.forward(as_images(x[None], operator))
    return y + noise * BatchGenerator([TRUTH_SEED]).normal_like(y) * operator.measured()


# --------------------------------------------------------------------------------- priors


class Mixture(NamedTuple):
    """Mixture of Gaussians of one covariance, with its exact score."""

    means: Tensor  # (K, n)
    covariance: Tensor  # (n, n)
    weights: Tensor  # (K,)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Score of the noisy density: x ``(B, 1, H, W)``, sigma ``(B,)``; differentiable."""
        values, vectors = torch.linalg.eigh(self.covariance)
        noisy = values + sigma[:, None] ** 2  # (B, n)
        difference = (self.means[:, None] - x.flatten(1)) @ vectors  # (K, B, n)
        logs = self.weights.log()[:, None] - (difference**2 / noisy).sum(-1) / 2  # (K, B)
        parts = (difference / noisy) @ vectors.T  # (K, B, n)
        return (torch.softmax(logs, dim=0)[..., None] * parts).sum(0).reshape(x.shape)

    def posterior(self, matrix: Tensor, values: Tensor, noise: float) -> "Mixture":
        """The posterior given `values` = `matrix` x + noise."""
        parts = [condition(Gaussian(m, self.covariance), matrix, values, noise) for m in self.means]
        spread = matrix @ self.covariance @ matrix.T + noise**2 * torch.eye(len(matrix)).double()
        misfit = values - self.means @ matrix.T  # (K, m)
        logs = self.weights.log() - (misfit * torch.linalg.solve(spread, misfit.T).T).sum(1) / 2
        return Mixture(
            torch.stack([p.mean for p in parts]), parts[0].covariance, torch.softmax(logs, dim=0)
        )

    def share_of_first(self, samples: Tensor) -> float:
        """Part of the samples ``(S, n)`` that are nearer to the first mean, by the covariance."""
        difference = samples[None] - self.means[:, None]  # (K, S, n)
        away = (difference @ torch.linalg.inv(self.covariance) * difference).sum(-1)
        return float((away[0] < away[1]).double().mean())

    def draw(self, count: int, seed: int) -> Tensor:
        """Exact samples ``(count, n)``."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        values, vectors = torch.linalg.eigh(self.covariance)
        normal = torch.randn(count, len(values), generator=generator, dtype=torch.float64)
        return self.means[which] + (normal * values.clamp(min=0).sqrt()) @ vectors.T


SEPARATIONS = (1.2, 2.4, 4.2)  # distance of the two means; the levels at which modes are chosen
MEASURED_PART = 0.3  # of the distance, in the directions that the measurement sees
MIXTURE_NOISE = 0.1


def mixture_problem(separation: float) -> tuple[Mixture, LinearOperator, Tensor, Mixture]:
    """Prior, operator, measurement and posterior of two modes, 0.3 and 0.7 before the measurement.

    The measurement is a typical one that lowers the first mode's share to about 0.18.
    """
    prior, operator = gaussian_prior(), toy_mri()
    matrix = dense(operator)
    seen, unseen = subspaces(matrix)
    columns = np.mgrid[:SIDE, :SIDE][1].flatten()
    hidden = unseen.T @ (unseen @ torch.from_numpy(np.cos(columns * 2.2)))
    rows = np.mgrid[:SIDE, :SIDE][0].flatten()
    visible = seen.T @ (seen @ torch.from_numpy(np.cos(rows * 0.8 + 0.3)))
    shift = math.sqrt(1 - MEASURED_PART**2) * hidden / hidden.norm()
    shift = separation / 2 * (shift + MEASURED_PART * visible / visible.norm())
    mixture = Mixture(
        torch.stack([prior.mean + shift, prior.mean - shift]),
        0.2 * prior.covariance,
        torch.tensor([0.3, 0.7], dtype=torch.float64),
    )
    normal = torch.randn(SIZE, generator=torch.Generator().manual_seed(2)).double()
    typical = torch.linalg.cholesky(mixture.covariance) @ normal
    low, high = -3.0, 3.0
    for _ in range(50):  # bisection of where between the means the image is
        middle = (low + high) / 2
        y = measure(operator, prior.mean + typical + middle * shift, MIXTURE_NOISE)
        posterior = mixture.posterior(matrix, rows_of(operator, y)[0], MIXTURE_NOISE)
        low, high = (middle, high) if posterior.weights[0] < 0.18 else (low, middle)
    return mixture, operator, y, posterior


# -------------------------------------------------------------------------------- comparison


def subspaces(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal bases (rows) of the row space of A and of its null space."""
    _, values, vectors = torch.linalg.svd(matrix, full_matrices=True)
    rank = int((values > RANK * values[0]).sum())
    return vectors[:rank], vectors[rank:]


class Spread(NamedTuple):
    """Samples against the true Gaussian on a subspace.

    Attributes:
        mean_error: |sample mean - mean| / sqrt(trace of the covariance).
        variance_ratio: trace of the samples' covariance over the true one's.
        ratio_error: its standard error, for exact samples.
        median, least, most: generalised eigenvalues of the samples' covariance and the true one.
    """

    mean_error: float
    variance_ratio: float
    ratio_error: float
    median: float
    least: float
    most: float


NOTHING = Spread(*[math.nan] * 6)


def compare(samples: Tensor, truth: Gaussian, basis: Tensor) -> Spread:
    """Samples ``(S, n)`` on the span of the rows of `basis`; NaN where it has none."""
    if not len(basis):
        return NOTHING
    projected = samples @ basis.T  # (S, k)
    expected = basis @ truth.covariance @ basis.T
    found = torch.cov(projected.T).reshape(expected.shape)
    error = (projected.mean(0) - basis @ truth.mean).norm() / expected.trace().sqrt()
    half = torch.linalg.cholesky(expected)
    scaled = torch.linalg.solve_triangular(half, found, upper=False)
    scaled = torch.linalg.solve_triangular(half, scaled.T, upper=False)
    values = torch.linalg.eigvalsh((scaled + scaled.T) / 2)
    ratio_error = math.sqrt(2 / len(samples)) * expected.norm() / expected.trace()
    return Spread(
        float(error),
        float(found.trace() / expected.trace()),
        float(ratio_error),
        float(values.median()),
        float(values[0]),
        float(values[-1]),
    )


def sliced_wasserstein(samples: Tensor, exact: Tensor, seed: int = 0) -> float:
    """Mean 1-Wasserstein distance of equally many samples ``(S, n)`` along 200 directions."""
    normal = torch.randn(200, samples.shape[1], generator=torch.Generator().manual_seed(seed))
    directions = torch.nn.functional.normalize(normal.double(), dim=1)
    one, other = (torch.sort(s @ directions.T, dim=0).values for s in (samples, exact))
    return float((one - other).abs().mean())


# ---------------------------------------------------------------------------------- sampling


class Calls:
    """Network calls of all samples: 1 a call, 2 a product with its Jacobian.

    A sample that is finished while others of its batch go on gets products of 0, which it would not
    need alone and which are not counted.
    """

    def __init__(self):
        self.count = 0

    def counted(self, score: Score) -> Score:
        """`score`, each of whose calls and products is counted."""

        @functools.wraps(score)  # its attributes, too
        def call(x: Tensor, sigma: Tensor) -> Tensor:
            return score(_Counted.apply(x, self), sigma)

        return call


class _Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, calls: Calls) -> Tensor:
        ctx.calls = calls
        calls.count += len(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.calls.count += 2 * int((gradient != 0).flatten(1).any(1).sum())
        return gradient, None


def draw(
    name: str,
    options: dict,
    num_steps: int,
    score: Score,
    operator: LinearOperator,
    y: Tensor,
    *,
    count: int,
    seed: int,
) -> tuple[Tensor, float]:
    """Samples as `real_vector`, ``(count, n)`` float64, and network calls a sample."""
    found, calls = [], Calls()
    score = calls.counted(complex_score(score) if operator.domain_complex else score)
    for first in range(0, count, CHUNK):
        seeds = range(seed * count + first, seed * count + min(first + CHUNK, count))
        repeated = y.expand(len(seeds), *y.shape[1:])
        rng = BatchGenerator(seeds)
        x = SAMPLERS[name](score, SDE, operator, repeated, rng=rng, num_steps=num_steps, **options)
        found.append(real_vector(x).double())
    return torch.cat(found), calls.count / count


def with_noise(name: str, options: dict, noise: float) -> dict:
    """The keywords, and the noise where the sampler uses it."""
    takes = "sigma_y" in inspect.signature(SAMPLERS[name]).parameters
    return options | ({"sigma_y": noise} if takes else {})


def gaussian_row(
    name: str, options: dict, num_steps: int, kind: str, noise: float, count: int, seed: int
) -> dict:
    """A row of gaussian.csv."""
    began = time.perf_counter()
    prior, operator = gaussian_prior(), OPERATORS[kind]()
    both = prior
    if operator.domain_complex:
        both = Gaussian(
            torch.cat([prior.mean, prior.mean]),
            torch.block_diag(prior.covariance, prior.covariance),
        )
    normal = torch.randn(len(both.mean), generator=torch.Generator().manual_seed(TRUTH_SEED))
    x = both.mean + torch.linalg.cholesky(both.covariance) @ normal.double()
    y = measure(operator, x, noise)
    matrix = dense(operator)
    truth = condition(both, matrix, rows_of(operator, y)[0], noise)
    given = with_noise(name, options, noise)
    samples, calls = draw(name, given, num_steps, prior.score, operator, y, count=count, seed=seed)
    seen, unseen = subspaces(matrix)
    hidden = compare(samples, truth, unseen)
    visible = compare(samples, truth, seen) if noise else NOTHING
    everything = torch.eye(len(both.mean)).double()
    both_parts = compare(samples, truth, everything) if noise else hidden
    measured = rows_of(operator, operator.forward(as_images(samples, operator)))
    prior_part = (seen @ both.covariance @ seen.T).trace()
    return {
        "calls": round(calls),
        "chance": count**-0.5,
        **{f"unmeasured_{k}": v for k, v in hidden._asdict().items()},
        **{f"measured_{k}": v for k, v in visible._asdict().items()},
        **{f"all_{k}": v for k, v in both_parts._asdict().items()},
        "misfit": float((measured - rows_of(operator, y)).square().mean().sqrt()),
        "measured_spread": float((samples @ seen.T).var(0).sum() / prior_part),
        "seconds": round(time.perf_counter() - began, 1),
    }


def mixture_row(
    name: str, options: dict, num_steps: int, separation: float, count: int, seed: int
) -> dict:
    """A row of mixture.csv."""
    began = time.perf_counter()
    mixture, operator, y, posterior = mixture_problem(separation)
    given = with_noise(name, options, MIXTURE_NOISE)
    samples, calls = draw(
        name, given, num_steps, mixture.score, operator, y, count=count, seed=seed
    )
    exact, others = posterior.draw(count, 1000 + seed), posterior.draw(count, 2000 + seed)
    share, true = posterior.share_of_first(samples), float(posterior.weights[0])
    return {
        "calls": round(calls),
        "true_share": true,
        "share": share,
        "share_error": math.sqrt(true * (1 - true) / count),
        "wasserstein": sliced_wasserstein(samples, exact),
        "wasserstein_exact": sliced_wasserstein(others, exact),
        "seconds": round(time.perf_counter() - began, 1),
    }


# ------------------------------------------------------------------------------------ table

LANGEVIN = {"likelihood": "gaussian"}
CT = {"cg_steps": 30}  # of samplers whose data step is not exact by default
EXACT = {"ridge": 1e-3, "precondition_steps": 100}  # the Jacobian is
SHORT_SWEEPS = EXACT | {"start_steps": 8, "inner_steps": 3, "widest": 1.5, "tolerance": 0.07}
PARTICLES = EXACT | {
    "particles": 4,
    "start_steps": 4,
    "inner_steps": 2,
    "widest": 20.0,
    "overrelaxation": 0.0,  # couplings fall fast
    "tolerance": 0.1,
}
# sampler, budget in network calls: keywords, levels
RUNS = {
    ("mmps", 300): (EXACT | {"tolerance": 0.05}, 12),
    ("mmps", 1000): (EXACT | {"tolerance": 0.02}, 24),
    ("moment_gibbs", 300): (SHORT_SWEEPS, 8),
    ("moment_gibbs, 4 particles", 1000): (PARTICLES, 24),
    ("pula", 300): (CT | {"inner_steps": 3}, 100),
    ("pula", 1000): (CT | {"inner_steps": 4, "step": 0.25}, 250),
    ("split_gibbs", 300): (CT | {"inner_steps": 6}, 50),
    ("split_gibbs", 1000): (CT | {"inner_steps": 10}, 100),
    ("daps", 300): (CT | {"inner_steps": 5}, 60),
    ("dds", 100): (CT | {"start_sigma": 20.0}, 100),
    ("dds, ancestral", 300): (CT | {"start_sigma": 20.0, "ancestral": True}, 300),
    ("warm_dds", 100): (CT, 20),
    ("diffpir", 300): (CT | {"start_sigma": 20.0}, 300),
    ("dps", 300): ({"start_sigma": 20.0}, 100),
    ("red_diff", 300): ({}, 300),
    ("annealed_langevin", 1000): (LANGEVIN, 500),
    ("predictor_corrector", 1000): ({}, 500),
}
BUDGETS = sorted({budget for _, budget in RUNS})
KEYS = ("sampler", "budget", "operator", "noise", "separation", "count", "seed")


def rows_done(path: Path, keys: Sequence[str] = KEYS) -> set[tuple]:
    """The rows that a table has, by what makes them: nothing where there is no table."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {tuple(row.get(key, "") for key in keys) for row in csv.DictReader(file)}


def append(path: Path, row: dict) -> None:
    """Append a row, after the names of its columns where it is the first."""
    is_first = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if is_first:
            writer.writeheader()
        writer.writerow(row)


def run(
    out: Path,
    *,
    samplers: list[str],
    kinds: list[str],
    count: int,
    seed: int,
    noises: Sequence[float] = NOISES,
    budgets: Sequence[float] = BUDGETS,
) -> None:
    """Append the rows that are missing to the tables in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for (label, budget), (options, num_steps) in RUNS.items():
        name = label.split(",")[0]
        if (samplers and label not in samplers) or budget not in budgets:
            continue
        common = {"sampler": label, "budget": budget}
        for kind in kinds:
            is_mixture = kind == "mixture"
            path = out / ("mixture.csv" if is_mixture else "gaussian.csv")
            for value in SEPARATIONS if is_mixture else noises:
                what = {"separation": value} if is_mixture else {"operator": kind, "noise": value}
                row = common | what | {"count": count, "seed": seed}
                if tuple(str(row.get(key, "")) for key in KEYS) in rows_done(path):
                    continue
                if is_mixture:
                    row |= mixture_row(name, options, num_steps, value, count, seed)
                else:
                    row |= gaussian_row(name, options, num_steps, kind, value, count, seed)
                append(path, row)
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})


GAUSSIAN_COLUMNS = {
    "sampler": "{sampler}",
    "operator": "{operator}",
    "noise": "{noise}",
    "calls": "{calls}",
    "samples": "{count}",
    "mean error": "{all_mean_error:.3f}",
    "variance": "{all_variance_ratio:.3f} +- {all_ratio_error:.3f}",
    "unmeasured: median, least, most": (
        "{unmeasured_median:.3f}, {unmeasured_least:.2f}, {unmeasured_most:.2f}"
    ),
    "measured": "{measured_median:.3f}, {measured_least:.2f}, {measured_most:.2f}",
    "misfit": "{misfit:.1e}",
}
MIXTURE_COLUMNS = {
    "sampler": "{sampler}",
    "distance": "{separation}",
    "calls": "{calls}",
    "samples": "{count}",
    "share": "{share:.3f} +- {share_error:.3f}",
    "true": "{true_share:.3f}",
    "Wasserstein": "{wasserstein:.4f}",
    "of exact samples": "{wasserstein_exact:.4f}",
}


def markdown(path: Path, columns: dict[str, str]) -> str:
    """A table in Markdown of a CSV file, whose columns are patterns of its own."""
    with path.open(newline="") as file:
        rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    body = ["| " + " | ".join(c.format(**row) for c in columns.values()) + " |" for row in rows]
    return "\n".join(head + body).replace("nan, nan, nan", "-")


def _number(text: str) -> float | str:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/calibration"))
    parser.add_argument("--samplers", default="", help='such as "mmps;dds, ancestral"; all: ""')
    parser.add_argument("--rows", default="", help=f"of {', '.join([*OPERATORS, 'mixture'])}")
    parser.add_argument("--noises", default=",".join(map(str, NOISES)), help="not of mixtures")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="network calls")
    parser.add_argument("--count", type=int, default=4000, help="samples a row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print", action="store_true", help="the tables as they are; run nothing")
    given = parser.parse_args()
    kinds = [k for k in given.rows.split(",") if k] or [*OPERATORS, "mixture"]
    unknown = set(kinds) - {*OPERATORS, "mixture"}
    samplers = [s.strip() for s in given.samplers.split(";") if s.strip()]
    unknown |= set(samplers) - {label for label, _ in RUNS}
    noises, budgets = ([float(v) for v in v.split(",")] for v in (given.noises, given.budgets))
    unknown |= {str(v) for v in ({*noises} - {*NOISES}) | ({*budgets} - {*BUDGETS})}
    if unknown:
        labels = "; ".join(dict.fromkeys(label for label, _ in RUNS))
        parser.error(
            f"unknown: {', '.join(sorted(unknown))}; rows: {', '.join([*OPERATORS, 'mixture'])}; "
            f"samplers: {labels}; noises: {', '.join(map(str, NOISES))}; "
            f"budgets: {', '.join(map(str, BUDGETS))}"
        )
    if not given.print:
        run(
            given.out,
            samplers=samplers,
            kinds=kinds,
            count=given.count,
            seed=given.seed,
            noises=noises,
            budgets=budgets,
        )
    for file, columns in (("gaussian.csv", GAUSSIAN_COLUMNS), ("mixture.csv", MIXTURE_COLUMNS)):
        if (given.out / file).exists():
            print(markdown(given.out / file, columns), end="\n\n")


if __name__ == "__main__":
    main()
