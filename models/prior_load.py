"""Priors from their files, ready to sample."""

import importlib
import warnings
from pathlib import Path

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from models import create_model
from models.allocator import keep_freed_memory
from models.checkpoint_file import load_weights
from models.nested import AtDepth
from models.plain import CheckpointError
from models.prior_open import Opened, build_foreign, open_prior
from sde import VESDE, Prior, create_sde, parametrise, score_function

SMALL = 64  # numbers of a network's config up to this are accepted whatever the weights' shapes


def load_prior(
    name_or_path: str | Path | Opened,
    device: str | torch.device | None = None,
    *,
    format: str = "",
    autocast: torch.dtype | None = None,
    compiled: bool = False,
    depth: int | None = None,
    averaged: bool = True,
) -> Prior:
    """A trained prior, ready to sample: its score function (EMA weights) and its SDE.

    The score accepts real and complex images of any size, which are padded if the network needs it.
    Its attribute `symmetric` tells whether the prior was trained with flips and rotations, and
    `device` where its network is. On a CPU the process keeps freed memory from then on
    (`models.allocator`).

    Args:
        name_or_path: name of a shipped prior (``weights/NAME.pt``), a checkpoint file, a folder of
            checkpoints, or the folder of a training run (its newest readable checkpoint); or what
            `open_prior` has read of it.
        device: device of the network; by default a GPU if there is one.
        format: that of a file of another code base, a key of `models.foreign.FORMATS`; or
            ``module:function``, a function of one's own, ``function(path, device) -> Prior``.
        autocast: bfloat16 or float16 for the layers inside the network; None for float32.
        compiled: whether to run the network through `torch.compile`, which compiles at the first
            call for each batch and image size; needs a C++ compiler, and Triton on a GPU.
        depth: of a nested network (`models.nested`); None for others, or for full depth.
        averaged: whether to take the averaged weights, or the raw ones of the last step.

    Returns:
        The prior, which can be unpacked: ``score, sde = load_prior(...)``.

    Raises:
        FileNotFoundError: there is no such prior; the shipped names are listed.
        CheckpointError: the checkpoint is unreadable, its weights do not fit its config, or it has
            no raw weights, as exported ones.
        ValueError: a depth that the network does not have.

    Warns:
        UserWarning: the training of the prior is not finished.
    """
    opened = open_prior(name_or_path, format)
    path, format = opened.path, opened.format
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if ":" in format:
        if autocast is not None or compiled or depth is not None or not averaged:
            raise ValueError(
                f"expected precision float32, averaged weights, no compile and no depth with "
                f"{format}, which makes its own network; set them there"
            )
        return _call_own(format, path, device)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    payload, config, sde, net = load_trained(opened, averaged=averaged)
    net = net if depth is None else AtDepth(net, depth)
    note = unfinished(payload)
    if note:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    # channels last makes convolutions faster, on CPUs and on tensor cores
    net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    fast = torch.compile(net, fullgraph=True) if compiled else net
    # a prior trained with flips and rotations is treated as invariant to them
    symmetric = bool(config.data.get("flip") and config.data.get("rotate"))
    score = score_function(fast, autocast=autocast, stride=net.stride, symmetric=symmetric)
    score.device = torch.device(device)
    return Prior(score, sde)


def unfinished(payload: dict) -> str:
    """Warning for a prior whose training has not reached its last step; "" if it has.

    Args:
        payload: content of a checkpoint.
    """
    config, step = payload["config"], payload.get("step", 0)
    last = config.get("training", {}).get("num_steps", 0)
    warmup = config.get("optim", {}).get("warmup", 0)
    if step >= last:
        return ""
    early = f", and the learning rate still warms up ({warmup} steps)" if step < warmup else ""
    return f"an unfinished prior: step {step} of {last}{early}; its training can be continued"


def _call_own(format: str, path: Path, device: str | torch.device) -> Prior:
    """The prior that a function of the user's own makes of a file.

    Raises:
        ValueError: there is no such function, or it returns something else.
    """
    module, _, name = format.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{format}: expected module:function of your own: {error}") from None
    prior = function(path, device)
    if not (isinstance(prior, tuple) and len(prior) == 2 and callable(prior[0])):
        raise ValueError(
            f"{format}: expected a Prior, e.g. of Prior.from_denoiser, got {type(prior).__name__}"
        )
    return Prior(*prior).checked()


def load_trained(
    opened: Opened, *, averaged: bool = True
) -> tuple[dict, ConfigDict, VESDE, nn.Module]:
    """A prior's checkpoint, its config and SDE, and its network with the averaged or raw weights.

    Raises:
        CheckpointError: the checkpoint is not a prior, or its weights do not fit its config.
    """
    path, payload = opened.path, opened.payload
    if not {"config", "ema"} <= payload.keys():
        raise CheckpointError(
            f"{path}: expected a trained prior (entries config and ema), got entries "
            f"{', '.join(sorted(payload))}; a U-Net goes into sampler.checkpoint"
        )
    if not averaged and "model" not in payload:
        raise CheckpointError(
            f"{path}: expected the raw weights as well (entry model), got averaged ones only, as "
            "exported and other people's priors have; take the training run, or set averaged to "
            "True"
        )
    if "foreign" in payload:
        try:
            described, config = payload["foreign"], ConfigDict(payload["config"])
            of, keywords, state = described["format"], described["keywords"], payload["ema"]
        except (TypeError, KeyError) as error:
            raise CheckpointError(f"{path}: expected format and keywords: {error}") from error
        net, sde = build_foreign(path, of, keywords, state)
        return payload, config, sde, net
    try:
        config = ConfigDict(payload["config"])
        config.data.get("flip")
        sde = create_sde(config.sde).ve
        _check_size(config, payload["ema"])
        net = parametrise(create_model(config), config.sde)
    except Exception as error:  # the values come from a file and may be anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: expected the config and weights of a trained prior, got some that no "
            f"network can be made of: {reason}"
        ) from error
    load_weights(net, payload["ema" if averaged else "model"], path)
    return payload, config, sde, net


def _check_size(config: ConfigDict, state: dict[str, Tensor]) -> None:
    """Raise a ValueError before making a network that is far larger than its weights."""
    largest = max([SMALL, len(state), *(max(w.shape, default=0) for w in state.values())])
    for name, value in config.model.items():
        numbers = value if isinstance(value, tuple | list) else [value]
        if any(isinstance(n, int) and n > largest for n in numbers):
            raise ValueError(f"{name} = {value}, and no weights have more than {largest} a side")


def load_averaged(net: nn.Module, name_or_path: str | Path) -> None:
    """Load a prior's averaged weights into `net`, to train it further.

    Args:
        net: a network of the prior's architecture.
        name_or_path: name of a shipped prior, a checkpoint file, or a folder of checkpoints.

    Raises:
        FileNotFoundError: there is no such prior; the shipped names are listed.
        CheckpointError: the checkpoint is unreadable or of another architecture.
    """
    opened = open_prior(name_or_path)
    load_weights(net, load_trained(opened)[0]["ema"], opened.path)
