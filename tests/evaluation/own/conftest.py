"""Fixtures of the tests of reports on what `reconstruct.py` writes."""

import numpy as np
import pytest

from tests.helpers.data_writers import write_nifti
from tests.helpers.own_folders import SLICES, reconstruct, write_kspace, write_tiny_prior
from tests.helpers.reconstruct_inputs import image


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return write_tiny_prior(tmp_path_factory.mktemp("prior") / "prior.pt")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, prior):
    """A point estimate and samples of one scan of three slices."""
    root = tmp_path_factory.mktemp("own")
    scan = write_kspace(root / "k.npy")
    several = {"sampler.num_samples": 3}
    return [
        reconstruct(prior, scan, root / "pnp", **SLICES),
        reconstruct(prior, scan, root / "samples", **SLICES, **several),
    ]


@pytest.fixture(scope="module")
def volume(tmp_path_factory, prior):
    """Images from which a measurement was simulated: there is a truth."""
    root = tmp_path_factory.mktemp("volume")
    stack = np.stack([1000 * image((32, 36), seed) for seed in range(2)], axis=2) - 200
    source = write_nifti(root / "v.nii.gz", stack)
    return reconstruct(prior, source, root / "out", **{"operator.mask": "equispaced1d"})
