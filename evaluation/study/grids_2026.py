"""The grids of the study's 2026 edition, as `evaluation.study.grids` has those of 2024.

Nine sizes and two priors for each modality, three samplers, five masks for MRI, three numbers of
parallel views and a fan beam for CT, and 100 slices of as many people as there are.
"""

from collections.abc import Iterable
from itertools import product

from configs.base import ALL_SIZES, NESTED_LEVELS
from evaluation.study.grids import (
    CT_DATA,
    CT_PRIORS,
    FBP,
    MRI,
    MRI_DATA,
    MRI_PRIORS,
    NATURAL_JALAL,
    NATURAL_PC,
    QUICK_CT_DATA,
    QUICK_MRI,
    QUICK_MRI_DATA,
    QUICK_PRIOR,
    TV,
    ZERO_FILLED,
    GridMethod,
    Overrides,
    combine,
)

# prior -> name of the config in configs/ and the script in training_scripts/ that train it
PRIORS = {"knee": "fastmri_knee_2026", "natural": "celeba_2026", "ct": "ct_2026"}
SLICES = {"limit": 100, "spread": True}
TURNED = SLICES | {"data.upside_down": True}
MRI_DATA_2026 = {name: (root, fields | TURNED) for name, (root, fields) in MRI_DATA.items()}
CT_DATA_2026 = {name: (root, fields | SLICES) for name, (root, fields) in CT_DATA.items()}
# pixels of 1, image of 320; a full turn with 960 bins of 1 on an arc of 1 rad; magnification 2
FAN_BEAM = (
    "field_of_view=320,source_distance=480,detector_distance=480,detector='curved',"
    "num_bins=960,bin_spacing=1"
)
FAN_60 = {"operator.name": "fan_ct", "operator.num_views": 60, "operator.keywords": FAN_BEAM}
CT_2026 = {
    **{f"views_{n}": {"operator.name": "ct", "operator.num_views": n} for n in (60, 30, 20)},
    "fan_60": FAN_60,
}
NAMES = {"pc": "predictor_corrector", "jalal": "annealed_langevin", "dps": "dps"}
# levels of the whole ladder, of which Langevin, and DPS of the study, skip the first
MRI_STEPS = {"pc": 250, "jalal": 500, "dps": 250}
CT_STEPS = {"pc": 1000, "jalal": 1000, "dps": 500}


def samplers(steps: dict[str, int]) -> dict[str, Overrides]:
    """Label -> fields of the three samplers with so many levels."""
    return {
        label: {"sampler.name": NAMES[label], "sampler.num_steps": number}
        for label, number in steps.items()
    }


def priors_2026(names: Iterable[str], steps: dict[str, int]) -> list[GridMethod]:
    """Methods with every prior at every size and every sampler."""
    return [
        GridMethod(f"{name}_{size}_{label}", f"{PRIORS[name]}_{size}", overrides)
        for name, size, (label, overrides) in product(names, ALL_SIZES, samplers(steps).items())
    ]


def nested_2026(names: Iterable[str], steps: dict[str, int]) -> list[GridMethod]:
    """Methods with every prior's nested network at every depth and every sampler."""
    depths = range(1, NESTED_LEVELS + 1)
    return [
        GridMethod(
            f"{name}_structured_{depth}_{label}",
            f"{PRIORS[name]}_structured",
            {**overrides, "depth": depth},
        )
        for name, depth, (label, overrides) in product(names, depths, samplers(steps).items())
    ]


UNET = GridMethod("unet", "unet_2026_{measurement}", {"sampler.name": "unet"})

GRIDS_2026 = {
    "study2026_mri": combine(
        MRI_DATA_2026, MRI, [ZERO_FILLED, TV, UNET, *priors_2026(MRI_PRIORS, MRI_STEPS)]
    ),
    "study2026_ct": combine(
        CT_DATA_2026, CT_2026, [FBP, TV, UNET, *priors_2026(CT_PRIORS, CT_STEPS)]
    ),
    "study2026_nested": [
        *combine(MRI_DATA_2026, MRI, nested_2026(MRI_PRIORS, MRI_STEPS)),
        *combine(CT_DATA_2026, CT_2026, nested_2026(CT_PRIORS, CT_STEPS)),
    ],
}

# small versions: embedded slices of two people, few levels, the prior of the other small versions
DPS = samplers({"dps": 50})["dps"]
NATURAL_DPS = GridMethod("natural_1_dps", QUICK_PRIOR, DPS)
QUICK_METHODS = [TV, NATURAL_PC, NATURAL_JALAL, NATURAL_DPS]


def spread(data: dict[str, tuple[str, Overrides]]) -> dict[str, tuple[str, Overrides]]:
    """The same data with its slices over as many people as there are."""
    return {name: (root, {**fields, "spread": True}) for name, (root, fields) in data.items()}


QUICK_GRIDS_2026 = {
    "study2026_mri": combine(spread(QUICK_MRI_DATA), QUICK_MRI, [ZERO_FILLED, *QUICK_METHODS]),
    "study2026_ct": combine(
        spread(QUICK_CT_DATA),
        {name: CT_2026[name] for name in ("views_20", "fan_60")},
        [FBP, *QUICK_METHODS],
    ),
    "study2026_nested": [],
}
