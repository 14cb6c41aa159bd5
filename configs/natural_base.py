"""The prior `natural_base`: the photographs of `natural_small`, a larger network."""

from ml_collections import ConfigDict

from configs import natural_small


def get_config() -> ConfigDict:
    """Config of a bias-free U-Net with 4.2 million parameters, for a short training on a GPU.

    training_scripts/gpu.sh trains it; weights/natural_base.md has the time and losses of that run.
    """
    config = natural_small.get_config()
    config.model.ch_mult = (8, 12, 16, 16)
    config.model.num_res_blocks = (2, 2, 3, 4)
    config.data.crop = 128  # the network has a larger receptive field than natural_small
    config.training.batch_size = 32
    config.training.channels_last = "auto"
    config.optim.lr = 3e-4  # at 1e-3 the loss was infinite after 2200 steps
    config.optim.warmup = 500
    return config
