"""U-Net baseline for the embedded brain slices, small enough to train on two CPU cores.

    python -m evaluation.train_unet --config=configs/unet.py --workdir=runs/unet

`data` and `operator` have the fields of configs/evaluate.py, so that the network is trained for the
measurement that is evaluated. fastMRI's published knee baseline has model.chans=256 and
model.num_pool_layers=4, and was trained for 50 epochs with a learning rate of 1e-3, divided by 10
after 40 epochs.
"""

from ml_collections import ConfigDict

from configs import evaluate


def get_config() -> ConfigDict:
    """Config with data, measurement and seed of configs/evaluate.py, and a narrow network."""
    config = evaluate.get_config()
    for name in set(config) - {"seed", "protocol", "data", "operator"}:
        del config[name]
    del config.data.split  # training uses train, validation val
    config.data.flip = False  # random horizontal and vertical flips
    config.data.num_workers = 0  # loader processes
    config.data.cache = "memory"

    config.model = model = ConfigDict()
    model.chans = 16  # channels at full resolution
    model.num_pool_layers = 3  # halvings of the resolution

    config.training = training = ConfigDict()
    training.batch_size = 1  # images per step
    training.num_steps = 600  # optimiser steps
    training.log_every = 20  # steps between rows of the log
    training.checkpoint_every = 100  # steps
    training.keep_checkpoints = 1  # number of newest checkpoints to keep
    training.validate_every = 100  # steps between errors on the validation slices; 0: never

    config.optim = optim = ConfigDict()  # RMSprop
    optim.lr = 1e-3
    optim.decay_at = 0.8  # fraction of the steps after which the learning rate is divided by 10
    return config
