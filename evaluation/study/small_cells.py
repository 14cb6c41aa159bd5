"""The study in small as plain data: images, measurements, priors and samplers.

`evaluation.small_study` runs the cells; docs/small_study.md explains the choices.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.small_study import NAMES
from datasets.files import write_atomically
from evaluation.study.grids import (
    CCDF,
    JALAL,
    PC,
    GridCell,
    GridMethod,
    Overrides,
    baselines,
    combine,
)
from evaluation.study.grids import MRI as GRID_MRI

MRI, CT = "gaussian1d_4x", "views_20"
MEASUREMENTS = {
    MRI: GRID_MRI[MRI],
    # 0.22 numbers per pixel; 30 views at 256 x 256 give 0.17, with less detail per pixel
    CT: {"operator.name": "ct", "operator.num_views": 20},
}
# for Jalal, 37 of the levels are at or below its first noise level of 1, with three calls each
LEVELS = {"pc": 50, "ccdf": 100, "jalal": 50, "pnp": 20}
QUICK_LEVELS = {"pc": 3, "ccdf": 4, "jalal": 4, "pnp": 4}
QUICK_LIMIT = 2  # slices
STUDIED = {MRI: ("pc", "jalal", "pnp"), CT: ("ccdf", "pnp")}
ALIKE = {"pc": ("pc", "ccdf"), "ccdf": ("pc", "ccdf")}  # samplers that share a row of the figure
DIRECT = {MRI: "zero_filled", CT: "fbp"}
OUT = "results/small_study"  # root of the results
# of all cells; a test set is one batch
COMMON = {"precision": "bfloat16", "batch_size": 9, "panels": 0}

SAMPLES = {"data.name": "samples", "data.split": "test", "data.image_size": 128}
# three slices of each of three people, two of each of four
BRAIN = SAMPLES | {"data.subset": "brain", "data.fit": "resize", "limit": 9}
CHEST = SAMPLES | {"data.subset": "ct", "limit": 8}
PHOTOS = SAMPLES | {"data.subset": "natural"}
FOLDER_OF_PHOTOS = {
    "data.name": "image_folder",
    "data.subset": "",
    "data.split": "val",
    "data.image_size": 128,
    "limit": 4,
}
VOLUME = {
    "data.name": "volume",
    "data.subset": "",
    "data.split": "test",
    "data.image_size": 128,
    "data.slices": "spread:4",
}
# label -> (volume in the folder MRI, fields)
VOLUMES = {
    "brain_pd": ("chris_PD", VOLUME),
    "brain_gd": ("MR_Gd", VOLUME),
    "brain_sagittal": ("spm152", VOLUME | {"data.axis": "sagittal"}),
}
BODY = "body_ct"
BODY_FILE = "CT_small.dcm"  # one of pydicom's test files
# clipped to -1000 to 2000 Hounsfield units
BODY_FIELDS = VOLUME | {"data.slices": "", "data.window": "500,3000"}

MEASURED = {
    "brain_mr": (MRI, CT),
    "chest_ct": (MRI, CT),
    "photos": (MRI, CT),
    "brain_pd": (MRI,),
    "brain_gd": (MRI,),
    "brain_sagittal": (MRI,),
    BODY: (CT,),
}
# prior -> the test set of the kind of images it was trained on
OWN = {"natural": "photos", "brain": "brain_mr", "chest": "chest_ct"}
MEDICAL = tuple(name for name in MEASURED if name != OWN["natural"])
# (prior, measurement) pairs: the measurements that each prior is meant for
DOMAINS = (("brain", MRI), ("chest", CT), ("natural", MRI), ("natural", CT))


def outside(prior: str, measurement: str) -> tuple[str, ...]:
    """Medical test sets outside a prior's distribution that have a measurement.

    Photographs are never counted, as for a medical prior they would dominate the others.
    """
    own = OWN[prior]
    return tuple(name for name in MEDICAL if name != own and measurement in MEASURED[name])


class TestSets:
    """Available test sets by label, and how to get the missing ones.

    Args:
        out: root of the results; lists of volumes and the body CT are written to OUT/inputs.
        mri: folder of the volumes in `VOLUMES`; None to omit them.
        natural: folder of photographs with folders train and val; None for scikit-image's.

    Attributes:
        found: label -> fields of configs/evaluate.py.
        absent: label -> how to get the test set.
    """

    __test__ = False  # not a test class of pytest

    def __init__(self, out: Path, *, mri: Path | None = None, natural: Path | None = None):
        self.inputs = out / "inputs"
        photos = FOLDER_OF_PHOTOS | {"data.root": str(natural)} if natural else PHOTOS
        self.found: dict[str, Overrides] = {"brain_mr": BRAIN, "chest_ct": CHEST, "photos": photos}
        self.absent: dict[str, str] = {}
        for label, (volume, fields) in VOLUMES.items():
            if mri and any(mri.glob(f"{volume}.nii*")):
                self._add(label, volume, mri, fields)
            else:
                self.absent[label] = f"give --mri=FOLDER with MRIcroGL's {volume}.nii.gz"
        self._add_body()

    def _add(self, label: str, volume: str, root: Path, fields: Overrides) -> None:
        path = self.inputs / f"{label}.txt"
        write_atomically(path, f"{volume}\n")
        self.found[label] = fields | {"data.root": str(root), "data.split_list": str(path)}

    def _add_body(self) -> None:
        try:
            from pydicom.data import get_testdata_file
        except ImportError:
            self.absent[BODY] = "needs pydicom: pip install '.[io]'"
            return
        source = get_testdata_file(BODY_FILE, download=False)
        if not source:
            self.absent[BODY] = f"this pydicom comes without its test file {BODY_FILE}"
            return
        # copied to a folder that contains only this series
        series = self.inputs / BODY / Path(BODY_FILE).stem
        write_atomically(series / BODY_FILE, Path(source).read_bytes())
        self._add(BODY, series.name, series.parent, BODY_FIELDS)


def make_cells(sets: Mapping[str, Overrides], *, quick: bool = False) -> list[GridCell]:
    """Cells of every prior, sampler and baseline on every test set and its measurements.

    Cells are sorted by the size of the network, so that every second cell is half of the work.

    Args:
        sets: label of the test set -> fields.
        quick: whether to use few slices and levels.
    """
    levels = QUICK_LEVELS if quick else LEVELS
    common = COMMON | ({"limit": QUICK_LIMIT} if quick else {})
    cells = []
    for measurement, fields in MEASUREMENTS.items():
        data = {n: ("", f | common) for n, f in sets.items() if measurement in MEASURED[n]}
        methods = [
            *baselines(DIRECT[measurement], "tv"),
            *(sampling(name, s, levels) for name in NAMES for s in STUDIED[measurement]),
        ]
        cells += combine(data, {measurement: fields}, methods)
    order = {"": -1} | {prior_folder(name): i for i, name in enumerate(NAMES)}
    return sorted(cells, key=lambda cell: order[cell.prior])


def sampling(name: str, sampler: str, levels: Mapping[str, int]) -> GridMethod:
    """Method of a prior with a sampler at its number of levels."""
    fields = {
        "pc": PC,
        "ccdf": CCDF | {"sampler.start_level": levels["ccdf"] // 2},
        "jalal": JALAL,
        "pnp": {"sampler.name": "pnp"},
    }[sampler]
    number = {"sampler.num_steps": levels[sampler]}
    return GridMethod(f"{name}_{sampler}", prior_folder(name), fields | number)


def prior_folder(name: str) -> str:
    """Name of the training run of a prior."""
    return f"small_study_{name}"


def priors_of(cells: Sequence[GridCell]) -> list[str]:
    """Names of the training runs that the cells need."""
    return list(dict.fromkeys(cell.prior for cell in cells if cell.prior))
