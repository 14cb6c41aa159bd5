"""Division of slices among several processes that work on one results folder.

Shard RANK of WORLD has the slices ``keys[RANK::WORLD]``. The flag ``--shard`` selects it:

    auto         from torchrun's RANK and WORLD_SIZE if both are set, otherwise all (default)
    RANK/WORLD   such as 2/8, regardless of the environment
    slurm        from this task's place in its SLURM array, combined with torchrun if in use

A SLURM array is used only on request, as scripts also use arrays to choose what to evaluate; a task
that silently did an eighth of its slices would look finished.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Shard(NamedTuple):
    """One of `world` processes that share the work, with `rank` from 0 to `world` - 1."""

    rank: int
    world: int

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this shard: every `world`-th item, starting at `rank`."""
        return items[self.rank :: self.world]


WHOLE = Shard(0, 1)


def find_shard(choice: str, environment: Mapping[str, str]) -> Shard:
    """Shard selected by ``--shard=CHOICE``.

    Args:
        choice: "auto", "slurm" or "RANK/WORLD".
        environment: environment variables, such as ``os.environ``.

    Raises:
        ValueError: another choice, a rank that is not below the world size, no SLURM array, or one
            whose task numbers are not evenly spaced.
    """
    if choice == "auto":
        return _torchrun(environment)
    if choice == "slurm":
        outer, inner = _slurm_array(environment), _torchrun(environment)
        return Shard(outer.rank * inner.world + inner.rank, outer.world * inner.world)
    match = re.fullmatch(r"(\d+)/(\d+)", choice)
    if not match:
        raise ValueError(f"expected --shard=auto, slurm or RANK/WORLD such as 0/4, got {choice!r}")
    return _checked(int(match[1]), int(match[2]), f"--shard={choice}")


def _torchrun(environment: Mapping[str, str]) -> Shard:
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return WHOLE
    rank, world = (_integer(environment, name) for name in ("RANK", "WORLD_SIZE"))
    return _checked(rank, world, "RANK and WORLD_SIZE")


def _slurm_array(environment: Mapping[str, str]) -> Shard:
    number, first, last, count = (
        _integer(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "MAX", "COUNT")
    )
    step = (last - first) / (count - 1) if count > 1 else 1.0
    rank = (number - first) / step if step else -1.0
    if not (step.is_integer() and rank.is_integer()):
        raise ValueError(
            f"expected evenly spaced numbers of array tasks, got {number} among {count} from "
            f"{first} to {last}; submit --array=0-{count - 1}, or give --shard=RANK/WORLD"
        )
    return _checked(int(rank), count, "the SLURM array")


def _integer(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch(r"-?\d+", text):
        raise ValueError(
            f"expected a number in {name}, got {text!r}; submit with sbatch --array=0-N, or give "
            "--shard=RANK/WORLD"
        )
    return int(text)


def _checked(rank: int, world: int, source: str) -> Shard:
    if not 0 <= rank < world:
        raise ValueError(f"{source}: expected a rank from 0 to {world - 1}, got {rank}")
    return Shard(rank, world)
