"""What priors give on the embedded people for validation, beside TV (weights/README.md).

    python -m benchmarks.priors                          every shipped prior
    python -m benchmarks.priors natural_small runs/mine  these, by name or path

Brain MR at gaussian1d 4x and 8x and CT with 30 views, without noise, and noisy k-space of eight
simulated coils (Poisson disc 8x, images with a smooth phase, maps estimated from the data);
256 x 256 pixels, plug and play with 50 calls. Priors of complex images have no real ones to
reconstruct. With noise TV has the best one of several weights, which favours it. Mean PSNR (dB)
over the first slices, of which people and contrasts take turns; test slices are not used. Results
go to OUT/DATA/MEASUREMENT/METHOD; running the same command again continues.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import configs
from evaluation.evaluate import evaluate
from evaluation.results.folder import read_rows
from evaluation.study.grids import CT, MRI, NOISY_COILS, Overrides
from models.checkpoint import WEIGHTS, load, resolve_prior

BRAIN = {"data.subset": "brain"}
BODY = {"data.subset": "ct", "data.image_size": 256}
# row -> data and measurement
REAL = {
    "MR gaussian1d 4x": BRAIN | MRI["gaussian1d_4x"],
    "MR gaussian1d 8x": BRAIN | MRI["gaussian1d_8x"],
    "CT 30 views": BODY | CT["views_30"],
}
COMPLEX = {
    f"MR Poisson 8x, 8 coils, noise {sigma:g}": BRAIN | NOISY_COILS | {"noise.sigma": sigma}
    for sigma in (0.01, 0.03)
}
PNP = {"sampler.name": "pnp", "sampler.num_steps": 50}
TV_WEIGHTS = (0.1, 0.3, 1.0)  # times the noise; the best one counts


def folder_name(text: str) -> str:
    """A name or path as the name of a folder."""
    return re.sub(r"[^\w.]+", "_", text).strip("_")


def is_complex(prior: str) -> bool:
    """Whether a prior is one of complex images, with two channels."""
    return load(resolve_prior(prior))["config"]["model"].get("num_channels", 1) == 2


def mean_psnr(row: str, fields: Overrides, method: str, own: Overrides, args) -> float:
    """Mean PSNR (dB) of a method, from existing results where they are complete.

    Args:
        row: name of the measurement.
        fields: of data and measurement.
        method: name of the method's folder.
        own: the method's fields.
        args: of the command line: `out`, `limit` and `precision`.
    """
    config = configs.load_config("configs/evaluate.py")
    common = {"data.split": "val", "limit": args.limit, "precision": args.precision, "panels": 0}
    config.update_from_flattened_dict({**common, **fields, **own})
    out = args.out / str(fields["data.subset"]) / folder_name(row) / method
    evaluate(config, out, "cuda" if torch.cuda.is_available() else "cpu")
    return statistics.fmean(float(line["psnr"]) for line in read_rows(out))


def measure_row(row: str, priors: Mapping[str, bool], args) -> list[str]:
    """Cells of a row: direct image, TV, and each prior, "" where it does not apply.

    Args:
        row: a key of `REAL` or `COMPLEX`.
        priors: name -> whether it is one of complex images.
        args: as of `mean_psnr`.
    """
    fields = (REAL | COMPLEX)[row]
    direct = "fbp" if fields.get("operator.name") == "ct" else "zero_filled"
    noise = fields.get("noise.sigma")
    weights = [{"sampler.weight": w * noise} for w in TV_WEIGHTS] if noise else [{}]

    def measured(method: str, own: Overrides) -> float:
        value = mean_psnr(row, fields, folder_name(method), own, args)
        print(f"{row}, {method}: {value:.2f} dB", file=sys.stderr, flush=True)
        return value

    found = [measured(direct, {"sampler.name": direct})]
    tv = [{"sampler.name": "tv"} | own for own in weights]
    found += [max(measured(f"tv {own.get('sampler.weight', '')}", own) for own in tv)]
    cells = [f"{value:.2f}" for value in found]
    for prior, complex_only in priors.items():
        fits = row in COMPLEX or not complex_only
        cells.append(f"{measured(prior, PNP | {'prior': prior}):.2f}" if fits else "")
    return cells


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.priors")
    shipped = sorted(path.stem for path in WEIGHTS.glob("*.pt"))
    parser.add_argument("priors", nargs="*", default=shipped, help="names, checkpoints or runs")
    parser.add_argument("--out", type=Path, default=Path("results/priors"))
    parser.add_argument("--limit", type=int, default=3, help="slices a row")
    parser.add_argument("--precision", default="bfloat16", help="float32, bfloat16 or float16")
    parser.add_argument(
        "--rows", nargs="+", choices=[*REAL, *COMPLEX], default=[*REAL, *COMPLEX], metavar="ROW"
    )
    args = parser.parse_args(argv)
    with configs.clear_errors():
        priors = {prior: is_complex(prior) for prior in args.priors}
        rows = [[row, *measure_row(row, priors, args)] for row in args.rows]
    print(table(["", "direct", "TV", *(f"`{prior}`" for prior in priors)], rows))


if __name__ == "__main__":
    main()
