"""Train the U-Net baseline on simulated measurements of a data set.

    python -m evaluation.train_unet --config=configs/unet.py --workdir=runs/unet
    python -m evaluation.evaluate --out=results/unet --config.sampler.name=unet \
        --config.sampler.checkpoint=runs/unet

The folder WORKDIR receives `config.json`, `log.csv`, `validation.csv` and `checkpoints/step_*.pt`.
Running the same command again continues from the newest checkpoint; order, flips and masks of
sample n are functions of (seed, n). On SIGTERM, SIGUSR1, Ctrl-C or a closed terminal, training
saves a checkpoint and exits with code 75.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import torch
from absl import flags
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

import configs
from configs.progress import progress_bar
from configs.ranges import check_numbers
from datasets import collate
from datasets.files import holding
from datasets.identity import check_files, check_outside
from datasets.prepare import prepare_dataset
from datasets.stream import TrainingStream, batches
from evaluation.baselines.direct import direct
from evaluation.baselines.unet import apply_unet, normalise
from evaluation.metrics import psnr
from evaluation.run.idle import idle_fields
from evaluation.run.measurements import build_operator, with_end_angle
from models import checkpoint
from models.run import (
    REQUEUE,
    CsvLog,
    catch_signals,
    checkpoint_path,
    due,
    find_newest,
    load_state,
    save_checkpoint,
    write_if_changed,
)
from models.unet import UNet
from operators.batch import derive_seed, expand

COLUMNS = ("step", "loss")  # mean over the steps since the last row, of normalised images
VALIDATION_COLUMNS = ("step", "psnr")  # dB, mean over the validation slices
MAY_CHANGE = (
    "training.log_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.validate_every",
    "data.root",
    "data.cache",
    "data.cache_dir",
    "data.num_workers",
)
DECAY = 0.1


def train_unet(
    config: ConfigDict,
    workdir: Path,
    device: str,
    interrupted: Callable[[], bool] = lambda: False,
) -> Path:
    """Train the U-Net baseline, or continue training.

    Args:
        config: see configs/unet.py.
        workdir: folder of the run.
        device: device of the network.
        interrupted: called after each step; if it returns True, training saves a checkpoint and
            exits.

    Returns:
        Path of the last checkpoint.

    Raises:
        ConfigError, DataError, CheckpointError, ValueError: before any training, if the config,
            the data or the folder is invalid.
        FloatingPointError: the loss is not finite.
        SystemExit: with code `REQUEUE`, after an interruption.
    """
    check_numbers(config)
    config = with_end_angle(config)
    t = config.training
    check_outside(workdir, config.data, "--workdir")
    configs.check_same(workdir / "config.json", config, ignore=MAY_CHANGE)
    stream = TrainingStream(
        prepare_dataset(config.data, "train", same_size=t.batch_size > 1),
        seed=config.seed,
        shuffle=True,
        crop=0,
        flip=config.data.flip,
        rotate=False,
    )
    held_out = prepare_dataset(config.data, "val") if t.validate_every else []
    net = create_network(config).to(device)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=config.optim.lr)
    with holding(workdir):
        configs.check_same(workdir / "config.json", config, ignore=MAY_CHANGE)
        check_files(workdir / "files.csv", stream.dataset, config.data)
        write_if_changed(workdir / "config.json", configs.to_json(config))
        return fit(config, workdir, device, interrupted, net, optimizer, stream, held_out)


def fit(
    config: ConfigDict,
    workdir: Path,
    device: str,
    interrupted: Callable[[], bool],
    net: UNet,
    optimizer: torch.optim.Optimizer,
    stream: TrainingStream,
    held_out: Dataset,
) -> Path:
    """The training loop of `train_unet`, whose arguments are opened and checked there."""
    t = config.training
    measurement = measure(config, stream[0][None], ["sample 0"])[0].facts()
    start, losses = resume(workdir, net, optimizer, device)
    log = CsvLog(workdir / "log.csv", COLUMNS, start)
    validation = CsvLog(workdir / "validation.csv", VALIDATION_COLUMNS, start)

    loader = batches(
        stream,
        start=start,
        stop=t.num_steps,
        batch_size=t.batch_size,
        num_workers=config.data.num_workers,
    )
    progress = progress_bar(t.num_steps, "step", initial=start)
    with closing(loader) as pieces, progress:
        for step in range(start, t.num_steps):
            numbers, images = next(pieces)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            loss = unet_loss(net, config, numbers, images, device)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is not finite at step {step}; lower optim.lr (checkpoints are kept)"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            progress.update()

            done, stop = step + 1, interrupted()
            last = done == t.num_steps
            if due(t.log_every, done, last):
                mean = sum(losses) / len(losses)
                log.write([{"step": done, "loss": mean}])
                progress.set_postfix_str(f"loss {mean:.4f}", refresh=False)
                losses = []
            if due(t.validate_every, done, last):
                value = validate(net, config, held_out, device)
                validation.write([{"step": done, "psnr": value}])
            if due(t.checkpoint_every, done, last) or stop:
                save(workdir, done, config, net, optimizer, losses, measurement)
            if stop and not last:
                print(f"interrupted after step {done}; the same command continues", flush=True)
                raise SystemExit(REQUEUE)
    return checkpoint_path(workdir, t.num_steps)


def create_network(config: ConfigDict) -> UNet:
    """Network of the config with weights seeded by `config.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        return UNet(**config.model)


def learning_rate(config: ConfigDict, step: int) -> float:
    """Learning rate of a step: constant, divided by 10 after `optim.decay_at` of the steps."""
    late = step >= config.optim.decay_at * config.training.num_steps
    return config.optim.lr * (DECAY if late else 1.0)


def measure(config: ConfigDict, images: Tensor, keys: Iterable[str]):
    """Operator for images ``(B, 1, H, W)`` with `keys`, and their measurement."""
    keys = list(keys)
    operator = build_operator(config, tuple(images.shape[-2:]), keys).to(images.device)
    return operator, operator.forward(images)


def unet_loss(net: UNet, config: ConfigDict, numbers: range, images: Tensor, device: str) -> Tensor:
    """Mean absolute error of the normalised images, a scalar.

    Output and target are normalised by the mean and standard deviation of the input, as in fastMRI.
    """
    images = images.to(device)
    operator, y = measure(config, images, [f"sample {n}" for n in numbers])
    inputs, mean, deviation = normalise(direct(operator, y))
    targets = (images - expand(mean, images)) / expand(deviation, images)
    return F.l1_loss(net(inputs), targets)


@torch.no_grad()
def validate(net: UNet, config: ConfigDict, dataset: Dataset, device: str) -> float:
    """Mean PSNR over the validation slices in dB."""
    values = []
    for i in range(len(dataset)):
        sample = collate([dataset[i]])
        operator, y = measure(config, sample.image.to(device), sample.key)
        image = apply_unet(net, direct(operator, y)).cpu()
        values.append(psnr(sample.image[0, 0].numpy(), image[0, 0].numpy()))
    return sum(values) / len(values)


def resume(workdir: Path, net: UNet, optimizer, device: str) -> tuple[int, list[float]]:
    """Load the newest checkpoint, if any; returns finished steps, and losses since the last row."""
    path = find_newest(workdir)
    if path is None:
        return 0, []
    state = load_state(path, device, ("step", "model", "optimizer", "losses"))
    checkpoint.load_weights(net, state["model"], path)
    optimizer.load_state_dict(state["optimizer"])
    print(f"continuing from {path}")
    return state["step"], state["losses"]


def save(workdir: Path, step: int, config, net, optimizer, losses, measurement) -> None:
    """Write the checkpoint of `step`, then remove all but the newest `keep_checkpoints`."""
    payload = {
        "config": config.to_dict(),
        "measurement": measurement,
        "step": step,
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": losses,
    }
    save_checkpoint(workdir, payload, keep=config.training.keep_checkpoints)


def main(_) -> None:
    """Run the command line."""
    interrupted = catch_signals()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with configs.clear_errors():
        configs.note_idle(idle_fields(flags.FLAGS.config))
        path = train_unet(flags.FLAGS.config, Path(flags.FLAGS.workdir), device, interrupted)
    print(f"trained U-Net: {path}")


if __name__ == "__main__":
    configs.define_flags("configs/unet.py", workdir="folder of the run")
    configs.run(main)
