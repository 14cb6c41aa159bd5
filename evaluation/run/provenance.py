"""Provenance of results: versions of the code, hashes of weights and data, peak memory."""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from configs import ConfigError, project_version
from evaluation.results.files import read_json
from operators import LinearOperator

try:
    import resource
except ImportError:  # Windows
    resource = None

ROOT = Path(__file__).resolve().parent.parent.parent
DIGEST_BYTES = 8  # size of a fingerprint: a collision among a million slices has probability 3e-8


def code_version(root: Path = ROOT) -> dict[str, str | bool]:
    """Version of the package and state of its git checkout.

    Returns:
        "version"; in a git checkout also "commit" (40 hex digits) and "dirty" (whether tracked
        files differ from the commit).
    """
    version = project_version(root)
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    # a copy without its own history may be inside another repository
    if not top or not commit or Path(top).resolve() != root.resolve():
        return {"version": version}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"version": version, "commit": commit, "dirty": changes != ""}


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command; None if git is missing or fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(device: str) -> dict[str, str | bool]:
    """Device and software versions, on which the last digits of results may depend."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda or "none",
        "numpy": np.__version__,
        **code_version(),
    }


def fingerprint(array: torch.Tensor | np.ndarray) -> str:
    """BLAKE2b of the bytes of an array in C order, as 16 hexadecimal digits."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    data = np.ascontiguousarray(array).tobytes()
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def sampling(operator: LinearOperator) -> dict[str, str | float]:
    """Sampling of one slice's operator: `mask_hash`, and `acceleration` if it is defined.

    The hash is the `fingerprint` of `LinearOperator.sampled`, such as a mask, bool ``(H, W)``, or
    angles in degrees, float64. Operators without a sampling pattern have no `mask_hash`.
    """
    sampled, acceleration = operator.sampled(), operator.acceleration
    found = {} if acceleration is None else {"acceleration": acceleration}
    return found if sampled is None else {**found, "mask_hash": fingerprint(sampled)}


def describe_prior(path: Path | None, others: Sequence[Path] = ()) -> dict[str, str] | None:
    """Path and SHA-256 of a checkpoint file; None for methods without one.

    Args:
        path: the file.
        others: files beside it that say what its weights are; they are in the hash.
    """
    if path is None:
        return None
    found = hashlib.sha256()
    for part in (path, *others):
        with part.open("rb") as file:
            while chunk := file.read(2**20):
                found.update(chunk)
    return {"path": str(path), "sha256": found.hexdigest()}


def check_prior(folder: Path, prior: dict[str, str] | None) -> None:
    """Raise an error if a results folder was made with another prior.

    Only the hashes of the weights are compared, not the paths.

    Args:
        folder: results folder, which may be missing.
        prior: result of `describe_prior`.

    Raises:
        ConfigError: the weights differ; both priors are named.
    """
    path = folder / "info.json"
    if not path.is_file():
        return
    old = read_json(path).get("prior")
    if (old or {}).get("sha256") != (prior or {}).get("sha256"):
        raise ConfigError(
            f"{folder} was made with another prior; choose another folder, or give the old "
            f"checkpoint file itself:\n  prior: {_name(old)} there, {_name(prior)} now"
        )


def _name(prior: dict[str, str] | None) -> str:
    return f"{prior['path']} (sha256 {prior['sha256'][:12]}...)" if prior else "(none recorded)"


def describe(
    folder: Path, *, operator: LinearOperator, prior: dict | None, skipped: list[str], device: str
) -> dict:
    """Content of ``info.json``: provenance of this run, and of earlier ones into `folder`.

    Args:
        folder: results folder.
        operator: operator of the first slice.
        prior: result of `describe_prior`.
        skipped: files and slices that the data set skipped, with the reasons.
        device: device of the networks.
    """
    now = environment(device)
    path = folder / "info.json"
    old = read_json(path) if path.is_file() else {}
    before = {name: old[name] for name in now if name in old}
    earlier = [*old.get("earlier", []), *([before] if before and before != now else [])]
    info = {**now, "earlier": [run for run in _distinct(earlier) if run != now], "prior": prior}
    info["skipped"] = skipped
    coils = operator.facts().get("coils")
    if coils is not None:
        info["coils"] = coils
    acceleration = sampling(operator).get("acceleration")
    if acceleration is not None:
        info["effective_acceleration"] = round(acceleration, 3)
    return info


def _distinct(items: list[dict]) -> list[dict]:
    return [item for i, item in enumerate(items) if item not in items[:i]]


def reset_peak_memory(device: str) -> None:
    """Reset the peak memory of a GPU; that of the process cannot be reset."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> float:
    """Peak memory in MiB: on a GPU since `reset_peak_memory`, on a CPU that of the process.

    NaN where the system does not tell (Windows).
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if resource is None:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
