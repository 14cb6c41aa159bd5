"""The study's CT prior: LoDoPaB-CT ground truth, resized to 320 x 320. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "1") -> ConfigDict:
    """Config of 30 epochs of 35 820 slices at batch 4.

    `size` is a key of `configs.base.ALL_SIZES`.
    """
    config = base.get_config(size)
    config.data.name = "lodopab"
    config.data.root = "data/lodopab"  # holds ground_truth_train_*.hdf5, ...
    config.data.cache = "disk"  # 15 GB
    config.training.batch_size = 4
    config.training.num_steps = 268_650
    config.training.reconstruct_every = 50_000
    config.training.reconstruct_from = "ct"
    return config
