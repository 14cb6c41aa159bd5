"""Score networks, their running average, checkpoints, and the folder of a training run.

A new network is one file and one line in `NETWORKS`: a class whose keywords are the fields of
`config.model`, called as ``net(x, sigma)``. Its attribute `stride` says what the sides of images
have to be multiples of (1: any sides); `checkpoint.load_prior` pads images for it.
"""

# first: says what to do where one of the packages below is missing
import configs.installed  # noqa: F401

# isort: split
from torch import nn

from models.bias_free_unet import BiasFreeUNet
from models.ncsnpp import NCSNpp

NETWORKS = {
    "ncsnpp": NCSNpp,
    "bias_free_unet": BiasFreeUNet,
}


def create_model(config) -> nn.Module:
    """The network that `config.model` describes, with fresh weights.

    Args:
        config: a training config (ConfigDict); `config.model.name` is a key of `NETWORKS`, the
            other fields of `config.model` are that network's keywords.

    Raises:
        ValueError: unknown name, or a field that the network does not have or lacks.
    """
    fields = dict(config.model)
    name = fields.pop("name")
    if name not in NETWORKS:
        raise ValueError(f"expected model.name to be one of {sorted(NETWORKS)}, got {name!r}")
    try:
        return NETWORKS[name](**fields)
    except TypeError as error:
        raise ValueError(f"config.model does not fit {name}: {error}") from None


__all__ = ["NETWORKS", "BiasFreeUNet", "NCSNpp", "create_model"]
