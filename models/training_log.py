"""Log of a training run: CSV files for numbers, TensorBoard for curves and pictures."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from models.run import CsvLog

COLUMNS = (
    "step",
    "loss",
    "loss_per_pixel",
    "lr",
    "grad_norm",
    "skipped_steps",
    "images_per_second",
    "seconds_per_epoch",
    "gpu_memory_gib",
)
VALIDATION_COLUMNS = ("step", "sigma_from", "sigma_to", "loss", "loss_per_pixel")
RECONSTRUCTION_COLUMNS = ("step", "measurement", "image", "method", "psnr", "ssim")
# column of log.csv -> name in TensorBoard, whose part before the slash is its group
TAGS = {
    "loss": "loss/train",
    "loss_per_pixel": "loss/train_per_pixel",
    "lr": "optim/lr",
    "grad_norm": "optim/grad_norm",
    "skipped_steps": "optim/skipped_steps",
    "images_per_second": "speed/images_per_second",
    "seconds_per_epoch": "speed/seconds_per_epoch",
    "gpu_memory_gib": "speed/gpu_memory_gib",
}


class TrainingLog:
    """Log of a training run: `log.csv`, `validation.csv`, `reconstructions.csv` and TensorBoard.

    Validation of a nested network at less than full depth is in `validation_depth_1.csv`, ...;
    `reconstructions.csv` is written only by runs that reconstruct.

    A row of `log.csv` holds means over the steps since the previous row. Rows after `start`, which
    a run wrote before it was killed, are dropped, so that no step appears twice; TensorBoard hides
    them.

    Args:
        workdir: folder of the run.
        start: number of finished steps.
        epoch: number of training images.
        window: values since the last row, from a checkpoint.
        depths: number of depths of a nested network; 0 for others.
        reconstructs: whether there will be reconstructions.
    """

    def __init__(
        self,
        workdir: Path,
        start: int,
        epoch: int,
        window: dict[str, list[float]],
        depths: int = 0,
        reconstructs: bool = False,
    ):
        self.csv = CsvLog(workdir / "log.csv", COLUMNS, start)
        files = {None: "validation.csv"}
        files |= {depth: f"validation_depth_{depth}.csv" for depth in range(1, depths)}
        self.validation = {
            depth: CsvLog(workdir / name, VALIDATION_COLUMNS, start)
            for depth, name in files.items()
        }
        path = workdir / "reconstructions.csv"
        wanted = reconstructs or path.is_file()
        names = ("measurement", "method")
        columns = RECONSTRUCTION_COLUMNS
        self.reconstructions = CsvLog(path, columns, start, names) if wanted else None
        self.board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        self.epoch = epoch
        self.window = {name: list(window.get(name, [])) for name in ("loss", "grad_norm")}
        self.images, self.begin = 0, time.perf_counter()

    def add(self, loss: float, grad_norm: float, images: int) -> None:
        """Add the values of one step.

        Args:
            loss: mean loss of the batch.
            grad_norm: norm of the gradient before clipping.
            images: number of images in the batch.
        """
        self.window["loss"].append(loss)
        self.window["grad_norm"].append(grad_norm)
        self.images += images

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Context whose duration does not count as training time."""
        begin = time.perf_counter()
        yield
        self.begin += time.perf_counter() - begin

    def write(self, step: int, *, loss_scale: float, lr: float, skipped: int) -> dict:
        """Write a row of means since the previous row.

        Args:
            step: number of finished steps.
            loss_scale: loss of a network whose output is 0, by which the loss is divided.
            lr: learning rate.
            skipped: number of skipped steps.

        Returns:
            The row.
        """
        loss = finite_mean(self.window["loss"])
        speed = self.images / (time.perf_counter() - self.begin)
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        row = {
            "step": step,
            "loss": loss,
            "loss_per_pixel": loss / loss_scale,  # 1 for a network whose output is 0
            "lr": lr,
            "grad_norm": finite_mean(self.window["grad_norm"]),
            "skipped_steps": skipped,
            "images_per_second": speed,
            "seconds_per_epoch": self.epoch / speed,
            "gpu_memory_gib": memory / 2**30,
        }
        self.csv.write([row])
        for name, tag in TAGS.items():
            self.board.add_scalar(tag, row[name], step)
        self.window = {"loss": [], "grad_norm": []}
        self.images, self.begin = 0, time.perf_counter()
        return row

    def write_validation(self, rows: list[dict], depth: int | None = None) -> None:
        """Write one row per bin of noise levels, at a depth of a nested network.

        TensorBoard gets each bin, and at full depth the mean of all beside the training loss.
        """
        self.validation[depth].write(rows)
        part = "validation" if depth is None else f"validation_depth_{depth}"
        for row in rows:
            name = f"{part}/sigma_{row['sigma_from']:.3g}_to_{row['sigma_to']:.3g}"
            self.board.add_scalar(name, row["loss_per_pixel"], row["step"])
        if depth is None and rows:
            mean = math.fsum(row["loss_per_pixel"] for row in rows) / len(rows)
            self.board.add_scalar("loss/validation_per_pixel", mean, rows[0]["step"])

    def write_reconstructions(self, rows: Iterable[Mapping]) -> None:
        """Write rows of `RECONSTRUCTION_COLUMNS` of one step: an image and method each.

        TensorBoard gets the mean PSNR over images of each measurement and method.
        """
        rows = list(rows)
        self.reconstructions.write(rows)
        groups: dict[tuple[str, str], list[Mapping]] = {}
        for row in rows:
            groups.setdefault((row["measurement"], row["method"]), []).append(row)
        for (measurement, method), group in groups.items():
            mean = math.fsum(row["psnr"] for row in group) / len(group)
            name = f"reconstruction/{measurement}_psnr_{method}"
            self.board.add_scalar(name, mean, group[0]["step"])

    def write_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Show a picture, uint8 ``(H, W)`` or ``(H, W, 3)``, under `name` in TensorBoard."""
        axes = "HW" if picture.ndim == 2 else "HWC"
        self.board.add_image(name, picture, step, dataformats=axes)

    def flush(self) -> None:
        """Bring what TensorBoard was given to the disk; the CSV files are written row by row."""
        self.board.flush()

    def close(self) -> None:
        """Close TensorBoard's writer."""
        self.board.close()


def finite_mean(values: list[float]) -> float:
    """Mean of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
