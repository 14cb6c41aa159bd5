"""Results folders as cells of the study's grid, with labels from their paths and values by slice.

A grid is ROOT/DATA/MEASUREMENT/METHOD, such as results/mri/pd/gaussian1d_4x/natural_1_pc.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from configs import ConfigError
from configs.base import ALL_SIZES, NESTED
from evaluation.results.files import check_sums, read_csv, read_json
from evaluation.results.folder import read_rows
from evaluation.results.volumes import volume_of
from operators.create import is_known, operator_class, parse_keywords
from operators.measurement_noise import create_noise


class Metric(NamedTuple):
    """Presentation of a metric: title, digits; `better` is as max or min."""

    title: str
    digits: int
    better: Callable


def _nearest_to_one(values, *, key: Callable, default=None):
    """The value nearest to 1, with the arguments of `min` and `max`."""
    return min(values, key=lambda value: abs(key(value) - 1), default=default)


METRICS = {
    "psnr": Metric("PSNR (dB)", 2, max),
    "ssim": Metric("SSIM", 4, max),
    "nmse": Metric("NMSE", 4, min),
    "residual": Metric("data residual", 4, min),
    "seconds": Metric("s/slice", 2, min),
    "nfe": Metric("calls", 0, min),
    "memory_mib": Metric("memory (MiB)", 0, min),
    "psnr_rows": Metric("PSNR across rows (dB)", 2, max),
    "psnr_columns": Metric("PSNR across columns (dB)", 2, max),
    "step_error": Metric("step error", 4, min),
    "lesion_error": Metric("lesion error", 2, min),
    "lesion_contrast": Metric("lesion contrast", 2, _nearest_to_one),
}
IMAGE_METRICS = ("psnr", "ssim", "nmse")
LESION_METRICS = ("lesion_error", "lesion_contrast")  # of data with lesion masks
# in the order of tables
BASELINES = ("zero_filled", "gridded", "fbp", "cg_sense", "l1_wavelet", "tv", "unet")
SAMPLER_LABELS = {
    "pc": "PC",
    "ccdf": "CCDF",
    "jalal": "Jalal",
    "pnp": "PnP",
    "dds": "DDS",
    "dps": "DPS",
}
# longer names first; a nested network with its depth, such as structured_2
SIZE = "|".join([*(f"{name}_[0-9]+" for name in NESTED), *sorted(ALL_SIZES, reverse=True)])
METHOD = re.compile(
    rf"(?P<prior>.+?)_(?P<size>{SIZE})"
    r"_(?P<sampler>[a-z0-9]+(?:_[a-z0-9]+)*?)(?:_lambda_(?P<weight>[0-9.]+(?:e-?[0-9]+)?))?"
)
LABELS = {
    "zero_filled": "zero-filled",
    "gridded": "gridded",
    "fbp": "FBP",
    "cg_sense": "CG-SENSE",
    "l1_wavelet": "L1-wavelet",
    "tv": "TV",
    "unet": "U-Net",
    "pd": "PD",
    "pdfs": "PD-FS",
    "pd_fs": "PD-FS",
    "knee_pd": "knee PD",
    "knee_pdfs": "knee PD-FS",
    "lodopab": "LoDoPaB",
    "ct": "CT",
    "brain_mr": "brain MR",
    "brain_pd": "brain PD",
    "brain_gd": "brain T1 + Gd",
    "chest_ct": "chest CT",
    "body_ct": "body CT",
    "4_attention": "4 + att.",
    "1_attention": "1 + att.",
}


class MethodName(NamedTuple):
    """Parts of a method's folder name; a method without a prior has only `sampler`."""

    sampler: str
    prior: str = ""
    size: str = ""
    weight: float | None = None  # lambda of the data consistency, in a sweep


class CellResults(NamedTuple):
    """Results folder of one method for one measurement of one data set.

    Attributes:
        folder: path of the results folder DATA/MEASUREMENT/METHOD.
        data: name of the folder DATA.
        measurement: name of the folder MEASUREMENT.
        method: parts of the name of the folder METHOD.
        config: config of the evaluation.
        info: content of ``info.json``, such as `effective_acceleration`.
        rows: key of the slice (or volume) -> column -> value.
        measured: key of the slice -> hash of its measurement; equal hashes mean equal data.
    """

    folder: Path
    data: str
    measurement: str
    method: MethodName
    config: Mapping
    info: Mapping
    rows: Mapping[str, Mapping[str, float]]
    measured: Mapping[str, str]

    def unit(self, key: str) -> str:
        """Independent unit of a slice in intervals: its person if known, otherwise its volume."""
        return self.info.get("people", {}).get(key) or volume_of(key)

    def values(self, metric: str) -> dict[str, float]:
        """Values of a metric by key of the slice.

        Raises:
            ValueError: there is no such column; the known ones are listed.
        """
        columns = sorted({name for row in self.rows.values() for name in row})
        if metric not in columns:
            raise ValueError(
                f"{self.folder}: no column '{metric}'; there are: {', '.join(columns) or 'none'}"
            )
        return {key: row[metric] for key, row in self.rows.items() if metric in row}


def parse_method(name: str) -> MethodName:
    """Parts of a method's name ``{prior}_{size}_{sampler}[_lambda_{weight}]``.

    Any other name is that of a method without a prior.

    >>> parse_method("knee_4_attention_jalal")
    MethodName(sampler='jalal', prior='knee', size='4_attention', weight=None)
    """
    match = METHOD.fullmatch(name)
    if not match:
        return MethodName(name)
    weight = match["weight"]
    return MethodName(match["sampler"], match["prior"], match["size"], weight and float(weight))


def label(name: str) -> str:
    """Name of a folder or method in words."""
    return LABELS.get(name) or SAMPLER_LABELS.get(name) or name.replace("_", " ")


def method_label(method: MethodName) -> str:
    """Name of a method in words, such as "natural 1, PC" or "TV"."""
    if not method.prior:
        return label(method.sampler)
    weight = "" if method.weight is None else f", λ = {method.weight:g}"
    return f"{label(method.prior)} {label(method.size)}, {label(method.sampler)}{weight}"


def titles(cells: Sequence[CellResults]) -> list[str]:
    """Distinct titles of cells: the method, with measurement and data, or the path, if needed.

    Raises:
        ValueError: a folder appears twice.
    """
    parts = [
        lambda cell: method_label(cell.method),
        lambda cell: f"{label(cell.measurement)}, {method_label(cell.method)}",
        lambda cell: f"{label(cell.data)}, {label(cell.measurement)}, {method_label(cell.method)}",
        lambda cell: str(cell.folder),
    ]
    for title in parts:
        found = [title(cell) for cell in cells]
        if len(set(found)) == len(found):
            return found
    raise ValueError(f"expected different folders, got {', '.join(found)}")


def describe_measurement(config: Mapping, info: Mapping) -> tuple[str, str]:
    """Measurement with coils and noise, and nominal and effective acceleration, in words."""
    operator = config["operator"]
    if is_known(operator["name"]):
        fields = {**operator, **parse_keywords(operator.get("keywords") or "")}
        what, acceleration = operator_class(operator["name"]).describe(fields)
    else:  # of someone else's checkout
        what, acceleration = str(operator["name"]), "-"
    coils = f"{info['coils']} coils" if info.get("coils", 1) > 1 else ""
    fields = config.get("noise") or {}  # old folders have none
    noise = create_noise(fields).describe()
    unweighted = "unweighted" if fields.get("weights") is False else ""
    fine = "finer image" if fields.get("fine") else ""
    what = ", ".join(filter(None, [what, coils, noise, unweighted, fine]))
    if acceleration != "-" and "effective_acceleration" in info:
        acceleration += f" (effective {info['effective_acceleration']:.2f}x)"
    return what, acceleration


def read_cell(folder: Path, *, per: str = "slice") -> CellResults:
    """Results in a folder of `evaluation.evaluate`, finished or not.

    Args:
        folder: path whose last three names are data, measurement and method.
        per: "slice", or "volume" for fastMRI's metrics of whole volumes.

    Raises:
        ValueError: it is not a results folder, or a file is damaged.
    """
    folder = folder.absolute()
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: expected a results folder of evaluation.evaluate")
    if (folder / "reconstruction.h5").is_file():
        raise ValueError(
            f"{folder}: expected a results folder of evaluation.evaluate, got one of "
            "reconstruct.py, which has no truth to compare with; evaluation.report shows it"
        )
    check_sums(folder)
    info = folder / "info.json"
    rows = read_rows(folder)
    slices = {row["key"]: _numbers(row, folder / "metrics.csv") for row in rows}
    return CellResults(
        folder=folder,
        data=folder.parent.parent.name,
        measurement=folder.parent.name,
        method=parse_method(folder.name),
        config=read_json(folder / "config.json"),
        info=read_json(info) if info.is_file() else {},
        rows=slices if per == "slice" else _volumes(folder),
        measured={row["key"]: row.get("measurement_hash", "") for row in rows},
    )


def read_grid(roots: Sequence[Path], *, per: str = "slice") -> list[CellResults]:
    """Cells of all results folders ROOT/DATA/MEASUREMENT/METHOD, sorted by path within each root.

    Args:
        roots: root folders of grids.
        per: "slice", or "volume" for fastMRI's metrics of whole volumes.

    Raises:
        ValueError: a root has no results folders, or a file is damaged.
    """
    cells = []
    for root in roots:
        folders = [f for f in _below(root, 3) if (f / "config.json").is_file()]
        if not folders:
            raise ValueError(f"{root}: expected results folders {root}/DATA/MEASUREMENT/METHOD")
        cells += [read_cell(folder, per=per) for folder in folders]
    return cells


def _below(root: Path, depth: int) -> list[Path]:
    """Folders `depth` levels below `root`; unlike `Path.glob`, unreadable ones raise an error."""
    if not depth or not root.is_dir():
        return [] if depth else [root]
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    return [folder for path in inside for folder in _below(path, depth - 1)]


def _volumes(folder: Path) -> dict[str, dict[str, float]]:
    path = folder / "volumes.csv"
    if not path.is_file():
        return {}
    rows = read_csv(path)
    if rows and "volume" not in rows[0]:
        raise ConfigError(f"{path}: expected a column 'volume'; damaged, bring it back")
    return {row["volume"]: _numbers(row, path) for row in rows}


def _numbers(row: Mapping[str, str], path: Path) -> dict[str, float]:
    """The nonempty values of the columns in `METRICS`."""
    try:
        return {name: float(row[name]) for name in METRICS if row.get(name)}
    except ValueError as error:
        raise ConfigError(f"{path}: damaged ({error}); bring it back") from None
