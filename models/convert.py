"""Checkpoints of other code bases in this project's format, and priors without their training."""

from collections.abc import Mapping
from pathlib import Path

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from models import create_model
from models.checkpoint_file import save
from models.original import ema_state, translate_state
from models.plain import CheckpointError, read_plain
from models.prior_load import load_trained
from models.prior_open import foreign_payload, open_prior
from sde import parametrise


def import_state_dict(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict with the original code's names (``all_modules.<i>...``) into `net`.

    Args:
        net: an `NCSNpp` of the same architecture.
        state: the state dict; a ``module.`` prefix and the buffer ``sigmas`` are allowed.

    Raises:
        ValueError: missing, extra or misshapen entries, which are named.
    """
    net.load_state_dict(translate_state(net, state), strict=True)


def import_original(path: str | Path, out: str | Path, config: ConfigDict) -> None:
    """Convert a checkpoint file of the original code to this project's format.

    Args:
        path: a `torch.save` of ``{"model": state dict, "ema": {"shadow_params": list, ...},
            "step": int}``.
        out: the file to write.
        config: training config with the network's size.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is unreadable or not a checkpoint of the original code.
        ValueError: the weights do not fit the config's network.
    """
    original = read_plain(path, "cpu")
    if not isinstance(original, dict) or not {"model", "ema"} <= original.keys():
        raise CheckpointError(f"{path}: expected a dict with the entries 'model' and 'ema'")
    state, average = original["model"], original["ema"]
    if not (isinstance(state, dict) and isinstance(average, dict) and "shadow_params" in average):
        raise CheckpointError(
            f"{path}: expected 'model' as a state dict and 'ema' with the list 'shadow_params'"
        )
    net = create_model(config)
    averaged = ema_state(net, state, list(average["shadow_params"]))
    config, step = config.copy_and_resolve_references(), int(original.get("step", 0))
    config.training.num_steps = step  # the original training is finished
    whole = parametrise(net, config.sde)
    prefix = next(name for name, module in whole.named_modules() if module is net)
    prefix += "." if prefix else ""

    def ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{prefix}{name}": value for name, value in translate_state(net, state).items()}

    payload = {"config": config.to_dict(), "model": ours(state), "ema": ours(averaged)}
    payload["step"] = step
    save(out, payload)


def import_foreign(
    path: str | Path, out: str | Path, format: str, keywords: Mapping | None = None
) -> None:
    """Convert a file of another code base to this project's format.

    Args:
        path: the file, or the folder of diffusers.
        out: the file to write.
        format: a key of `models.foreign.FORMATS`.
        keywords: what the network was built with, beside what the file says of it
            (`models.foreign.files.read_file`).

    Raises:
        ValueError, FileNotFoundError, ImportError: as `models.foreign.files.read_file`, and if
            keywords, weights and levels do not fit.
    """
    save(out, foreign_payload(Path(path), format, keywords))


def export(run: str | Path, out: str | Path, *, half: bool = False) -> None:
    """Write the averaged weights and config of a prior, without the state of its training.

    Args:
        run: name of a shipped prior, a checkpoint file, or the folder of a training run.
        out: the file to write; ``weights/NAME.pt`` for a prior that is loaded by its name.
        half: whether to store parameters in float16; they are loaded as float32 in any case.

    Raises:
        FileNotFoundError: there is no such prior; the shipped names are listed.
        CheckpointError: the checkpoint is unreadable, or its weights do not fit its config.
        ValueError: a weight is not finite in float16.
    """
    payload, _, _, net = load_trained(open_prior(run))
    weights = payload["ema"]
    if "foreign" in payload:
        raise ValueError(f"{run}: is of another code base, and has averaged weights only already")
    if half:
        # buffers stay in float32: rounding would change the Fourier frequencies
        learnt = {name for name, _ in net.named_parameters()}
        weights = {name: w.half() if name in learnt else w for name, w in weights.items()}
        bad = [name for name, w in weights.items() if not torch.isfinite(w).all()]
        if bad:
            raise ValueError(f"too large for float16: {', '.join(bad)}; export without --half")
    config = dict(payload["config"])
    # remove paths of the machine that trained it
    config["data"] = {**config["data"], "root": ""}
    training = config.get("training", {})
    config["training"] = {**training, "init": Path(training.get("init", "")).name}
    save(out, {"config": config, "ema": weights, "step": payload.get("step", 0)})
