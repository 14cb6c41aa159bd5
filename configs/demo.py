"""Demo prior, trained on photographs in two minutes on two CPU cores; used by `make demo`."""

from ml_collections import ConfigDict

from configs import base


def get_config(size: str = "1") -> ConfigDict:
    """Config of a narrow network on random crops of scikit-image's photographs.

    On two CPU cores: about 9 steps per second; the loss falls from 1 to about 0.15 per pixel.
    `size` is a key of `configs.base.ALL_SIZES`.
    """
    config = base.get_config(size)
    config.model.nf = base.narrowed(config.model.nf, 24)
    config.model.num_res_blocks = 1
    # noise of 5 hides images in [0, 1] completely; larger levels would only cost steps
    config.sde.sigma_max = 5.0
    config.data.name = "samples"
    config.data.subset = "natural"
    config.data.image_size = 0
    config.data.crop = 64
    config.data.flip = True
    config.data.rotate = True
    config.data.cache = "memory"
    config.data.num_workers = 0
    config.training.batch_size = 8
    config.training.num_steps = 700
    config.training.log_every = 10
    config.training.checkpoint_every = 100
    config.training.keep_checkpoints = 1
    config.training.validate_every = 350
    config.training.validation_bins = 5
    config.training.sample_every = 700
    config.training.sample_steps = 50
    config.optim.lr = 2e-3
    config.optim.warmup = 20
    config.optim.ema_decay = 0.99
    return config
