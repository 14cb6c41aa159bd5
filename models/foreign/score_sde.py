"""NCSN++ and DDPM++ of Song et al. (ICLR 2021), score_sde_pytorch, continuous.

Keywords are the fields of the original's `config.model`, as its class `NCSNpp` reads them; of them
`sigma_min`, `sigma_max`, `beta_min` and `beta_max` tell the levels, with `sde`, "vp" (the default)
or "subvp", for networks that are labelled by time. Further ones are `num_channels`, 1
by default, and `centered`, whether images were scaled to [-1, 1] before the network (the VP and
sub-VP configs); by default that of the kind of network. `attention`, True by default, tells whether
there is attention at the lowest resolution.
"""

import torch
from torch import Tensor, nn

from models.foreign.strict import check_fixed, check_keywords
from models.ncsnpp import NCSNpp
from models.original import PREFIX, ema_state, translate_state

# keywords with the values for which the network is that of models/ncsnpp.py; (): without effect
FIXED = {
    "name": ("ncsnpp",),
    "resblock_type": ("biggan",),
    "nonlinearity": ("swish",),
    "attention_type": ("ddpm",),
    "normalization": ("GroupNorm",),
    "skip_rescale": (True,),
    "conditional": (True,),
    "resamp_with_conv": (True,),
    "progressive": ("none", "output_skip"),
    "progressive_input": ("none", "residual", "input_skip"),
    "progressive_combine": ("sum",),
    "embedding_type": ("fourier", "positional"),
    "scale_by_sigma": (True, False),
    "fir_kernel": ((1, 3, 3, 1),),
    "conv_size": (3,),
    "init_scale": (),
    "ema_rate": (),
    "dropout": (),
    "num_scales": (),
    "attn_resolutions": (),  # the state dict tells where there is attention
    "image_size": (),
}
OWN = ("nf", "ch_mult", "num_res_blocks", "fourier_scale", "fir")
OURS = ("num_channels", "centered", "attention")
NAME = "score_sde NCSNpp"


def build(keywords: dict, state: dict[str, Tensor]) -> nn.Module:
    """An `NCSNpp` as the original's; see `models.foreign.build`."""
    net = create(keywords, state)
    net.load_state_dict(translate_state(net, state), strict=True, assign=True)
    return net.float()


def read(payload: object, keywords: dict) -> dict[str, Tensor]:
    """The averaged weights of the original's checkpoint, or a state dict that is there alone.

    Raises:
        ValueError: the list of averaged parameters does not fit.
    """
    if not (isinstance(payload, dict) and {"model", "ema"} <= payload.keys()):
        return payload
    state, average = payload["model"], payload["ema"]
    if not (isinstance(state, dict) and isinstance(average, dict) and "shadow_params" in average):
        raise ValueError("expected 'model' as a state dict and 'ema' with the list shadow_params")
    return ema_state(create(keywords, state), state, list(average["shadow_params"]))


def create(keywords: dict, state: dict[str, Tensor]) -> NCSNpp:
    """The network without memory for its weights; `state` tells where it attends."""
    check_keywords(keywords, {*FIXED, *OWN, *OURS}, NAME)
    own = check_fixed(keywords, FIXED, NAME)
    missing = [name for name in ("nf", "ch_mult", "num_res_blocks") if name not in own]
    if missing:
        raise ValueError(f"expected the keywords {', '.join(missing)} of {NAME}")
    by_time = keywords.get("embedding_type", "fourier") == "positional"
    if keywords.get("scale_by_sigma", not by_time) == by_time:
        raise ValueError(
            f"expected scale_by_sigma={not by_time} with embedding_type="
            f"{keywords.get('embedding_type', 'fourier')!r}: other networks are for discrete levels"
        )
    own.setdefault("fourier_scale", 16.0)
    own.setdefault("attention", True)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    input_ = keywords.get("progressive_input", "residual")
    images = keywords.get("progressive", "none") == "output_skip"
    if images != (input_ == "input_skip"):
        raise ValueError(f"expected progressive='output_skip' with 'input_skip' only, of {NAME}")
    more = {"none": 0, "residual": 1, "input_skip": 2}[input_]  # modules of a level
    levels = attention_levels(own, state, by_time=by_time, more=more)
    with torch.device("meta"):
        net = NCSNpp(
            conditioning="time" if by_time else "sigma",
            centred=own.pop("centered", by_time),
            pyramid=input_ == "residual",
            images=images,
            attention_levels=levels,
            **own,
        )
    return net


def attention_levels(
    keywords: dict, state: dict[str, Tensor], *, by_time: bool, more: int
) -> list[int]:
    """Levels at which the network attends, by the names in its state dict.

    `attn_resolutions` in the original's config holds pixels, of an image size that it does not say.
    """
    levels, last = [], len(keywords["ch_mult"]) - 1
    index = 3 if by_time else 4  # of the first residual block
    for level in range(len(keywords["ch_mult"])):
        attends = f"{PREFIX}.{index + 1}.NIN_0.W" in state
        if attends:
            levels.append(level)
        index += keywords["num_res_blocks"] * (2 if attends else 1)
        index += (1 + more) * (level != last)
    return levels
