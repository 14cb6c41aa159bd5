"""Valid ranges of the numbers in a config, for all commands."""

from ml_collections import ConfigDict

from configs import ConfigError

ANY = (
    "seed",
    "data.split_seed",
    "operator.centre_offset",
    "training.level_mean",
)  # may be negative
ALL = ("panels",)  # -1 stands for all
# counts that have to be at least 1; every other number may be 0
POSITIVE = (
    "columns",
    "depth",
    "data.map_sets",
    "model.chans",
    "model.ch_mult",
    "model.max_groups",
    "model.nf",
    "model.num_channels",
    "model.num_levels",
    "model.num_pool_layers",
    "model.num_res_blocks",
    "num",
    "num_images",
    "num_steps",
    "probes",
    "operator.num_spokes",
    "operator.num_views",
    "sampler.cg_steps",
    "sampler.inner_steps",
    "sampler.max_iterations",
    "sampler.num_iterations",
    "sampler.num_samples",
    "sampler.num_steps",
    "sampler.start_level",
    "training.accumulation",
    "training.batch_size",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.log_every",
    "training.max_bad_steps",
    "training.num_steps",
    "training.reconstruct_steps",
    "training.sample_steps",
)


def check_numbers(config: ConfigDict | dict, prefix: str = "") -> None:
    """Raise a ConfigError for numbers below their minimum of 0 or 1, or NaN.

    Further conditions are checked by the command that reads a field.

    Args:
        config: a config, or one of its sections.
        prefix: prefix of the names of its fields, such as "data." for a section; "" for a config.
    """
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            check_numbers(value, f"{prefix}{name}.")
            continue
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool):
                _check(f"{prefix}{name}", number)


def _check(name: str, number: float) -> None:
    least = 1 if name in POSITIVE else 0
    if name in ANY or (name in ALL and number == -1) or number >= least:
        return
    what = " or -1 (all)" if name in ALL else " (all)" if name == "limit" else ""
    raise ConfigError(f"expected {name} of at least {least}{what}, got {number}")
