"""Fields of an evaluation config that have no effect with the other values."""

from ml_collections import ConfigDict

from datasets import idle_fields as idle_data
from evaluation.baselines import BASELINES
from operators.create import fields_of

ALWAYS = ("name", "keywords")
UNSEEDED = ("regular", "radial", "radial_golden", "outer")  # masks without random numbers


def idle_fields(config: ConfigDict) -> dict[str, str]:
    """Fields of a config that have no effect with its other values, with the reasons.

    Args:
        config: a config with the fields of configs/evaluate.py or configs/unet.py.

    Returns:
        Dotted name -> reason.
    """
    found = idle_data(config.data)
    o = config.operator
    known = [*ALWAYS, *fields_of(o.name)]
    found |= {f"operator.{name}": f"operator.name is {o.name}" for name in o if name not in known}
    if "mask" in known:
        if o.num_spokes is not None:
            found["operator.acceleration"] = "operator.num_spokes is given"
        if o.mask == "outer":
            found["operator.acceleration"] = "operator.mask is outer"
        if o.mask in UNSEEDED:
            found["operator.mask_per_slice"] = f"{o.mask} masks are all the same"
    with_coils = o.name == "multicoil_mri" and config.data.mode == "multicoil"
    if with_coils:
        found["operator.coils"] = "the data set has coils of its own"
    elif "target" in config:
        found["target"] = "there are no measured coils; the target is the image"
    sampler = config.get("sampler")
    if sampler is not None and sampler.name in BASELINES:
        names = ("prior", "prior_format", "depth", "averaged", "precision", "compile")
        names += ("sampler.num_steps", "sampler.num_samples")
        found |= dict.fromkeys(names, f"{sampler.name} is a baseline without a prior")
    return found
