"""A results folder: what `evaluation.evaluate` writes, and how it is read.

==============  ===================================================================================
config.json     the resolved config
info.json       device and versions: ``device, python, torch, cuda, numpy, version, commit, dirty``
                (the last two in a git checkout); ``earlier``, those of earlier runs into the folder
                that differed; ``prior``, its path and SHA-256; ``skipped``, what ``data.skip_bad``
                left out; ``effective_acceleration`` of the first slice's mask; ``people``, whom
                slices show, numbered, by key, where the data set knows
keys.txt        the keys of the slices in the data set's order, one a line; those with a line break
                or the like, or not in Unicode, as a JSON string
files.csv       ``file,bytes,digest`` of the files of the data (`datasets.identity`)
metrics.csv     one row a slice, see below
failures.csv    ``key,error`` of the slices that failed; the next run tries them again; not there
                where none did
volumes.csv     ``volume,slices,psnr,ssim,nmse`` (`evaluation.results.volumes`); once every slice
                was tried
recon.h5        ``key``, ``reconstruction`` and, with ``sampler.num_samples`` above 1, ``std``
                (`evaluation.results.recon_file`); once every slice was tried
parts/          until then: each tried slice's outcome, and its image if it has one
SHA256SUMS      checksums of the text files above, while no process works on the folder
.lock           held by the processes that work on the folder, where the file system has locks
.lock.write     held while settings are compared or recon.h5 is written
panels/         target, direct reconstruction, reconstruction and error as PNG
==============  ===================================================================================

Columns of metrics.csv, of images in [0, 1]:

================  =================================================================================
key               volume and slice, such as ``file1000001.h5:12``
psnr              dB, data range 1
ssim              uniform 7 x 7 windows, data range 1
nmse              |target - image|^2 / |target|^2; over |image|^2 with ``protocol=study``
seconds           of measurement to image, the batch's divided by its slices
nfe               calls of the network
residual          |A x - y| / |y| of the image x and the measurement y
acceleration      positions of k-space divided by measured ones; empty without a mask
mask_hash         `provenance.fingerprint` of the sampling: bool mask (H, W), or CT angles
measurement_hash  `provenance.fingerprint` of the measurement y: equal hashes, equal data
memory_mib        MiB, peak: allocated on the GPU for the batch; without one, of the whole process
================  =================================================================================

Everything but `seconds` and `memory_mib` is the same, to the bit, however often a run was killed or
how many slices were asked for at first: batches form as in a run that was not, and of a batch that
was begun all slices are done again. Another batch size or number of processes makes other batches,
and a network's kernels may then give other last digits; baselines do not. Measurements are
simulated on the CPU, so that their hashes do not depend on the GPU; another version or processor
may change last digits, and with them the hash.

How it survives kills and many processes, on a shared file system without locks, too: a slice's
outcome is one small file, written under another name and renamed after its image, and nobody
appends to what another process writes. metrics.csv and failures.csv are made of those; a process
that is alone also appends each row as its slice finishes. Of several processes the one that
finishes last gathers all images in recon.h5; running the command again does it, too.
"""

import hashlib
import io
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
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
LONGEST_NAME = 200  # bytes of a picture's name: file systems take 255

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
)


def read_keys(folder: Path) -> list[str]:
    """The keys of ``keys.txt``, in the data set's order.

    Raises:
        ConfigError: it is damaged.
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
    """The rows of all finished slices, in the data set's order, whichever process did them."""
    # outcomes first: they are dropped only after their rows stand in metrics.csv
    outcomes = _read_outcomes(folder)
    rows = {row["key"]: row for row in _read_metrics(folder)}
    rows |= {key: outcome["row"] for key, outcome in outcomes.items() if "row" in outcome}
    keys = dict.fromkeys([*read_keys(folder), *rows])
    return [rows[key] for key in keys if key in rows]


def read_failures(folder: Path) -> dict[str, str]:
    """What went wrong with the slices that failed, by key, in the data set's order."""
    outcomes = _read_outcomes(folder)
    finished = {row["key"] for row in _read_metrics(folder)}  # perhaps by another process
    errors = {key: outcome["error"] for key, outcome in outcomes.items() if "error" in outcome}
    keys = dict.fromkeys([*read_keys(folder), *errors])
    return {key: errors[key] for key in keys if key in errors and key not in finished}


def _read_metrics(folder: Path) -> list[dict[str, str]]:
    """The whole rows of metrics.csv; a line that a kill cut short is not one."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return []
    rows = read_csv(path, growing=(folder / "parts").is_dir())  # where all rows are, too
    if rows and "key" not in rows[0]:
        raise ConfigError(f"{path}: expected a column 'key'; damaged, bring it back")
    return rows


def _read_outcomes(folder: Path) -> dict[str, dict]:
    """Of parts/, by key: ``{"key", "row"}`` of a finished slice, ``{"key", "error"}`` otherwise."""
    outcomes = {}
    for path in (folder / "parts").glob("[!.]*.json"):
        try:
            outcome = json.loads(path.read_bytes())
            checksum = outcome.pop("checksum", None)
            if checksum not in (None, _checksum(outcome)):  # older versions wrote none
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
    """Writes a results folder; made again on the same folder, it continues.

    Args:
        folder: made if missing.
        config_json: the resolved config.
        keys: of the slices that are wanted, in the data set's order.
        alone: no other process is meant to write to the folder meanwhile: metrics.csv can grow row
            by row.

    Attributes:
        finished: keys of the slices that are done, as far as this process knows.

    Raises:
        ConfigError: the folder was made with other slices.
    """

    def __init__(
        self, folder: Path, config_json: str, *, keys: Sequence[str] = (), alone: bool = True
    ):
        self.folder, self.keys, self.alone = folder, list(keys), alone
        self.parts = folder / "parts"
        # some systems take names that differ in capitals alone for one
        self._flat_names = Counter(_flat(key).lower() for key in self.keys)
        known = read_keys(folder)
        _check_keys(folder, known, self.keys)
        (folder / "panels").mkdir(parents=True, exist_ok=True)
        self.parts.mkdir(exist_ok=True)
        (folder / SUMS).unlink(missing_ok=True)  # from now on files change
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
        self.publish()

    def add(self, key: str, image: np.ndarray, row: Mapping, std: np.ndarray | None = None) -> None:
        """Store one slice: the images first, then the row that says they are there.

        Args:
            key: of the slice.
            image: ``(H, W)``.
            row: values of `COLUMNS`; missing ones stay empty.
            std: ``(H, W)`` standard deviation over posterior samples.
        """
        content = io.BytesIO()
        np.savez(content, reconstruction=image, **({} if std is None else {"std": std}))
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
        """Store that a slice could not be done."""
        self._write_outcome(key, {"key": key, "error": error})

    def write_info(self, info: dict) -> None:
        """Write `info.json`."""
        write_atomically(self.folder / "info.json", json.dumps(info, indent=2) + "\n")

    def publish(self) -> None:
        """Write metrics.csv and failures.csv anew, of what all processes have done so far."""
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
        """Put all images into `recon.h5`, once every wanted slice was tried.

        Where there is something new volumes.csv is removed, to be made anew. Harmless to repeat,
        to interrupt, and to do in several processes at once.
        """
        with locked(self.folder / WRITE_LOCK):
            outcomes = _read_outcomes(self.folder)
            fresh = {key for key, outcome in outcomes.items() if "row" in outcome}
            with_image = fresh | stored_keys(self.folder)
            done = [row["key"] for row in read_rows(self.folder) if row["key"] in with_image]
            if fresh and {*done, *outcomes}.issuperset(self.keys):
                (self.folder / "volumes.csv").unlink(missing_ok=True)
                rewrite(self.folder, done, self._part_images)
                self.publish()
                for key in fresh:
                    self._part(key, ".npz").unlink(missing_ok=True)
                    self._part(key, ".json").unlink(missing_ok=True)
            if self.parts.is_dir() and not any(self.parts.iterdir()):
                self.parts.rmdir()

    def _part_images(self, key: str) -> dict[str, np.ndarray] | None:
        """The new images of a slice; None where there are none, or damaged ones."""
        path = self._part(key, ".npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except FileNotFoundError:  # gathered before, or by another process just now
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
        """Where the picture of a slice lies."""
        name = _flat(key)
        if len(_bytes(name)) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME // 4]}_{_digest(key, 8)}"
        elif self._flat_names[name.lower()] > 1:
            name = f"{name}_{_digest(key, 4)}"
        return self.folder / "panels" / f"{name}.png"


def _flat(key: str) -> str:
    """A key without what divides paths, or cannot be seen in names."""
    return re.sub(r"[/:\x00-\x1f]", "_", key)


def _digest(key: str, size: int) -> str:
    return hashlib.blake2b(_bytes(key), digest_size=size).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as names of files that are not UTF-8


def _check_keys(folder: Path, known: Sequence[str], keys: Sequence[str]) -> None:
    """A folder may go on with more or fewer of the same slices, not with others."""
    for i, (old, new) in enumerate(zip(known, keys, strict=False)):
        if old != new:
            raise ConfigError(
                f"{folder} was made with other slices (keys.txt): number {i} was {old}, now it is "
                f"{new}; the data have changed: choose another folder, or go back to the old data"
            )
