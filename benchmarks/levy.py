"""Posterior samples of Lévy processes against Gibbs samples: MMSE gap and coverage.

    python -m benchmarks.levy --out=results/levy --signals=400
    python -m benchmarks.levy --out=results/levy --increments=laplace --samplers="mmps;dds"
    python -m benchmarks.levy --out=results/levy --denoiser=learnt

The statistical benchmark of Zach et al. (ICLR 2026): signals of 64 numbers that are sums of
independent increments, seen through four operators with noise of 25 dB. The denoiser is no network:
it is computed by Gibbs sampling (`benchmarks.levy_process`), so that what is wrong is the
sampler's; ``--denoiser=learnt`` has networks instead (`benchmarks.levy_network`), which it trains
and keeps, and their rows are in learnt.csv. A row of levy.csv has a sampler on one kind of
increments and one operator:

- gap: 10 log10 of the squared error of the samples' mean over that of the posterior mean, in dB,
  mean over signals. It is that of infinitely many samples: the part that so few cost, their
  variance over their number, is taken out.
- coverage: how often the truth is inside the region of highest density that has 90 % of the
  samples, of those of the Gibbs sampler too. Density is that of the posterior; increments of 0 have
  none, so that there it is that of increments with a little noise, which is as good a test: truth
  and samples of the posterior have the same distribution of it, whatever it is.

The command goes on where it stopped; ``--print`` shows the table. Gibbs samples are kept beside it.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from benchmarks import levy_network
from benchmarks.calibration import EXACT, Calls, append, markdown, rows_done, with_noise
from benchmarks.levy_process import INCREMENTS, Increments, increments_of, posterior_chain, score_of
from operators import BatchGenerator, FunctionOperator, LinearOperator
from samplers import SAMPLERS
from sde import VESDE, Score

LENGTH = 64
SNR = 25.0  # dB, of the signals' median energy
KERNEL, WIDTH = 13, 2.0  # taps and standard deviation of the blur
PART = 0.4  # of the signal, and of the higher frequencies, that is seen
LOW = 5  # frequencies that are always seen
KINDS = ("gauss", "laplace", "bernoulli-laplace", "student-3")
COUNT = 19  # samples a signal: of 20 ranks two are outside a region of 90 %
OUTSIDE = 2
CHUNK = 4000  # samples drawn together
SIZED = 4000  # fresh signals, for the size of a network's
BURN_IN, SWEEPS = 300, 1500  # of the Gibbs sampler
RUNS = {  # sampler: keywords, levels
    "mmps": (EXACT | {"tolerance": 0.05}, 24),
    "moment_gibbs": (
        EXACT | {"tolerance": 0.05, "start_steps": 24, "inner_steps": 8, "widest": 1.5},
        20,
    ),
    "pula": ({"inner_steps": 3, "cg_steps": 30}, 100),
    "split_gibbs": ({"inner_steps": 6, "cg_steps": 30}, 50),
    "dds": ({"cg_steps": 30}, 100),
    "diffpir": ({"cg_steps": 30}, 300),
    "dps": ({}, 100),
}
KEYS = ("sampler", "increments", "operator", "signals", "count", "seed")


def as_operator(matrix: Tensor) -> LinearOperator:
    """y = A x of signals ``(B, 1, 1, d)``, y ``(B, 1, 1, m)``, for a real matrix ``(m, d)``."""
    return FunctionOperator(
        lambda x: x @ matrix.T.to(x),
        lambda y: y @ matrix.to(y),
        domain_shape=(1, 1, matrix.shape[1]),
    )


def blur() -> Tensor:
    """Circular convolution with a normal kernel."""
    taps = torch.arange(KERNEL, dtype=torch.float64) - KERNEL // 2
    kernel = torch.exp(-((taps / WIDTH) ** 2) / 2)
    first = torch.zeros(LENGTH, dtype=torch.float64)
    first[taps.long() % LENGTH] = kernel / kernel.sum()
    return torch.stack([first.roll(k) for k in range(LENGTH)])


def _some(size: int) -> Tensor:
    return torch.rand(size, generator=Generator().manual_seed(3)) < PART


def imputation() -> Tensor:
    """Four tenths of the numbers, at random."""
    return torch.eye(LENGTH, dtype=torch.float64)[_some(LENGTH)]


def partial_fourier() -> Tensor:
    """The lowest frequencies and some others, real and imaginary parts, as orthonormal rows."""
    seen = _some(LENGTH // 2 + 1)
    seen[:LOW] = True
    basis = torch.fft.fft(torch.eye(LENGTH, dtype=torch.float64), norm="ortho")[
        seen.nonzero()[:, 0]
    ]
    rows = torch.cat([basis.real, basis.imag])
    return torch.nn.functional.normalize(rows[rows.norm(dim=1) > 1e-9], dim=1)


OPERATORS = {
    "denoising": lambda: torch.eye(LENGTH, dtype=torch.float64),
    "deconvolution": blur,
    "imputation": imputation,
    "fourier": partial_fourier,
}


class Cell(NamedTuple):
    """Signals ``(B, d)`` and their measurements ``(B, m)``."""

    increments: Increments
    matrix: Tensor
    x: Tensor
    y: Tensor
    noise: float


def make_cell(kind: str, operator: str, signals: int, seed: int) -> Cell:
    """The signals of a row and their measurements."""
    generator = Generator().manual_seed(seed)
    increments, matrix = INCREMENTS[kind], OPERATORS[operator]()
    x = increments.draw((signals, LENGTH), generator).cumsum(-1)
    clean = x @ matrix.T
    noise = math.sqrt(float(clean.square().mean(1).median()) / 10 ** (SNR / 10))
    normal = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return Cell(increments, matrix, x, clean + noise * normal, noise)


def log_density(cell: Cell, x: Tensor) -> Tensor:
    """Log-density of the posterior of signals ``(..., B, d)``, up to a constant."""
    misfit = (x @ cell.matrix.T - cell.y).square().sum(-1) / (2 * cell.noise**2)
    return cell.increments.log_density(increments_of(x)).sum(-1) - misfit


def gibbs(cell: Cell, seed: int, sweeps: int | None = None) -> tuple[Tensor, Tensor]:
    """Posterior means ``(B, d)`` and `COUNT` samples ``(COUNT, B, d)``, far apart in the chain."""
    sweeps = SWEEPS if sweeps is None else sweeps
    chain = posterior_chain(
        cell.increments, cell.matrix, cell.y, cell.noise, Generator().manual_seed(seed)
    )
    total, kept = torch.zeros_like(cell.x), []
    for sweep in range(BURN_IN + sweeps):
        x = next(chain)
        if sweep >= BURN_IN:
            total += x
            if (sweep - BURN_IN + 1) % (sweeps // COUNT) == 0:
                kept.append(x)
    return total / sweeps, torch.stack(kept[:COUNT])


def kept_gibbs(cell: Cell, path: Path, seed: int) -> tuple[Tensor, Tensor]:
    """`gibbs`, from a file if it is there."""
    if not path.exists():
        mean, samples = gibbs(cell, seed)
        part = path.with_suffix(".part.npz")
        np.savez(part, mean=mean.numpy(), samples=samples.numpy())
        part.replace(path)
    with np.load(path) as found:
        return torch.from_numpy(found["mean"]), torch.from_numpy(found["samples"])


def size_of(signals: Tensor) -> float:
    """Typical size of the numbers of signals ``(B, d)``."""
    return float(signals.square().mean(1).median().sqrt())


def noise_levels(increments: Increments, size: float) -> VESDE:
    """Range of the denoiser's noise levels for signals of a `size`."""
    return VESDE(0.02 * increments.scale, 8 * size)


def draw(name: str, cell: Cell, seed: int, score: Score) -> tuple[Tensor, float]:
    """Samples ``(COUNT, B, d)`` of a sampler, and denoiser calls a sample."""
    options, num_steps = RUNS[name]
    size = size_of(cell.x)
    sde = noise_levels(cell.increments, size)
    options = with_noise(name, options, cell.noise) | {"start_sigma": 4 * size}
    calls, found = Calls(), []
    score = calls.counted(score)
    y = cell.y.repeat(COUNT, 1)[:, None, None]
    operator = as_operator(cell.matrix)
    for first in range(0, len(y), CHUNK):
        part = y[first : first + CHUNK]
        rng = BatchGenerator([seed * 10**6 + first + i for i in range(len(part))])
        x = SAMPLERS[name](score, sde, operator, part, rng=rng, num_steps=num_steps, **options)
        found.append(x[:, 0, 0])
    return torch.cat(found).reshape(COUNT, *cell.x.shape), calls.count / len(y)


def compare(cell: Cell, samples: Tensor, best: Tensor) -> dict[str, float]:
    """Gap of the mean of samples ``(S, B, d)`` to the posterior mean, and coverage of the truth."""
    error = (samples.mean(0) - cell.x).square().sum(-1)
    chance = samples.var(0).sum(-1) / len(samples)
    least = (best - cell.x).square().sum(-1)
    gaps = 10 * torch.log10((error - chance).clamp(min=0.1 * error) / least)
    below = (log_density(cell, samples) < log_density(cell, cell.x)).sum(0)  # (B,)
    covered = (below >= OUTSIDE).double().mean()
    spread = samples.var(0).sum(-1).median()
    return {
        "gap": float(gaps.mean()),
        "gap_error": float(gaps.std() / math.sqrt(len(gaps))),
        "coverage": float(covered),
        "coverage_error": float((covered * (1 - covered) / len(below)).sqrt()),
        "variance": float(spread),
    }


def exact(kind: str, seed: int, out: Path) -> Score:
    """Score by Gibbs sampling."""
    return score_of(INCREMENTS[kind], Generator().manual_seed(seed))


def learnt(kind: str, seed: int, out: Path) -> Score:
    """Score by a network, which is trained if it is not in `out`."""
    increments = INCREMENTS[kind]
    drawn = increments.draw((SIZED, LENGTH), Generator().manual_seed(0)).cumsum(-1)
    size = size_of(drawn)
    sde = noise_levels(increments, 1.1 * size)
    path = out / f"network_{kind}.pt"
    net = levy_network.kept(path, increments, sde, length=LENGTH, size=size)
    return levy_network.score_of(net)


DENOISERS = {"exact": (exact, "levy.csv"), "learnt": (learnt, "learnt.csv")}


def make_row(
    name: str,
    kind: str,
    operator: str,
    *,
    signals: int,
    out: Path,
    seed: int,
    denoiser: str = "exact",
) -> dict:
    """A row of levy.csv: figures of a sampler, or of the Gibbs sampler against itself."""
    began = time.perf_counter()
    cell = make_cell(kind, operator, signals, seed)
    path = out / f"gibbs_{kind}_{operator}_{signals}_{seed}.npz"
    best, reference = kept_gibbs(cell, path, seed + 1)
    found = compare(cell, reference, best)
    samples, calls = reference, 0.0
    if name != "gibbs":
        make, _ = DENOISERS[denoiser]
        samples, calls = draw(name, cell, seed + 2, make(kind, seed + 2, out))
    row = compare(cell, samples, best)
    row["variance"] /= found["variance"]
    return {"calls": round(calls), **row, "seconds": round(time.perf_counter() - began, 1)}


def run(
    out: Path,
    *,
    samplers: Sequence[str],
    kinds: Sequence[str],
    operators: Sequence[str],
    signals: int,
    seed: int,
    denoiser: str = "exact",
) -> None:
    """Append the rows that are missing to the table in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / DENOISERS[denoiser][1]
    for kind in kinds:
        for operator in operators:
            for name in samplers:
                values = (name, kind, operator, signals, COUNT, seed)
                if tuple(map(str, values)) in rows_done(path, KEYS):
                    continue
                row = dict(zip(KEYS, values, strict=True))
                given = {"signals": signals, "out": out, "seed": seed, "denoiser": denoiser}
                row |= make_row(name, kind, operator, **given)
                append(path, row)
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})


COLUMNS = {
    "sampler": "{sampler}",
    "increments": "{increments}",
    "operator": "{operator}",
    "calls": "{calls}",
    "gap (dB)": "{gap:.2f} +- {gap_error:.2f}",
    "coverage": "{coverage:.3f} +- {coverage_error:.3f}",
    "variance": "{variance:.2f}",
    "signals": "{signals}",
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/levy"))
    parser.add_argument("--samplers", default="", help=f"of gibbs; {'; '.join(RUNS)}")
    parser.add_argument("--increments", default=",".join(KINDS), help=f"of {','.join(INCREMENTS)}")
    parser.add_argument("--operators", default=",".join(OPERATORS))
    parser.add_argument("--denoiser", choices=list(DENOISERS), default="exact")
    parser.add_argument("--signals", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print", action="store_true", help="the table as it is; run nothing")
    given = parser.parse_args()
    samplers = [s.strip() for s in given.samplers.split(";") if s.strip()] or ["gibbs", *RUNS]
    kinds, operators = given.increments.split(","), given.operators.split(",")
    unknown = {*samplers} - {"gibbs", *RUNS} | {*kinds} - {*INCREMENTS}
    unknown |= {*operators} - {*OPERATORS}
    if unknown:
        parser.error(
            f"unknown: {', '.join(sorted(unknown))}; samplers: {'; '.join(['gibbs', *RUNS])}; "
            f"increments: {','.join(INCREMENTS)}; operators: {','.join(OPERATORS)}"
        )
    if not given.print:
        run(
            given.out,
            samplers=samplers,
            kinds=kinds,
            operators=operators,
            signals=given.signals,
            seed=given.seed,
            denoiser=given.denoiser,
        )
    path = given.out / DENOISERS[given.denoiser][1]
    if path.exists():
        print(markdown(path, COLUMNS))


if __name__ == "__main__":
    main()
