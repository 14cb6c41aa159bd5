"""The CT prior of the study's 2026 edition: LoDoPaB-CT, 30 slices a file. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import study2026


def get_config(size: str = "1") -> ConfigDict:
    """Config of 344 epochs at batch 1 of the first 242 files of the training part.

    Of every second slice of a file, those at -15 to 14 around the middle one, the 32nd, are used.
    `size` is a key of `configs.base.ALL_SIZES` or `configs.base.NESTED`.
    """
    config = study2026.create(size)
    config.data.name = "lodopab"
    config.data.root = "data/lodopab"  # holds ground_truth_train_*.hdf5, ...
    config.data.subset = "first:242"  # files
    config.data.slices = "range:34:94:2"
    config.data.cache = "disk"  # 3 GB
    config.training.reconstruct_every = 50_000
    config.training.reconstruct_from = "ct"
    return config
