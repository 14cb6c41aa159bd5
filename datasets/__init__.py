"""Data sets in their public on-disk formats, read as one `Sample` per slice or picture.

There is one file per data set; to add one, write an ``open_...`` function and a line in `DATASETS`.
Such a function takes the split and, as keywords, the fields of ``config.data`` that it reads. It
finds and checks every file before any long work; the data set that it returns holds only a list of
what to read, so that workers of a `DataLoader` can share it.

`create_dataset` returns a data set that reads from the files; `prepare.prepare_dataset` also checks
every item and adds a cache; `python -m datasets.check` shows a data set.
"""

# first, as it reports missing packages and how to install them
import configs.installed  # noqa: F401

# isort: split
from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch.utils.data import Dataset

from datasets.embedded import open_samples
from datasets.fastmri import open_fastmri
from datasets.image_folder import open_celeba_hq, open_image_folder
from datasets.lodopab import open_lodopab
from datasets.rsna_head import open_rsna_head
from datasets.sample import DataError, Sample, collate
from datasets.volume import open_volume

__all__ = [
    "DATASETS",
    "DataError",
    "Sample",
    "collate",
    "create_dataset",
    "dataset_options",
    "idle_fields",
]

DATASETS = {
    "celeba_hq": open_celeba_hq,
    "fastmri": open_fastmri,
    "image_folder": open_image_folder,
    "lodopab": open_lodopab,
    "rsna_head": open_rsna_head,
    "samples": open_samples,
    "volume": open_volume,
}

# Fields that choose what is read, with their neutral values: a data set that does not know one of
# them rejects any other value.
CHOICES = {
    "subset": "",
    "acquisition": "",
    "slices": "",
    "mode": "magnitude",
    "load_kspace": False,
    "split_list": "",
    "fit": "",
    "axis": "",
    "window": "",
    "percentiles": "",
    "normalize": "slice",
    "upside_down": False,
}


def create_dataset(data: Mapping[str, Any], split: str) -> Dataset:
    """Data set described by ``config.data``.

    Args:
        data: mapping with the fields below; a missing field, None or "" selects the default of the
            data set

            - name: a key of `DATASETS`
            - root: folder of the data ("samples" needs none)
            - image_size: side in pixels; None or 0 keeps the native size
            - split_seed: int, chooses the files of a split if the data set has no own splits
            - skip_bad: whether to skip bad files, logged and counted, instead of raising an error
            - the keys of `CHOICES`: see the data set's ``open_...`` function

            Other fields are ignored.
        split: "train", "val" or "test".

    Returns:
        A data set with `__len__`, `__getitem__` (a `Sample`), `keys` (list of str), `files` (paths
        that are read) and `skipped` (reasons of what was left out).

    Raises:
        DataError: an unknown name, split or subset; missing or unusable data; a field that this
            data set does not read.
    """
    options = dataset_options(data)
    return DATASETS[data["name"]](split=split, **options)


def dataset_options(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``config.data`` that are set and that its data set reads.

    Raises:
        DataError: an unknown name, a field that this data set does not read, or a negative size.
    """
    name = data.get("name", "")
    if name not in DATASETS:
        raise DataError(f"unknown data set '{name}'; known: {', '.join(sorted(DATASETS))}")
    read = set(signature(DATASETS[name]).parameters) - {"split"}
    given = {field: value for field, value in data.items() if value not in (None, "")}
    for field, neutral in CHOICES.items():
        if field in given and given[field] != neutral and field not in read:
            raise DataError(
                f"data set '{name}' does not read data.{field}, got '{given[field]}'; "
                f"set it to '{neutral}' (it reads: {', '.join(sorted(read))})"
            )
    if given.get("image_size", 0) < 0:
        raise DataError(f"expected data.image_size in pixels or 0, got {given['image_size']}")
    options = {field: value for field, value in given.items() if field in read}
    if "root" in read:
        options.setdefault("root", "")
    return options


def idle_fields(data: Mapping[str, Any]) -> dict[str, str]:
    """Fields of ``config.data`` that only other data sets read, such as "data.root" -> reason."""
    if data["name"] not in DATASETS:
        return {}
    read = {name: set(signature(function).parameters) for name, function in DATASETS.items()}
    others = set.union(*read.values()) - read[data["name"]] - {"cache_dir", "skip_bad"}
    why = f"data.name is {data['name']}, which does not read it"
    return {f"data.{field}": why for field in sorted(others)}
