"""Other people's networks, built from their keywords and state dict as their own code builds them.

`build` gives a module that is called as the original is, `prior` makes a prior of it, `files` reads
the original's files. One file a format; a new one is one file, one line in `FORMATS` and one
in `models.foreign.prior.VIEWS`.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from models.foreign import diffusers, edm, guided_diffusion, ncsnv2, score_sde
from models.foreign.prior import SETTINGS, prior, view

# format -> module with ``build(keywords, state) -> nn.Module``, and ``read(payload, keywords) ->
# state`` where the original's files hold more than a state dict
FORMATS = {
    "score_sde": score_sde,
    "ncsnv2": ncsnv2,
    "guided_diffusion": guided_diffusion,
    "edm": edm,
    "diffusers": diffusers,
}


def build(format: str, keywords: Mapping, state: Mapping[str, Tensor]) -> nn.Module:
    """A network of another code base, in evaluation mode, with its weights.

    Args:
        format: a key of `FORMATS`.
        keywords: what the original network was built with, see the format's file; those that only
            `prior` needs (`SETTINGS`) may be among them. The module has them as its attribute.
        state: the original state dict.

    Returns:
        A module ``net(x, conditioning)`` with the conditioning and output of the original:

        * ``score_sde``: noise levels (VE: the score) or 999 t (VP, sub-VP: the noise);
        * ``ncsnv2``: indices into the buffer `sigmas`, descending (the score);
        * ``guided_diffusion``: timesteps (the noise, and with learnt variance as many channels
          for that);
        * ``edm``: sigma (the denoised image);
        * ``diffusers``: timesteps (what its scheduler calls the prediction).

    Raises:
        ValueError: an unknown format or keyword, or a state dict with missing, extra or misshapen
            entries, which are named.
        ImportError: diffusers is not installed.
    """
    if format not in FORMATS:
        raise ValueError(f"expected a format out of {', '.join(FORMATS)}, got {format!r}")
    own = {name: value for name, value in keywords.items() if name not in SETTINGS[format]}
    net = FORMATS[format].build(own, dict(state)).eval().requires_grad_(False)
    # the original's configs of VP networks have the range of its VE-SDE as well
    unused = ("sigma_min", "sigma_max") if getattr(net, "conditioning", "") == "time" else ()
    net.keywords = {name: value for name, value in keywords.items() if name not in unused}
    return net


__all__ = ["FORMATS", "build", "prior", "view"]
