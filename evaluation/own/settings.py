"""Settings of a reconstruction: the sampler of a config, and the config as its folder keeps it."""

from pathlib import Path

from ml_collections import ConfigDict

from configs.reconstruct import default_prior
from evaluation.own.base import Input, digest
from evaluation.own.engine import Sampling, choose_sampling, posterior_for
from evaluation.run.batching import choose_size
from evaluation.run.methods import PRECISIONS
from models.checkpoint import keyword_files, resolve_prior
from operators.create import default_of

MAY_CHANGE = ("batch_size", "report", "prior_format")  # files are compared by their hashes
# field of the operator -> an operator whose default its None stands for, whichever is simulated
DEFAULTS_OF = {"acceleration": "mri", "center_fraction": "mri", "num_views": "ct"}


def read_sampling(config: ConfigDict, device: str, opened: Input | None = None) -> Sampling:
    """Sampler of a config, checked.

    Args:
        config: config with the fields of configs/reconstruct.py.
        device: device of the network.
        opened: the input, on which the default for several samples depends; None: not known yet.

    Raises:
        ValueError: an unknown sampler or keyword, several samples of a point estimate, or an
            invalid `batch_size` or `precision`.
    """
    options = {k: v for k, v in config.sampler.items() if v is not None}
    name, num_samples = options.pop("name"), options.pop("num_samples")
    sampling = choose_sampling(
        name if opened is None else posterior_for(opened, name, num_samples),
        num_steps=options.pop("num_steps", None),
        num_samples=num_samples,
        sigma_y=options.pop("sigma_y", None),
        mean_error=options.pop("mean_error", None),
        calibrated=options.pop("calibrated", False),
        options=options,
    )
    choose_size(config.batch_size, device)  # so that a wrong one is found now
    if config.precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {config.precision!r}")
    return sampling


def describe_settings(
    config: ConfigDict, source: Path, opened: Input, sampling: Sampling
) -> ConfigDict:
    """Config with its defaults filled in, and with hashes of all files that are read."""
    settings = ConfigDict(config.to_dict())
    settings.prior = config.prior or default_prior(opened.is_complex)
    settings.sampler.name, settings.sampler.num_steps = sampling.sampler, sampling.num_steps
    for field, name in DEFAULTS_OF.items():
        if settings.operator[field] is None:
            settings.operator[field] = default_of(name, field)
    settings.input = source.resolve().name
    settings.sha256 = ConfigDict(
        {
            "input": digest(opened.sources),
            "others": digest(opened.others),
            "prior": digest(
                [
                    resolve_prior(settings.prior, settings.prior_format),
                    *keyword_files(settings.prior, settings.prior_format),
                ]
            ),
        }
    )
    return settings
