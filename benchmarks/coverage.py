"""Do posterior samples of real images cover the truth? MR and CT of the embedded people.

    python -m benchmarks.coverage --out=results/coverage --slices=3
    python -m benchmarks.coverage --out=results/coverage --fit
    python -m benchmarks.coverage --out=results/coverage --split=test --slices=6

appends a row a slice, measurement and sampler to coverage.csv and goes on where it stopped;
``--print`` shows means over people as the table of docs/calibration.md. Of pixels inside the head
or body and of means over blocks of 8 x 8 pixels inside it: the part of the truth that is inside
intervals of 50, 90 and 95 %, CRPS, and spread against error; as they are, and with the scale of
`evaluation.run.calibrated`. ``--fit`` prints that scale: the factor of the samples' deviation from
their mean at which intervals of 90 % cover 90 % of the pixels of validation people. ``--point``
prints the PSNR of plug and play's image of the same measurements, which the samples' mean is to be
compared with.

Intervals are between limits of `samplers.prediction_quantile`, which are right for few samples.
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, binary_opening, label
from torch import Tensor

from benchmarks.calibration import Calls, append
from datasets.embedded import open_samples
from evaluation.metrics import psnr
from evaluation.run.calibrated import find_scale
from evaluation.run.keywords import starts_warm, uses_noise
from evaluation.run.posterior_samples import sample_source
from models.checkpoint import load_prior
from operators import BatchGenerator, LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.batch import derive_seed
from operators.ct import few_view_angles
from operators.fourier import fft2c
from operators.inverse_problem import InverseProblem, mri_problem
from operators.masks import make_mask
from operators.simulation import smooth_phase
from samplers import NUM_STEPS, prediction_quantile
from samplers.posterior import magnitude
from sde import Prior

SIDE, BLOCK = 256, 8
POINT_STEPS = NUM_STEPS["pnp"]
LEVELS = (0.5, 0.9, 0.95)
GOAL = 0.9  # coverage that the scale is fitted to
SCALES = np.geomspace(0.25, 8, 101)
BINS = 5  # of the spread, with equally many pixels each
BODY = 0.05  # of the range: darker pixels outside are air
# measurement -> prior, noise levels (of images with a peak of 1; of sinograms in pixels)
KINDS = {
    "MR": ("natural_small", (0.0, 0.02)),
    "MR complex": ("natural_complex_small", (0.0, 0.02)),
    "CT": ("natural_small", (0.0, 0.4)),
}
KEYS = ("kind", "noise", "sampler", "num_steps", "options", "count", "split", "key", "seed")


# ------------------------------------------------------------------------------- measurements


def problem_of(kind: str, noise: float, image: Tensor, key: str) -> InverseProblem:
    """Simulated measurement of an image ``(1, 1, H, W)`` in [0, 1], of a noise that is known.

    Args:
        kind: a key of `KINDS`: gaussian1d 4x of real images, or of images with a smooth phase, or
            30 views of a parallel beam.
        noise: standard deviation.
        image: the true image.
        key: its key, which seeds mask, phase and noise.
    """
    rng = BatchGenerator([derive_seed(0, "coverage", key)])
    if kind == "CT":
        return _known(ParallelBeamCT(SIDE, few_view_angles(30, 180.0)), image, noise, rng)
    seed = derive_seed(0, "mask", key)
    shape = tuple(image.shape[-2:])
    mask = make_mask("gaussian1d", shape, seed=seed, acceleration=4, center_fraction=0.08)
    if kind == "MR":
        return _known(SingleCoilMRI(mask), image, noise, rng)
    kspace = fft2c(image * smooth_phase(shape, rng=rng))
    kspace = kspace + noise * rng.normal_like(kspace)
    return mri_problem(kspace, mask[None, None], noise=torch.tensor([noise]))


def _known(
    operator: LinearOperator, image: Tensor, noise: float, rng: BatchGenerator
) -> InverseProblem:
    y = operator.forward(image)
    y = y + noise * rng.normal_like(y) * operator.measured()
    one = torch.ones(1)
    return InverseProblem(operator, y, operator.direct(y), one, 0 * one, noise * one)


def images_of(kind: str, split: str, count: int) -> list[tuple[str, str, Tensor]]:
    """Key, person and image ``(1, 1, 256, 256)`` of the first slices, in which people take turns.

    Args:
        kind: a key of `KINDS`.
        split: "val" or "test".
        count: number of slices.
    """
    is_ct = kind == "CT"
    data = open_samples(split, subset="ct" if is_ct else "brain", image_size=SIDE if is_ct else 0)
    items = [data[i] for i in range(min(count, len(data)))]
    return [(item.key, data.people[item.key], item.image[None]) for item in items]


def body(image: np.ndarray) -> np.ndarray:
    """Pixels of the head or body: the largest bright region and what it encloses, bool (H, W)."""
    bright = binary_opening(binary_fill_holes(image > BODY), iterations=2)
    regions, count = label(bright)
    if not count:
        raise ValueError("expected a head or a body, got an image without a bright region")
    return binary_fill_holes(regions == 1 + np.argmax(np.bincount(regions.flat)[1:]))


# ------------------------------------------------------------------------------------ measures


class Values(NamedTuple):
    """Numbers to predict.

    Attributes:
        samples: ``(N, n)``.
        truth: ``(n,)``.
    """

    samples: Tensor
    truth: Tensor


def pixels(samples: Tensor, truth: Tensor, inside: Tensor) -> Values:
    """Pixels inside: samples ``(N, H, W)``, truth and inside ``(H, W)``."""
    return Values(samples[:, inside], truth[inside])


def regions(samples: Tensor, truth: Tensor, inside: Tensor) -> Values:
    """Means of the blocks of `BLOCK` x `BLOCK` pixels that are inside as a whole."""

    def means(images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images[None].double(), BLOCK)[0]  # (., h, w)

    whole = means(inside[None])[0] == 1
    return pixels(means(samples), means(truth[None])[0], whole)


def coverage(values: Values, level: float, scale: float = 1.0) -> float:
    """Part of the truth inside the intervals of a level, scaled about the samples' mean."""
    low, high = limits(values, level)
    middle = values.samples.mean(0)
    distance = (values.truth - middle) / scale
    return float(((low - middle <= distance) & (distance <= high - middle)).double().mean())


def limits(values: Values, level: float) -> tuple[Tensor, Tensor]:
    """Limits ``(n,)`` of the central intervals of a level."""
    return tuple(prediction_quantile(values.samples, (1 + s * level) / 2) for s in (-1, 1))


def coverages(values: Values, level: float) -> list[float]:
    """`coverage` at each of `SCALES`."""
    low, high = limits(values, level)
    middle = values.samples.mean(0)
    distance = values.truth - middle
    reach = torch.where(distance > 0, high - middle, middle - low)
    needed = torch.where(distance == 0, 0.0, distance.abs() / reach.clamp(min=1e-30))  # (n,)
    needed = needed.double().sort().values
    counts = torch.searchsorted(needed, torch.from_numpy(SCALES), right=True)
    return [round(float(c) / len(needed), 5) for c in counts]


def crps(values: Values, scale: float = 1.0) -> float:
    """Mean continuous ranked probability score, its unbiased estimate from N samples.

    E |X - t| - E |X - X'| / 2 (Gneiting and Raftery 2007), X' another sample; the second mean is
    over pairs of different samples (Ferro 2014). The unit is that of the values.
    """
    middle = values.samples.mean(0)
    x = (middle + scale * (values.samples - middle)).double().sort(0).values
    count = len(x)
    ranks = 2 * torch.arange(count).double() - count + 1
    pairs = (ranks[:, None] * x).sum(0) / (count * (count - 1))  # E |X - X'| / 2
    return float(((x - values.truth).abs().mean(0) - pairs).mean())


def spread_and_error(values: Values) -> tuple[float, float]:
    """Root mean square of the samples' deviation and of the error of their mean.

    For samples of the posterior the error is sqrt(1 + 1/N) times the deviation.
    """
    error = values.samples.mean(0) - values.truth
    return _rms(values.samples.std(0)), _rms(error)


def by_spread(values: Values) -> list[list[float]]:
    """`spread_and_error` in `BINS` bins of the deviation, from the smallest on."""
    order = values.samples.std(0).argsort().tensor_split(BINS)
    found = [spread_and_error(Values(values.samples[:, i], values.truth[i])) for i in order]
    return [[float(f"{v:.4g}") for v in pair] for pair in found]


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def measures(samples: Tensor, truth: Tensor, inside: Tensor, scale: float | None) -> dict:
    """All measures of the samples ``(N, H, W)`` of a slice, by column of the table."""
    found = {}
    for name, kind in (("pixel", pixels), ("region", regions)):
        values = kind(samples, truth, inside)
        for level in LEVELS:
            found[f"{name}_{100 * level:g}"] = coverage(values, level)
        found[f"{name}_crps"] = crps(values)
        found[f"{name}_std"], found[f"{name}_error"] = spread_and_error(values)
        for level in LEVELS:
            scaled = math.nan if scale is None else coverage(values, level, scale)
            found[f"{name}_{100 * level:g}_scaled"] = scaled
        found[f"{name}_crps_scaled"] = math.nan if scale is None else crps(values, scale)
        found[f"{name}_bins"] = json.dumps(by_spread(values))
        found[f"{name}_by_scale"] = json.dumps(coverages(values, GOAL))
    return found


# ---------------------------------------------------------------------------------------- rows


def draw(
    problem: InverseProblem,
    prior: Prior,
    sampler: str,
    options: dict,
    *,
    num_steps: int,
    count: int,
    key: str,
    seed: int,
    together: int,
) -> tuple[Tensor, int]:
    """Samples ``(N, H, W)`` of one slice as they are shown, and `Calls` a sample."""
    calls = Calls()
    given = dict(options)
    if uses_noise(sampler, given):
        given["sigma_y"] = problem.noise
    source, failures = sample_source(
        sampler,
        calls.counted(prior.score),
        prior.sde,
        problem.operator,
        problem.y,
        num_steps=num_steps,
        num_samples=count,
        seed=seed,
        keys=[key],
        initial=problem.direct if starts_warm(sampler, given) else None,
        options=given,
        together=together,
    )
    with torch.no_grad():
        found = torch.stack([magnitude(problem.restore(source(n)))[0, 0] for n in range(count)])
    if failures:
        raise FloatingPointError(f"{key}: {failures[key]}")
    return found.cpu(), round(calls.count / count)


def run(
    out: Path,
    *,
    kinds: Sequence[str],
    sampler: str,
    num_steps: int,
    options: dict,
    count: int,
    split: str,
    slices: int,
    seed: int,
    together: int,
    open_prior: Callable[[str], Prior] = load_prior,
    noises: Sequence[float] | None = None,
) -> None:
    """Append the rows that are missing to ``coverage.csv`` in `out`.

    Args:
        out: the folder, made if missing.
        kinds: keys of `KINDS`.
        sampler: a key of `samplers.SAMPLERS`.
        num_steps: number of its steps.
        options: further keywords.
        count: number of samples of a slice.
        split: "val" or "test".
        slices: number of slices.
        seed: seed of the samples.
        together: number of samples in a batch of the network.
        open_prior: prior of a name.
        noises: noise levels; None: those of `KINDS`.
    """
    out.mkdir(parents=True, exist_ok=True)
    path, priors = out / "coverage.csv", {}
    there = done(path)
    for kind in kinds:
        name, levels = KINDS[kind]
        for noise in levels if noises is None else noises:
            for key, person, image in images_of(kind, split, slices):
                text = json.dumps(options, sort_keys=True)
                values = (kind, noise, sampler, num_steps, text, count, split, key, seed)
                row = dict(zip(KEYS, values, strict=True))
                if tuple(map(str, values)) in there:
                    continue
                if name not in priors:
                    priors[name] = open_prior(name)
                began = time.perf_counter()
                samples, calls = draw(
                    problem_of(kind, noise, image, key),
                    priors[name],
                    sampler,
                    options,
                    num_steps=num_steps,
                    count=count,
                    key=key,
                    seed=seed,
                    together=together,
                )
                seconds = time.perf_counter() - began
                scale = find_scale(name, sampler, options, num_steps, kind)
                truth, mean = image[0, 0], samples.mean(0)
                inside = torch.from_numpy(body(truth.numpy()))
                row |= {"person": person, "calls": calls, "seconds": round(seconds, 1)}
                row |= {"psnr": psnr(truth.numpy(), mean.numpy()), "scale": scale or math.nan}
                row |= measures(samples, truth, inside, scale)
                append(path, row)
                print(
                    f"{kind}, noise {noise:g}, {key}: 90 % intervals cover {row['pixel_90']:.3f} "
                    f"of the pixels, {row['region_90']:.3f} of the regions; {seconds:.0f} s",
                    flush=True,
                )


def point_table(
    kinds: Sequence[str],
    split: str,
    slices: int,
    *,
    num_steps: int = POINT_STEPS,
    open_prior: Callable[[str], Prior] = load_prior,
    noises: Sequence[float] | None = None,
) -> str:
    """Mean PSNR over people of `samplers.pnp` on the measurements of `run`, in Markdown.

    Args:
        kinds: keys of `KINDS`.
        split: "val" or "test".
        slices: number of slices.
        num_steps: network calls.
        open_prior: prior of a name.
        noises: noise levels; None: those of `KINDS`.
    """
    lines = ["| measurement | noise | `pnp` (dB) |", "|---|---:|---:|"]
    for kind in kinds:
        name, levels = KINDS[kind]
        prior = open_prior(name)
        for noise in levels if noises is None else noises:
            rows = []
            for key, person, image in images_of(kind, split, slices):
                problem = problem_of(kind, noise, image, key)
                found, _ = draw(
                    problem,
                    prior,
                    "pnp",
                    {},
                    num_steps=num_steps,
                    count=1,
                    key=key,
                    seed=0,
                    together=1,
                )
                value = psnr(image[0, 0].numpy(), found[0].numpy())
                rows.append({"person": person, "psnr": value})
            lines.append(f"| {kind} | {noise:g} | {over_people(rows, 'psnr'):.2f} |")
    return "\n".join(lines)


def done(path: Path) -> set[tuple]:
    """What makes the rows that the table has; nothing where there is no table."""
    return {tuple(row[key] for key in KEYS) for row in read(path)}


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where there is no table."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------- tables


def fit(rows: Sequence[dict], what: str = "pixel") -> float:
    """Scale at which 90 % intervals cover 90 %, of the mean over people of the mean over slices.

    Args:
        rows: rows of one kind of measurement and one sampler, of validation people.
        what: "pixel" or "region".

    Raises:
        ValueError: rows of test people, or no scale of `SCALES` does.
    """
    if any(row["split"] != "val" for row in rows):
        raise ValueError("expected rows of validation people alone: test people are not fitted to")
    curves = {}
    for row in rows:
        curves.setdefault(row["person"], []).append(curve(row, what))
    mean = np.mean([np.mean(of_one, axis=0) for of_one in curves.values()], axis=0)
    if not mean[0] < GOAL <= mean[-1]:
        raise ValueError(f"no scale from {SCALES[0]:g} to {SCALES[-1]:g} covers {GOAL:g}")
    return float(np.exp(np.interp(GOAL, mean, np.log(SCALES))))


def curve(row: dict, what: str) -> list[float]:
    """Coverage of the 90 % intervals of "pixel" or "region" at each of `SCALES`."""
    return json.loads(row[f"{what}_by_scale"])


def groups(rows: Sequence[dict], names: Sequence[str]) -> dict[tuple, list[dict]]:
    """Rows by the values of some columns, in the order of the first ones."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def over_people(rows: Sequence[dict], name: str) -> float:
    """Mean over people of the mean over their slices of a column."""
    people = groups(rows, ["person"]).values()
    return float(np.mean([np.mean([float(row[name]) for row in of_one]) for of_one in people]))


SETTINGS = ("kind", "noise", "sampler", "num_steps", "options", "count", "split")


def markdown(rows: Sequence[dict]) -> str:
    """The tables in Markdown: as samples are, and with the scale where there is one."""
    lines = [
        "| measurement | noise | sampler | calls | samples | people, slices | pixels: 50, 90, 95 % "
        "| regions | CRPS | std, error | PSNR | s a slice |",
        "|---|---:|---|---:|---:|---:|---|---|---:|---|---:|---:|",
    ]
    for (kind, noise, sampler, _, options, count, split), own in groups(rows, SETTINGS).items():

        def mean(name: str, own: list[dict] = own) -> float:
            return over_people(own, name)

        people = len({row["person"] for row in own})
        chosen = "" if options == "{}" else f" {options}"
        begin = f"| {kind} | {noise} | {sampler}{chosen}"
        for end in ("", "_scaled"):
            if math.isnan(mean(f"pixel_crps{end}")):
                continue
            scaled = f", scaled by {mean('scale'):.2f}" if end else ""
            covered = [
                ", ".join(f"{mean(f'{what}_{100 * level:g}{end}'):.3f}" for level in LEVELS)
                for what in ("pixel", "region")
            ]
            factor = mean("scale") if end else 1
            lines.append(
                f"{begin}{scaled} | {mean('calls'):.0f} | {count} | {people}, {len(own)} {split} | "
                f"{covered[0]} | {covered[1]} | {mean(f'pixel_crps{end}'):.5f} | "
                f"{factor * mean('pixel_std'):.4f}, {mean('pixel_error'):.4f} | "
                f"{mean('psnr'):.2f} | {mean('seconds'):.0f} |"
            )
    return "\n".join(lines)


def bins_table(rows: Sequence[dict]) -> str:
    """Deviation and error of pixels in bins of the deviation, from the smallest, in Markdown."""
    lines = ["| measurement | noise | sampler | deviation: error, from the surest fifth on |"]
    lines.append("|---|---:|---|---|")
    for (kind, noise, sampler, *_), own in groups(rows, SETTINGS).items():
        pairs = np.mean([json.loads(row["pixel_bins"]) for row in own], axis=0)
        text = ", ".join(f"{std:.4f}: {error:.4f}" for std, error in pairs)
        lines.append(f"| {kind} | {noise} | {sampler} | {text} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/coverage"))
    parser.add_argument("--kinds", default="", help=f"of {', '.join(KINDS)}; all: ''")
    parser.add_argument("--sampler", default="warm_mmps")
    parser.add_argument("--num_steps", type=int, default=0, help="0: the sampler's default")
    parser.add_argument("--options", default="{}", help="the sampler's keywords as JSON")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--slices", type=int, default=3, help="of each kind; people take turns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", type=int, default=4, help="samples in a batch")
    parser.add_argument("--fit", action="store_true", help="print the scales; run nothing")
    parser.add_argument("--print", action="store_true", help="the tables as they are; run nothing")
    parser.add_argument("--point", action="store_true", help="pnp's PSNR; no samples")
    given = parser.parse_args()
    kinds = [kind.strip() for kind in given.kinds.split(",") if kind.strip()] or list(KINDS)
    if set(kinds) - KINDS.keys():
        parser.error(f"expected kinds out of {', '.join(KINDS)}, got {given.kinds}")
    if given.point:
        print(point_table(kinds, given.split, given.slices))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (given.fit or given.print):
        run(
            given.out,
            kinds=kinds,
            sampler=given.sampler,
            num_steps=given.num_steps or NUM_STEPS[given.sampler],
            options=json.loads(given.options),
            count=given.samples,
            split=given.split,
            slices=given.slices,
            seed=given.seed,
            together=given.together,
            open_prior=lambda name: load_prior(name, device),
        )
    rows = read(given.out / "coverage.csv")
    if given.fit:
        validation = [row for row in rows if row["split"] == "val"]
        for what, own in groups(validation, ["sampler", "num_steps", "options", "kind"]).items():
            people, scale = len({row["person"] for row in own}), fit(own)
            single = [float(np.interp(scale, SCALES, curve(row, "pixel"))) for row in own]
            print(
                f"{', '.join(what)}: scale {scale:.2f} (of regions {fit(own, 'region'):.2f}), "
                f"{people} people, {len(own)} slices, of which it covers {min(single):.3f} to "
                f"{max(single):.3f}"
            )
        return
    print(markdown(rows), end="\n\n")
    print(bins_table(rows))


if __name__ == "__main__":
    main()
