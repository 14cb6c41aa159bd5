"""The shipped prior `natural_small`: photographs, a network for CPUs (weights/natural_small.md)."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Config of a bias-free U-Net with 0.64 million parameters on random crops at random scales.

    Photographs are in the folders `train` and `val` of data.root. weights/natural_small.md has the
    time and losses of this run, and the experiments behind its choices.
    """
    config = base.get_config()
    config.model = ConfigDict(
        {
            "name": "bias_free_unet",
            "nf": 8,
            "ch_mult": (4, 6, 7, 7),
            "num_res_blocks": (2, 2, 2, 2),
            "num_channels": 1,
        }
    )
    config.sde.sigma_min = 0.002  # last level of plug and play: lower is better (see the card)
    config.sde.sigma_max = 1.0  # first level of samplers: lower is better, too
    config.data.name = "image_folder"
    config.data.root = "data/photos_cc"  # with folders train and val
    config.data.image_size = 0
    config.data.crop = 80
    config.data.shrink = 0.4  # gives finer texture and fewer JPEG artefacts
    config.data.flip = True
    config.data.rotate = True
    config.data.gamma = 0.5  # tissues have other contrasts than photographs
    config.data.invert = 0.3
    config.data.shading = 0.5
    config.data.background = 0.3  # as around a head or a body
    config.data.cache = "memory"
    config.data.num_workers = 0
    config.training.batch_size = 10
    config.training.num_steps = 200_000
    config.training.precision = "bfloat16"
    config.training.channels_last = "on"
    config.training.compile = "off"  # slower with it, see docs/performance.md
    config.training.log_every = 200
    config.training.checkpoint_every = 1_000
    config.training.keep_checkpoints = 2
    config.training.validate_every = 5_000
    config.training.validation_images = 100
    config.training.validation_bins = 6
    config.training.sample_every = 0
    config.optim.lr = 1e-3
    config.optim.warmup = 200
    config.optim.cooldown = 60_000
    config.optim.ema_decay = 0.9995
    return config
