"""Keywords and state dicts that have to fit exactly."""

import inspect
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

SHOWN = 12  # faults in an error message


def check_keywords(given: Collection[str], known: Collection[str], what: str) -> None:
    """Raise a ValueError for keywords of a network that are not known."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"expected keywords of {what} out of {', '.join(sorted(known))}, got "
            f"{', '.join(unknown)}"
        )


def check_fixed(keywords: dict, fixed: Mapping, what: str) -> dict:
    """`keywords` without those for which only one value, or one of several, is supported.

    Args:
        keywords: keywords of a network.
        fixed: name -> the tuple of supported values; () for a keyword without effect here.
        what: name of the network, for the error.

    Raises:
        ValueError: another value.
    """
    for name in fixed.keys() & keywords.keys():
        values = fixed[name]
        if values and _plain(keywords[name]) not in values:
            shown = " or ".join(repr(value) for value in values)
            raise ValueError(f"expected {name}={shown} of {what}, got {keywords[name]!r}")
    return {name: value for name, value in keywords.items() if name not in fixed}


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def create(network: Callable[..., nn.Module], keywords: Mapping, what: str) -> nn.Module:
    """``network(**keywords)`` without memory for its weights, which `load` brings.

    Raises:
        ValueError: a keyword is missing or unknown.
    """
    signature = inspect.signature(network)
    check_keywords(keywords, signature.parameters, what)
    try:
        signature.bind(**keywords)
    except TypeError as error:
        raise ValueError(f"keywords of {what}: {error}") from None
    with torch.device("meta"):
        return network(**keywords)


def load(net: nn.Module, state: Mapping[str, Tensor], what: str) -> nn.Module:
    """`net` with the weights of `state`, whose names and shapes have to be those of `net`.

    Args:
        net: a network from `create`.
        state: its state dict; weights become float32, others keep their dtype.
        what: name of the network, for the error.

    Raises:
        ValueError: missing, extra or misshapen entries, which are named.
    """
    ours = net.state_dict()
    faults = [f"missing {name}" for name in ours if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in ours]
    faults += [
        f"{name}: expected shape {tuple(ours[name].shape)}, got {tuple(state[name].shape)}"
        for name in ours
        if name in state and state[name].shape != ours[name].shape
    ]
    if faults:
        shown = "\n  ".join(faults[:SHOWN] + ["..."] * (len(faults) > SHOWN))
        raise ValueError(
            f"the state dict is not of a {what} with these keywords ({len(faults)} problems; are "
            f"the keywords the right ones?):\n  {shown}"
        )
    weights = {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }
    net.load_state_dict(weights, strict=True, assign=True)
    return net
