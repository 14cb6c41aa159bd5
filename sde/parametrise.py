"""The SDE of a training config, and its network as a score of the VE view."""

from collections.abc import Mapping

from torch import nn

from sde.ve import VESDE
from sde.view import View, edm_schedule, vp_schedule
from sde.vp import VPSDE, SubVPSDE

SDES = {"ve": VESDE, "vp": VPSDE, "subvp": SubVPSDE}
PRECONDITIONS = ("", "edm")


def create_sde(section: Mapping) -> VESDE | VPSDE:
    """The SDE of the section `sde` of a training config.

    Args:
        section: `name`, a key of `SDES`, "ve" where there is none, with the SDE's keywords.

    Raises:
        ValueError: an unknown name or `precondition`, or unfit values.
    """
    name, precondition = section.get("name", "ve"), section.get("precondition", "")
    if name not in SDES:
        raise ValueError(f"expected sde.name out of {', '.join(SDES)}, got {name!r}")
    if precondition not in PRECONDITIONS:
        raise ValueError(f"expected sde.precondition '' or 'edm', got {precondition!r}")
    fields = ("sigma_min", "sigma_max") if name == "ve" else ("beta_min", "beta_max")
    return SDES[name](**{field: section[field] for field in fields})


def parametrise(net: nn.Module, section: Mapping) -> nn.Module:
    """The score on images in [0, 1] that a network of a training config stands for.

    A network of the VE-SDE is that itself. One of the VP- or sub-VP-SDE predicts the noise in
    s (2 x - 1) from that and 999 t (Song et al. 2021); with `precondition` "edm", of any SDE, it is
    that of Karras et al. (2022).

    Args:
        net: ``net(x, sigma)``, or ``net(y, label)`` for images in [-1, 1]
            (`models.create_model` makes the right one).
        section: the section `sde` of the config.

    Raises:
        ValueError: as `create_sde`.
    """
    sde = create_sde(section)
    if section.get("precondition", "") == "edm":
        return View(net, edm_schedule(), "edm", low=-1.0, high=1.0)
    if isinstance(sde, VPSDE):
        return View(net, vp_schedule(sde), "noise", low=-1.0, high=1.0)
    return net
