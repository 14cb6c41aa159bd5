"""A results folder of `reconstruct.py`, read: its images, settings and summary."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from configs import ConfigError
from evaluation.results.files import read_json
from evaluation.show.sampling_picture import Picture

IMAGE, TRUTH = "reconstruction", "truth"  # names of images
SPREAD = ("std", "quantile_05", "quantile_95")
PROBES = 4  # slices that tell whether images are the same
PICTURES = (".png", ".svg")  # of the sampling


class OwnResult:
    """Images of a results folder by key: float32 ``(H, W)`` in the unit of the result.

    Attributes:
        folder: the folder.
        settings: content of ``config.json``.
        summary: content of ``summary.json``.
        keys: keys of the slices.
        names: names of the images that each slice has, such as "reconstruction", "direct", "std".
        shape: rows and columns of the images.
        unit: their unit, in words.
        direct: name of the reconstruction without a prior, such as "zero-filled".

    Args:
        folder: path of the folder.

    Raises:
        ValueError: it is not a finished results folder of `reconstruct.py`, or a file is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._file = self.folder / "reconstruction.h5"
        if not (self.folder / "config.json").is_file() or not is_own(self.folder):
            raise ValueError(f"{folder}: expected a results folder of reconstruct.py")
        missing = [p.name for p in (self._file, self.folder / "summary.json") if not p.is_file()]
        if missing:
            raise ValueError(
                f"{folder}: expected a finished results folder of reconstruct.py, got one without "
                f"{' and '.join(missing)}; run its command again, which continues"
            )
        self.settings = read_json(self.folder / "config.json")
        self.summary = read_json(self.folder / "summary.json")
        with self._open() as file:
            self.keys = list(file["key"].asstr(errors="surrogateescape")[()])
            self.unit, self.direct = str(file.attrs["unit"]), str(file.attrs["direct"])
            self.names = [name for name in file if file[name].ndim == 3]
            self.shape = tuple(file["reconstruction"].shape[1:])
        self._places = {key: place for place, key in enumerate(self.keys)}

    def image(self, name: str, key: str) -> np.ndarray:
        """An image of a slice.

        Args:
            name: one of `names`.
            key: one of `keys`.
        """
        with self._open() as file:
            return file[name][self._places[key]]

    def spread(self, key: str) -> dict[str, np.ndarray]:
        """How the samples of a slice differ (`SPREAD`); empty if there was one sample."""
        return {name: self.image(name, key) for name in SPREAD if name in self.names}

    def sampling(self) -> Picture | None:
        """Picture of the sampling of the first slice; None if there is none."""
        for suffix in PICTURES:
            path = self.folder / f"sampling{suffix}"
            if path.is_file():
                return Picture(suffix, path.read_bytes(), self.summary.get("sampling", ""))
        return None

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            with h5py.File(self._file) as file:
                yield file
        except Exception as error:  # h5py raises anything on damaged bytes
            raise ConfigError(
                f"{self._file}: damaged ({error}); bring it back, or reconstruct into another "
                "folder"
            ) from error


def is_own(folder: Path) -> bool:
    """Whether a folder is, or is becoming, a results folder of `reconstruct.py`."""
    return any((folder / name).exists() for name in ("reconstruction.h5", "summary.json", "parts"))


def check_comparable(results: Sequence[OwnResult]) -> list[str]:
    """Keys of the slices that results of one input have in common, in the order of the first.

    Raises:
        ValueError: the folders are of different inputs, units or sizes, one appears twice, or they
            have no slice in common.
    """
    first = results[0]
    for other in results[1:]:
        for what, of in _THINGS.items():
            here, there = of(first), of(other)
            if here != there:
                raise ValueError(
                    f"expected results of one {what}, got {there} in {other.folder} and "
                    f"{here} in {first.folder}; make a report of each"
                )
    folders = [result.folder.resolve() for result in results]
    if len(set(folders)) < len(folders):
        raise ValueError(f"expected different folders, got {', '.join(map(str, folders))}")
    keys = [key for key in first.keys if all(key in other.keys for other in results[1:])]
    if not keys:
        names = ", ".join(str(folder) for folder in folders)
        raise ValueError(f"expected slices that all folders have, got none in common: {names}")
    return keys


def _input(result: OwnResult) -> str:
    return f"{result.settings['input']} (SHA-256 {result.settings['sha256']['input'][:16]}...)"


def _direction(result: OwnResult) -> str:
    data = result.settings["data"]
    return f"{data['axis'] or 'axial'}, {data['first_axis'] or 'default'}"


# what results have to share to be compared -> function of one of them
_THINGS = {
    "input": _input,
    "unit": lambda result: result.unit,
    "operator.pixel_size": lambda result: result.settings["operator"]["pixel_size"],
    "direction of slices (data.axis, data.first_axis)": _direction,
    "image size": lambda result: result.shape,
    "window (data.window)": lambda result: result.settings["data"]["window"],
}


def folder_names(results: Sequence[OwnResult]) -> list[str]:
    """Distinct names of results: those of their folders, or the paths, if needed."""
    names = [result.folder.name for result in results]
    return names if len(set(names)) == len(names) else [str(r.folder) for r in results]


def differing(results: Sequence[OwnResult], name: str, keys: Sequence[str]) -> list[int]:
    """Numbers of results whose images are none of those before: 0, and perhaps others.

    Images that differ by less than a thousandth of the largest value are taken as one.

    Args:
        results: the results.
        name: name of the images.
        keys: keys of slices that all have; up to `PROBES` or so, evenly spaced, are compared.
    """
    chosen = keys[:: max(1, len(keys) // PROBES)]
    found: list[tuple[int, np.ndarray]] = []
    for number, result in enumerate(results):
        images = np.stack([result.image(name, key) for key in chosen])
        if not any(_alike(images, others) for _, others in found):
            found.append((number, images))
    return [number for number, _ in found]


def _alike(images: np.ndarray, others: np.ndarray) -> bool:
    return float(np.abs(images - others).max()) <= 1e-3 * float(np.abs(others).max())


def facts(summary: Mapping) -> dict:
    """What the summary says of the measurement itself, by name."""
    return {name: _text(value) for name, value in summary.items() if name not in KNOWN}


# of summary.json: what is shown elsewhere than among the facts
KNOWN = (
    *("result", "outputs", "sampler", "num_steps", "num_samples", "noise", "notes", "sampling"),
    *("seconds_a_slice", "prior", "code_version", "torch", "validation", "noise_level"),
    *("last_level", "volume", "metrics", "metrics_across", "unit", "mask_sha256"),
)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return str(value)
