"""Head CT prior: RSNA intracranial haemorrhage, brain window, 320 x 320. --config=...:SIZE"""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "1") -> ConfigDict:
    """Config of the head CT data on which the study tests.

    Training on all of it needs a cache of 300 GB, so set a split list. `size` is a key of
    `configs.base.ALL_SIZES`.
    """
    config = base.get_config(size)
    config.data.name = "rsna_head"
    config.data.root = "data/rsna_head"  # holds stage_2_train/ID_*.dcm, or png files
    config.data.window = "40,80"  # level and width in Hounsfield units
    config.data.skip_bad = True  # one file of the download is known to be truncated
    config.data.cache = "disk"
    return config
