"""What `config.protocol` changes: the deviations of the study's code from its algorithms.

docs/protocols.md lists them. Each is a keyword of the function that it concerns; a protocol sets
all of its edition, and a value that the config gives goes first.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ml_collections import ConfigDict

from evaluation import baselines
from evaluation.baselines import BASELINES
from samplers import STUDY, STUDY_2026, STUDY_2026_CT, STUDY_CT

Options = Mapping[str, Mapping]  # sampler or baseline -> keywords
NOTHING: Options = MappingProxyType({})


class Protocol(NamedTuple):
    """Deviations of an evaluation; the defaults are the correct behaviour.

    Attributes:
        operators: masks drawn with replacement, and a parallel beam's data step with the study's
            back-projection (`operators.create.create_operator(study=True)`).
        nmse: NMSE over the reconstruction's energy (`metrics.nmse(study=True)`).
        averaged: whether priors have their averaged weights (`load_prior(averaged=False)`).
        clamp: whether samplers' images are clamped to [0, 1] before the metrics, those of nested
            networks at a given depth excepted.
        one_seed: samplers whose noise is the same for all slices.
        stretch: baselines whose images, and the targets they are compared with, are scaled from
            their minimum and maximum to [0, 1] before the metrics.
        samplers: keywords of samplers.
        of_parallel_beams: keywords of samplers for the operator `ct`.
        of_baselines: keywords of baselines.
        zeta: whether the step of `dps` is that of `study_step`.
    """

    operators: bool = False
    nmse: bool = False
    averaged: bool = True
    clamp: bool = False
    one_seed: tuple[str, ...] = ()
    stretch: tuple[str, ...] = ()
    samplers: Options = NOTHING
    of_parallel_beams: Options = NOTHING
    of_baselines: Options = NOTHING
    zeta: bool = False


PROTOCOLS = {
    "correct": Protocol(),
    "study": Protocol(
        operators=True,
        nmse=True,
        samplers=STUDY,
        of_parallel_beams=STUDY_CT,
        of_baselines=baselines.STUDY,
    ),
    "study2026": Protocol(
        operators=True,
        nmse=True,
        averaged=False,
        clamp=True,
        one_seed=("dps",),
        stretch=("unet",),
        samplers=STUDY_2026,
        of_parallel_beams=STUDY_2026_CT,
        of_baselines=baselines.STUDY_2026,
        zeta=True,
    ),
}
# zeta of the study's DPS, x -= zeta grad |r|^2 / D with its own D
ZETA_MRI, ZETA_FAN = 0.75, 1.0
ZETA_VIEWS, ZETA_OTHER_VIEWS = {60: 0.05}, 0.1  # parallel beams; others: 20, 30, limited 90


def protocol_of(config: ConfigDict) -> Protocol:
    """The protocol of a config.

    Raises:
        ValueError: it is unknown; the known ones are listed.
    """
    if config.protocol not in PROTOCOLS:
        known = tuple(PROTOCOLS)
        raise ValueError(f"expected protocol to be one of {known}, got {config.protocol!r}")
    return PROTOCOLS[config.protocol]


def with_protocol(config: ConfigDict, name: str, options: Mapping) -> dict:
    """Keywords of a sampler or baseline: those of the protocol, and over them the given ones.

    Args:
        config: an evaluation config; its `protocol` and `operator` are read.
        name: a key of `samplers.SAMPLERS` or `baselines.BASELINES`.
        options: the keywords given in the config.
    """
    protocol = protocol_of(config)
    if name in BASELINES:
        return {**protocol.of_baselines.get(name, {}), **options}
    parallel = config.operator.name == "ct"
    keywords = protocol.of_parallel_beams if parallel else protocol.samplers
    step = {"step": study_step(config.operator)} if protocol.zeta and name == "dps" else {}
    return {**keywords.get(name, {}), **step, **options}


def study_step(operator: ConfigDict) -> float:
    """Length of the gradient step of the study's DPS in units of A^H r / (A^H A 1).

    x -= zeta grad |r|^2 / D is a step of 2 zeta grad 1/2 |r|^2 / D. D is A^H A 1 for MRI and fan
    beams; for n parallel views it is twice that of a back-projection with the factor pi / (2 n),
    pi / n A^H A 1 up to the interpolation.

    Args:
        operator: the fields of ``config.operator``.
    """
    if operator.name == "fan_ct":
        return 2 * ZETA_FAN
    if operator.name == "ct":
        zeta = ZETA_VIEWS.get(operator.num_views, ZETA_OTHER_VIEWS)
        if operator.end_angle not in (None, 180.0):
            zeta = ZETA_OTHER_VIEWS
        return 2 * zeta * operator.num_views / math.pi
    return 2 * ZETA_MRI


def is_averaged(config: ConfigDict) -> bool:
    """Whether the prior has its averaged weights: `config.averaged`, or the protocol's choice."""
    given = config.get("averaged")
    return protocol_of(config).averaged if given is None else given


def is_clamped(config: ConfigDict) -> bool:
    """Whether images are clamped before the metrics.

    `config.clamp` is for all methods; the protocol's choice is for samplers at full depth.
    """
    given = config.get("clamp")
    if given is not None:
        return given
    is_sampler = config.sampler.name not in BASELINES
    return protocol_of(config).clamp and is_sampler and config.get("depth") is None


def has_one_seed(config: ConfigDict) -> bool:
    """Whether the sampler's noise is the same for all slices."""
    return config.sampler.name in protocol_of(config).one_seed


def is_stretched(config: ConfigDict) -> bool:
    """Whether image and target are scaled to [0, 1] each before the metrics."""
    return config.sampler.name in protocol_of(config).stretch
