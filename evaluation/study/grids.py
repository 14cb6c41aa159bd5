"""The study's grids: all of its reconstructions, as plain data.

A cell is one run of `evaluation.evaluate`: data, measurement and method, with the results folder
DATA/MEASUREMENT/METHOD. `GRIDS` are the study's grids, `QUICK_GRIDS` small versions that two CPU
cores reconstruct in minutes. `evaluation.grid` runs them; docs/evaluation.md documents the choices
that the study leaves open.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import NamedTuple

from configs.base import SIZES
from configs.reconstruct import COMPLEX

Overrides = Mapping[str, str | float]  # field of configs/evaluate.py -> value

# downloaded data: flag (in capitals: environment variable) -> default folder
ROOTS = {
    "knee": "data/fastmri_knee",
    "brain": "data/fastmri_brain",
    "ct": "data/lodopab",
    "head": "data/rsna_head",
}
# prior -> name of the config in configs/ and the script in training_scripts/ that train it
PRIORS = {"knee": "fastmri_knee", "natural": "celeba", "ct": "ct"}

KNEE = {
    "data.name": "fastmri",
    "data.split": "val",
    "data.slices": "central:10",
    "data.image_size": 320,
    "limit": 500,  # 50 volumes
}
# label -> (key of ROOTS, fields)
MRI_DATA = {
    "knee_pd": ("knee", KNEE | {"data.acquisition": "CORPD_FBK"}),
    "knee_pdfs": ("knee", KNEE | {"data.acquisition": "CORPDFS_FBK"}),
    "brain": (
        "brain",
        {
            "data.name": "fastmri",
            "data.split": "val",
            "data.slices": "first:5",
            "data.image_size": 320,
            "data.skip_bad": True,  # some volumes are narrower than 320 pixels
            "limit": 500,  # 100 volumes
        },
    ),
}
CT_DATA = {
    "lodopab": (
        "ct",
        {
            "data.name": "lodopab",
            "data.split": "test",
            "data.image_size": 320,
            "limit": 128,  # the first file
        },
    ),
    "head": (
        "head",
        {
            "data.name": "rsna_head",
            "data.split": "test",
            "data.image_size": 320,
            "data.window": "40,80",
            "data.skip_bad": True,  # one file of the download is known to be truncated
            "limit": 128,
        },
    ),
}

MRI = {
    "gaussian1d_4x": {
        "operator.mask": "gaussian1d",
        "operator.acceleration": 4,
        "operator.center_fraction": 0.04,
    },
    "gaussian1d_8x": {
        "operator.mask": "gaussian1d",
        "operator.acceleration": 8,
        "operator.center_fraction": 0.04,
    },
    "gaussian2d_4x": {
        "operator.mask": "gaussian2d",
        "operator.acceleration": 4,
        "operator.center_fraction": 0,
    },
    "radial_29": {
        "operator.mask": "radial",
        "operator.num_spokes": 29,
        "operator.center_fraction": 0,
    },
    "poisson_15x": {
        "operator.mask": "poisson",
        "operator.acceleration": 15,
        "operator.center_fraction": 0,
    },
}
CT = {
    "views_30": {"operator.name": "ct", "operator.num_views": 30},
    "views_60": {"operator.name": "ct", "operator.num_views": 60},
    # as many views as above, over half the angular range
    "limited_90": {"operator.name": "ct", "operator.num_views": 60, "operator.end_angle": 90},
}

PC = {"sampler.name": "predictor_corrector", "sampler.num_steps": 500}
JALAL = {"sampler.name": "annealed_langevin", "sampler.num_steps": 500}
CCDF = {
    "sampler.name": "predictor_corrector",
    "sampler.num_steps": 1000,
    "sampler.start_level": 300,
}
LAMBDAS = (0, *(n / 1000 for n in range(1, 10)), *(n / 100 for n in range(1, 6)), 1)

MRI_PRIORS, CT_PRIORS = ("knee", "natural"), ("ct", "natural")


class GridMethod(NamedTuple):
    """Method of a grid: label, prior and fields of the config."""

    label: str
    prior: str  # as in `GridCell`; may contain "{measurement}"
    overrides: Overrides


class GridCell(NamedTuple):
    """One run of `evaluation.evaluate`. The labels are names of folders."""

    data: str  # label of the data
    measurement: str  # label of the measurement
    method: str  # label of the method
    prior: str  # training run such as "celeba_1" or "unet_radial_29", or `QUICK_PRIOR`; "": none
    root: str  # key of ROOTS; "": none
    overrides: Overrides

    @property
    def folder(self) -> str:
        """Results folder, relative to the root of the results."""
        return f"{self.data}/{self.measurement}/{self.method}"


def combine(
    data: Mapping[str, tuple[str, Overrides]],
    measurements: Mapping[str, Overrides],
    methods: Iterable[GridMethod],
) -> list[GridCell]:
    """All combinations of data, measurements and methods.

    Args:
        data: label -> (key of ROOTS, fields).
        measurements: label -> fields.
        methods: methods; "{measurement}" in a prior is replaced by the label of the measurement.
    """
    return [
        GridCell(
            *(d, m, method.label, method.prior.format(measurement=m), root),
            {**fields, **measured, **method.overrides},
        )
        for (d, (root, fields)), (m, measured), method in product(
            data.items(), measurements.items(), methods
        )
    ]


def priors(names: Iterable[str], sampler: str, overrides: Overrides) -> list[GridMethod]:
    """Methods with every prior at every size and one sampler."""
    return [
        GridMethod(f"{name}_{size}_{sampler}", f"{PRIORS[name]}_{size}", overrides)
        for name, size in product(names, SIZES)
    ]


def sweep(prior: str, run: str, values: Iterable[float], overrides: Overrides) -> list[GridMethod]:
    """Methods of a sweep over the relaxation lambda of the data consistency.

    Args:
        prior: label of the prior and its size.
        run: its training run.
        values: values of lambda.
        overrides: fields of the sampler.
    """
    return [
        GridMethod(f"{prior}_pc_lambda_{value:g}", run, {**overrides, "sampler.weight": value})
        for value in values
    ]


def baselines(*names: str) -> list[GridMethod]:
    """Methods of the named baselines, which have no prior."""
    return [GridMethod(name, "", {"sampler.name": name}) for name in names]


# a U-Net is trained for one measurement, on the training data of the study's priors
UNET = GridMethod("unet", "unet_{measurement}", {"sampler.name": "unet"})
MRI_BASELINES = [*baselines("zero_filled", "tv", "l1_wavelet"), UNET]
CT_BASELINES = [*baselines("fbp", "tv"), UNET]

GRIDS = {
    "mri": combine(MRI_DATA, MRI, priors(MRI_PRIORS, "pc", PC)),
    "jalal": combine(MRI_DATA, MRI, priors(MRI_PRIORS, "jalal", JALAL)),
    "ct": combine(CT_DATA, CT, priors(CT_PRIORS, "ccdf", CCDF)),
    "lambda": combine(
        {name: MRI_DATA[name] for name in ("knee_pd", "knee_pdfs")},
        {"gaussian1d_4x": MRI["gaussian1d_4x"]},
        [m for name in MRI_PRIORS for m in sweep(f"{name}_1", f"{PRIORS[name]}_1", LAMBDAS, PC)],
    ),
    "baselines": [
        *combine(MRI_DATA, MRI, MRI_BASELINES),
        *combine(CT_DATA, CT, CT_BASELINES),
    ],
}

# Small versions: embedded slices, few levels, a prior of size 1 that is trained in a minute, and
# the shipped prior with the fast sampler.
SHIPPED_PRIOR = "natural_small"
QUICK_PRIOR = "runs/quick"
QUICK_TRAINING = (
    "train.py",
    "--config=configs/demo.py",
    f"--workdir={QUICK_PRIOR}",
    "--config.training.num_steps=300",
)
QUICK_DATA = {"data.name": "samples", "data.image_size": 256, "limit": 2}
QUICK_MRI_DATA = {"samples_brain": ("", QUICK_DATA | {"data.subset": "brain"})}
QUICK_CT_DATA = {"samples_ct": ("", QUICK_DATA | {"data.subset": "ct"})}
QUICK_MRI = {name: MRI[name] for name in ("gaussian1d_4x", "gaussian2d_4x")}
QUICK_CT = {name: CT[name] for name in ("views_30", "limited_90")}
FAN = {"fan_30": {"operator.name": "fan_ct", "operator.num_views": 30}}  # not of the study
QUICK_PC = PC | {"sampler.num_steps": 50}
QUICK_JALAL = JALAL | {"sampler.num_steps": 50}
QUICK_CCDF = CCDF | {"sampler.num_steps": 100, "sampler.start_level": 50}
QUICK_LAMBDAS = (0, 0.05, 1)

ZERO_FILLED, FBP, TV = baselines("zero_filled", "fbp", "tv")
SHIPPED = GridMethod(
    "natural_small_pnp", SHIPPED_PRIOR, {"sampler.name": "pnp", "sampler.num_steps": 50}
)
NATURAL_PC = GridMethod("natural_1_pc", QUICK_PRIOR, QUICK_PC)
NATURAL_JALAL = GridMethod("natural_1_jalal", QUICK_PRIOR, QUICK_JALAL)
NATURAL_CCDF = GridMethod("natural_1_ccdf", QUICK_PRIOR, QUICK_CCDF)

QUICK_GRIDS = {
    "mri": combine(
        QUICK_MRI_DATA, QUICK_MRI, [ZERO_FILLED, TV, NATURAL_PC, NATURAL_JALAL, SHIPPED]
    ),
    "jalal": combine(QUICK_MRI_DATA, QUICK_MRI, [ZERO_FILLED, NATURAL_JALAL]),
    "ct": combine(QUICK_CT_DATA, QUICK_CT | FAN, [FBP, TV, NATURAL_CCDF, SHIPPED]),
    "lambda": combine(
        QUICK_MRI_DATA,
        {"gaussian1d_4x": MRI["gaussian1d_4x"]},
        sweep("natural_1", QUICK_PRIOR, QUICK_LAMBDAS, QUICK_PC),
    ),
    "baselines": [
        *combine(QUICK_MRI_DATA, QUICK_MRI, baselines("zero_filled", "tv", "l1_wavelet")),
        *combine(QUICK_CT_DATA, QUICK_CT, baselines("fbp", "tv")),
    ],
}

# Noisy measurements of embedded slices, which anyone can run: the shipped priors, and the baselines
# with several weights of their penalty. The best one of each row counts, which favours them.
COMPLEX_PRIOR = COMPLEX
SHIPPED_PRIORS = (SHIPPED_PRIOR, COMPLEX_PRIOR)
NOISY_SIGMAS = (0.01, 0.03, 0.05)  # of the peak
NOISY_MASKS = {name: MRI[name] for name in ("gaussian1d_4x", "gaussian1d_8x")}
NOISY_COILS = {
    "operator.name": "multicoil_mri",
    "operator.coils": 8,
    "operator.mask": "poisson",
    "operator.acceleration": 8,
    "operator.center_fraction": 0.08,  # enough for coil maps
}
NOISY_WEIGHTS = {"mri": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "ct": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)}
NOISY_MEAN = {"sampler.name": "warm_dds", "sampler.num_steps": 20, "sampler.num_samples": 8}


def white(measurements: Mapping[str, Overrides]) -> dict[str, Overrides]:
    """Measurements with white noise of each of `NOISY_SIGMAS`."""
    return {
        f"{name}_noise_{sigma:g}": {**fields, "noise.sigma": sigma}
        for (name, fields), sigma in product(measurements.items(), NOISY_SIGMAS)
    }


def noisy_methods(direct: str, prior: str, weights: Iterable[float]) -> list[GridMethod]:
    """Direct reconstruction, weighted baselines, and point estimate and mean of a shipped prior."""
    penalised = [
        GridMethod(f"{name}_weight_{w:g}", "", {"sampler.name": name, "sampler.weight": w})
        for name, w in product(("tv", "l1_wavelet"), weights)
    ]
    point = {"sampler.name": "pnp", "sampler.num_steps": 50}
    own = [
        GridMethod(f"{prior}_pnp", prior, point),
        GridMethod(f"{prior}_mean_of_8", prior, NOISY_MEAN),
    ]
    return [*baselines(direct), *penalised, *own]


NOISY_MRI_DATA = {"brain": ("", {"data.name": "samples", "data.subset": "brain"})}
NOISY_CT_DATA = {"ct": ("", {"data.name": "samples", "data.subset": "ct", "data.image_size": 256})}
NOISY_COUNTS = {
    f"views_{views}_photons_{photons:g}": {
        "operator.name": "ct",
        "operator.num_views": views,
        "noise.photons": photons,
    }
    for views, photons in product((30, 60), (10_000, 100_000))
}


def noisy_cells(of_mri: Overrides, of_ct: Overrides) -> list[GridCell]:
    """All cells of noisy measurements, with further fields of the MR and of the CT data."""
    mri, ct = (
        {name: (root, {**fields, **extra}) for name, (root, fields) in data.items()}
        for data, extra in ((NOISY_MRI_DATA, of_mri), (NOISY_CT_DATA, of_ct))
    )
    coils = white({"poisson_8x_8_coils": NOISY_COILS})
    one = noisy_methods("zero_filled", SHIPPED_PRIOR, NOISY_WEIGHTS["mri"])
    several = noisy_methods("zero_filled", COMPLEX_PRIOR, NOISY_WEIGHTS["mri"])
    rays = noisy_methods("fbp", SHIPPED_PRIOR, NOISY_WEIGHTS["ct"])
    return [
        *combine(mri, white(NOISY_MASKS), one),
        *combine(mri, coils, several),
        *combine(ct, NOISY_COUNTS, rays),
    ]


NOISY_GRIDS = {"noisy": noisy_cells({}, {})}
SMALL = {"data.image_size": 128, "limit": 1}
QUICK_NOISY_GRIDS = {
    "noisy": [
        cell
        for cell in noisy_cells(SMALL | {"data.fit": "resize"}, SMALL)
        if cell.measurement
        in ("gaussian1d_4x_noise_0.03", "poisson_8x_8_coils_noise_0.03", "views_60_photons_10000")
    ]
}
