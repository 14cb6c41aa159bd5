"""The prior `natural_complex_small`: `natural_small` for complex images, both parts together."""

import math

from ml_collections import ConfigDict

from configs import natural_small


def get_config() -> ConfigDict:
    """Config of a bias-free U-Net of two channels on photographs with a smooth random phase.

    For k-space. training_scripts/gpu.sh trains it; weights/natural_complex_small.md has the time
    and losses of that run.
    """
    config = natural_small.get_config()
    config.model.num_channels = 2
    config.data.phase = 2 * math.pi
    return config
