"""Simulation-based calibration: are true values anywhere among posterior samples, equally often?

    python -m benchmarks.sbc --out=results/sbc --samplers="exact;half;mmps;dds"
    python -m benchmarks.sbc --out=results/sbc --prior=natural_small --samplers=dds --side=32

Images are drawn from a prior that can be sampled, measured and reconstructed with several samples
each. If these are of the posterior, the rank of a true value among its samples is uniform, whatever
the prior is (Talts et al. 2018). A row of sbc.csv has the histogram of the ranks of one kind of
value, one value an image, and the p-value of a chi-square test that it is uniform: below 0.01 it is
not. Ends that are too full are of samples that spread too little. The command goes on where it
stopped; ``--print`` shows the table.

Priors are the Gaussian of `benchmarks.gaussian_posterior` with its exact score (8 x 8; "exact"
draws from the posterior in closed form, "half" with half of its variance), or a network, whose own
samples (`samplers.unconditional`) are only as good as the levels they are drawn with: where ranks
are not uniform, either sampler may be the cause.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from scipy.stats import chisquare
from torch import Tensor

from benchmarks.calibration import OPERATORS, RUNS, append, dense, rows_of
from benchmarks.coverage import read
from benchmarks.gaussian_posterior import SDE, condition, gaussian_prior
from evaluation.run.keywords import starts_warm, uses_noise
from evaluation.run.posterior_samples import sample_source
from models.checkpoint import load_prior
from operators import BatchGenerator, LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.batch import derive_seed
from operators.ct import few_view_angles
from operators.masks import make_mask
from samplers import NUM_STEPS
from samplers.unconditional import unconditional
from sde import Prior

BINS = 8  # of the ranks; divides their number
COUNT = 15  # samples of an image: 16 ranks
PRIOR_STEPS = 100  # levels of images drawn from a network
BATCH = 256  # of the network
LOCAL = ("exact", "half")  # samplers in closed form
KINDS = ("mri", "ct", "inpainting")  # of 8 x 8 images
OF_NETWORKS = {  # side of images -> operator
    "mri": lambda side: SingleCoilMRI(
        make_mask("gaussian1d", (side, side), seed=0, acceleration=4, center_fraction=0.08)
    ),
    "ct": lambda side: ParallelBeamCT(side, few_view_angles(12, 180.0)),
}
KEYS = ("prior", "side", "operator", "noise", "sampler", "num_steps", "options", "count", "images")


class Simulation(NamedTuple):
    """Images and their measurements.

    Attributes:
        images: ``(T, 1, H, W)`` drawn from the prior.
        operator: A.
        y: ``(T, *range_shape)``.
        noise: standard deviation of its noise.
    """

    images: Tensor
    operator: LinearOperator
    y: Tensor
    noise: float


def simulate(images: Tensor, operator: LinearOperator, noise: float, seed: int) -> Simulation:
    """Measurements of images, with noise of a generator each."""
    y = operator.forward(images)
    seeds = [derive_seed(seed, "sbc noise", t) for t in range(len(images))]
    y = y + noise * BatchGenerator(seeds).normal_like(y) * operator.measured()
    return Simulation(images, operator, y, noise)


def gaussian_images(count: int, seed: int) -> Tensor:
    """Images ``(T, 1, 8, 8)`` of the Gaussian prior, float64."""
    prior = gaussian_prior()
    normal = _normal(count, len(prior.mean), seed)
    return (prior.mean + normal @ torch.linalg.cholesky(prior.covariance).T).reshape(-1, 1, 8, 8)


def network_images(prior: Prior, count: int, side: int, seed: int) -> Tensor:
    """Images ``(T, 1, side, side)`` of a network's prior."""
    found = []
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        rng = BatchGenerator([derive_seed(seed, "sbc image", t) for t in numbers])
        found.append(unconditional(*prior, (side, side), rng=rng, num_steps=PRIOR_STEPS))
    return torch.cat(found)


def exact_samples(simulation: Simulation, count: int, seed: int, part: float = 1.0) -> Tensor:
    """Samples ``(N, T, 1, 8, 8)`` of the Gaussian's posteriors, `part` of their variance."""
    prior, operator = gaussian_prior(), simulation.operator
    matrix, values = dense(operator), rows_of(operator, simulation.y)
    spread = matrix @ prior.covariance @ matrix.T
    spread = spread + (simulation.noise**2 + 1e-12) * torch.eye(len(matrix)).double()
    gain_t = torch.linalg.solve(spread, matrix @ prior.covariance)
    means = prior.mean + (values - matrix @ prior.mean) @ gain_t  # (T, n)
    covariance = condition(prior, matrix, values[0], simulation.noise).covariance  # of every y
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    root = vectors * (part * eigenvalues.clamp(min=0)).sqrt()
    normal = _normal(count * len(means), means.shape[1], seed).reshape(count, *means.shape)
    return (means + normal @ root.T).reshape(count, *simulation.images.shape)


def drawn_samples(
    simulation: Simulation,
    prior: Prior,
    name: str,
    options: dict,
    *,
    num_steps: int,
    count: int,
    seed: int,
    warm: bool,
) -> Tensor:
    """Samples ``(N, T, 1, H, W)`` of a sampler.

    Args:
        simulation: measurements of one operator for all.
        prior: the prior.
        name: a key of `samplers.SAMPLERS`.
        options: its keywords.
        num_steps: its steps.
        count: number of samples N.
        seed: their seed.
        warm: whether to start where users do, from the direct reconstruction.
    """
    found = []
    given = dict(options)
    if uses_noise(name, given):
        given["sigma_y"] = simulation.noise
    for first in range(0, len(simulation.y), BATCH):
        y = simulation.y[first : first + BATCH]
        direct = simulation.operator.direct(y) if warm and starts_warm(name, given) else None
        draw, failures = sample_source(
            name,
            *prior,
            simulation.operator,
            y,
            num_steps=num_steps,
            num_samples=count,
            seed=seed,
            keys=[f"image {first + t}" for t in range(len(y))],
            initial=direct,
            options=given,
            together=BATCH // len(y),
        )
        with torch.no_grad():
            found.append(torch.stack([draw(n) for n in range(count)]))
        if failures:
            raise FloatingPointError("; ".join(f"{k}: {v}" for k, v in failures.items()))
    return torch.cat(found, dim=1)


# --------------------------------------------------------------------------------------- ranks


def functionals(simulation: Simulation, seed: int) -> dict[str, Tensor]:
    """Weights ``(T, 1, H, W)`` of linear functionals by name, one of each kind for each image.

    A pixel; the difference of two neighbours; the mean of a quarter of the sides; a direction of
    white noise; one that the measurement sees, A^H v (where there is noise); and what it does not
    see of a direction, as far as one step of data consistency takes away what it does.
    """
    images, operator = simulation.images, simulation.operator
    count, (height, width) = len(images), images.shape[-2:]
    generator = torch.Generator().manual_seed(derive_seed(seed, "functionals"))

    def places(most: int) -> Tensor:
        return torch.randint(most, (count,), generator=generator)

    each = torch.arange(count)
    pixel, difference, region = (torch.zeros_like(images) for _ in range(3))
    pixel[each, 0, places(height), places(width)] = 1
    row, column = places(height), places(width - 1)
    difference[each, 0, row, column], difference[each, 0, row, column + 1] = 1, -1
    tall, wide = height // 4, width // 4
    corners = zip(places(height - tall + 1), places(width - wide + 1), strict=True)
    for t, (top, left) in enumerate(corners):
        region[t, 0, top : top + tall, left : left + wide] = 1
    normal = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    found = {"pixel": pixel, "difference": difference, "region": region, "direction": normal}
    seen = torch.randn(simulation.y.shape, generator=generator, dtype=simulation.y.dtype)
    if simulation.noise:
        found["measured"] = operator.adjoint(seen * operator.measured())
    found["unmeasured"] = operator.correct(normal, torch.zeros_like(simulation.y))
    return found


def ranks(weights: Tensor, images: Tensor, samples: Tensor) -> Tensor:
    """How many of the samples ``(N, T, ...)`` of each image have a smaller value than the truth."""
    truth = (weights * images).flatten(1).double().sum(1)  # (T,)
    values = (weights * samples).flatten(2).double().sum(2)  # (N, T)
    return (values < truth).sum(0)


def chi_square(found: Tensor, count: int) -> tuple[list[int], float]:
    """Histogram of ranks 0 ... `count` in `BINS` bins, and the p-value that they are uniform.

    Raises:
        ValueError: the number of ranks is not a multiple of `BINS`.
    """
    if (count + 1) % BINS:
        raise ValueError(f"expected {BINS} n - 1 samples, such as {COUNT}, got {count}")
    histogram = torch.bincount(found * BINS // (count + 1), minlength=BINS)
    return histogram.tolist(), float(chisquare(histogram.numpy()).pvalue)


def rows_from(simulation: Simulation, samples: Tensor, seed: int) -> list[dict]:
    """What is found for each kind of functional, by column of the table."""
    count, rows = len(samples), []
    for name, weights in functionals(simulation, seed).items():
        found = ranks(weights, simulation.images, samples)
        histogram, p = chi_square(found, count)
        ends = (histogram[0] + histogram[-1]) / len(found)
        rows.append(
            {
                "functional": name,
                "histogram": json.dumps(histogram),
                "ends": round(ends * BINS / 2, 4),
                "middle": round(float(found.double().mean()) / count, 4),
                "p": float(f"{p:.3g}"),
            }
        )
    return rows


def run(
    out: Path,
    *,
    prior: str,
    samplers: Sequence[str],
    kinds: Sequence[str],
    noises: Sequence[float],
    images: int,
    side: int = 8,
    count: int = COUNT,
    num_steps: int | None = None,
    seed: int = 0,
    open_prior: Callable[[str], Prior] = load_prior,
) -> None:
    """Append the rows that are missing to ``sbc.csv`` in `out`.

    Args:
        out: the folder, made if missing.
        prior: "gaussian", or a prior of real images for `load_prior`.
        samplers: keys of `samplers.SAMPLERS`; for "gaussian" also those of `LOCAL`.
        kinds: "mri", "ct" and, for "gaussian", "inpainting".
        noises: standard deviations of the measurement's noise.
        images: number of images T.
        side: of a network's images in pixels.
        count: samples of each image.
        num_steps: steps of the samplers; None: for "gaussian" those of `calibration.RUNS`, else
            the samplers' defaults.
        seed: of images, noise and samples.
        open_prior: prior of a name.
    """
    out.mkdir(parents=True, exist_ok=True)
    path, is_gaussian = out / "sbc.csv", prior == "gaussian"
    side = 8 if is_gaussian else side
    opened = truths = None
    for kind in kinds:
        for noise in noises:
            for name in samplers:
                options, steps = settings_of(name, num_steps, is_gaussian)
                text = json.dumps(options, sort_keys=True)
                values = (prior, side, kind, noise, name, steps, text, count, images)
                if tuple(map(str, values)) in {tuple(r[k] for k in KEYS) for r in read(path)}:
                    continue
                if truths is None:
                    opened = (
                        Prior(gaussian_prior().score, SDE) if is_gaussian else open_prior(prior)
                    )
                    truths = (
                        gaussian_images(images, seed)
                        if is_gaussian
                        else network_images(opened, images, side, seed)
                    )
                operator = OPERATORS[kind]() if is_gaussian else OF_NETWORKS[kind](side)
                began = time.perf_counter()
                simulation = simulate(truths, operator, noise, seed)
                if name in LOCAL:
                    part = 1.0 if name == "exact" else 0.5
                    samples = exact_samples(simulation, count, seed + 1, part)
                else:
                    samples = drawn_samples(
                        simulation,
                        opened,
                        name,
                        options,
                        num_steps=steps,
                        count=count,
                        seed=seed,
                        warm=not is_gaussian,
                    )
                seconds = round((time.perf_counter() - began) / images, 3)
                for found in rows_from(simulation, samples, seed):
                    append(
                        path, dict(zip(KEYS, values, strict=True)) | found | {"seconds": seconds}
                    )
                    print(f"{prior}, {kind}, noise {noise:g}, {name}: {found}", flush=True)


def _open(
    prior: str, images: int, side: int, seed: int, open_prior: Callable[[str], Prior]
) -> tuple[Prior, Tensor]:
    """The prior and images drawn from it."""
    if prior == "gaussian":
        return Prior(gaussian_prior().score, SDE), gaussian_images(images, seed)
    opened = open_prior(prior)
    return opened, network_images(opened, images, side, seed)


def settings_of(name: str, num_steps: int | None, is_gaussian: bool) -> tuple[dict, int]:
    """Keywords and steps of a sampler."""
    if name in LOCAL:
        return {}, 0
    chosen = next((v for (label, _), v in RUNS.items() if label == name), None)
    options, steps = chosen if is_gaussian and chosen else ({}, NUM_STEPS[name])
    return options, num_steps or steps


def markdown(rows: Sequence[dict]) -> str:
    """The table: p-values, and in brackets how full both ends are, relative to uniform ranks."""
    names = list(dict.fromkeys(row["functional"] for row in rows))
    lines = [f"| prior | measurement | noise | sampler | steps | images | {' | '.join(names)} |"]
    lines.append("|---|---|---:|---|---:|---:|" + "---|" * len(names))
    cells: dict[tuple, dict[str, str]] = {}
    for row in rows:
        what = tuple(
            row[k] for k in ("prior", "operator", "noise", "sampler", "num_steps", "images")
        )
        cells.setdefault(what, {})[row["functional"]] = f"{row['p']} ({float(row['ends']):.2f})"
    for what, own in cells.items():
        lines.append(f"| {' | '.join([*what, *(own.get(name, '-') for name in names)])} |")
    return "\n".join(lines)


def _normal(count: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/sbc"))
    parser.add_argument("--prior", default="gaussian", help="gaussian, or a prior of real images")
    parser.add_argument("--samplers", default="exact;half;mmps;dds")
    parser.add_argument("--kinds", default="mri,ct")
    parser.add_argument("--noises", default="0.0,0.1")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--side", type=int, default=32, help="of a network's images in pixels")
    parser.add_argument("--samples", type=int, default=COUNT)
    parser.add_argument("--num_steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print", action="store_true", help="the table as it is; run nothing")
    given = parser.parse_args()
    samplers = [name.strip() for name in given.samplers.split(";") if name.strip()]
    kinds = [kind.strip() for kind in given.kinds.split(",") if kind.strip()]
    is_gaussian = given.prior == "gaussian"
    known = KINDS if is_gaussian else tuple(OF_NETWORKS)
    unknown = set(kinds) - set(known)
    unknown |= set(samplers) - set(NUM_STEPS) - set(LOCAL if is_gaussian else ())
    if unknown:
        parser.error(
            f"unknown for {given.prior}: {', '.join(sorted(unknown))}; kinds: {', '.join(known)}; "
            f"samplers: {', '.join([*(LOCAL if is_gaussian else ()), *NUM_STEPS])}"
        )
    if not given.print:
        run(
            given.out,
            prior=given.prior,
            samplers=samplers,
            kinds=kinds,
            noises=[float(noise) for noise in given.noises.split(",")],
            images=given.images,
            side=given.side,
            count=given.samples,
            num_steps=given.num_steps,
            seed=given.seed,
        )
    print(markdown(read(given.out / "sbc.csv")))


if __name__ == "__main__":
    main()
