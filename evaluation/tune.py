"""Choose a keyword of a baseline or sampler on validation slices.

    python -m evaluation.tune --config=configs/evaluate.py --out=results/tune_tv \
        --keyword=weight --grid=1e-5,1e-4,1e-3 --config.sampler.name=tv

evaluates each value on the validation slices (OUT/weight=1e-05 is an ordinary results folder), then
`--refine` times the geometric means of the best value and its neighbours. `tune.csv` has the mean
PSNR of each value, `tune.json` the best value. Running the same command again continues.
"""

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from absl import flags
from ml_collections import ConfigDict

import configs
from datasets.files import write_atomically
from evaluation.evaluate import evaluate
from evaluation.results.folder import read_rows
from evaluation.run.idle import idle_fields

COLUMNS = ("value", "psnr", "seconds", "slices")

Value = float | int | str


def tune(
    config: ConfigDict,
    out: Path,
    device: str,
    *,
    keyword: str,
    grid: Sequence[str],
    refine: int,
    split: str,
) -> Value:
    """Find the value of a keyword with the highest mean PSNR.

    Args:
        config: an evaluation config; `config.data.split` is not used.
        out: folder of the results.
        device: device of the networks.
        keyword: a field of `config.sampler`.
        grid: values to evaluate, as on a command line.
        refine: number of refinements around the best value; values then have to be positive.
        split: split of the data; "test" would choose as the study does.

    Returns:
        The best value.

    Raises:
        ValueError: an unknown keyword, or values of another type.
        ConfigError, DataError, CheckpointError, FileNotFoundError, FailedSlicesError: see
            `evaluation.evaluate.evaluate`.
    """
    values = parse(config, keyword, grid)
    if refine and not all(isinstance(v, float) and v > 0 for v in values):
        raise ValueError(f"expected positive numbers of {keyword} to refine; set --refine=0")
    config = config.copy_and_resolve_references()
    config.data.split, config.panels = split, 0
    scores: dict[Value, dict] = {}

    def score(value: Value) -> float:
        if value not in scores:
            config.sampler[keyword] = value
            folder = out / f"{keyword}={value}"
            evaluate(config, folder, device)
            scores[value] = mean_row(folder)
            write(out, keyword, scores)
        return scores[value]["psnr"]

    best = search(score, values, refine)
    write_atomically(
        out / "tune.json",
        (
            json.dumps({"keyword": keyword, "best": best, "split": split, **scores[best]}, indent=2)
            + "\n"
        ).encode(),
    )
    return best


def search(score: Callable[[Value], float], values: Sequence[Value], refine: int) -> Value:
    """Value with the highest score on a grid that is refined around its best value."""
    values = sorted(set(values)) if refine else list(values)
    best = max(values, key=score)
    for _ in range(refine):
        place = values.index(best)
        near = values[max(place - 1, 0) : place + 2]
        between = [float(f"{math.sqrt(a * b):.3g}") for a, b in pairwise(near)]
        values = sorted({*values, *between})
        best = max(values, key=score)
    return best


def parse(config: ConfigDict, keyword: str, grid: Sequence[str]) -> list[Value]:
    """Values of a grid, converted to the type of the config's field.

    Raises:
        ValueError: an unknown keyword, an empty grid, or a value of another type.
    """
    if keyword not in config.sampler or keyword == "name":
        known = ", ".join(sorted(set(config.sampler) - {"name"}))
        raise ValueError(f"unknown keyword {keyword!r} of config.sampler; known: {known}")
    kind = config.sampler.get_type(keyword)
    if not grid:
        raise ValueError("expected --grid as values with commas between them, got none")
    try:
        return [kind(text) for text in grid]
    except ValueError:
        raise ValueError(
            f"expected values of type {kind.__name__} for {keyword}, got {', '.join(grid)}"
        ) from None


def mean_row(folder: Path) -> dict:
    """Mean PSNR (dB) and seconds over the slices of a results folder, and their number."""
    rows = read_rows(folder)
    return {
        "psnr": statistics.fmean(float(row["psnr"]) for row in rows),
        "seconds": statistics.fmean(float(row["seconds"]) for row in rows),
        "slices": len(rows),
    }


def write(out: Path, keyword: str, scores: dict[Value, dict]) -> None:
    """Write `tune.csv`, one row per value, sorted."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"value": v, **scores[v]} for v in sorted(scores))
    write_atomically(out / "tune.csv", text.getvalue().encode())


def main(_) -> None:
    """Run the command line."""
    given = flags.FLAGS
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with configs.clear_errors():
        configs.note_idle(idle_fields(given.config))
        best = tune(
            given.config,
            Path(given.out),
            device,
            keyword=given.keyword,
            grid=given.grid,
            refine=given.refine,
            split=given.split,
        )
    print((Path(given.out) / "tune.csv").read_text(), end="")
    print(f"best: --config.sampler.{given.keyword}={best}")


if __name__ == "__main__":
    flags.DEFINE_list("grid", [], "values to try, with commas between them")
    flags.DEFINE_integer("refine", 2, "number of refinements around the best value", lower_bound=0)
    flags.DEFINE_string("split", "val", "split of the slices; test would choose as the study does")
    configs.define_flags("configs/evaluate.py", out="folder of the results", keyword="field name")
    configs.run(main)
