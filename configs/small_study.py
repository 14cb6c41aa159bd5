"""The study in small: twelve priors for CPUs, on three kinds of images and in four sizes.

docs/small_study.md explains the choices.
"""

from ml_collections import ConfigDict

from configs import base

SIZES = ("1", "2", "4", "4_attention")
# prior -> fields of config.data. Whole bodies have 128 pixels; photographs are scaled to half to
# full resolution, which gives about as much fine detail per pixel.
PRIORS = {
    "natural": {"subset": "natural", "image_size": 0, "shrink": 0.5},
    "brain": {"subset": "brain", "image_size": 128, "fit": "resize"},
    "chest": {"subset": "ct", "image_size": 128},
}
NAMES = tuple(f"{prior}_{size}" for size in SIZES for prior in PRIORS)


def get_config(name: str = "natural_1") -> ConfigDict:
    """Config of one prior of the small study.

    All priors are optimised alike. On one CPU core, 2500 steps take 2 to 7 minutes, depending on
    the size.

    Args:
        name: one of `NAMES`, such as natural_4_attention: the images, and a size of
            configs/base.py.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in NAMES:
        raise ValueError(f"expected a prior out of {', '.join(NAMES)}, got {name!r}")
    prior, _, size = name.partition("_")
    config = base.get_config(size)
    config.model.nf = 16
    config.model.num_res_blocks = 1
    config.sde.sigma_max = 5.0  # hides images in [0, 1] completely, see configs/demo.py
    config.data.name = "samples"
    config.data.update(PRIORS[prior])
    config.data.crop = 48
    config.data.flip = True
    config.data.rotate = True
    config.data.cache = "memory"
    config.data.num_workers = 0
    config.training.batch_size = 8
    config.training.num_steps = 2_500
    config.training.precision = "bfloat16"
    config.training.log_every = 50
    config.training.checkpoint_every = 250
    config.training.keep_checkpoints = 1
    config.training.validate_every = config.training.num_steps
    config.training.validation_images = 8
    config.training.validation_bins = 4
    config.training.sample_every = 0
    config.optim.lr = 1e-3
    config.optim.warmup = 50
    config.optim.cooldown = 800
    config.optim.ema_decay = 0.995
    return config
