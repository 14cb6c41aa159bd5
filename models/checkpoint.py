"""Checkpoints: written atomically, read without executing code, loaded strictly.

A checkpoint is a `torch.save` of plain tensors and JSON-able values:
``{"format", "config", "model", "ema", "step", ...}``; `train.py` adds its state to resume from.

    python -m models.checkpoint import FILE OUT --config=configs/fastmri_knee.py:1
    python -m models.checkpoint import FILE OUT --format=edm --keywords=FILE.json

converts a checkpoint of the original code, and that of another code base, to this format.

    python -m models.checkpoint export runs/NAME weights/NAME.pt --half

writes only what `load_prior` needs of a training run: the config and the averaged weights.
"""

import argparse
import difflib
import importlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from configs import clear_errors, load_config
from datasets.files import replacing
from models import create_model, foreign
from models.allocator import keep_freed_memory
from models.foreign import files
from models.nested import AtDepth
from models.original import ema_state, translate_state
from models.plain import CheckpointError, read_plain
from sde import VESDE, Prior, create_sde, parametrise, score_function

FORMAT = "score-priors/1"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
SUFFIX = ".pt"
FEW_MILLIONS = 1.0  # parameters of a network that is called small
SMALL = 64  # numbers of a network's config up to this are accepted whatever the weights' shapes


def save(path: str | Path, payload: dict) -> None:
    """Write a checkpoint atomically: a crash or a full disk leaves the old file unchanged.

    Args:
        path: the file to write.
        payload: tensors and JSON-able values.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as file:
        torch.save({"format": FORMAT, **payload}, file)


def load(path: str | Path, map_location: str | torch.device = "cpu") -> dict:
    """Content of a checkpoint in this project's format.

    Args:
        path: the file.
        map_location: device of the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file does not hold plain tensors and values, or has another format.
    """
    payload = read_plain(path, map_location)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {FORMAT!r}, got {found!r}; for one of the "
            "original code run: python -m models.checkpoint import ORIGINAL OUT --config=..."
        )
    return payload


def find_latest(folder: str | Path) -> Path | None:
    """Newest readable ``step_*.pt`` of `folder`, or None; warns of unreadable ones."""
    for path in sorted(Path(folder).glob(f"step_*{SUFFIX}"), key=step_of, reverse=True):
        try:
            load(path)
        except CheckpointError as error:
            warnings.warn(f"passed over {error}", stacklevel=2)
        else:
            return path
    return None


def step_of(path: Path) -> int:
    """Step number in a checkpoint's name, ``step_00001000.pt`` -> 1000; -1 for other names."""
    match = re.fullmatch(rf"step_(\d+){re.escape(SUFFIX)}", path.name)
    return int(match.group(1)) if match else -1


def load_weights(net: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load a state dict in this project's format into `net`, strictly.

    Args:
        net: the network.
        state: its state dict.
        source: file that the weights come from, for error messages.

    Raises:
        CheckpointError: a missing, extra or misshapen entry (another architecture).
    """
    try:
        net.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:  # `state` comes from a file
        lines = [line.strip() for line in str(error).splitlines()]
        raise CheckpointError(
            f"{source}: the checkpoint is of another architecture than the config's:\n  "
            + "\n  ".join(lines[:8] + ["..."] * (len(lines) > 8))
        ) from None


def load_averaged(net: nn.Module, name_or_path: str | Path) -> None:
    """Load a prior's averaged weights into `net`, to train it further.

    Args:
        net: a network of the prior's architecture.
        name_or_path: name of a shipped prior, a checkpoint file, or a folder of checkpoints.

    Raises:
        FileNotFoundError: there is no such prior; the shipped names are listed.
        CheckpointError: the checkpoint is unreadable or of another architecture.
    """
    path = resolve_prior(name_or_path)
    load_weights(net, _load_trained(path)[0]["ema"], path)


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
    save(out, _foreign_payload(Path(path), format, keywords))


def _foreign_payload(path: Path, format: str, keywords: Mapping | None = None) -> dict:
    """What a checkpoint in this project's format holds of a file of another code base."""
    found, state = files.read_file(format, path, keywords)
    seen, sde = _build_foreign(path, format, found, state)
    side = found.get("img_resolution") or found.get("image_size") or found.get("sample_size") or 0
    turned = bool(found.get("symmetric"))
    config = {
        "model": {"name": format, "num_channels": seen.num_channels},
        "sde": {"name": "ve", "sigma_min": sde.sigma_min, "sigma_max": sde.sigma_max},
        "data": {"name": "", "image_size": side, "crop": 0, "flip": turned, "rotate": turned},
        "training": {"num_steps": 0},
    }
    described = {"format": format, "keywords": found}
    return {"config": config, "foreign": described, "ema": state, "step": 0}


def _build_foreign(
    path: Path, format: str, keywords: Mapping, state: dict[str, Tensor]
) -> tuple[nn.Module, VESDE]:
    """The score of a network of another code base, and its levels.

    Raises:
        CheckpointError: keywords, weights and levels do not fit.
    """
    try:
        net = foreign.build(format, keywords, state)
        return foreign.view(format, net, net.keywords)
    except (ValueError, TypeError, KeyError) as error:  # the values come from a file
        raise CheckpointError(f"{path}: {error}") from error


def load_prior(
    name_or_path: str | Path,
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
            checkpoints, or the folder of a training run (its newest readable checkpoint).
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
    path = resolve_prior(name_or_path, format)
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
    payload, config, sde, net = _load_trained(path, format, averaged=averaged)
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


def open_payload(name_or_path: str | Path, format: str = "") -> dict:
    """Content of a prior's checkpoint, or what it would hold of a file of another code base.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`, but no ``module:function``.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `load_prior`.
    """
    path = resolve_prior(name_or_path, format)
    return _foreign_payload(path, format) if format else load(path)


def training_config(name_or_path: str | Path, format: str = "") -> ConfigDict:
    """Config of a prior's training; of another code base's, what is known: image size 0, no data.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `load_prior`.
    """
    if ":" in format:
        return ConfigDict({"data": {"name": "", "image_size": 0, "crop": 0}})
    return ConfigDict(open_payload(name_or_path, format)["config"])


def _load_trained(
    path: Path, format: str = "", *, averaged: bool = True
) -> tuple[dict, ConfigDict, VESDE, nn.Module]:
    """A prior's checkpoint, its config and SDE, and its network with the averaged or raw weights.

    Raises:
        CheckpointError: the checkpoint is not a prior, or its weights do not fit its config.
    """
    payload = open_payload(path, format)
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
        net, sde = _build_foreign(path, of, keywords, state)
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


def resolve_prior(name_or_path: str | Path, format: str = "") -> Path:
    """Checkpoint file of a prior, as `load_prior` reads it.

    Args:
        name_or_path: name of a shipped prior, a checkpoint file, or a folder of checkpoints; with
            a `format` the file of another code base, or the folder of diffusers.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError: there is no such prior; the shipped names are listed.
        ValueError: an unknown format.
    """
    if ":" in format:
        if not Path(name_or_path).is_file():
            raise FileNotFoundError(f"{name_or_path}: expected a file for {format}, got none")
        return Path(name_or_path)
    if format:
        return files.weights_file(format, Path(name_or_path))
    shipped = WEIGHTS / f"{name_or_path}{SUFFIX}"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        for folder in (path / "checkpoints", path):
            latest = find_latest(folder)
            if latest is not None:
                return latest
        raise FileNotFoundError(
            f"{path}: expected a readable step_*{SUFFIX} in this folder or in its folder "
            "checkpoints, found none; a training writes its first one after "
            "training.checkpoint_every steps, and when it is interrupted"
        )
    known = ", ".join(shipped_priors()) or "none"
    raise FileNotFoundError(
        f"{name_or_path}: expected a checkpoint file, a folder with step_*{SUFFIX} files, or the "
        f"name of a shipped prior; {_meant(name_or_path)}known: {known}"
    )


def keyword_files(name_or_path: str | Path, format: str) -> list[Path]:
    """Files beside a prior of another code base that say what its weights are; [] for others.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.
    """
    if not format or ":" in format:
        return []
    path = resolve_prior(name_or_path, format)
    return [file for _, file in files.keyword_files(format, path)]


def shipped_priors() -> list[str]:
    """Names of the priors in ``weights/``."""
    return sorted(path.stem for path in WEIGHTS.glob(f"*{SUFFIX}"))


def _meant(wrong: str | Path) -> str:
    """Hint at a shipped prior, or a file beside a path, with a similar name; "" without one."""
    path = Path(wrong)
    groups = [] if path.name != str(wrong) else [{name: name for name in shipped_priors()}]
    try:
        groups.append({found.name: found for found in path.parent.iterdir()})
    except OSError:
        return f"there is no folder {path.parent}; "
    for known in groups:
        lower = {name.lower(): name for name in known}
        for text in (path.name, path.stem):
            close = difflib.get_close_matches(text.lower(), lower, n=1)
            if close:
                return f"did you mean {known[lower[close[0]]]}? "
    return ""


def describe(name_or_path: str | Path, format: str = "") -> str:
    """A prior in one line: its file, number of parameters, whether that is few, noise levels.

    Args:
        name_or_path: as of `load_prior`.
        format: as of `load_prior`.

    Raises:
        FileNotFoundError, CheckpointError: as `load_prior`.
    """
    path = resolve_prior(name_or_path, format)
    if ":" in format:
        return f"{path.name}: by {format}"
    payload = open_payload(path, format)
    millions = sum(weight.numel() for weight in payload["ema"].values()) / 1e6
    size = "a small network of " if millions < FEW_MILLIONS else ""
    sde = create_sde(payload["config"]["sde"]).ve
    levels = f"noise levels {sde.sigma_min:.3g} to {sde.sigma_max:.3g}"
    return f"{path.name}: {size}{millions:.2g} million parameters, {levels}"


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
    payload, _, _, net = _load_trained(resolve_prior(run))
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


def _main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m models.checkpoint")
    commands = parser.add_subparsers(dest="command", required=True)
    importer = commands.add_parser("import", help="convert a checkpoint of another code base")
    importer.add_argument("original")
    importer.add_argument("out")
    importer.add_argument(
        "--config", help="of a checkpoint of the study's code, e.g. configs/fastmri_knee.py:1"
    )
    importer.add_argument(
        "--format", default="score_sde", help=f"one of {', '.join(foreign.FORMATS)}; %(default)s"
    )
    importer.add_argument(
        "--keywords", help="instead of --config: JSON, or a file of it (docs/priors.md)"
    )
    exporter = commands.add_parser("export", help="averaged weights and config of a run only")
    exporter.add_argument("run")
    exporter.add_argument("out")
    exporter.add_argument("--half", action="store_true", help="in float16")
    arguments = parser.parse_args(argv)
    with clear_errors():
        if arguments.command == "export":
            export(arguments.run, arguments.out, half=arguments.half)
        elif arguments.config:
            if arguments.format != "score_sde" or arguments.keywords:
                raise ValueError("--config is for score_sde, without --keywords")
            import_original(arguments.original, arguments.out, load_config(arguments.config))
        else:
            given = files.read_keywords(arguments.keywords) if arguments.keywords else None
            import_foreign(arguments.original, arguments.out, arguments.format, given)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    _main()
