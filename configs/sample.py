"""All fields of the config to sample a prior without a measurement (evaluation/sample.py)."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Config of 16 images of natural_small, of the size of its training images."""
    config = ConfigDict()
    config.prior = "natural_small"  # a shipped prior's name, a checkpoint, or a run's folder
    config.prior_format = ""  # of a prior of another code base (docs/priors.md): edm, ncsnv2, ...
    config.seed = 42  # image n follows from the seed and n
    config.num_images = 16  # number of images
    config.num = placeholder(int)  # the same, shorter: replaces num_images
    config.image_size = 0  # pixels a side; 0: as in the prior's training
    config.num_steps = 100  # noise levels, of ancestral sampling a network call each
    config.precision = "float32"  # of the network: float32, bfloat16 or float16 (autocast)
    config.batch_size = 0  # images at a time, which changes no number; 0: 4 on a CPU, 64 on a GPU
    config.columns = 4  # images in a row of the picture

    config.sampler = sampler = ConfigDict()  # None: the sampler's default
    # ancestral (None, too), ancestral_vp (DDPM's chain), predictor_corrector, or probability_flow
    # (Heun's method, two network calls a level)
    sampler.name = placeholder(str)
    sampler.order = placeholder(int)  # probability_flow: 2 (Heun) or 1 (Euler)
    sampler.rho = placeholder(float)  # probability_flow: of the levels, 7
    sampler.s_churn = placeholder(float)  # probability_flow: amount of new noise, 0
    sampler.s_tmin = placeholder(float)  # probability_flow: lowest level with new noise
    sampler.s_tmax = placeholder(float)  # probability_flow: highest level with new noise
    sampler.s_noise = placeholder(float)  # probability_flow: standard deviation of new noise, 1
    # predictor_corrector: reverse_diffusion, euler_maruyama, ancestral, none
    sampler.predictor = placeholder(str)
    sampler.corrector = placeholder(str)  # predictor_corrector: langevin, none
    sampler.corrector_steps = placeholder(int)  # predictor_corrector: Langevin steps per level
    sampler.snr = placeholder(float)  # predictor_corrector: step size of the corrector
    sampler.beta_min = placeholder(float)  # ancestral_vp: of the chain, 0.1
    sampler.beta_max = placeholder(float)  # ancestral_vp: of the chain, 20

    # number of training images whose statistics stand beside those of the samples, cropped and
    # augmented as in the prior's training; 0: none
    config.compare = 0
    config.data = data = ConfigDict()  # for compare
    data.root = ""  # folder of the training images; unused by embedded data
    # images to compare with instead of those of the training, as in configs/evaluate.py: their
    # middle, of the samples' size; "samples" with the subset natural: embedded photographs
    data.name = placeholder(str)
    data.subset = placeholder(str)
    data.split = placeholder(str)  # of them; None: train
    return config
