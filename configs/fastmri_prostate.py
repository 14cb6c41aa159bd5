"""fastMRI prostate prior: T2-weighted magnitude images, 320 x 320. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "1") -> ConfigDict:
    """Config of all slices of all T2 volumes; diffusion files in the folder are not read.

    `size` is a key of `configs.base.ALL_SIZES`.
    """
    config = base.get_config(size)
    config.data.name = "fastmri"
    config.data.root = "data/fastmri_prostate"  # holds training_T2_1, validation_T2, test_T2, ...
    config.data.cache = "disk"
    return config
