"""Likelihoods as a detector: damaged scans, other anatomies and photographs beside brain MRI.

    python -m benchmarks.detection                         shipped priors
    python -m benchmarks.detection natural_small --crop=96 one of them, larger crops

Bits per dimension (`evaluation.likelihood`) of the middle of embedded slices of all people, none of
whom a shipped prior was trained on: brain MRI as it is and damaged (`evaluation/run/damage.py`), CT
of the body, and photographs, all of 256 x 256 pixels before the crop. AUC is the probability that
an image of a group has more bits, so is less likely, than a brain slice: 0.5 where they cannot be
told apart, below 0.5 where what is wrong is thought likelier. Its interval, 95 %, is a bootstrap
over people; damaged slices keep their people together with the slices as they are.

Writes `detection.csv` and `detection.png` (histograms) below OUT; run again, it continues.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import rankdata

import configs
from datasets.files import to_csv, write_atomically
from evaluation.likelihood import likelihood
from evaluation.run.damage import DAMAGE
from evaluation.show.style import COLORS, PNG_DPI, STYLE, WIDTH, write_figure
from models.checkpoint import shipped_priors

SPLITS = ("train", "val", "test")
CLEAN = "brain"
SIDE = 256  # pixels before the crop
# group -> fields of configs/likelihood.py, and whether its people are those of the clean group
GROUPS = {CLEAN: ({"data.subset": "brain"}, True)}
GROUPS |= {f"brain, {name}": ({"data.subset": "brain", "damage": name}, True) for name in DAMAGE}
GROUPS |= {
    "CT": ({"data.subset": "ct"}, False),
    "photographs": ({"data.subset": "natural"}, False),
}
RESAMPLES, SEED = 2000, 0
BINS = 16


def measure(prior: str, group: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """Bits per dimension of a group's images by person, from existing results where complete."""
    found: dict[str, list[float]] = {}
    for split in SPLITS:
        config = configs.load_config("configs/likelihood.py")
        fields = {
            "prior": prior,
            "data.split": split,
            "data.image_size": SIDE,
            "limit": args.limit,
            "crop": args.crop,
            "num_steps": args.num_steps,
            "probes": args.probes,
            **GROUPS[group][0],
        }
        config.update_from_flattened_dict(fields)
        out = args.out / Path(prior).stem / group.replace(", ", "_") / split
        rows = likelihood(config, out, "cuda" if torch.cuda.is_available() else "cpu")
        for row in rows:
            person = f"{split}/{row['person']}"
            found.setdefault(person, []).append(float(row["bits_per_dim"]))
    return found


def flat(groups: Iterable[Sequence[float]]) -> list[float]:
    """All numbers of several sequences."""
    return list(chain.from_iterable(groups))


def auc(clean: Sequence[float], other: Sequence[float]) -> float:
    """Probability that a number of `other` is above one of `clean`; ties count half."""
    ranks = rankdata([*clean, *other])[len(clean) :].sum()
    least = len(other) * (len(other) + 1) / 2
    return float((ranks - least) / (len(clean) * len(other)))


def auc_interval(
    clean: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]], same: bool
) -> tuple[float, float, float]:
    """AUC, and the ends of its 95 % interval by a bootstrap over people.

    Args:
        clean: person -> numbers.
        other: the same of the other group.
        same: whether these are the same people, who are then drawn together.
    """

    def of(people: Sequence[str], others: Sequence[str]) -> float:
        return auc(flat(clean[p] for p in people), flat(other[p] for p in others))

    rng = np.random.default_rng(SEED)
    names, other_names = sorted(clean), sorted(other)
    drawn = []
    for _ in range(RESAMPLES):
        people = rng.choice(names, len(names))
        drawn.append(of(people, people if same else rng.choice(other_names, len(other_names))))
    return of(names, other_names), *np.quantile(drawn, (0.025, 0.975))


@rc_context(STYLE)
def draw(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> Figure:
    """Histograms of bits per dimension: a column a prior, a row a group.

    Args:
        found: prior -> group -> person -> numbers.
    """
    groups = list(next(iter(found.values())))
    figure = Figure(figsize=(WIDTH, 0.55 * len(groups) + 0.5), layout="constrained")
    axes = figure.subplots(len(groups), len(found), sharex="col", squeeze=False)
    for column, (prior, by_group) in enumerate(found.items()):
        numbers = {g: flat(people.values()) for g, people in by_group.items()}
        together = flat(numbers.values())
        edges = np.linspace(min(together), max(together), BINS + 1)
        for row, group in enumerate(groups):
            axis = axes[row, column]
            color = COLORS[5] if group == CLEAN else COLORS[0]
            axis.hist(numbers[group], edges, color=color)
            axis.axvline(np.median(numbers[CLEAN]), color=COLORS[4], linewidth=0.8)
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(group, rotation=0, ha="right", va="center")
        axes[0, column].set_title(prior)
        axes[-1, column].set_xlabel("bits per dimension")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection")
    parser.add_argument("priors", nargs="*", default=shipped_priors(), help="names or files")
    parser.add_argument("--out", type=Path, default=Path("results/detection"))
    parser.add_argument("--limit", type=int, default=6, help="images of each split")
    parser.add_argument("--crop", type=int, default=64, help="pixels a side")
    parser.add_argument("--num_steps", type=int, default=16, help="of the flow")
    parser.add_argument("--probes", type=int, default=1)
    args = parser.parse_args(argv)
    found, rows = {}, []
    with configs.clear_errors():
        for prior in args.priors:
            name = Path(prior).stem
            by_group = found[name] = {group: measure(prior, group, args) for group in GROUPS}
            for group, (_, same) in GROUPS.items():
                numbers = flat(by_group[group].values())
                row = {"prior": name, "group": group, "images": len(numbers)}
                row |= {"people": len(by_group[group]), "bits_per_dim": f"{np.mean(numbers):.2f}"}
                if group != CLEAN:
                    value, low, high = auc_interval(by_group[CLEAN], by_group[group], same)
                    row |= {"auc": f"{value:.2f}", "low": f"{low:.2f}", "high": f"{high:.2f}"}
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
    columns = ("prior", "group", "images", "people", "bits_per_dim", "auc", "low", "high")
    filled = [{name: row.get(name, "") for name in columns} for row in rows]
    write_atomically(args.out / "detection.csv", to_csv(filled, columns))
    write_figure(draw(found), args.out / "detection.png", dpi=PNG_DPI)
    print(table(filled))
    print(f"figure: {args.out / 'detection.png'}")


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Markdown: a row a group, two columns a prior, bits and AUC with its interval."""
    priors = list(dict.fromkeys(row["prior"] for row in rows))
    lines = [
        "| | images, people | " + " | ".join(f"{p}: bits | AUC" for p in priors) + " |",
        "|---|---:|" + "---:|---:|" * len(priors),
    ]
    for group in GROUPS:
        own = [row for row in rows if row["group"] == group]
        cells = [
            f"{row['bits_per_dim']} | "
            + (f"{row['auc']} ({row['low']} to {row['high']})" if row["auc"] else "")
            for row in own
        ]
        lines.append(f"| {group} | {own[0]['images']}, {own[0]['people']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
