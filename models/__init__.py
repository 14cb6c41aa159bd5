"""Score networks, their exponential moving average, checkpoints, and the folder of a training run.

A new network is one file and one line in `NETWORKS`: a class whose keywords are the fields of
`config.model` and whose instances are called as ``net(x, sigma)``; of a field that is None it has
the default. Image sides have to be multiples of its attribute `stride` (1: any size);
`checkpoint.load_prior` pads images accordingly.
"""

# first, as it reports missing packages and how to install them
import configs.installed  # noqa: F401

# isort: split
from torch import nn

from models.bias_free_unet import BiasFreeUNet
from models.ncsnpp import NCSNpp
from models.nested import NestedNCSNpp

NETWORKS = {
    "ncsnpp": NCSNpp,
    "nested_ncsnpp": NestedNCSNpp,
    "bias_free_unet": BiasFreeUNet,
}


def create_model(config) -> nn.Module:
    """Network described by `config.model`, with newly initialised weights.

    Args:
        config: a training config (ConfigDict); `config.model.name` is a key of `NETWORKS`, the
            other fields of `config.model` are the network's keywords. With a `config.sde` that
            scales images, the network takes them in [-1, 1] and a label of the level instead of
            sigma (`sde.parametrise`).

    Raises:
        ValueError: the name is unknown, or a field is unknown to the network or missing.
    """
    fields = {field: value for field, value in config.model.items() if value is not None}
    name = fields.pop("name")
    if name not in NETWORKS:
        raise ValueError(f"expected model.name to be one of {sorted(NETWORKS)}, got {name!r}")
    section = config.get("sde", {})
    if section.get("name", "ve") != "ve" or section.get("precondition", ""):
        if name != "ncsnpp":
            raise ValueError(
                f"expected model.name='ncsnpp', whose levels can be labelled, with "
                f"sde.name={section.get('name', 've')!r} and "
                f"sde.precondition={section.get('precondition', '')!r}, got {name!r}"
            )
        fields |= {"conditioning": "time", "centred": True}
    try:
        return NETWORKS[name](**fields)
    except TypeError as error:
        raise ValueError(f"config.model does not fit {name}: {error}") from None


__all__ = ["NETWORKS", "BiasFreeUNet", "NCSNpp", "NestedNCSNpp", "create_model"]
