"""The prior `natural_base`: `natural_small`'s photographs in a network eight times as large."""

from ml_collections import ConfigDict

from configs import natural_small


def get_config() -> ConfigDict:
    """A bias-free U-Net of 3.9 million parameters, made for a short time on a GPU.

    training_scripts/gpu.sh trains it; weights/natural_base.md has time and losses of that run.
    """
    config = natural_small.get_config()
    config.model.ch_mult = (8, 12, 16, 16)
    config.model.num_res_blocks = (2, 2, 3, 4)
    config.data.crop = 128  # sees farther than natural_small
    config.data.num_workers = 7
    config.training.batch_size = 32
    config.training.channels_last = "auto"
    config.optim.lr = 3e-4  # at 1e-3 the loss was infinite after 2200 steps
    config.optim.warmup = 500
    return config
