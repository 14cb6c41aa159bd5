"""The study in small: priors for CPUs, of four sets of images, at the sizes of 2026 made narrow.

docs/small_study.md explains the choices.
"""

import re

from ml_collections import ConfigDict

from configs import base

WIDTH = 16  # channels of size 1, in place of 128; those of the others in proportion
BLOCKS = 2  # residual blocks a level of all sizes but 1_small, in place of 4
SIDE = 96  # pixels of all images
IMAGES = 98  # training images of each prior but photos: as many as there are of chest CT
INPUTS = "results/small_study/inputs"
# prior -> fields of config.data; photos differ from natural in their number
PHOTOGRAPHS = {"image_size": 0, "shrink": 0.5}
PRIORS = {"natural": PHOTOGRAPHS, "brain": {}, "chest": {}, "photos": PHOTOGRAPHS}

CORNERS = ("1", "4")  # of the 2 x 2: few parameters and a narrow field, many and a wide one
TABLE = ("1", "1_large", "4_small", "4")
SIZES = ("1_small", *TABLE, "4_attention")
# for question 8: a nested network, and the network that it is at full depth
NESTED, FLAT = "structured", "4_flat"
NAME = re.compile(
    rf"(?P<prior>{'|'.join(PRIORS)})_(?P<size>{'|'.join([*SIZES, NESTED, FLAT])})_s(?P<seed>[0-9]+)"
)
NETWORK_FIELDS = {"max_groups": 4, "num_res_blocks": BLOCKS}
TRAINING_FIELDS = {
    "training.batch_size": 4,
    "training.num_steps": 2_500,
    "training.precision": "bfloat16",
    "optim.lr": 1e-3,
    "optim.warmup": 50,
    "optim.cooldown": 1_000,
    "optim.ema_decay": 0.995,
    "sde.sigma_max": 5.0,  # hides images in [0, 1] completely, see configs/demo.py
    "data.flip": True,
    "data.rotate": True,
}


def model_fields(size: str) -> dict:
    """Fields of `config.model` of a size: a key of `configs.base.ALL_SIZES`, `NESTED` or `FLAT`."""
    if size == NESTED:
        return {"nf": WIDTH} | NETWORK_FIELDS
    if size == FLAT:
        return {"nf": WIDTH, "ch_mult": (1, 1, 1, 1)} | NETWORK_FIELDS
    found = base.ALL_SIZES[size]
    fields = found._asdict() | NETWORK_FIELDS | {"nf": found.nf * WIDTH // base.WIDTH}
    if found.num_res_blocks == 1:
        fields["num_res_blocks"] = 1
    return fields


def get_config(name: str = "natural_1_s0") -> ConfigDict:
    """Config of one training of the small study.

    All are optimised alike. One core of an AMD EPYC takes 2 to 20 minutes, by size.

    Args:
        name: PRIOR_SIZE_sSEED, such as natural_4_attention_s0: a key of `PRIORS`, one of `SIZES`,
            structured or 4_flat, and the seed.

    Raises:
        ValueError: the name is unknown.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise ValueError(
            f"expected PRIOR_SIZE_sSEED with a prior out of {', '.join(PRIORS)} and a size out of "
            f"{', '.join([*SIZES, NESTED, FLAT])}, such as natural_1_s0, got {name!r}"
        )
    config = base.get_config(match["size"] if match["size"] == NESTED else "1")
    config.seed = int(match["seed"])
    config.model.update(model_fields(match["size"]))
    config.update_from_flattened_dict(TRAINING_FIELDS)
    config.data.name = "image_folder"
    config.data.root = f"{INPUTS}/{match['prior']}"  # written by evaluation.small_study
    config.data.image_size = SIDE
    config.data.crop = SIDE
    config.data.update(PRIORS[match["prior"]])
    config.data.cache = "memory"
    config.data.num_workers = 0
    config.training.log_every = 50
    config.training.checkpoint_every = 250
    config.training.keep_checkpoints = 1
    config.training.validate_every = config.training.num_steps // 4
    config.training.validation_images = 12
    config.training.validation_bins = 4
    config.training.sample_every = 0
    return config
