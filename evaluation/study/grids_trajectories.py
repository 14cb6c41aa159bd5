"""Grid of k-space along trajectories: embedded slices, eight simulated coils, noise, baselines.

`evaluation.grid trajectories` runs it. The baselines have several weights each: choose them on the
validation slices (``--config.data.split=val``). docs/operators.md has the results.
"""

from collections.abc import Mapping
from itertools import product

from evaluation.study.grids import COMPLEX_PRIOR, SMALL, GridMethod, Overrides, baselines, combine

SIGMAS = (0.01, 0.03)  # of the peak
TRAJECTORIES: Mapping[str, Overrides] = {
    "radial_20": {"operator.num_spokes": 20},
    "radial_40": {"operator.num_spokes": 40},
    "spiral_8": {"operator.num_spokes": 8, "operator.keywords": "trajectory='spiral'"},
}
# in units of |A|^2, which is that of the centre of k-space and so depends on the trajectory
WEIGHTS = {
    "cg_sense": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "l1_wavelet": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "tv": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
}
# with lower ones PSNR changes by less than 0.02 dB, and the time by a factor of 3
TOLERANCES = {"cg_sense": 1e-4, "l1_wavelet": 3e-5, "tv": 1e-5}


def measurements() -> dict[str, Overrides]:
    """Label -> fields, of each trajectory with each noise."""
    return {
        f"{name}_noise_{sigma:g}": {"operator.name": "nufft", "noise.sigma": sigma, **fields}
        for (name, fields), sigma in product(TRAJECTORIES.items(), SIGMAS)
    }


def methods() -> list[GridMethod]:
    """Gridded image, baselines of several weights, and the point estimate of the shipped prior."""
    penalised = [
        GridMethod(
            f"{name}_weight_{weight:g}",
            "",
            {
                "sampler.name": name,
                "sampler.weight": weight,
                "sampler.tolerance": TOLERANCES[name],
            },
        )
        for name, weights in WEIGHTS.items()
        for weight in weights
    ]
    point = {"sampler.name": "pnp", "sampler.num_steps": 50}
    return [
        *baselines("gridded"),
        *penalised,
        GridMethod(f"{COMPLEX_PRIOR}_pnp", COMPLEX_PRIOR, point),
    ]


def _cells(extra: Overrides):
    data = {"brain": ("", {"data.name": "samples", "data.subset": "brain", "limit": 3, **extra})}
    return combine(data, measurements(), methods())


TRAJECTORY_GRIDS = {"trajectories": _cells({})}
QUICK_TRAJECTORY_GRIDS = {
    "trajectories": [
        cell
        for cell in _cells(SMALL | {"data.fit": "resize"})
        if cell.measurement == "radial_40_noise_0.03"
    ]
}
