"""What the training of priors takes: hours, and an sbatch command with a time limit that fits.

    bash training_scripts/train_ct.sh --plan 1 4      the same, of two sizes

Hours are those of the images a second in a run's `log.csv` where it has begun (of the steps that
are left), otherwise operations at a rate, by default an assumption (docs/cluster.md).
"""

import argparse
import csv
import os
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from configs import check_overrides, clear_errors, load_config
from evaluation.grid import positive
from evaluation.study.cost import TFLOPS, time_limit, values_of
from models.flops import count_flops

AT_ONCE = 4  # sizes that an array trains at the same time
ROWS = 20  # last rows of the log whose median speed counts


class Training(NamedTuple):
    """What is left of a training.

    Attributes:
        steps: number of steps left.
        tflop: TFLOP of a step, forward and backward.
        hours: hours that they take.
        source: what the hours are from.
    """

    steps: int
    tflop: float
    hours: float
    source: str


def plan(config: ConfigDict, run: Path, tflops: float | None) -> Training:
    """What is left of a training with `config` in the folder `run`, which may be missing.

    Args:
        config: training config.
        run: folder of the run.
        tflops: TFLOP/s of a GPU; None: the run's own speed, else `TFLOPS`.
    """
    t = config.training
    side = config.data.crop or config.data.image_size
    tflop = t.batch_size * count_flops(config, side, backward=True) / 1e12
    done, speed = progress_of(run / "log.csv")
    steps = max(t.num_steps - done, 0)
    if speed and tflops is None:
        hours = steps * t.batch_size / speed / 3600
        return Training(steps, tflop, hours, f"{speed:.3g} images/s measured, {done} steps done")
    source = f"{tflops or TFLOPS:g} TFLOP/s, {'as given' if tflops else 'an assumption'}"
    return Training(steps, tflop, steps * tflop / (tflops or TFLOPS) / 3600, source)


def progress_of(log: Path) -> tuple[int, float]:
    """Finished steps in a run's log, and its images a second, the median of the last rows."""
    if not log.is_file():
        return 0, 0.0
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))[-ROWS:]
    if not rows:
        return 0, 0.0
    return int(rows[-1]["step"]), statistics.median(float(r["images_per_second"]) for r in rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training_scripts.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", help="of the config, such as ct")
    parser.add_argument("sizes", nargs="+", metavar="SIZE")
    parser.add_argument("--tflops", type=positive, metavar="T", help="TFLOP/s of a GPU")
    arguments, overrides = parser.parse_known_args(argv)
    unknown = [text for text in overrides if not text.startswith("--config.")]
    with clear_errors():
        if unknown:
            raise ValueError(f"unknown arguments {' '.join(unknown)}; see --help")
        print("\n".join(planned(arguments.name, arguments.sizes, arguments.tflops, overrides)))


def planned(
    name: str, sizes: Sequence[str], tflops: float | None, overrides: Sequence[str] = ()
) -> list[str]:
    """Lines of text: the trainings of a config at these sizes, and the command that submits them.

    Args:
        name: name of the config, and of the script ``training_scripts/train_NAME.sh``.
        sizes: the sizes.
        tflops: see `plan`.
        overrides: flags ``--config.FIELD=VALUE`` of the trainings.
    """
    runs = Path(os.environ.get("RUNS") or "runs")
    lines = [
        "{:12} {:>9} {:>11} {:>7} {:>9}".format("size", "steps", "TFLOP/step", "hours", "time")
    ]
    longest = 0.0
    for size in sizes:
        config = load_config(f"configs/{name}.py:{size}")
        check_overrides(overrides, config)
        config.update_from_flattened_dict(values_of(overrides))
        found = plan(config, runs / f"{name}_{size}", tflops)
        longest = max(longest, found.hours)
        lines.append(
            f"{size:12} {found.steps:9} {found.tflop:11.3g} {found.hours:7.1f} "
            f"{time_limit(found.hours):>9}  {found.source}"
        )
    lines.append("A shorter limit does as well: near it a job saves and goes back into the queue.")
    array = f"--array=0-{len(sizes) - 1}%{AT_ONCE}"
    script = f"training_scripts/train_{name}.sh"
    command = ["sbatch", array, f"--time={time_limit(longest)}", script, *sizes, *overrides]
    return [*lines, shlex.join(command)]


if __name__ == "__main__":
    main()
