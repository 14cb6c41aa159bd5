"""Every field of a reconstruction of a user's own measurement (docs/reconstruct.md)."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.evaluate import add_sampler_keywords

PRIOR = "natural_small"  # shipped; of photographs, so of no one anatomy


def get_config() -> ConfigDict:
    """What suits most measurements; files say the rest."""
    config = ConfigDict()
    config.prior = PRIOR  # a shipped prior's name, a checkpoint, or a training run's folder
    config.precision = "float32"  # of the network: float32, bfloat16 or float16 (autocast)
    config.seed = 42  # with each slice's key it fixes mask (where drawn) and sampler noise
    config.compile = False  # torch.compile the network: a minute first, perhaps faster calls then
    # slices at a time, never changes a number; 0: 4 on a CPU, on a GPU 64; halved until they fit
    config.batch_size = 0

    config.data = data = ConfigDict()
    data.slices = ""  # central:N, first:N, range:A:B; "": all
    data.first_axis = ""  # of 3-D k-space: slices or coils; "": slices in HDF5, coils in npy, npz
    data.image_size = ""  # "N" or "HEIGHT,WIDTH" in pixels; "": what the file says, or all
    data.mask = ""  # k-space: .npy of what was measured; "": the file's mask, or its zeros
    data.sens_maps = ""  # k-space: .npy of coil maps; "": the file's, or ESPIRiT's
    data.angles = ""  # sinogram: .npy of degrees; "": the file's, or equally spaced
    data.axis = ""  # NIfTI: axial, coronal or sagittal slices; "": axial
    data.window = ""  # images: "LEVEL,WIDTH" to clip to, e.g. 40,400 in Hounsfield units

    config.operator = operator = ConfigDict()
    operator.name = ""  # images: mri, ct or another; "": ct where DICOM says CT, else mri
    operator.keywords = ""  # images: of an operator without fields of its own, such as "factor=2"
    # MRI: undersample k-space or images with a mask of operators.masks.MASKS; "": k-space as it
    # is, images with gaussian1d
    operator.mask = ""
    operator.acceleration = placeholder(float)  # of that mask, nominal; None: 4
    # of that mask's lines, fully measured; None: 0.04
    operator.center_fraction = placeholder(float)
    # CT; lengths of sinograms in the unit of pixel_size
    operator.num_views = placeholder(int)  # images: how many views are simulated; None: 30
    operator.end_angle = placeholder(float)  # degrees, not included; 180, fan 360
    operator.geometry = "parallel"  # or "fan": flat detector
    operator.pixel_size = 1.0  # of the image; values are divided by it
    operator.bin_spacing = 1.0  # of neighbouring detector bins
    # bins from the detector's middle to where the centre of rotation projects; None: as the
    # sinogram says where it is clear, else 0
    operator.centre_offset = placeholder(float)
    operator.source_distance = placeholder(float)  # fan: source to centre of rotation
    operator.detector_distance = placeholder(float)  # fan: centre of rotation to detector

    config.sampler = sampler = ConfigDict()
    sampler.name = ""  # a key of samplers.SAMPLERS; "": pnp for one image, dds for several samples
    sampler.num_steps = placeholder(int)  # noise levels; pnp and dds 50, see docs/reconstruct.md
    sampler.num_samples = 1  # posterior samples a slice; their mean and deviation are the result
    # standard deviation of the measurement's noise in its own unit (k-space: of real and imaginary
    # part each); None: estimated from each slice, 0: none, the data are kept as they are. Unused by
    # predictor_corrector, dps and annealed_langevin's default likelihood
    sampler.sigma_y = placeholder(float)
    add_sampler_keywords(sampler)
    return config
