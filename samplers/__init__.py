"""Posterior samplers: ``sampler(score, sde, operator, y, *, rng, num_steps, ..., callback=None)``.

A new sampler is one file and one line in `SAMPLERS`; ``@torch.no_grad()`` stands in front of it, so
that callers need not think of it, and where nothing is random `rng` may be None.
`STUDY[name]` holds the keywords that turn a sampler into the original code's (docs/protocols.md),
`STUDY_CT[name]` those for CT; `PRESETS` has further published settings.
"""

from samplers import annealed_langevin as _langevin
from samplers import predictor_corrector as _pc
from samplers.annealed_langevin import annealed_langevin
from samplers.dds import dds
from samplers.diffpir import diffpir
from samplers.dps import dps
from samplers.multicoil import hybrid, ssos
from samplers.pnp import pnp
from samplers.posterior import Posterior, posterior_moments
from samplers.predictor_corrector import predictor_corrector
from samplers.progress import Progress
from samplers.state import NonFiniteError

SAMPLERS = {
    "predictor_corrector": predictor_corrector,
    "annealed_langevin": annealed_langevin,
    "ssos": ssos,
    "hybrid": hybrid,
    "dds": dds,
    "diffpir": diffpir,
    "pnp": pnp,
    "dps": dps,
}

# nothing in them is random: every sample of a measurement is the same image
POINT_ESTIMATES = ("pnp",)

# what was found of a sampler's samples where the posterior is known (docs/samplers.md); empty where
# nothing speaks against calling them samples of the posterior
SPREAD = {
    "predictor_corrector": "samples take noise for image: with noise they spread too little",
    "annealed_langevin": "samples know nothing of the noise: their spread is not the posterior's",
    "ssos": "the spread of samples was not measured",
    "hybrid": "the spread of samples was not measured",
    "dds": "samples spread less than the posterior",
    "diffpir": "samples spread a little less than the posterior",
    "pnp": "nothing is random",
    "dps": "samples spread more than the posterior",
}


def spread(name: str, options: dict) -> str:
    """`SPREAD` of the sampler `name` with the keywords `options`."""
    gaussian = options.get("likelihood") == "gaussian" and options.get("data_weight") in (None, 1)
    return "" if name == "annealed_langevin" and gaussian else SPREAD[name]


STUDY = {
    "predictor_corrector": _pc.STUDY,
    "annealed_langevin": _langevin.STUDY,
    # not in the original code
    **{name: {} for name in ("ssos", "hybrid", "dds", "diffpir", "pnp", "dps")},
}
STUDY_CT = STUDY | {"predictor_corrector": _pc.STUDY_CT}

PRESETS = {
    "csgm": ("annealed_langevin", _langevin.CSGM),
}

__all__ = [
    "POINT_ESTIMATES",
    "PRESETS",
    "SAMPLERS",
    "SPREAD",
    "STUDY",
    "STUDY_CT",
    "NonFiniteError",
    "Posterior",
    "Progress",
    "annealed_langevin",
    "dds",
    "diffpir",
    "dps",
    "hybrid",
    "pnp",
    "posterior_moments",
    "predictor_corrector",
    "spread",
    "ssos",
]
