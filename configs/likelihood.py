"""All fields of the config for likelihoods of images under a prior (evaluation/likelihood.py)."""

from ml_collections import ConfigDict

from configs.evaluate import get_config as evaluation_config


def get_config() -> ConfigDict:
    """Config of the embedded brain slices of the test people, 64 x 64 pixels in their middle."""
    config = ConfigDict()
    config.prior = "natural_small"  # a shipped prior's name, a checkpoint, or a run's folder
    config.prior_format = ""  # of a prior of another code base (docs/priors.md): edm, ncsnv2, ...
    config.seed = 42  # with an image's key, of its dequantisation, damage and probes
    config.data = data = evaluation_config().data  # fields as in configs/evaluate.py
    data.split = "test"  # train, val or test
    config.limit = 6  # number of images, from the first; 0: all
    config.spread = False  # take the first images of as many people as there are
    config.crop = 64  # pixels a side in the middle of each image; 0: all of it
    config.damage = ""  # noise, blur, ghost, block or rows: done to images before the crop
    # grey levels: images are rounded to so many from 0 to 1 and spread evenly between them; 0: they
    # are taken as they are, and bits are those of 256 levels
    config.levels = 256
    config.num_steps = 32  # of the flow, even; some six calls a step with one probe
    config.probes = 2  # of Hutchinson's estimator; the standard error needs two or more
    config.precision = "float32"  # of the network: float32, bfloat16 or float16 (autocast)
    config.batch_size = 0  # images at a time, which changes no number; 0: 4 on a CPU, 64 on a GPU
    return config
