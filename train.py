"""Fit a score network to images by denoising score matching on the VE-, VP- or sub-VP-SDE.

    python train.py --config=configs/fastmri_knee.py:1 --workdir=runs/fastmri_knee_1
    torchrun --nproc-per-node=4 train.py --config=... --workdir=...    one process per GPU

Every field of the config is a flag (--config.data.root=PATH). The folder WORKDIR receives
`config.json`, `log.csv`, `validation.csv`, TensorBoard events, `samples/*.png` and
`checkpoints/step_*.pt`; with `training.reconstruct_every` also `reconstructions.csv` and
`reconstructions/*.png`. Running the same command again continues from the newest checkpoint. Random
numbers are functions of (seed, sample number), so that the result does not depend on interruptions
or, up to rounding, on the number of processes.

On SIGTERM, SIGUSR1, Ctrl-C or a closed terminal or pipe, training saves a checkpoint and exits with
code 75; run the same command again to continue.
"""

# first, as it reports missing packages and how to install them
import configs.installed

# isort: split
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path

import numpy
import torch
from absl import flags
from ml_collections import ConfigDict
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import configs
import datasets
from configs.progress import progress_bar
from configs.ranges import check_numbers
from datasets import DataError
from datasets.files import holding, write_atomically
from datasets.identity import check_files, check_outside
from datasets.prepare import prepare_dataset
from datasets.stream import TrainingStream, batches
from evaluation.run import held_out
from evaluation.show.contact_sheet import contact_sheet, png
from models import checkpoint, create_model
from models.allocator import keep_freed_memory
from models.ema import create_ema
from models.nested import depth_of_step
from models.run import (
    REQUEUE,
    catch_signals,
    checkpoint_path,
    due,
    find_newest,
    load_state,
    save_checkpoint,
    write_if_changed,
)
from models.training_log import VALIDATION_COLUMNS, TrainingLog
from operators.batch import BatchGenerator, derive_seed
from samplers import NonFiniteError
from samplers.unconditional import unconditional
from sde import (
    VESDE,
    VPSDE,
    create_sde,
    draw_levels,
    edm_weight,
    level_weight,
    noise_level_bins,
    parametrise,
    score_function,
    score_matching_loss,
    validation_loss,
)

# fields that may differ when a run is continued
MAY_CHANGE = (
    "training.num_steps",
    "optim.cooldown",
    "training.accumulation",
    "training.log_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.max_bad_steps",
    "training.validate_every",
    "training.validation_images",
    "training.validation_bins",
    "training.sample_every",
    "training.sample_images",
    "training.sample_steps",
    "training.reconstruct_every",
    "training.reconstruct_images",
    "training.reconstruct_steps",
    "training.reconstruct_from",
    "training.channels_last",
    "training.compile",
    "training.cudnn_benchmark",
    "data.root",
    "data.cache",
    "data.cache_dir",
    "data.num_workers",
)
MEMORY = "set training.accumulation to 2 or more (the same numbers), or take smaller crops"


def train(
    config: ConfigDict,
    workdir: Path,
    device: str,
    interrupted: Callable[[], bool] = lambda: False,
) -> Path:
    """Train a score network, or continue training, until `config.training.num_steps`.

    Args:
        config: training config, see configs/base.py.
        workdir: folder of the run, shared by all its processes.
        device: device of this process.
        interrupted: called after each step; if it returns True in any process, all processes save
            a checkpoint and exit.

    Returns:
        Path of the last checkpoint.

    Raises:
        ConfigError, DataError, CheckpointError, ValueError: before any training, if the config,
            the data or the folder is invalid, or another process trains in the folder.
        FloatingPointError: the loss or its gradient was not finite in
            `config.training.max_bad_steps` steps in a row.
        SystemExit: with code `REQUEUE`, after an interruption.
    """
    t = config.training
    rank, world = process()
    check(config, world)
    check_outside(workdir, config.data, "--workdir")
    configs.check_same(workdir / "config.json", config, ignore=MAY_CHANGE)
    sde = create_sde(config.sde)
    net = create_network(config)
    if t.init and checkpoint.find_latest(workdir / "checkpoints") is None:
        checkpoint.load_averaged(net, t.init)
    stream = create_stream(config)
    check_size(config, tuple(stream[0].shape))
    images = held_out_images(config) if rank == 0 else {}
    with holding(workdir) if rank == 0 else nullcontext():
        if rank == 0:
            configs.check_same(workdir / "config.json", config, ignore=MAY_CHANGE)
            check_files(workdir / "files.csv", stream.dataset, config.data)
            write_if_changed(workdir / "config.json", configs.to_json(config))
        return fit(config, workdir, device, interrupted, net, sde, stream, images)


def fit(
    config: ConfigDict,
    workdir: Path,
    device: str,
    interrupted: Callable[[], bool],
    net: nn.Module,
    sde: VESDE | VPSDE,
    stream: TrainingStream,
    images: dict[str, list[Tensor]],
) -> Path:
    """The training loop of `train`, whose arguments are opened and checked there."""
    t, o = config.training, config.optim
    rank, world = process()
    net.to(device)
    if enabled(t.channels_last):
        net.to(memory_format=torch.channels_last)
    ema = create_ema(net, o.ema_decay)
    adam = torch.optim.Adam(
        net.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps, fused=True
    )
    depths = getattr(net, "depths", 0)  # of a nested network
    edition = config.protocol == "study2026"
    start, skipped, window = resume(
        workdir,
        net,
        ema,
        adam,
        device,
        keep_optimizer=not edition,
        keep_average=not (edition and depths),
    )
    if start >= t.num_steps:
        if rank == 0:
            done = f"{workdir} is finished: {start} of {t.num_steps} steps"
            print(f"{done}; raise training.num_steps to go on")
        return checkpoint_path(workdir, start)

    fast = net
    if enabled(t.compile):
        fast = compiled(net, stream[0], t.batch_size // (world * t.accumulation), config, device)
    if world > 1:
        fast = DistributedDataParallel(fast, find_unused_parameters=depths > 0)
    measured = measure(config, images, device) if rank == 0 and t.reconstruct_every else []
    ending = ExitStack()
    log = None
    if rank == 0:
        log = TrainingLog(workdir, start, len(stream.dataset), window, depths, bool(measured))
        ending.enter_context(closing(log))
    progress = progress_bar(t.num_steps, "step", initial=start, file=sys.stdout, disable=rank > 0)
    bad = 0  # steps in a row without a finite loss
    net.train()
    # loader processes ignore signals, so that this process has to close them in any case
    loader = batches(
        stream,
        start=start,
        stop=t.num_steps,
        batch_size=t.batch_size,
        num_workers=config.data.num_workers,
        part=rank,
        parts=world,
        splits=t.accumulation,
        finish=partial(with_noise, seed=config.seed, sde=sde, log_normal=log_normal(config)),
    )
    with ending, closing(loader) as pieces:
        for step in range(start, t.num_steps):
            depth = (
                depth_of_step(derive_seed(config.seed, "depth", step), depths) if depths else None
            )
            adam.zero_grad(set_to_none=True)
            total = torch.zeros((), device=device)  # this process's share of the mean loss
            for i in range(t.accumulation):
                numbers, piece = next(pieces)
                clean, sigma, noise = (x.to(device, non_blocking=True) for x in piece)
                if config.model.get("dropout"):  # dropout uses PyTorch's global generator
                    torch.manual_seed(derive_seed(config.seed, "dropout", numbers.start))
                # exchange gradients once per step, after the last piece
                wait = world > 1 and i < t.accumulation - 1
                with fast.no_sync() if wait else nullcontext():
                    losses = score_matching_loss(
                        lambda *given: autocast(fast, config, *given),
                        clean,
                        sigma,
                        noise,
                        depth=depth,
                    )
                    weighted = losses * level_weight(sigma, t.weight_sigma)
                    if config.sde.precondition == "edm":
                        weighted = weighted * edm_weight(sigma)
                    # DDP averages over processes, hence the factor `world`
                    (weighted.sum() * world / t.batch_size).backward()
                total += losses.detach().sum() / t.batch_size
            loss, stop_now = agree(total, interrupted())
            grad_norm = nn.utils.clip_grad_norm_(net.parameters(), o.grad_clip).item()

            lr = learning_rate(config, step)
            if math.isfinite(loss) and math.isfinite(grad_norm):
                bad = 0
                for group in adam.param_groups:
                    group["lr"] = lr
                adam.step()
                ema.update_parameters(net)
            else:  # skip the update
                bad, skipped = bad + 1, skipped + 1

            done = step + 1
            last = done == t.num_steps
            if rank == 0:
                log.add(loss, grad_norm, t.batch_size)
                progress.update()
                if due(t.log_every, done, last):
                    row = log.write(done, loss_scale=0.5 * clean[0].numel(), lr=lr, skipped=skipped)
                    speed = f"{row['images_per_second']:.1f} images/s"
                    progress.set_postfix_str(
                        f"loss {row['loss_per_pixel']:.4f}/pixel, {speed}", refresh=False
                    )
                with log.pause():
                    # log before the checkpoint, as a resumed run writes only later rows
                    if due(t.validate_every, done, last):
                        validate(log, done, ema.module, images["validate"], sde, config)
                    if due(t.reconstruct_every, done, last):
                        reconstruct(log, workdir, done, ema.module, measured, sde, config)
                    log.flush()
                    # no checkpoint while losses are not finite, so that the last good one remains
                    if bad == 0 and (due(t.checkpoint_every, done, last) or stop_now):
                        save(workdir, done, config, net, ema, adam, skipped, log.window)
                    if due(t.sample_every, done, last):
                        sample(log, workdir, done, ema.module, stream[0].shape, sde, config, device)
            if bad >= t.max_bad_steps:
                raise FloatingPointError(
                    f"the loss or its gradient was not finite in {bad} steps in a row, the last "
                    f"of them {done}; lower optim.lr, or look for bad images; the last good "
                    f"checkpoint is {checkpoint.find_latest(workdir / 'checkpoints') or 'none'}"
                )
            if stop_now and not last:
                if rank == 0:
                    print(f"interrupted after step {done}; the same command continues", flush=True)
                if world > 1:
                    distributed.barrier()  # torchrun ends all processes as soon as one exits
                raise SystemExit(REQUEUE)
    progress.close()
    return checkpoint_path(workdir, t.num_steps)


def idle_fields(config: ConfigDict) -> dict[str, str]:
    """Fields that have no effect with the other values of the config, with the reason."""
    found, t = datasets.idle_fields(config.data), config.training
    if not t.validate_every:
        names = ("training.validation_images", "training.validation_bins")
        found |= dict.fromkeys(names, "training.validate_every is 0")
    if not t.sample_every:
        names = ("training.sample_images", "training.sample_steps")
        found |= dict.fromkeys(names, "training.sample_every is 0")
    if not t.reconstruct_every:
        names = [f"training.reconstruct_{name}" for name in ("images", "steps", "from")]
        found |= dict.fromkeys(names, "training.reconstruct_every is 0")
    if not config.data.crop:
        found["data.shrink"] = "data.crop is 0"
    unused = ("beta_min", "beta_max") if config.sde.name == "ve" else ("sigma_min", "sigma_max")
    found |= {f"sde.{name}": f"sde.name is {config.sde.name}" for name in unused}
    if t.levels != "log_normal":
        names = ("training.level_mean", "training.level_std")
        found |= dict.fromkeys(names, "training.levels is sde")
    return found


def process() -> tuple[int, int]:
    """Rank of this process and number of processes that train together."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def check(config: ConfigDict, world: int) -> None:
    """Raise a ConfigError for invalid values of a training config.

    Args:
        config: the training config.
        world: number of processes.
    """
    check_numbers(config)
    t = config.training
    positive = ["validation_images", "validation_bins"] if t.validate_every else []
    positive += ["sample_images"] if t.sample_every else []
    positive += ["reconstruct_images"] if t.reconstruct_every else []
    for name in positive:
        if t[name] < 1:
            raise configs.ConfigError(f"expected training.{name} of at least 1, got {t[name]}")
    if t.sample_every and t.sample_steps < 2:
        raise configs.ConfigError(
            f"expected training.sample_steps of at least 2, got {t.sample_steps}"
        )
    if t.reconstruct_every:
        names = held_out.parse(t.reconstruct_from)
        least = 3 if "ct" in names else 2  # one call finds the first noise level of CT
        if t.reconstruct_steps < least:
            raise configs.ConfigError(
                f"expected training.reconstruct_steps of at least {least}, got "
                f"{t.reconstruct_steps}"
            )
        if "ct" in names and config.data.phase:
            raise configs.ConfigError(
                "expected training.reconstruct_from=mri with a data.phase, as images of CT are "
                f"real, got {t.reconstruct_from!r}"
            )
    if t.batch_size % (world * t.accumulation):
        raise configs.ConfigError(
            f"expected training.batch_size to be a multiple of {world} processes x "
            f"training.accumulation={t.accumulation}, got {t.batch_size}"
        )
    channels, phase = config.model.get("num_channels", 1), config.data.phase
    if channels != (2 if phase else 1):
        raise configs.ConfigError(
            "expected model.num_channels=2 with a data.phase, for complex images, and 1 without, "
            f"got model.num_channels={channels} and data.phase={phase:g}"
        )
    if not t.weight_sigma >= 0:
        raise configs.ConfigError(
            f"expected training.weight_sigma of 0 or more, got {t.weight_sigma}"
        )
    choices = {
        "levels": ("sde", "log_normal"),
        "precision": ("float32", "bfloat16"),
        "channels_last": ("auto", "on", "off"),
        "compile": ("auto", "on", "off"),
    }
    if t.levels == "log_normal" and t.level_std <= 0:
        raise configs.ConfigError(f"expected training.level_std above 0, got {t.level_std}")
    create_sde(config.sde)
    for name, known in choices.items():
        if t[name] not in known:
            raise configs.ConfigError(
                f"expected training.{name} out of {', '.join(known)}, got {t[name]!r}"
            )


def enabled(choice: str) -> bool:
    """Whether an option "on", "off" or "auto" is on; "auto" is on if there is a GPU."""
    return choice == "on" or (choice == "auto" and torch.cuda.is_available())


def learning_rate(config: ConfigDict, step: int) -> float:
    """Learning rate of a step: linear warm-up, constant, then linear decay.

    It grows over the first `optim.warmup` steps and decays over the last `optim.cooldown` steps.
    The constant part does not depend on the number of steps, so that a finished run without
    cooldown can be continued with one.
    """
    o, left = config.optim, config.training.num_steps - step
    return o.lr * min((step + 1) / max(o.warmup, 1), left / (o.cooldown + 1), 1.0)


def autocast(net: nn.Module, config: ConfigDict, x: Tensor, sigma: Tensor, *depth: int) -> Tensor:
    """Output ``net(x, sigma, *depth)`` in float32, computed in `training.precision`."""
    low = config.training.precision == "bfloat16"
    with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
        return net(x, sigma, *depth)


def compiled(net: nn.Module, image: Tensor, batch: int, config: ConfigDict, device: str):
    """`net` compiled by `torch.compile`, or, with a warning, `net` itself if that fails.

    Args:
        net: the network.
        image: ``(1, H, W)`` training image.
        batch: number of images per call.
        config: training config.
        device: device of the network.
    """
    x, sigma = image.expand(batch, -1, -1, -1).to(device), torch.ones(batch, device=device)
    try:
        fast = torch.compile(net, fullgraph=True)  # several graphs may be slower than no compiling
        autocast(fast, config, x, sigma).sum().backward()  # compilation happens here
    except Exception as error:  # missing compilers and unsupported devices raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"training without torch.compile, which failed: {reason}", stacklevel=2)
        return net
    finally:
        net.zero_grad(set_to_none=True)
    return fast


def agree(loss: Tensor, stop: bool) -> tuple[float, bool]:
    """Sum of `loss` over the processes, and whether any of them wants to stop."""
    both = torch.stack([loss, torch.full_like(loss, float(stop))])  # (2,)
    if distributed.is_initialized():
        distributed.all_reduce(both)
    total, wishes = both.tolist()
    return total, wishes > 0


def create_network(config: ConfigDict) -> nn.Module:
    """Network of the config with weights seeded by `config.seed`.

    Raises:
        ValueError: the network does not accept images of `data.crop` or `data.image_size`.
    """
    side = config.data.crop or config.data.image_size
    if side:  # otherwise the size is known only from the images
        check_size(config, (config.model.num_channels, side, side))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        return parametrise(create_model(config), config.sde)


def check_size(config: ConfigDict, shape: tuple[int, int, int]) -> None:
    """Raise a ValueError if the network does not accept images of shape ``(1, H, W)``."""
    with torch.device("meta"):  # only shapes are computed
        net = parametrise(create_model(config), config.sde)
        net(torch.empty(1, *shape), torch.ones(1))


def create_stream(config: ConfigDict) -> TrainingStream:
    """Stream of augmented training images in the order of the seed."""
    world = process()[1]
    piece = config.training.batch_size // (world * config.training.accumulation)
    same_size = piece > 1 and not config.data.crop
    dataset = prepare_dataset(config.data, "train", same_size=same_size)
    # the original code reads the knee slices in file order
    unshuffled = config.protocol == "study" and config.data.name == "fastmri"
    return TrainingStream(
        dataset,
        seed=config.seed,
        shuffle=config.training.shuffle and not unshuffled,
        crop=config.data.crop,
        shrink=config.data.shrink,
        flip=config.data.flip,
        rotate=config.data.rotate,
        gamma=config.data.gamma,
        invert=config.data.invert,
        shading=config.data.shading,
        background=config.data.background,
        phase=config.data.phase,
    )


def held_out_images(config: ConfigDict) -> dict[str, list[Tensor]]:
    """Evenly spaced images ``(1, H, W)`` of the validation split, cropped as in training.

    Returns:
        Those of "validate" and those of "reconstruct", whichever the config asks for.

    Raises:
        DataError: there are no validation images, or they cannot be read.
    """
    t = config.training
    wanted = {"validate": t.validation_images} if t.validate_every else {}
    wanted |= {"reconstruct": t.reconstruct_images} if t.reconstruct_every else {}
    if not wanted:
        return {}
    try:
        dataset = prepare_dataset(config.data, "val")
    except DataError as error:
        fields = " and ".join(f"training.{name}_every=0" for name in wanted)
        raise DataError(f"{error} (set {fields} to train without validation)") from None
    stream = TrainingStream(
        dataset,
        seed=config.seed,
        shuffle=False,
        crop=config.data.crop,
        flip=False,
        rotate=False,
        phase=config.data.phase,
    )

    def spread(count: int) -> list[Tensor]:
        if not config.data.crop:  # random crops of few images give any number of different ones
            count = min(count, len(dataset))
        stride = max(len(dataset) // count, 1)
        return [stream[i * stride] for i in range(count)]

    return {name: spread(count) for name, count in wanted.items()}


def measure(
    config: ConfigDict, images: dict[str, list[Tensor]], device: str
) -> list[held_out.Measured]:
    """Measurements of the held-out images to reconstruct, beside what they give without a prior."""
    batch = held_out.stack(images["reconstruct"])
    names = held_out.parse(config.training.reconstruct_from)
    return held_out.measure(batch, names, seed=config.seed, device=device)


def with_noise(
    numbers: Sequence[int],
    images: Tensor,
    *,
    seed: int,
    sde: VESDE | VPSDE,
    log_normal: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Images with noise levels ``(B,)`` and standard normal noise.

    Args:
        numbers: B sample numbers; sample n draws from a generator seeded by (seed, n).
        images: ``(B, 1, H, W)``.
        seed: seed of the run.
        sde: gives the noise level at a time.
        log_normal: or their distribution, see `sde.draw_levels`.

    Returns:
        The images, noise levels ``(B,)`` and noise ``(B, 1, H, W)``.
    """
    rng = BatchGenerator([derive_seed(seed, "noise", n) for n in numbers])
    sigma = draw_levels(rng.generators, sde, log_normal)
    return images, sigma, rng.normal_like(images)


def log_normal(config: ConfigDict) -> tuple[float, float] | None:
    """Mean and standard deviation of log sigma, if levels are drawn from a normal distribution."""
    t = config.training
    return (t.level_mean, t.level_std) if t.levels == "log_normal" else None


def resume(
    workdir: Path,
    net,
    ema,
    adam,
    device: str,
    *,
    keep_optimizer: bool = True,
    keep_average: bool = True,
) -> tuple[int, int, dict]:
    """Load the newest readable checkpoint, if any, into network, average and optimiser.

    Args:
        workdir: folder of the run.
        net: the network.
        ema: its average, of `models.ema.create_ema`.
        adam: the optimiser.
        device: device of them.
        keep_optimizer: whether Adam's moments are kept; the study's code loses them.
        keep_average: whether the average is kept; the study's code starts that of nested networks
            anew from the current weights.

    Returns:
        Number of finished steps, number of skipped ones among them, and the values since the last
        row of the log.
    """
    rank, world = process()
    found = [find_newest(workdir) if rank == 0 else None]
    if world > 1:  # all processes have to load the same one
        distributed.broadcast_object_list(found)
    path = found[0]
    if path is None:
        return 0, 0, {}
    state = load_state(path, device, ("step", "model", "ema", "ema_updates", "optimizer"))
    checkpoint.load_weights(net, state["model"], path)
    checkpoint.load_weights(ema.module, state["ema" if keep_average else "model"], path)
    ema.n_averaged.fill_(state["ema_updates"] if keep_average else 1)
    if keep_optimizer:
        adam.load_state_dict(state["optimizer"])
    if rank == 0:
        print(f"continuing from {path}")
        then, now = state.get("versions", {}), versions()
        changed = [f"{k} {then[k]} -> {now[k]}" for k in then if then[k] != now[k]]
        if changed:
            warnings.warn(f"numbers may change slightly: {', '.join(changed)}", stacklevel=2)
    return state["step"], state.get("skipped", 0), state.get("window", {})


def save(workdir: Path, step: int, config: ConfigDict, net, ema, adam, skipped, window) -> None:
    """Write the checkpoint of `step`, then remove all but the newest `keep_checkpoints`."""
    payload = {
        "config": config.to_dict(),
        "step": step,
        "model": net.state_dict(),
        "ema": ema.module.state_dict(),
        "ema_updates": int(ema.n_averaged),
        "optimizer": adam.state_dict(),
        # for information only: the schedule is a function of the step
        "scheduler": {"warmup": config.optim.warmup, "next_lr": learning_rate(config, step)},
        "skipped": skipped,
        "window": window,
        "versions": versions(),
    }
    save_checkpoint(workdir, payload, keep=config.training.keep_checkpoints)


def versions() -> dict[str, str]:
    """Versions of Python, PyTorch, NumPy and CUDA, and the device, for a checkpoint."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a plain str, as weights_only=True rejects subclasses
        "numpy": numpy.__version__,
        "cuda": torch.version.cuda or "none",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def validate(log: TrainingLog, step: int, net, images: list[Tensor], sde, config) -> None:
    """Log the loss of `net` on held-out images for each bin of noise levels, and each depth."""
    bins = config.training.validation_bins
    edges = noise_level_bins(sde.ve, bins).tolist()
    scale = 0.5 * sum(image.numel() for image in images) / len(images)
    for depth in log.validation:
        found = validation_loss(net, images, sde.ve, seed=config.seed, bins=bins, depth=depth)
        rows = [
            dict(zip(VALIDATION_COLUMNS, (step, low, high, loss, loss / scale), strict=True))
            for low, high, loss in zip(edges, edges[1:], found.tolist(), strict=False)
        ]
        log.write_validation(rows, depth)


def sample(
    log: TrainingLog, workdir: Path, step: int, net, shape: torch.Size, sde, config, device
) -> None:
    """Draw images from the prior, side by side in ``samples/step_*.png`` and TensorBoard."""
    count = config.training.sample_images
    try:
        images = unconditional(
            score_function(net),
            sde.ve,
            shape[1:],
            rng=BatchGenerator([derive_seed(config.seed, "sample", i) for i in range(count)]),
            num_steps=config.training.sample_steps,
            device=device,
        )
    except NonFiniteError as error:  # early in training the sampler may diverge
        warnings.warn(f"no samples at step {step}: {error}", stacklevel=2)
        return
    sheet = contact_sheet(images, columns=count)
    write_atomically(workdir / "samples" / f"step_{step:08d}.png", png(sheet))
    log.write_picture("samples/prior", sheet, step)


def reconstruct(
    log: TrainingLog,
    workdir: Path,
    step: int,
    net,
    measured: Sequence[held_out.Measured],
    sde,
    config: ConfigDict,
) -> None:
    """Reconstruct the held-out measurements with the prior: numbers and pictures, for each kind.

    The pictures, ``reconstructions/NAME_step_*.png``, have the rows target, direct reconstruction,
    TV, and the prior's.
    """
    symmetric = bool(config.data.flip and config.data.rotate)
    score = score_function(net, stride=net.stride, symmetric=symmetric)
    rows = []
    for one in measured:
        try:
            images = held_out.reconstruct(
                one, score, sde.ve, num_steps=config.training.reconstruct_steps
            )
        except NonFiniteError as error:  # early in training the sampler may diverge
            warnings.warn(f"no reconstructions at step {step}: {error}", stacklevel=2)
            continue
        held_out.add_tv(one)
        rows += held_out.rows(one, images, step=step)
        sheet = contact_sheet(held_out.picture(one, images), columns=len(images))
        path = workdir / "reconstructions" / f"{one.name}_step_{step:08d}.png"
        write_atomically(path, png(sheet))
        log.write_picture(f"reconstruction/{one.name}", sheet, step)
    log.write_reconstructions(rows)


def set_up_process(config: ConfigDict) -> str:
    """Set PyTorch's options and join the processes started by torchrun; returns the device."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
        torch.backends.cuda.matmul.allow_tf32 = config.training.tf32
        torch.backends.cudnn.allow_tf32 = config.training.tf32
        torch.backends.cudnn.benchmark = config.training.cudnn_benchmark
    else:
        keep_freed_memory()
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("nccl" if device != "cpu" else "gloo")
    return device


def main(_) -> None:
    """Run the command line."""
    interrupted = catch_signals()
    config = flags.FLAGS.config
    with configs.clear_errors(MEMORY):
        device = set_up_process(config)
        if process()[0] == 0:
            configs.note_idle(idle_fields(config))
        path = train(config, Path(flags.FLAGS.workdir), device, interrupted)
    if process()[0] == 0:
        print(f"trained prior: {path}")
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    configs.define_flags(None, workdir="folder of the run")
    configs.run(main)
