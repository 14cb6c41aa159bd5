"""UNet2DModel of Hugging Face's diffusers, an optional extra (pip install diffusers).

Keywords are those of the folder's ``config.json``, and `scheduler`, the content of its
``scheduler_config.json``, which tells levels and prediction.
"""

import inspect

from torch import Tensor, nn

from models.foreign.strict import check_keywords, load

NAME = "diffusers UNet2DModel"


def build(keywords: dict, state: dict[str, Tensor]) -> nn.Module:
    """A `UNet2DModel` whose call gives a tensor; see `models.foreign.build`."""
    try:
        from diffusers import UNet2DModel
    except ImportError:
        raise ImportError(
            "format diffusers needs the package diffusers: pip install diffusers"
        ) from None
    own = {name: value for name, value in keywords.items() if not name.startswith("_")}
    if own.get("num_class_embeds") or own.get("class_embed_type"):
        raise ValueError(f"expected an unconditional {NAME}, got one with classes")
    check_keywords(own, inspect.signature(UNet2DModel.__init__).parameters, NAME)
    return Sample(load(UNet2DModel(**own), state, NAME))


class Sample(nn.Module):
    """The tensor in a UNet2DModel's answer."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.num_channels = net.config.in_channels
        self.stride = 2 ** (len(net.config.block_out_channels) - 1)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """``(B, C, H, W)`` and timesteps ``(B,)`` to ``(B, C, H, W)``."""
        return self.net(x, timesteps, return_dict=False)[0]
