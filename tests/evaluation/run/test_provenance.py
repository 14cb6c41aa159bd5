"""What info.json says: versions, hashes, sampling, memory."""

import hashlib
import subprocess

import numpy as np
import torch

from evaluation.run.provenance import ROOT, code_version, fingerprint, peak_memory, sampling
from operators import ParallelBeamCT, SingleCoilMRI


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_code_version_knows_commit_and_changes(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    assert code_version(project) == {"version": "1.2.3"}
    git(project, "init")
    git(project, "add", ".")
    git(project, "commit", "-m", "first")
    clean = {"version": "1.2.3", "commit": git(project, "rev-parse", "HEAD"), "dirty": False}
    (project / "notes").write_text("untracked files change no number")
    assert code_version(project) == clean
    (project / "pyproject.toml").write_text('[project]\nversion = "1.2.4"\n')
    assert code_version(project) == clean | {"version": "1.2.4", "dirty": True}
    # a copy inside somebody else's repository has no commit of its own
    (project / "copy").mkdir()
    (project / "copy" / "pyproject.toml").write_text('[project]\nversion = "7"\n')
    assert code_version(project / "copy") == {"version": "7"}
    assert code_version(ROOT)["version"]


def test_fingerprints_are_of_the_bytes_in_c_order():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = hashlib.blake2b(x.tobytes(), digest_size=8).hexdigest()
    assert fingerprint(x) == fingerprint(torch.from_numpy(x)) == digest
    assert fingerprint(np.asfortranarray(x)) == digest
    assert fingerprint(x.T) != digest
    assert fingerprint(-x) != digest


def test_what_operators_say_of_their_sampling():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, ::4] = True
    of_mask = {"acceleration": 4.0, "mask_hash": fingerprint(mask)}
    assert sampling(SingleCoilMRI(mask)) == of_mask
    angles = np.array([0.0, 45.0])
    assert sampling(ParallelBeamCT(8, angles)) == {"mask_hash": fingerprint(angles)}


def test_peak_memory_holds_what_was_allocated():
    block = torch.ones(2**26, dtype=torch.uint8)  # 64 MiB
    assert peak_memory("cpu") > block.numel() / 2**20
