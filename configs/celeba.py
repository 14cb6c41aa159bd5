"""The study's natural-image prior: CelebA-HQ, grey, 320 x 320. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "1") -> ConfigDict:
    """Config of 83 epochs at batch size 1; `size` is a key of `configs.base.ALL_SIZES`."""
    config = base.get_config(size)
    config.data.name = "celeba_hq"
    config.data.root = "data/celeba_hq"  # holds 30 000 jpg files
    config.data.cache = "disk"  # 12 GB; decoding 1024 x 1024 jpg is slower than a training step
    config.training.batch_size = 1
    config.training.reconstruct_every = 50_000
    config.training.reconstruct_from = "mri,ct"
    return config
