"""The results folder of `evaluation.evaluate`: its files, writing and reading.

==============  ===================================================================================
config.json     the resolved config
info.json       device and versions: ``device, python, torch, cuda, numpy, version, commit, dirty``
                (the last two in a git checkout); ``earlier``: those of earlier runs that differ;
                ``prior``: its path and SHA-256; ``skipped``: files and slices that
                ``data.skip_bad`` left out; ``effective_acceleration`` of the first slice's mask;
                ``coils``, their number, of k-space;
                ``people``: a numbered person by key, if the data set knows whom slices show;
                ``spread_scale``: factor of the spread of samples (``sampler.calibrated``)
keys.txt        the keys of the slices in the order of the data set, one per line; keys with a line
                break, a control character or invalid Unicode are JSON strings
files.csv       ``file,bytes,digest`` of the files of the data (`datasets.identity`)
metrics.csv     one row per slice, see below
failures.csv    ``key,error`` of the slices that failed, which the next run tries again; missing if
                no slice failed
volumes.csv     ``volume,slices,psnr,ssim,nmse,psnr_rows,psnr_columns,step_error``
                (`evaluation.results.volumes`); written when every slice was tried
recon.h5        ``key``, ``reconstruction`` and, with ``sampler.num_samples`` above 1, ``std``,
                ``quantile_05`` and ``quantile_95`` (`evaluation.results.recon_file`); written when
                every slice was tried
parts/          until then: the outcome of each tried slice, and its image if it has one
SHA256SUMS      checksums of the text files above, while no process works on the folder
.lock           held by the processes that work on the folder, if the file system has locks
.lock.write     held while settings are compared or recon.h5 is written
panels/         target, direct reconstruction, reconstruction and error as PNG
==============  ===================================================================================

Columns of metrics.csv, of images in [0, 1]:

================  =================================================================================
key               volume and slice, such as ``file1000001.h5:12``
psnr              dB, data range 1
ssim              uniform 7 x 7 windows, data range 1
nmse              |target - image|^2 / |target|^2; over |image|^2 with ``protocol=study*``
seconds           time from measurement to image: that of the batch divided by its slices
nfe               number of network calls
residual          |A x - y| / |y| of the image x and the measurement y, with the weights of counted
                  rays; empty for a method that returns magnitudes of complex images
acceleration      positions of k-space divided by measured ones; empty without a mask
mask_hash         `provenance.fingerprint` of the sampling: bool mask (H, W), or CT angles
measurement_hash  `provenance.fingerprint` of the measurement y: equal hashes mean equal data
memory_mib        peak memory in MiB: of the batch on a GPU, on a CPU of the whole process
lesion_error      `evaluation.run.lesions`: error inside lesions over that elsewhere in the head;
                  empty if the data have no mask, or the slice no lesion
lesion_contrast   contrast of lesions over the target's; empty like that
================  =================================================================================

Except for `seconds` and `memory_mib`, results are equal to the bit, no matter how often a run was
killed or how many slices were requested at first: batches are those of an uninterrupted run, and
all slices of an unfinished batch are repeated. Another batch size or number of processes gives
other batches, for which the kernels of a network may change the last digits; baselines do not
depend on it. Measurements are simulated on the CPU, so that their hashes do not depend on the GPU;
another version or processor may change the last digits and thus the hash.

Kills and many processes are safe, also on a shared file system without locks: the outcome of a
slice is one small file, written under another name and renamed after its image is stored, and no
process appends to a file of another one. metrics.csv and failures.csv are made from these files; a
single process also appends each row as its slice finishes. The last process to finish gathers all
images in recon.h5; running the command again does that as well.
"""

import hashlib
import io
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from configs import ConfigError
from datasets.files import (
    locked,
    naming,
    read_text,
    remove_abandoned,
    to_csv,
    write_atomically,
)
from evaluation.results.files import SUMS, read_csv
from evaluation.results.recon_file import rewrite, stored_keys

log = logging.getLogger(__name__)

WRITE_LOCK = ".lock.write"
LONGEST_NAME = 200  # bytes of a panel's file name; file systems allow 255

COLUMNS = (
    "key",
    "psnr",
    "ssim",
    "nmse",
    "seconds",
    "nfe",
    "residual",
    "acceleration",
    "mask_hash",
    "measurement_hash",
    "memory_mib",
    "lesion_error",
    "lesion_contrast",
)


def read_keys(folder: Path) -> list[str]:
    """Keys of ``keys.txt`` in the order of the data set; none if there is no such file.

    Raises:
        ConfigError: the file is damaged.
    """
    path = folder / "keys.txt"
    if not path.is_file():
        return []
    lines = read_text(path).removesuffix("\n").split("\n")
    try:
        return [json.loads(line) if line.startswith('"') else line for line in lines if line]
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: damaged ({error}); bring it back") from None


def _line(key: str) -> str:
    """A key as a line of ``keys.txt``."""
    plain = key.isprintable() and not key.startswith('"')
    return (key if plain else json.dumps(key)) + "\n"


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of all finished slices of all processes, in the order of the data set."""
    # outcomes first, as they are removed only after their rows are in metrics.csv
    outcomes = _read_outcomes(folder)
    rows = {row["key"]: row for row in _read_metrics(folder)}
    rows |= {key: outcome["row"] for key, outcome in outcomes.items() if "row" in outcome}
    keys = dict.fromkeys([*read_keys(folder), *rows])
    return [rows[key] for key in keys if key in rows]


def read_failures(folder: Path) -> dict[str, str]:
    """Error messages of the failed slices by key, in the order of the data set."""
    outcomes = _read_outcomes(folder)
    finished = {row["key"] for row in _read_metrics(folder)}  # perhaps by another process
    errors = {key: outcome["error"] for key, outcome in outcomes.items() if "error" in outcome}
    keys = dict.fromkeys([*read_keys(folder), *errors])
    return {key: errors[key] for key in keys if key in errors and key not in finished}


def _read_metrics(folder: Path) -> list[dict[str, str]]:
    """The complete rows of metrics.csv."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return []
    rows = read_csv(path, growing=(folder / "parts").is_dir())  # parts/ then also has all rows
    if rows and "key" not in rows[0]:
        raise ConfigError(f"{path}: expected a column 'key'; damaged, bring it back")
    return rows


def _read_outcomes(folder: Path) -> dict[str, dict]:
    """Outcomes in parts/ by key: ``{"key", "row"}`` if finished, ``{"key", "error"}`` if failed."""
    outcomes = {}
    for path in (folder / "parts").glob("[!.]*.json"):
        try:
            outcome = json.loads(path.read_bytes())
            checksum = outcome.pop("checksum", None)
            if checksum not in (None, _checksum(outcome)):  # older versions wrote no checksum
                raise ValueError("its checksum")
        except FileNotFoundError:  # another process has just gathered it
            continue
        except (ValueError, KeyError, AttributeError):
            log.warning("%s: damaged, and left out; evaluate does that slice again", path)
            continue
        outcomes[outcome["key"]] = outcome
    return outcomes


def _checksum(outcome: Mapping) -> int:
    return zlib.crc32(json.dumps(outcome, sort_keys=True).encode())


class Results:
    """Writer of a results folder, which continues an existing one.

    Args:
        folder: results folder, created if missing.
        config_json: the resolved config.
        keys: keys of the requested slices, in the order of the data set.
        alone: whether this is the only process that writes to the folder, so that it can append
            rows to metrics.csv.

    Attributes:
        finished: keys of the finished slices known to this process.

    Raises:
        ConfigError: the folder was made with other slices.
    """

    def __init__(
        self, folder: Path, config_json: str, *, keys: Sequence[str] = (), alone: bool = True
    ):
        self.folder, self.keys, self.alone = folder, list(keys), alone
        self.parts = folder / "parts"
        # some file systems do not distinguish capital and small letters
        self._flat_names = Counter(_flat(key).lower() for key in self.keys)
        known = read_keys(folder)
        _check_keys(folder, known, self.keys)
        (folder / "panels").mkdir(parents=True, exist_ok=True)
        self.parts.mkdir(exist_ok=True)
        (folder / SUMS).unlink(missing_ok=True)  # the files are about to change
        for place in (folder, self.parts, folder / "panels"):
            remove_abandoned(place)
        write_atomically(folder / "config.json", config_json)
        if len(self.keys) > len(known):
            write_atomically(folder / "keys.txt", "".join(map(_line, self.keys)))
        stored = stored_keys(folder)
        self.finished = {
            row["key"]
            for row in read_rows(folder)
            if row["key"] in stored or self._part_images(row["key"]) is not None
        }
        self._publish()

    def add(
        self,
        key: str,
        image: np.ndarray,
        row: Mapping,
        spread: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Store a finished slice: its images first, then its row.

        Args:
            key: key of the slice.
            image: ``(H, W)`` reconstruction.
            row: values by column of `COLUMNS`; missing ones stay empty.
            spread: of several posterior samples, ``(H, W)`` each: `std`, `quantile_05`,
                `quantile_95`.
        """
        content = io.BytesIO()
        np.savez(content, reconstruction=image, **(spread or {}))
        write_atomically(self._part(key, ".npz"), content.getvalue())
        texts = {name: str({"key": key, **row}.get(name, "")) for name in COLUMNS}
        self._write_outcome(key, {"key": key, "row": texts})
        if self.alone:
            path = self.folder / "metrics.csv"
            text = to_csv([texts], COLUMNS, header=False).encode("utf-8", "surrogateescape")
            with naming(path), path.open("ab") as file:
                file.write(text)
        self.finished.add(key)

    def fail(self, key: str, error: str) -> None:
        """Store the error message of a failed slice."""
        self._write_outcome(key, {"key": key, "error": error})

    def write_info(self, info: dict) -> None:
        """Write `info.json`."""
        write_atomically(self.folder / "info.json", json.dumps(info, indent=2) + "\n")

    def publish(self) -> None:
        """Rewrite metrics.csv and failures.csv from the outcomes of all processes so far."""
        with locked(self.folder / WRITE_LOCK):  # or outcomes gathered meanwhile would be lost
            self._publish()

    def _publish(self) -> None:
        failures = read_failures(self.folder)
        rows = to_csv(read_rows(self.folder), COLUMNS)
        write_atomically(self.folder / "metrics.csv", rows)
        path = self.folder / "failures.csv"
        if failures:
            lines = [{"key": key, "error": error} for key, error in failures.items()]
            write_atomically(path, to_csv(lines, ("key", "error")))
        else:
            path.unlink(missing_ok=True)

    def gather(self) -> None:
        """Gather all images in `recon.h5` if every requested slice was tried.

        If there are new images, the outdated volumes.csv is removed. The call may be repeated,
        interrupted, and made by several processes at once.
        """
        with locked(self.folder / WRITE_LOCK):
            outcomes = _read_outcomes(self.folder)
            fresh = {key for key, outcome in outcomes.items() if "row" in outcome}
            with_image = fresh | stored_keys(self.folder)
            done = [row["key"] for row in read_rows(self.folder) if row["key"] in with_image]
            if fresh and {*done, *outcomes}.issuperset(self.keys):
                (self.folder / "volumes.csv").unlink(missing_ok=True)
                rewrite(self.folder, done, self._part_images)
                self._publish()
                for key in fresh:
                    self._part(key, ".npz").unlink(missing_ok=True)
                    self._part(key, ".json").unlink(missing_ok=True)
            for key in stored_keys(self.folder):  # the same slice, stored by another process
                if not self._part(key, ".json").exists():
                    self._part(key, ".npz").unlink(missing_ok=True)
            if self.parts.is_dir() and not any(self.parts.iterdir()):
                with suppress(OSError):  # another process has just written into it
                    self.parts.rmdir()

    def _part_images(self, key: str) -> dict[str, np.ndarray] | None:
        """New images of a slice in parts/; None if there are none, or they are damaged."""
        path = self._part(key, ".npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except FileNotFoundError:  # already gathered, perhaps by another process
            return None
        except Exception as error:  # damaged files raise anything
            log.warning("%s: damaged, and left out (%s)", path, error)
            return None

    def _write_outcome(self, key: str, outcome: dict) -> None:
        text = json.dumps(outcome | {"checksum": _checksum(outcome)})
        write_atomically(self._part(key, ".json"), text)

    def _part(self, key: str, suffix: str) -> Path:
        return self.parts / f"{_digest(key, 12)}{suffix}"

    def panel(self, key: str) -> Path:
        """Path of the panel of a slice."""
        name = _flat(key)
        if len(_bytes(name)) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME // 4]}_{_digest(key, 8)}"
        elif self._flat_names[name.lower()] > 1:
            name = f"{name}_{_digest(key, 4)}"
        return self.folder / "panels" / f"{name}.png"


def _flat(key: str) -> str:
    """A key with path separators and control characters replaced by underscores."""
    return re.sub(r"[/:\x00-\x1f]", "_", key)


def _digest(key: str, size: int) -> str:
    return hashlib.blake2b(_bytes(key), digest_size=size).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # file names need not be UTF-8


def _check_keys(folder: Path, known: Sequence[str], keys: Sequence[str]) -> None:
    """Raise a ConfigError for other slices; more or fewer of the same slices are allowed."""
    for i, (old, new) in enumerate(zip(known, keys, strict=False)):
        if old != new:
            raise ConfigError(
                f"{folder} was made with other slices (keys.txt): number {i} was {old}, now it is "
                f"{new}; the data have changed: choose another folder, or go back to the old data"
            )
