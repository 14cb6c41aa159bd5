"""The knee prior of the study's 2026 edition: fastMRI, PD, rows reversed. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import study2026


def get_config(size: str = "1") -> ConfigDict:
    """Config of 344 epochs at batch 1 of the 484 PD volumes of singlecoil_train, 15 slices each.

    `size` is a key of `configs.base.ALL_SIZES` or `configs.base.NESTED`.
    """
    config = study2026.create(size)
    config.data.name = "fastmri"
    config.data.root = "data/fastmri_knee"  # holds singlecoil_train, singlecoil_val, ...
    config.data.acquisition = "CORPD_FBK"
    config.data.slices = "central:15"
    config.data.upside_down = True
    config.data.cache = "disk"  # 3 GB
    config.training.reconstruct_every = 50_000
    return config
