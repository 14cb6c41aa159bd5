"""The study's knee prior: fastMRI knee, proton density, 320 x 320. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "1") -> ConfigDict:
    """Config of 344 epochs at batch 1 of the PD half of singlecoil_train, about 2.5 M steps.

    `size` is a key of `configs.base.ALL_SIZES`.
    """
    config = base.get_config(size)
    config.data.name = "fastmri"
    config.data.root = "data/fastmri_knee"  # holds singlecoil_train, singlecoil_val, ...
    config.data.acquisition = "CORPD_FBK"
    config.data.slices = "central:15"
    config.data.cache = "disk"  # 3 GB
    config.training.batch_size = 1
    config.training.reconstruct_every = 50_000
    return config
