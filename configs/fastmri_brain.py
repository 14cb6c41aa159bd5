"""fastMRI brain prior: magnitude images of the multi-coil files, 320 x 320. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "1") -> ConfigDict:
    """Config of slices 0 to 4 of each volume, centre-cropped, on which the study tests.

    `size` is a key of `configs.base.ALL_SIZES`.
    """
    config = base.get_config(size)
    config.data.name = "fastmri"
    config.data.root = "data/fastmri_brain"  # holds multicoil_train, multicoil_val, ...
    config.data.slices = "first:5"
    config.data.skip_bad = True  # some volumes are narrower than 320 pixels
    config.data.cache = "disk"
    return config
