"""What the three trainings of the study's 2026 edition share: 344 epochs of 7 260 images each."""

from ml_collections import ConfigDict

from configs import base

IMAGES, EPOCHS = 7_260, 344


def create(size: str = "1") -> ConfigDict:
    """Config without data; fastmri_knee_2026, celeba_2026 and ct_2026 start from it.

    Args:
        size: a key of `configs.base.ALL_SIZES` or `configs.base.NESTED`.
    """
    config = base.get_config(size)
    config.model.max_groups = 4
    config.training.batch_size = 1
    config.training.num_steps = IMAGES * EPOCHS  # 2 497 440
    return config
