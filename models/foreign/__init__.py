"""Other people's networks, built from their keywords and state dict as their own code builds them.

`build` gives a module that is called as the original is; `models.foreign.view` says how it becomes
a prior. One file a format; a new one is one file and one line in `FORMATS`.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from models.foreign import diffusers, edm, guided_diffusion, ncsnv2, score_sde

# format -> module with a function ``build(keywords, state) -> nn.Module``
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
        keywords: what the original network was built with; see the format's file.
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
    return FORMATS[format].build(dict(keywords), dict(state)).eval().requires_grad_(False)


__all__ = ["FORMATS", "build"]
