"""Posterior samplers: ``sampler(score, sde, operator, y, *, rng, num_steps, ..., callback=None)``.

A new sampler is one file and one line in `SAMPLERS`, with ``@torch.no_grad()`` in front of it, so
that callers need not think of gradients. If nothing is random, `rng` may be None.
`STUDY[name]` holds the keywords that turn a sampler into the original code's (docs/protocols.md),
`STUDY_CT[name]` those for CT; `STUDY_2026` and `STUDY_2026_CT` those of its 2026 edition.
`PRESETS` holds further published settings.
"""

import sys

from samplers import annealed_langevin as _langevin
from samplers.annealed_langevin import annealed_langevin
from samplers.daps import daps
from samplers.dds import dds
from samplers.diffpir import diffpir
from samplers.dps import dps
from samplers.mmps import mmps
from samplers.moment_gibbs import moment_gibbs
from samplers.multicoil import hybrid, ssos
from samplers.pnp import pnp
from samplers.posterior import Posterior, posterior_moments, prediction_quantile
from samplers.predictor_corrector import predictor_corrector
from samplers.progress import Progress
from samplers.pula import pula
from samplers.red_diff import red_diff
from samplers.split_gibbs import split_gibbs
from samplers.warm_dds import warm_dds
from samplers.warm_mmps import warm_mmps
from samplers.watch import NonFiniteError

SAMPLERS = {
    "predictor_corrector": predictor_corrector,
    "annealed_langevin": annealed_langevin,
    "ssos": ssos,
    "hybrid": hybrid,
    "dds": dds,
    "diffpir": diffpir,
    "pnp": pnp,
    "dps": dps,
    "mmps": mmps,
    "moment_gibbs": moment_gibbs,
    "pula": pula,
    "split_gibbs": split_gibbs,
    "daps": daps,
    "red_diff": red_diff,
    "warm_dds": warm_dds,
    "warm_mmps": warm_mmps,
}


def _from_files(constant: str, default: object) -> dict:
    """Sampler -> a constant of its file."""
    files = {name: sys.modules[function.__module__] for name, function in SAMPLERS.items()}
    return {name: getattr(file, constant, default) for name, file in files.items()}


# default number of noise levels of each sampler
NUM_STEPS = _from_files("NUM_STEPS", 500)
# nothing in them is random: every sample of a measurement is the same image
POINT_ESTIMATES = tuple(
    name for name, is_one in _from_files("POINT_ESTIMATE", False).items() if is_one
)
# samples of a measurement share their first image, `warm_start.point_estimate`
FROM_POINT = tuple(name for name, shared in _from_files("FROM_POINT", False).items() if shared)
# what was found of a sampler's samples where the posterior is known; empty where nothing speaks
# against calling them samples of the posterior
SPREAD = _from_files("SPREAD", "its spread was not measured")
# they reconstruct each coil's image and need no maps
COILS_APART = tuple(name for name, apart in _from_files("COILS_APART", False).items() if apart)
# keywords that turn a sampler into the original code's; none for what that code does not have
STUDY = _from_files("STUDY", {})
STUDY_CT = {name: ct or STUDY[name] for name, ct in _from_files("STUDY_CT", {}).items()}
# those of the study's code of 2026; `STUDY_2026_CT` are for parallel beams, not for fan beams
STUDY_2026 = _from_files("STUDY_2026", {})
STUDY_2026_CT = {
    name: ct or STUDY_2026[name] for name, ct in _from_files("STUDY_2026_CT", {}).items()
}


def spread(name: str, options: dict) -> str:
    """`SPREAD` of the sampler `name` with the keywords `options`."""
    gaussian = options.get("likelihood") == "gaussian" and options.get("data_weight") in (None, 1)
    return "" if name == "annealed_langevin" and gaussian else SPREAD[name]


PRESETS = {
    "csgm": ("annealed_langevin", _langevin.CSGM),
}

__all__ = [
    "COILS_APART",
    "FROM_POINT",
    "NUM_STEPS",
    "POINT_ESTIMATES",
    "PRESETS",
    "SAMPLERS",
    "SPREAD",
    "STUDY",
    "STUDY_2026",
    "STUDY_2026_CT",
    "STUDY_CT",
    "NonFiniteError",
    "Posterior",
    "Progress",
    "annealed_langevin",
    "daps",
    "dds",
    "diffpir",
    "dps",
    "hybrid",
    "mmps",
    "moment_gibbs",
    "pnp",
    "posterior_moments",
    "prediction_quantile",
    "predictor_corrector",
    "pula",
    "red_diff",
    "split_gibbs",
    "spread",
    "ssos",
    "warm_dds",
    "warm_mmps",
]
