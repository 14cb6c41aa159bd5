"""Flipped bytes in 200 files of every format: a DataError or a correct read, never a crash."""

import warnings

import numpy as np
import pytest
import torch

from datasets import DataError, Sample, create_dataset
from tests.helpers.data_writers import (
    head,
    write_dicom,
    write_fastmri,
    write_lodopab,
    write_nifti,
    write_picture,
)

VARIANTS = 20  # of each of the ten kinds below: 200 files


def volume(rng):
    return rng.integers(0, 999, (9, 8, 6))


# kind: (data set, its fields, path of the file, writer)
KINDS = {
    "knee": ("fastmri", {}, "a.h5", lambda p, s: write_fastmri(p, slices=3, seed=s)),
    "complex": (
        "fastmri",
        {"mode": "complex"},
        "a.h5",
        lambda p, s: write_fastmri(p, slices=3, seed=s),
    ),
    "lodopab": (
        "lodopab",
        {},
        "ground_truth_test_000.hdf5",
        lambda p, s: write_lodopab(p, size=24, seed=s),
    ),
    "jpg": ("image_folder", {}, "a.jpg", lambda p, s: write_picture(p, seed=s)),
    "png": ("image_folder", {}, "a.png", lambda p, s: write_picture(p, seed=s)),
    "tif": ("image_folder", {}, "a.tif", lambda p, s: write_picture(p, mode="L", seed=s)),
    "webp": ("image_folder", {}, "a.webp", lambda p, s: write_picture(p, seed=s)),
    "dicom": ("rsna_head", {}, "a.dcm", lambda p, s: write_dicom(p, head(24, s))),
    "nifti": ("volume", {}, "a.nii", lambda p, s: write_nifti(p, volume(s))),
    "nifti_gz": ("volume", {}, "a.nii.gz", lambda p, s: write_nifti(p, volume(s))),
}


def flip_bytes(path, rng):
    """Change 1 to 16 bytes, half of the time in the first kilobyte, where headers are."""
    content = bytearray(path.read_bytes())
    reach = min(len(content), 1024) if rng.random() < 0.5 else len(content)
    for place in rng.integers(0, reach, rng.integers(1, 17)):
        content[place] ^= int(rng.integers(1, 256))
    path.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes(tmp_path, kind):
    name, fields, file, write = KINDS[kind]
    (tmp_path / "list.txt").write_text(file)
    fields = {**fields, "name": name, "split_list": str(tmp_path / "list.txt")}
    if name == "lodopab":
        del fields["split_list"]
    outcomes = []
    for variant in range(VARIANTS):
        rng = np.random.default_rng([variant, *kind.encode()])
        path = tmp_path / f"{variant}" / file
        write(path, np.random.default_rng(variant) if name == "volume" else variant)
        options = {**fields, "root": str(path.parent)}
        assert variant or attempt(options, file) == "read"  # before anything is flipped
        flip_bytes(path, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parsers warn of what they mend
            outcomes.append(attempt(options, file))
    print(kind, {outcome: outcomes.count(outcome) for outcome in ("read", "error")})
    assert len(outcomes) == VARIANTS
    assert set(outcomes) <= {"read", "error"}


def attempt(fields, file):
    """Read everything; "read" if samples are as promised, "error" at a DataError of the file."""
    try:
        data = create_dataset(fields, "test")
        samples = [data[i] for i in range(len(data))]
    except DataError as error:
        return "error" if file in str(error) else f"does not name the file: {error}"
    for sample in samples:
        assert isinstance(sample, Sample)
        assert sample.image.dtype in (torch.float32, torch.complex64)
        magnitude = sample.image.abs()  # NaN where a part is
        assert magnitude.max() <= 1 + 1e-6
    return "read"
