"""All fields of a training config, with their units and meanings; values are the study's."""

from typing import NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

WIDTH = 128  # channels at full resolution, of all but the controls


class Size(NamedTuple):
    """Size of a network: the fields of `config.model` that differ between sizes."""

    ch_mult: tuple[int, ...]
    attention: bool = False
    nf: int = WIDTH
    num_res_blocks: int = 4


# the study's five sizes: from a ResNet to an attention U-Net
SIZES = {
    "1": Size((1,)),
    "2": Size((1, 2)),
    "3": Size((1, 2, 2)),
    "4": Size((1, 2, 2, 2)),
    "4_attention": Size((1, 2, 2, 2), attention=True),
}
# those of 2026, which tell the number of parameters from the receptive field (docs/sizes.md)
CONTROLS = {
    "1_small": Size((1,), nf=32, num_res_blocks=1),
    "1_large": Size((1,), nf=448),
    "4_small": Size((1, 2, 2, 2), nf=40),
    "1_attention": Size((1,), attention=True),
}
ALL_SIZES = SIZES | CONTROLS
# networks whose depth is chosen at each call: part of the levels, ends of each depth's own
NESTED = {
    "mrncsn": ("finest", True),
    "msncsn": ("coarsest", True),
    "structured": ("finest", False),
}
NESTED_LEVELS = 4


def get_config(size: str = "1") -> ConfigDict:
    """Training config with the fields that all data sets share.

    Args:
        size: a key of `ALL_SIZES` or `NESTED`; given on the command line as
            ``--config=configs/NAME.py:SIZE``.

    Raises:
        ValueError: the size is unknown.
    """
    if size not in ALL_SIZES | NESTED:
        known = list(ALL_SIZES | NESTED)
        raise ValueError(f"expected a model size out of {known}, got {size!r}")
    config = _shared()
    if size in NESTED:
        _nest(config.model, *NESTED[size])
    else:
        config.model.update(ALL_SIZES[size]._asdict())
    return config


def narrowed(nf: int, full: int) -> int:
    """Channels of a size in a family of networks whose size 1 has `full` instead of 128.

    A multiple of 4, as GroupNorm needs: the ratio of a control is kept as far as that allows.
    """
    return max(4, 4 * round(nf * full / WIDTH / 4))


def _nest(model: ConfigDict, part: str, own_ends: bool) -> None:
    """Make `config.model` that of a nested network."""
    del model.ch_mult, model.attention
    model.name = "nested_ncsnpp"
    model.num_levels = NESTED_LEVELS  # largest depth; all levels have nf channels
    model.part = part  # levels of depth d: the finest or the coarsest d
    model.own_ends = own_ends  # a first and a last convolution for each depth


def _shared() -> ConfigDict:
    """The config of size 1."""
    config = ConfigDict()
    config.seed = 42  # seed of all random numbers
    # or "study", "study2026": the original code's deviations (docs/protocols.md)
    config.protocol = "correct"

    config.model = model = ConfigDict()
    model.name = "ncsnpp"  # a key of models.NETWORKS; the other fields are its keywords
    model.nf = WIDTH  # channels at full resolution
    model.ch_mult = (1,)  # channel multiplier of each level; its length is the depth
    model.num_res_blocks = 4  # residual blocks per level
    model.attention = False  # one self-attention block at the bottleneck
    model.fourier_scale = 16.0  # standard deviation of the frequencies that embed log sigma
    model.dropout = 0.0  # probability
    model.num_channels = 1  # 1: grey images; 2: complex ones, real and imaginary part
    # largest number of groups of GroupNorm in residual blocks; None: 32; the study of 2026: 4
    model.max_groups = placeholder(int)

    config.sde = sde = ConfigDict()
    sde.name = "ve"  # or "vp", "subvp" (Song et al. 2021): how often training sees which level
    sde.sigma_min = 0.01  # ve: smallest noise level; images lie in [0, 1]
    sde.sigma_max = 378.0  # ve: largest noise level
    sde.beta_min = 0.1  # vp, subvp: beta(0)
    sde.beta_max = 20.0  # vp, subvp: beta(1)
    # "edm": inputs, outputs and loss scaled as by Karras et al. (2022); "": as the SDE's authors do
    sde.precondition = ""

    config.data = data = ConfigDict()
    data.name = ""  # a key of datasets.DATASETS
    data.root = ""  # folder of the download; unused by embedded data
    data.subset = ""  # part of the data set, see its file in datasets/
    data.image_size = 320  # pixels per side; 0: as stored
    data.acquisition = ""  # fastMRI's attribute, e.g. CORPD_FBK; "": all
    data.mode = "magnitude"  # fastMRI: or "complex", "multicoil", computed from k-space
    # of each volume: central:15, first:5, range:20:60, range:34:94:2, spread:4; "": all
    data.slices = ""
    data.upside_down = placeholder(bool)  # fastmri: reverse the rows; None: False
    data.axis = ""  # volume: axial, coronal or sagittal; "": axial
    data.window = ""  # rsna_head, volume: "LEVEL,WIDTH" to clip to, in Hounsfield units
    data.percentiles = ""  # volume: "LOW,HIGH" of its values to clip to, e.g. "1,99"
    # image_folder, volume: make square by resize, crop or pad; "": the data set's default; the
    # embedded brain: resize, or "" to crop
    data.fit = ""
    data.normalize = "slice"  # scale to [0, 1] over each "slice" or over its "volume"
    data.split_list = ""  # text file, one name per line, {split} in its path; "": make a split
    data.split_seed = 0  # seed of the split that is made if the data come without one
    data.skip_bad = False  # skip bad files and slices, logged and counted, instead of stopping
    data.crop = 0  # pixels: random crops of this size instead of whole images; 0: off
    data.shrink = 1.0  # with crop: first scale by a random factor in [shrink, 1]; 1: off
    data.flip = False  # random horizontal and vertical flips
    data.rotate = False  # random rotations by multiples of 90 degrees
    data.gamma = 0.0  # random contrast: exponent from e^-gamma to e^gamma; 0: off
    data.invert = 0.0  # probability of inverted intensities; 0: off
    data.shading = 0.0  # smooth random shading, factors from e^-shading to e^shading; 0: off
    data.background = 0.0  # probability of an empty background outside a random outline; 0: off
    data.phase = 0.0  # smooth random phase up to so many radians, for model.num_channels 2; 0: off
    data.cache = "none"  # or "memory", "disk": decode each image once (disk: once for all runs)
    data.cache_dir = ""  # for "disk" and coil maps; "": score-priors in the user's cache folder
    data.num_workers = 4  # loader processes

    config.training = training = ConfigDict()
    training.batch_size = 1  # images per step, over all processes
    training.accumulation = 1  # number of pieces in which each process computes its batch
    training.num_steps = 2_500_000  # optimiser steps
    training.shuffle = True  # a new order each epoch
    training.init = ""  # start from a prior's weights: its name, run or file; "": random weights
    training.levels = "sde"  # at uniform times; or "log_normal": as by Karras et al. (2022)
    training.level_mean = -1.2  # log_normal: mean of log sigma, for images in [-1, 1]
    training.level_std = 1.2  # log_normal: standard deviation of log sigma
    training.weight_sigma = 0.0  # weight of the loss: 1 + sigma / this; 0: weight 1 as in the study
    training.log_every = 100  # steps between rows of the log
    training.checkpoint_every = 5_000  # steps
    training.keep_checkpoints = 3  # number of newest checkpoints to keep
    training.max_bad_steps = 10  # stop after so many steps in a row without a finite loss
    training.validate_every = 5_000  # steps between losses on held-out images; 0: never
    training.validation_images = 32  # held-out images
    training.validation_bins = 8  # bins of noise levels, equally wide in log sigma
    training.sample_every = 50_000  # steps between pictures sampled from the prior; 0: never
    training.sample_images = 4  # pictures
    training.sample_steps = 200  # noise levels of the ancestral sampler, at least 2
    # steps between reconstructions of held-out images by pnp, with PSNR beside TV's; 0: never
    training.reconstruct_every = 0
    training.reconstruct_images = 4  # held-out images
    training.reconstruct_steps = 20  # network calls for each, at least 2
    training.reconstruct_from = "mri"  # gaussian1d 4x; or "ct", 30 views, or "mri,ct"
    # how to compute; "auto" means on with a GPU, off without (docs/performance.md)
    training.precision = "float32"  # or "bfloat16": autocast; weights and loss stay float32
    training.channels_last = "auto"  # or "on", "off": memory layout of images and features
    training.compile = "auto"  # or "on", "off": torch.compile
    training.tf32 = True  # TF32 (19-bit) products in a GPU's float32 convolutions
    training.cudnn_benchmark = True  # choose a GPU's convolution algorithms by timing them

    config.optim = optim = ConfigDict()  # Adam
    optim.lr = 2e-4  # learning rate
    optim.beta1 = 0.9  # decay rate of the mean gradient
    optim.beta2 = 0.999  # decay rate of the mean squared gradient
    optim.eps = 1e-8  # added to the root of the squared gradient
    optim.warmup = 5_000  # steps of linear growth of the learning rate
    optim.cooldown = 0  # number of last steps with linear decay to 0; 0: constant
    optim.grad_clip = 1.0  # largest norm of the gradient
    optim.ema_decay = 0.999  # decay of the averaged weights, which sampling uses
    return config
