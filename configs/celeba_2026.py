"""The natural-image prior of the study's 2026 edition: 7 260 of CelebA-HQ. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import study2026


def get_config(size: str = "1") -> ConfigDict:
    """Config of 344 epochs at batch 1 of the pictures 0 to 7259.

    `size` is a key of `configs.base.ALL_SIZES` or `configs.base.NESTED`.
    """
    config = study2026.create(size)
    config.data.name = "celeba_hq"
    config.data.root = "data/celeba_hq"  # holds 30 000 jpg files
    config.data.subset = f"first:{study2026.IMAGES}"
    config.data.cache = "disk"  # 3 GB
    config.training.reconstruct_every = 50_000
    config.training.reconstruct_from = "mri,ct"
    return config
