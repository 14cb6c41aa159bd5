"""All fields of the config to reconstruct one's own measurement (docs/reconstruct.md)."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.evaluate import add_sampler_keywords

# shipped; trained on photographs, so not tied to one anatomy
REAL, COMPLEX = "natural_small", "natural_complex_small"  # of images of either kind


def default_prior(is_complex: bool) -> str:
    """Name of the shipped prior of complex or of real images."""
    return COMPLEX if is_complex else REAL


def get_config() -> ConfigDict:
    """Config with defaults that suit most measurements; the rest is read from the files."""
    config = ConfigDict()
    # a shipped prior's name, a checkpoint, or a training run's folder; "": for k-space
    # natural_complex_small, for images that are real natural_small
    config.prior = ""
    config.prior_format = ""  # of a prior of another code base (docs/priors.md): edm, ncsnv2, ...
    config.precision = "float32"  # of the network: float32, bfloat16 or float16 (autocast)
    config.seed = 42  # seed, with each slice's key, of drawn masks and of the sampler's noise
    config.compile = False  # torch.compile the network: takes a minute, may make calls faster
    # part of the measured lines, points or views to leave out first, to see how well they are
    # predicted, beside baselines; 0: none
    config.validate = 0.0
    # a keyword of the sampler to choose by that, such as "strength=0.1,0.23,1"; "": none
    config.choose = ""
    # how the noise level is found at which pnp ends: noise (what that of the measurement is in an
    # image), or held_out (where a tenth of the measurement that is left out of up to three slices
    # is predicted best); "": held_out for sinograms, noise for k-space and images
    config.last_level = ""
    # how noisy k-space is, where sampler.sigma_y does not say it: estimated (from its quietest
    # part), or held_out (that estimate times the factor, from 1/4 to 8, with which a tenth of the
    # data, left out of up to three slices, is predicted best); "": held_out where points were
    # measured one by one, as they may leave no part without image, and along trajectories, of which
    # the model explains less; estimated where lines were
    config.noise_level = ""
    # slices, or where they are fewer slices times samples, per batch, which changes no number; 0: 4
    # on a CPU, 64 on a GPU; halved until they fit
    config.batch_size = 0
    # whether report.html is written beside the results: a page with zoom, windows, differences,
    # uncertainty and settings of up to 200 slices (python -m evaluation.report makes it later)
    config.report = True

    config.volume = volume = ConfigDict()
    # part of pnp's steps, from 0 to 1, in which the prior sees images across the slices, so that
    # slices are reconstructed together; 0: slice by slice; auto: by how alike neighbours are
    # (docs/volumes.md)
    volume.weight = "0"

    config.data = data = ConfigDict()
    # central:N, first:N, spread:N, range:A:B or range:A:B:STEP; "": all
    data.slices = ""
    # of 3-D k-space: slices or coils; "": slices in HDF5, coils in others. Of 3-D sinograms: slices
    # or views; "": slices
    data.first_axis = ""
    data.image_size = ""  # "N" or "HEIGHT,WIDTH" in pixels; "": as in the file, or all
    # k-space: .npy or BART file of the trajectory that it is along; "": the file's, or none
    data.trajectory = ""
    data.mask = ""  # k-space: .npy of the sampling mask; "": the file's mask, or from its zeros
    data.sens_maps = ""  # k-space: .npy or BART file of coil maps; "": the file's, or ESPIRiT's
    # k-space: estimated maps at each pixel, 1 or 2; None: 2 where the field of view is smaller than
    # the object, so that two points of it lie in one pixel
    data.map_sets = placeholder(int)
    data.angles = ""  # sinogram: .npy of angles in degrees; "": the file's, or equally spaced
    data.axis = ""  # NIfTI: axial, coronal or sagittal slices; "": axial
    data.window = ""  # images: "LEVEL,WIDTH" to clip to, e.g. 40,400 in Hounsfield units

    config.operator = operator = ConfigDict()
    # images: mri, ct, fan_ct or another; "": ct for DICOM files of CT, otherwise mri
    operator.name = ""
    operator.keywords = placeholder(
        str
    )  # images: arguments of operators without own fields, e.g. "factor=2"
    # MRI: undersample k-space or images with a mask of operators.masks.MASKS; "": k-space as it
    # is, images with gaussian1d
    operator.mask = ""
    operator.acceleration = placeholder(float)  # nominal acceleration of that mask; None: 4
    # fraction of lines in that mask's fully measured centre; None: 0.04
    operator.center_fraction = placeholder(float)
    # CT; lengths are in the unit of pixel_size
    operator.num_views = placeholder(int)  # images: number of simulated views; None: 30
    operator.end_angle = placeholder(float)  # degrees, not included; None: 180, fan 360
    operator.geometry = "parallel"  # or "fan"
    operator.detector = placeholder(str)  # fan: flat, or curved around the source; None: flat
    operator.pixel_size = 1.0  # pixel size of the image; values are divided by it
    operator.bin_spacing = 1.0  # distance of neighbouring detector bins, along a curved detector
    # bins from the middle of the detector to the projection of the centre of rotation; None:
    # estimated from the sinogram where it is clear, otherwise 0
    operator.centre_offset = placeholder(float)
    operator.source_distance = placeholder(float)  # fan: from source to centre of rotation
    operator.detector_distance = placeholder(float)  # fan: from centre of rotation to detector

    config.sampler = sampler = ConfigDict()
    sampler.name = ""  # a key of samplers.SAMPLERS; "": pnp for one image, warm_mmps for more
    # (warm_dds of fan beams, super-resolution and users' operators)
    sampler.num_steps = placeholder(int)  # noise levels; None: pnp 50, warm_mmps 6, most others 50
    # posterior samples per slice; the result is their mean, std, and 5 and 95 % quantiles
    sampler.num_samples = 1
    # stop before num_samples when the Monte Carlo error of the mean is this part of the std, which
    # takes part^-2 samples; None: draw all
    sampler.mean_error = placeholder(float)
    # True: for std and quantiles, multiply the samples' deviations from their mean by a factor that
    # was fitted to images of other people (evaluation/run/calibrated.py)
    sampler.calibrated = placeholder(bool)
    # standard deviation of the measurement's noise in its own unit (k-space: of real and imaginary
    # part each); None: estimated for each slice; 0: no noise, so that the data are reproduced. Not
    # used by predictor_corrector, dps and annealed_langevin's default likelihood
    sampler.sigma_y = placeholder(float)
    add_sampler_keywords(sampler)
    return config
