"""All fields of an evaluation config: prior, data, measurement and sampler."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.published import SETTINGS


def get_config(setting: str = "") -> ConfigDict:
    """Config of the study's first cell: gaussian1d 4x, predictor-corrector with 500 levels.

    Args:
        setting: a key of configs/published.py, whose fields replace those; given on the command
            line as ``--config=configs/evaluate.py:SETTING``.

    Raises:
        ValueError: the setting is unknown.
    """
    if setting and setting not in SETTINGS:
        raise ValueError(f"expected a setting out of {', '.join(SETTINGS)}, got {setting!r}")
    config = _default()
    config.update_from_flattened_dict(SETTINGS.get(setting, {}))
    return config


def _default() -> ConfigDict:
    config = ConfigDict()
    config.seed = 42  # seed of the mask and, with each slice's key, of the sampler's noise
    # or "study", "study2026": the original code's deviations (docs/protocols.md)
    config.protocol = "correct"
    config.prior = ""  # a shipped prior's name, a checkpoint, or a training run's folder
    # of a prior of another code base: score_sde, ncsnv2, guided_diffusion, edm, diffusers, or
    # module:function of your own Python (docs/priors.md); "": a prior of this project
    config.prior_format = ""
    config.depth = placeholder(int)  # of a nested prior (docs/sizes.md); None: full depth
    config.averaged = placeholder(bool)  # the prior's averaged weights; None: True, or protocol's
    config.clamp = placeholder(bool)  # clamp images to [0, 1]; None: False, or the protocol's
    config.precision = "float32"  # of the network: float32, bfloat16 or float16 (autocast)
    config.compile = False  # torch.compile the network: takes a minute, may make calls faster
    # slices, or where they are fewer slices times samples, per batch, which changes no number; 0: 4
    # on a CPU, 64 on a GPU; halved until they fit
    config.batch_size = 0
    config.limit = 0  # number of slices, from the first; 0: all
    config.spread = placeholder(bool)  # take the first slices of as many people as there are
    config.panels = 8  # number of slices that get a PNG; -1: all

    # what reconstructions of measured coils are compared with: mvue (None, too), rss or sense
    config.target = placeholder(str)

    config.data = data = ConfigDict()  # fields as in configs/base.py
    data.name = "samples"  # a key of datasets.DATASETS; samples: the embedded slices
    data.root = ""
    data.subset = ""  # samples: brain (also ""), ct or natural; lodopab, celeba_hq: first:N
    data.split = "test"  # train, val or test
    data.image_size = 0  # pixels per side; 0: as stored
    data.acquisition = ""
    data.mode = "magnitude"
    data.slices = ""
    data.upside_down = placeholder(bool)
    data.axis = ""
    data.window = ""
    data.percentiles = ""
    data.fit = ""
    data.normalize = "slice"
    data.split_list = ""
    data.split_seed = 0
    data.skip_bad = False  # skip bad slices instead of recording them as failures
    data.cache = "none"
    data.cache_dir = ""

    config.operator = operator = ConfigDict()
    # mri, multicoil_mri, ct, fan_ct, or another operator that operators.create can simulate
    operator.name = "mri"
    # arguments of operators without fields of their own, e.g. "factor=2"
    operator.keywords = placeholder(str)
    operator.coils = placeholder(int)  # multicoil_mri: number of simulated coils; None: 8
    # multicoil_mri: "espirit" (None, too) estimates coil maps from the undersampled k-space, as one
    # who measures has to; "known" takes those of the simulation, or of the data set
    operator.maps = placeholder(str)
    operator.mask = "gaussian1d"  # mri: a key of operators.masks.MASKS
    operator.acceleration = 4.0  # mri: nominal; the effective one is reported
    operator.num_spokes = placeholder(int)  # radial, radial_golden: instead of the acceleration
    operator.center_fraction = 0.04  # mri: fraction of lines in the fully measured centre
    operator.mask_per_slice = False  # mri: draw a different mask for each slice
    operator.num_views = 30  # ct (parallel beam), fan_ct: equally spaced from 0 degrees
    # ct, fan_ct: degrees, not included; None: 180 and 360. Less is a limited angle, or a short scan
    # of a fan beam
    operator.end_angle = placeholder(float)

    config.noise = noise = ConfigDict()  # of the measurement; None everywhere: there is none
    # standard deviation of white noise, of real and imaginary part each, where images have a peak
    # of 1; in CT that of line integrals of value times pixels
    noise.sigma = placeholder(float)
    noise.snr_db = placeholder(float)  # instead of sigma: 20 log10(|A x| / |noise|)
    noise.photons = placeholder(float)  # ct, instead of sigma: mean count of a ray that meets air
    noise.electronic = placeholder(float)  # with photons: std of the detector's noise in counts
    # with photons: line integral of an image of ones across its width, in nepers; None: 15
    noise.attenuation = placeholder(float)
    # with photons: weight rays by what their counts say of their noise, for all methods; None: True
    noise.weights = placeholder(bool)
    # ct: simulate line integrals on a grid of half the spacing, so that no method has the very
    # model that made its data ("inverse crime"); None: False
    noise.fine = placeholder(bool)

    config.sampler = sampler = ConfigDict()
    sampler.name = "predictor_corrector"  # a key of samplers.SAMPLERS, or a baseline
    sampler.num_steps = 500  # noise levels
    # posterior samples per slice: metrics are of their mean; std and quantiles are stored
    sampler.num_samples = 1
    # stop before num_samples when the Monte Carlo error of the mean is this part of the std, which
    # takes part^-2 samples; None: draw all
    sampler.mean_error = placeholder(float)
    # True: for std and quantiles, multiply the samples' deviations from their mean by a factor that
    # was fitted to images of other people (evaluation/run/calibrated.py)
    sampler.calibrated = placeholder(bool)
    add_sampler_keywords(sampler)
    # noise std that samplers assume: dds, diffpir, pnp, annealed_langevin with likelihood gaussian;
    # None: that of the measurement
    sampler.sigma_y = placeholder(float)
    # keywords of baselines; `weight` is that of the penalty, in units of |A|^2 (docs/baselines.md)
    sampler.smoothing = placeholder(float)  # tv: gradient per pixel below which the image is flat
    sampler.num_iterations = placeholder(int)  # tv: exactly so many; None: until converged
    sampler.max_iterations = placeholder(int)  # tv, l1_wavelet, cg_sense
    sampler.wavelet = placeholder(str)  # l1_wavelet: PyWavelets' name, e.g. db4
    sampler.checkpoint = placeholder(str)  # unet: a run's folder, or published weights
    return config


def add_sampler_keywords(sampler: ConfigDict) -> None:
    """Add the keywords of single samplers; None selects the default of sampler or protocol."""
    sampler.weight = placeholder(float)  # pc: lambda of the data consistency
    sampler.snr = placeholder(float)  # pc: step size of the corrector
    sampler.corrector_steps = placeholder(int)  # pc: Langevin steps per level
    sampler.predictor = placeholder(str)  # pc: reverse_diffusion, euler_maruyama, ancestral, none
    sampler.corrector = placeholder(str)  # pc: langevin, none
    sampler.final = placeholder(str)  # pc: mean, sample or study
    # pc: prior, residual or noise; dps: initial or unit_noise; tv with num_iterations: direct or
    # back_projection
    sampler.start = placeholder(str)
    sampler.start_level = placeholder(int)  # pc: warm start from zero-filled / FBP at level N' of N
    sampler.start_sigma = placeholder(float)  # pc: warm start at this level; others: first level
    sampler.end_sigma = placeholder(float)  # dds, diffpir, pnp, dps: last level
    sampler.eta = placeholder(float)  # dds: fraction of new noise
    sampler.ancestral = placeholder(bool)  # dds: new noise of the exact step back, instead of eta
    sampler.old_noise = placeholder(str)  # dds, eta < 1: network (the paper's) or data; None: both
    sampler.point_steps = placeholder(int)  # warm_dds, warm_mmps: calls of the first image
    sampler.zeta = placeholder(float)  # diffpir: fraction of new noise
    sampler.momentum = placeholder(float)  # pnp: extrapolation, the same in all steps
    sampler.turns = placeholder(bool)  # pnp: alternate between eight orientations
    sampler.strength = placeholder(float)  # diffpir, pnp, red_diff: lambda
    sampler.cg_steps = placeholder(int)  # dds, diffpir, pnp, pula, ...: iterations of the data step
    sampler.misfit = placeholder(str)  # dps: norm, squared
    sampler.renoise = placeholder(bool)  # dps: all noise of a step is new
    sampler.study_skips = placeholder(int)  # dps, langevin: levels of the study, 2024 or 2026
    sampler.step = placeholder(float)  # dps, pula, red_diff: length of the gradient step
    sampler.max_products = placeholder(int)  # mmps, moment_gibbs, ...: Jacobian products, at most
    sampler.ridge = placeholder(float)  # mmps, moment_gibbs, ...: variances left to lower levels
    # mmps, moment_gibbs, ...: iterations of the preconditioner, which take no product
    sampler.precondition_steps = placeholder(int)
    sampler.start_steps = placeholder(int)  # moment_gibbs: levels of mmps, from which it starts
    sampler.overrelaxation = placeholder(float)  # moment_gibbs: of z, from sweep to sweep
    sampler.particles = placeholder(int)  # moment_gibbs: chains a sample, for distant modes
    sampler.widest = placeholder(float)  # moment_gibbs: first coupling over the last
    sampler.step_scale = placeholder(float)  # langevin: eta at sigma_min; None: half sigma_min^2
    # dds, diffpir, daps: 2 for Heun's step of the probability flow, 1 for Euler's
    sampler.order = placeholder(int)
    sampler.inner_steps = placeholder(int)  # langevin, pula, split_gibbs, ...: calls per level
    sampler.data_weight = placeholder(float)  # langevin: length of the data step
    sampler.likelihood = placeholder(str)  # langevin: norm_ratio, gaussian
    sampler.tolerance = placeholder(float)  # pnp, mmps, tv, l1_wavelet, cg_sense: when to stop
