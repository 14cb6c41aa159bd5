"""Conversion of the original code's weights, whose parameter names are positional."""

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from models.layers import (
    AttentionBlock,
    ImageInput,
    NoiseEmbedding,
    PyramidDownsample,
    ResidualBlock,
)
from models.ncsnpp import NCSNpp

PREFIX = "all_modules"

# for each class: original name -> name here, in the original's order of registration
_NAMES = {
    ResidualBlock: {
        "GroupNorm_0": "norm1",
        "Conv_0": "conv1",
        "Dense_0": "embedding",
        "GroupNorm_1": "norm2",
        "Conv_1": "conv2",
        "Conv_2": "shortcut",
    },
    AttentionBlock: {
        "GroupNorm_0": "norm",
        "NIN_0": "query",
        "NIN_1": "key",
        "NIN_2": "value",
        "NIN_3": "output",
    },
    PyramidDownsample: {"Conv2d_0": "conv"},
    ImageInput: {"Conv_0": "conv"},
}


def _modules(net: NCSNpp) -> Iterator[nn.Module | None]:
    """The modules of `net` in the original's order of construction, which gives their index.

    None stands for one without parameters.
    """
    if isinstance(net.embedding, NoiseEmbedding):
        yield net.embedding  # the original's module 0 holds the frequencies only
    yield net.embedding.dense1
    yield net.embedding.dense2
    yield net.input
    for level in net.down:
        for i, block in enumerate(level.blocks):
            yield block
            if level.attentions:
                yield level.attentions[i]
        if level.downsample is not None:
            yield level.downsample
            if isinstance(level.pyramid, ImageInput):
                yield None  # the resampling
            if level.pyramid is not None:
                yield level.pyramid
    yield net.middle.block1
    if net.middle.attention is not None:
        yield net.middle.attention
    yield net.middle.block2
    for level in net.up:
        yield from level.blocks
        if level.attention is not None:
            yield level.attention
        if level.image is not None:
            if level is not net.up[0]:
                yield None  # the resampling
            yield level.image.norm
            yield level.image.conv
        if level.upsample is not None:
            yield level.upsample
    if net.output is not None:
        yield net.output_norm
        yield net.output


def original_names(net: NCSNpp) -> dict[str, tuple[str, Callable[[Tensor], Tensor]]]:
    """Original parameter names -> (name here, function that reshapes the original tensor).

    They are in the order of the original's ``parameters()``, which is also that of its EMA list.
    """
    paths = {module: path for path, module in net.named_modules()}
    names: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {}
    for index, module in enumerate(_modules(net)):
        if module is None:
            continue
        prefix, path = f"{PREFIX}.{index}", paths[module]
        if isinstance(module, NoiseEmbedding):
            names[f"{prefix}.W"] = (f"{path}.frequencies", _same)
            continue
        for theirs, ours in _NAMES.get(type(module), {"": ""}).items():
            layer = getattr(module, ours) if ours else module
            if isinstance(layer, nn.Identity):
                continue
            is_nin = theirs.startswith("NIN")
            their_path = ".".join(filter(None, [prefix, theirs]))
            our_path = ".".join(filter(None, [path, ours]))
            names[f"{their_path}.{'W' if is_nin else 'weight'}"] = (
                f"{our_path}.weight",
                _matrix_to_conv if is_nin else _same,
            )
            names[f"{their_path}.{'b' if is_nin else 'bias'}"] = (f"{our_path}.bias", _same)
    return names


def _same(weight: Tensor) -> Tensor:
    return weight


def _matrix_to_conv(weight: Tensor) -> Tensor:
    """The original's "network in network" matrix (in, out) as a 1x1 convolution."""
    return weight.T[:, :, None, None]  # (out, in, 1, 1)


def translate_state(net: NCSNpp, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `net` from one with the original names.

    Args:
        net: network of the same architecture.
        state: original state dict; a ``module.`` prefix and the buffer ``sigmas`` are allowed.

    Raises:
        ValueError: missing, extra or misshapen entries, which are named.
    """
    state = {name.removeprefix("module."): weight for name, weight in state.items()}
    state.pop("sigmas", None)  # a buffer that the original computes from its config
    names = original_names(net)
    ours = net.state_dict()
    faults = [f"missing {name}" for name in names if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in names]
    translated = {}
    for name, (path, convert) in names.items():
        if name not in state:
            continue
        weight = state[name]
        if convert is _matrix_to_conv and weight.ndim != 2:
            faults.append(f"{name}: expected a matrix, got {tuple(weight.shape)}")
            continue
        weight = convert(weight)
        if weight.shape != ours[path].shape:
            faults.append(
                f"{name}: expected shape {tuple(ours[path].shape)}, got {tuple(weight.shape)}"
            )
        translated[path] = weight
    if faults:
        shown = "\n  ".join(faults[:12] + ["..."] * (len(faults) > 12))
        raise ValueError(
            f"the state dict is not of this architecture ({len(faults)} problems; is the "
            f"config's size the right one?):\n  {shown}"
        )
    return translated


def ema_state(net: NCSNpp, state: dict[str, Tensor], shadow_params: list[Tensor]) -> dict:
    """State dict with the original names whose parameters are those of the original's EMA list.

    Args:
        net: network of the same architecture.
        state: the original model's state dict; the fixed Fourier frequencies are taken from it, as
            the list does not have them.
        shadow_params: averaged parameters, in the order of the trainable parameters.

    Raises:
        ValueError: the list has another number of entries than there are trainable parameters.
    """
    state = {name.removeprefix("module."): weight for name, weight in state.items()}
    trainable = [name for name in original_names(net) if name != f"{PREFIX}.0.W"]
    if len(shadow_params) != len(trainable):
        raise ValueError(
            f"expected an EMA list of {len(trainable)} parameters, got {len(shadow_params)}; "
            "is the config's size the right one?"
        )
    return state | dict(zip(trainable, shadow_params, strict=True))
