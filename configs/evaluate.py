"""Every field of an evaluation: a prior, data, a measurement, a sampler."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The study's first cell: gaussian1d 4x, predictor-corrector with 500 levels."""
    config = ConfigDict()
    config.seed = 42  # it fixes the mask and, with each slice's key, sampler noise
    config.protocol = "correct"  # or "study": the original code's deviations (docs/protocols.md)
    config.prior = ""  # a shipped prior's name, a checkpoint, or a training run's folder
    config.precision = "float32"  # of the network: float32, bfloat16 or float16 (autocast)
    config.compile = False  # torch.compile the network: a minute first, perhaps faster calls then
    # slices at a time, never changes a number; 0: 4 on a CPU, on a GPU 64; halved until they fit
    config.batch_size = 0
    config.limit = 0  # only the first slices; 0: all
    config.panels = 8  # how many slices get a PNG; -1: all

    config.data = data = ConfigDict()  # fields as in configs/base.py
    data.name = "samples"  # a key of datasets.DATASETS; samples: the embedded slices
    data.root = ""
    data.subset = ""  # samples: brain (also ""), head_ct or natural
    data.split = "test"  # train, val or test
    data.image_size = 0  # pixels a side; 0: as stored
    data.acquisition = ""
    data.mode = "magnitude"
    data.slices = ""
    data.axis = ""
    data.window = ""
    data.percentiles = ""
    data.fit = ""
    data.normalize = "slice"
    data.split_list = ""
    data.split_seed = 0
    data.skip_bad = False  # leave out bad slices instead of recording them as failures
    data.cache = "none"
    data.cache_dir = ""

    config.operator = operator = ConfigDict()
    operator.name = "mri"  # or "ct", or another that can be simulated: operators.create
    operator.keywords = ""  # of an operator without fields of its own here, such as "factor=2"
    operator.mask = "gaussian1d"  # mri: a key of operators.masks.MASKS
    operator.acceleration = 4.0  # mri: nominal; the effective one is reported
    operator.num_spokes = placeholder(int)  # radial, radial_golden: instead of the acceleration
    operator.center_fraction = 0.04  # mri: of the lines, fully measured
    operator.mask_per_slice = False  # mri: a mask of its own for each slice
    operator.num_views = 30  # ct, parallel beam: equally spaced from 0 degrees
    operator.end_angle = 180.0  # ct: degrees, not included; below 180: limited angle

    config.sampler = sampler = ConfigDict()
    sampler.name = "predictor_corrector"  # a key of samplers.SAMPLERS, or a baseline
    sampler.num_steps = 500  # noise levels
    sampler.num_samples = 1  # posterior samples a slice: their mean is measured, std kept
    add_sampler_keywords(sampler)
    # noise that the measurements are taken to have, though they are simulated without any: dds,
    # diffpir, pnp, annealed_langevin with likelihood gaussian; None: 0
    sampler.sigma_y = placeholder(float)
    # keywords of baselines; `weight` is the penalty's, in units of |A|^2 (docs/baselines.md)
    sampler.smoothing = placeholder(float)  # tv: gradients below it are flat, a pixel
    sampler.num_iterations = placeholder(int)  # tv: exactly so many; None: until converged
    sampler.max_iterations = placeholder(int)  # tv, l1_wavelet, cg_sense
    sampler.wavelet = placeholder(str)  # l1_wavelet: PyWavelets' name, e.g. db4
    sampler.checkpoint = placeholder(str)  # unet: a run's folder, or published weights
    return config


def add_sampler_keywords(sampler: ConfigDict) -> None:
    """Keywords of single samplers; None: the sampler's own default, or the study's protocol's."""
    sampler.weight = placeholder(float)  # pc: lambda of the data consistency
    sampler.snr = placeholder(float)  # pc: step size of the corrector
    sampler.corrector_steps = placeholder(int)  # pc: Langevin steps a level
    sampler.predictor = placeholder(str)  # pc: reverse_diffusion, euler_maruyama, none
    sampler.corrector = placeholder(str)  # pc: langevin, none
    sampler.final = placeholder(str)  # pc: mean, sample or study
    sampler.start_level = placeholder(int)  # pc: warm start from zero-filled / FBP at level N' of N
    sampler.start_sigma = placeholder(float)  # pc: the same by noise level; others: first level
    sampler.end_sigma = placeholder(float)  # dds, diffpir, pnp, dps: last level
    sampler.eta = placeholder(float)  # dds: part of new noise
    sampler.old_noise = placeholder(str)  # dds, eta < 1: network (the paper's) or data; None: both
    sampler.zeta = placeholder(float)  # diffpir: part of new noise
    sampler.momentum = placeholder(float)  # pnp: extrapolation, the same in all steps
    sampler.turns = placeholder(bool)  # pnp: eight positions in turn
    sampler.strength = placeholder(float)  # diffpir, pnp: lambda of the data step
    sampler.cg_steps = placeholder(int)  # dds, diffpir, pnp: iterations of the data step
    sampler.step = placeholder(float)  # dps: length of the gradient step; None: by num_steps
    sampler.step_scale = placeholder(float)  # langevin: eta at sigma_min; None: half sigma_min^2
    sampler.inner_steps = placeholder(int)  # langevin: steps a level
    sampler.data_weight = placeholder(float)  # langevin: length of the data step
    sampler.likelihood = placeholder(str)  # langevin: norm_ratio, gaussian
    sampler.tolerance = placeholder(float)  # pnp, tv, l1_wavelet, cg_sense: when to stop
