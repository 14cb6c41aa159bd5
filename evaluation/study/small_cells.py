"""The study in small as plain data: which images, measurements, priors and samplers there are.

`evaluation.small_study` runs the cells, docs/small_study.md says why they are these.
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

MRI, CT = "gaussian1d_4x", "views_20"
MEASUREMENTS = {
    MRI: {
        "operator.mask": "gaussian1d",
        "operator.acceleration": 4,
        "operator.center_fraction": 0.04,
    },
    # 0.22 numbers a pixel; 30 views of 256 pixels have 0.17, of images with less detail a pixel
    CT: {"operator.name": "ct", "operator.num_views": 20},
}
# 37 levels of Jalal's, three calls each, lie below its first noise level of 1
LEVELS = {"pc": 50, "ccdf": 100, "jalal": 50, "pnp": 20}
QUICK_LEVELS = {"pc": 3, "ccdf": 4, "jalal": 4, "pnp": 4}
QUICK_LIMIT = 2  # slices
STUDIED = {MRI: ("pc", "jalal", "pnp"), CT: ("ccdf", "pnp")}
ALIKE = {"pc": ("pc", "ccdf"), "ccdf": ("pc", "ccdf")}  # one row of the figure
DIRECT = {MRI: "zero_filled", CT: "fbp"}
OUT = "results/small_study"  # the grid's results
BATCH = 8  # slices: a set is one batch

SAMPLES = {"data.name": "samples", "data.split": "test", "data.image_size": 128}
BRAIN = SAMPLES | {"data.subset": "brain", "data.fit": "resize"}
HEAD = SAMPLES | {"data.subset": "head_ct"}
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
BODY_FILE = "CT_small.dcm"  # of pydicom's own test files
# Hounsfield units of air and of twice water's attenuation and more, as the head's CT is clipped
BODY_FIELDS = VOLUME | {"data.slices": "", "data.window": "500,3000"}

MEASURED = {
    "brain_t1": (MRI, CT),
    "head_ct": (MRI, CT),
    "photos": (MRI, CT),
    "brain_pd": (MRI,),
    "brain_gd": (MRI,),
    "brain_sagittal": (MRI,),
    BODY: (CT,),
}
# prior -> the test set of the images it was fitted to
OWN = {"natural": "photos", "brain": "brain_t1", "head": "head_ct"}
MEDICAL = tuple(name for name in MEASURED if name != OWN["natural"])
# the priors, each with the measurements it is meant for
DOMAINS = (("brain", MRI), ("head", CT), ("natural", MRI), ("natural", CT))


def outside(prior: str, measurement: str) -> tuple[str, ...]:
    """The medical test sets out of a prior's distribution, of those measured so.

    Photographs count for no prior: for a medical one they would drown the others.
    """
    own = OWN[prior]
    return tuple(name for name in MEDICAL if name != own and measurement in MEASURED[name])


class TestSets:
    """Test sets that can be had, by label, and why the others cannot.

    Args:
        out: root of the results; lists of volumes, and the body's CT, are put into OUT/inputs.
        mri: folder of the volumes that `VOLUMES` names; None: without them.
        natural: folder of photographs with folders train and val; None: scikit-image's.

    Attributes:
        found: label -> fields of configs/evaluate.py.
        absent: label -> how to get it.
    """

    __test__ = False  # not pytest's

    def __init__(self, out: Path, *, mri: Path | None = None, natural: Path | None = None):
        self.inputs = out / "inputs"
        photos = FOLDER_OF_PHOTOS | {"data.root": str(natural)} if natural else PHOTOS
        self.found: dict[str, Overrides] = {"brain_t1": BRAIN, "head_ct": HEAD, "photos": photos}
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
        # a folder with this series alone
        series = self.inputs / BODY / Path(BODY_FILE).stem
        write_atomically(series / BODY_FILE, Path(source).read_bytes())
        self._add(BODY, series.name, series.parent, BODY_FIELDS)


def make_cells(sets: Mapping[str, Overrides], *, quick: bool = False) -> list[GridCell]:
    """Every prior, sampler and baseline on every set and its measurements.

    Those of small networks come first, so that a half of the cells is half of the work.

    Args:
        sets: label -> fields.
        quick: few slices and levels.
    """
    levels = QUICK_LEVELS if quick else LEVELS
    limit = {"limit": QUICK_LIMIT} if quick else {}
    cells = []
    for measurement, fields in MEASUREMENTS.items():
        data = {n: ("", f | limit) for n, f in sets.items() if measurement in MEASURED[n]}
        methods = [
            *baselines(DIRECT[measurement], "tv"),
            *(sampling(name, s, levels) for name in NAMES for s in STUDIED[measurement]),
        ]
        cells += combine(data, {measurement: fields}, methods)
    order = {"": -1} | {prior_folder(name): i for i, name in enumerate(NAMES)}
    return sorted(cells, key=lambda cell: order[cell.prior])


def sampling(name: str, sampler: str, levels: Mapping[str, int]) -> GridMethod:
    """A prior with a sampler at its number of levels."""
    fields = {
        "pc": PC,
        "ccdf": CCDF | {"sampler.start_level": levels["ccdf"] // 2},
        "jalal": JALAL,
        "pnp": {"sampler.name": "pnp"},
    }[sampler]
    number = {"sampler.num_steps": levels[sampler]}
    return GridMethod(f"{name}_{sampler}", prior_folder(name), fields | number)


def prior_folder(name: str) -> str:
    """The training run of a prior, below the folder of the training runs."""
    return f"small_study_{name}"


def priors_of(cells: Sequence[GridCell]) -> list[str]:
    """The training runs that the cells need."""
    return list(dict.fromkeys(cell.prior for cell in cells if cell.prior))
