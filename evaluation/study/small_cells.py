"""The study in small as plain data: networks, measurements, samplers, and what is done first.

`evaluation.small_study` works the cells off; docs/small_study.md explains the choices. A cell is
one network (or baseline), one measurement and one sampler on all its test slices.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from configs.small_study import (
    CORNERS,
    FLAT,
    IMAGES,
    NESTED,
    PRIORS,
    SIDE,
    SIZES,
    TRAINING_FIELDS,
    model_fields,
)
from evaluation.study.grids import MRI as GRID_MRI

OUT, CARRIED = "results/small_study", "docs/small_study"
MR, CT = "mr", "ct"
MEASUREMENTS = {
    MR: GRID_MRI["gaussian1d_4x"] | {"operator.mask_per_slice": True},
    CT: {"operator.name": "ct", "operator.num_views": 20},
}
DIRECT = {MR: "zero_filled", CT: "fbp"}
# of all reconstructions; slices are computed eight at a time
COMMON = {"precision": "bfloat16", "panels": 0}
BATCH = 8
# calls of an image: 20, 100, 111, 50 with derivative, 100 (mean of four samples), 100
SAMPLERS = {
    "pnp": {"sampler.name": "pnp", "sampler.num_steps": 20},
    "pc": {"sampler.name": "predictor_corrector", "sampler.num_steps": 50},
    "jalal": {"sampler.name": "annealed_langevin", "sampler.num_steps": 50},
    "dps": {"sampler.name": "dps", "sampler.num_steps": 50},
    "warm_dds": {
        "sampler.name": "warm_dds",
        "sampler.num_steps": 20,
        "sampler.point_steps": 20,
        "sampler.num_samples": 4,
    },
    "pc_2026": {
        "sampler.name": "predictor_corrector",
        "sampler.num_steps": 50,
        "protocol": "study2026",
        "operator.mask_per_slice": False,  # as the study; its generator has no seeds for slices
    },
}
# in CT PC is warm-started, as in the study of 2024: with 50 levels from noise it hardly beats FBP
CCDF = {"sampler.num_steps": 100, "sampler.start_level": 50}
QUICK_CCDF = {"sampler.num_steps": 4, "sampler.start_level": 2}
STUDIED = ("pc", "jalal", "dps")  # the study's, beside pnp and warm_dds
QUICK_STEPS = {"pnp": 3, "pc": 3, "jalal": 4, "dps": 3, "warm_dds": 2, "pc_2026": 3}
QUICK_TRAINING = {"training.num_steps": 4, "training.batch_size": 1, "optim.cooldown": 1}

# test set -> (slices a person with pnp and the baselines, with the other samplers)
SETS = {
    MR: {
        "brain_t1": (2, 1),
        "brain_flair": (2, 1),
        "brain_t2": (2, 1),
        "chest_ct": (2, 1),
        "photos": (1, 1),
    },
    CT: {
        "chest_ct": (2, 1),
        "chest_views": (2, 1),
        "brain_t1": (1, 1),
        "photos": (1, 1),
    },
}
# prior -> the test set of the kind of images it was fitted to
OWN = {"natural": "photos", "photos": "photos", "brain": "brain_t1", "chest": "chest_ct"}
# (prior, measurement) pairs: the measurements that each prior is meant for
DOMAINS = (("brain", MR), ("chest", CT), ("natural", MR), ("natural", CT))
MEDICAL = (("brain", MR), ("chest", CT))


def outside(prior: str, measurement: str) -> tuple[str, ...]:
    """Medical test sets outside a prior's distribution that have a measurement.

    Photographs are never counted: for a medical prior they would dominate the others.
    """
    return tuple(s for s in SETS[measurement] if s not in (OWN[prior], "photos"))


class Network(NamedTuple):
    """One training, or a depth of a nested one: such as natural_1_s0 or brain_structured_4_s0."""

    prior: str
    size: str
    seed: int

    def __str__(self) -> str:
        return f"{self.prior}_{self.size}_s{self.seed}"

    @property
    def depth(self) -> int | None:
        """Depth of a nested network; None for others."""
        return int(self.size.rpartition("_")[2]) if self.size.startswith(NESTED) else None

    @property
    def run(self) -> str:
        """Name of the training, as configs/small_study.py takes it."""
        return f"{self.prior}_{NESTED}_s{self.seed}" if self.depth else str(self)


def parse_network(name: str) -> Network:
    """The network that `str` of it names.

    >>> parse_network("brain_4_attention_s1")
    Network(prior='brain', size='4_attention', seed=1)
    """
    start, _, seed = name.rpartition("_s")
    prior, _, size = start.partition("_")
    return Network(prior, size, int(seed))


class Cell(NamedTuple):
    """One unit of the evaluation; `network` is None for a baseline."""

    stage: int
    network: Network | None
    measurement: str
    sampler: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Names in the file of rows; of a baseline the first is empty."""
        return str(self.network or ""), self.measurement, self.sampler

    @property
    def folder(self) -> str:
        """Folder of the results, below OUT/cells."""
        method = f"{self.network}_{self.sampler}" if self.network else self.sampler
        return f"slices/{self.measurement}/{method}"


def networks(priors: Iterable[str], sizes: Iterable[str], seed: int = 0) -> list[Network]:
    """All pairs, by size."""
    return [Network(prior, size, seed) for size, prior in product(sizes, priors)]


def make_cells() -> list[Cell]:
    """All cells, the most informative first.

    Stages: 1, every prior at every size by `pnp`, and baselines; 2, the study's samplers, one after
    another; 3, second seeds of the corners; 4, ten times as many photographs; 5, nested networks
    and what they are compared with; 6, PC as the study's code of 2026; 7, the mean of samples with
    error bars; 8, second seeds with the study's other samplers.
    """
    three = ("natural", "brain", "chest")
    base, again = networks(three, SIZES), networks(three, CORNERS, seed=1)
    nested = networks(("natural", "brain"), (f"{NESTED}_1", f"{NESTED}_4", FLAT))
    plan: list[tuple[int, Sequence[Network | None], Sequence[str]]] = [
        (1, base, ("pnp",)),
        *((2, base, (sampler,)) for sampler in STUDIED),
        (3, again, ("pnp", "pc")),
        (4, networks(("photos",), CORNERS), ("pnp",)),
        (5, nested, ("pnp",)),
        (6, base, ("pc_2026",)),
        (7, base, ("warm_dds",)),
        *((8, again, (sampler,)) for sampler in STUDIED[1:]),
    ]
    baselines = [Cell(1, None, m, s) for m in SETS for s in (DIRECT[m], "tv")]
    return baselines + [
        Cell(stage, network, measurement, sampler)
        for stage, members, samplers in plan
        for network, sampler, measurement in product(members, samplers, SETS)
    ]


def runs_of(cells: Iterable[Cell]) -> list[str]:
    """Names of the trainings that cells need, in their order."""
    return list(dict.fromkeys(cell.network.run for cell in cells if cell.network))


def fields_of(cell: Cell, *, quick: bool = False) -> dict:
    """Fields of configs/evaluate.py of a cell, without prior, data and batch."""
    sampler = SAMPLERS.get(cell.sampler, {"sampler.name": cell.sampler})
    fields = COMMON | MEASUREMENTS[cell.measurement] | sampler
    if quick and cell.network:
        fields |= {"sampler.num_steps": QUICK_STEPS[cell.sampler]}
    if cell.measurement == CT and cell.sampler.startswith("pc"):
        fields |= QUICK_CCDF if quick else CCDF
    if cell.network and cell.network.depth:
        fields |= {"depth": cell.network.depth}
    return fields


def training_fields(*, quick: bool = False) -> dict:
    """Fields of a training's config that all trainings share."""
    return TRAINING_FIELDS | (QUICK_TRAINING if quick else {})


def settings(cell: Cell, *, quick: bool = False) -> str:
    """Hash of all that a cell's rows depend on, but for the data and the version of the code.

    Rows of other settings do not count as this cell's.
    """
    facts: list = [SIDE, fields_of(cell, quick=quick), SETS[cell.measurement]]
    if cell.network:
        facts.append(run_settings(cell.network.run, quick=quick))
    return _hash(facts)


def run_settings(run: str, *, quick: bool = False) -> str:
    """Hash of all that a training depends on, but for the data and the version of the code."""
    network = parse_network(run)
    training = training_fields(quick=quick)
    count = {} if network.prior == "photos" else {"images": IMAGES}
    return _hash([SIDE, count, training, PRIORS[network.prior], model_fields(network.size)])


def _hash(facts: list) -> str:
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def choose_slices(measurement: str, sampler: str, tests: Path) -> list[str]:
    """Names of a cell's test pictures below `tests`, such as ``brain_t1/person30_4.png``.

    Every person has the first few of its pictures by name, see `SETS`; photographs are people.

    Raises:
        FileNotFoundError: there are no pictures.
    """
    many = sampler in ("pnp", "tv", *DIRECT.values())
    chosen = []
    for name, numbers in SETS[measurement].items():
        people: dict[str, list[str]] = {}
        for path in sorted((tests / name).glob("*.png")):
            people.setdefault(path.stem.partition("_")[0], []).append(f"{name}/{path.name}")
        for own in people.values():
            chosen += own[: numbers[0 if many else 1]]
    if not chosen:
        raise FileNotFoundError(f"{tests}: expected test pictures, got none; remove the folder")
    return chosen
