"""All fields of the config to sample a prior without a measurement (evaluation/sample.py)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Config of 16 images of natural_small, of the size of its training images."""
    config = ConfigDict()
    config.prior = "natural_small"  # a shipped prior's name, a checkpoint, or a run's folder
    config.prior_format = ""  # of a prior of another code base (docs/priors.md): edm, ncsnv2, ...
    config.seed = 42  # image n follows from the seed and n
    config.num_images = 16  # number of images
    config.image_size = 0  # pixels a side; 0: as in the prior's training
    config.num_steps = 100  # noise levels, a network call each
    config.precision = "float32"  # of the network: float32, bfloat16 or float16 (autocast)
    config.batch_size = 0  # images at a time, which changes no number; 0: 4 on a CPU, 64 on a GPU
    config.columns = 4  # images in a row of the picture
    # number of training images whose statistics stand beside those of the samples, cropped and
    # augmented as in the prior's training; 0: none
    config.compare = 0
    config.data = data = ConfigDict()
    data.root = ""  # folder of the training images, for compare; unused by embedded data
    return config
