"""The endless stream of training images, a function of (seed, sample number)."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from datasets.augment import augment
from datasets.parallel import fetch
from datasets.sample import DataError
from operators.batch import derive_seed

Batch = Tensor | tuple[Tensor, ...]
DYING = 1.0  # seconds to wait for the end of a process whose data broke off


class TrainingStream(Dataset):
    """Stream of augmented training images; item n is the n-th image of the run over all epochs.

    The order of epoch e = n // len(dataset) depends only on (seed, e), and the augmentation of item
    n only on (seed, n). A run that is resumed at any n therefore sees the same images as an
    uninterrupted one, for any number of workers.

    Args:
        dataset: data set of `Sample`, or with a method `images` that returns a batch of images.
        seed: seed of order and augmentation.
        shuffle: whether each epoch has a random order; otherwise that of the data.
        crop: side of random crops in pixels; 0 for whole images.
        flip: whether to flip randomly.
        rotate: whether to rotate randomly by multiples of 90 degrees.
        shrink: smallest random scale before the crop; 1 for none.
        gamma: random contrast, see `augment`; 0 for none.
        invert: probability of inverted intensities; 0 for none.
        shading: random shading, see `augment`; 0 for none.
        background: probability of an empty background, see `augment`; 0 for none.
        phase: largest amplitude of a random phase, see `augment`; 0 for real images.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        shuffle: bool,
        crop: int,
        flip: bool,
        rotate: bool,
        shrink: float = 1.0,
        gamma: float = 0.0,
        invert: float = 0.0,
        shading: float = 0.0,
        background: float = 0.0,
        phase: float = 0.0,
    ):
        self.dataset = dataset
        self.seed = seed
        self.shuffle = shuffle
        self.augmentation = {
            "crop": crop or None,
            "shrink": shrink,
            "flip": flip,
            "rotate": rotate,
            "gamma": gamma,
            "invert": invert,
            "shading": shading,
            "background": background,
            "phase": phase,
        }
        self.is_augmented = shrink != 1 or any(
            (crop, flip, rotate, gamma, invert, shading, background, phase)
        )
        # costly enough for loader processes to pay off even for images in memory
        self.is_costly = shrink != 1 or any((gamma, shading, background, phase))
        self._epoch, self._order = -1, torch.empty(0)

    def __getitem__(self, n: int) -> Tensor:
        """Image number n: float32 ``(1, H, W)`` in [0, 1]; with `phase` two parts ``(2, H, W)``."""
        return self.__getitems__([n])[0]

    def __getitems__(self, numbers: Sequence[int]) -> Tensor:
        """Batch of images ``(B, 1 or 2, H, W)``, as a `DataLoader` requests it.

        Raises:
            DataError: the images have different sizes.
        """
        items = [self._index(*divmod(n, len(self.dataset))) for n in numbers]
        if hasattr(self.dataset, "images"):
            images = self.dataset.images(items)  # (B, 1, H, W)
        else:
            images = [sample.image for sample in fetch(self.dataset, items)]
        if self.is_augmented:
            images = [self._augment(n, x) for n, x in zip(numbers, images, strict=True)]
        return images if isinstance(images, Tensor) else _stack(images)

    def _augment(self, n: int, image: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "augment", n))
        return augment(image, generator, **self.augmentation)

    def _index(self, epoch: int, position: int) -> int:
        if not self.shuffle:
            return position
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._order = torch.randperm(len(self.dataset), generator=generator)
            self._epoch = epoch
        return int(self._order[position])


def just_images(_numbers: Sequence[int], images: Tensor) -> Tensor:
    """The unchanged images of a batch, the default `finish` of `batches`."""
    return images


def batches(
    stream: TrainingStream,
    *,
    start: int,
    stop: int,
    batch_size: int,
    num_workers: int,
    part: int = 0,
    parts: int = 1,
    splits: int = 1,
    finish: Callable[[Sequence[int], Tensor], Batch] = just_images,
) -> Iterator[tuple[range, Batch]]:
    """Batches of the steps `start` to `stop` - 1, or one process's part of them.

    Args:
        stream: the images.
        start: first step.
        stop: last step + 1.
        batch_size: number of images per step over all processes, a multiple of parts * splits.
        num_workers: number of processes that read ahead. Images in memory or in the disk cache
            (mapped into memory) that are hardly augmented are read in this process, as copying
            them costs more.
        part: index of the part of each batch, from 0 to `parts` - 1.
        parts: number of equal parts of each batch, one per process.
        splits: number of pieces into which this part is divided (gradient accumulation).
        finish: function of the numbers n of a piece's samples and their images
            ``(B / (parts splits), 1, H, W)``, called on the CPU where they are read; returns a
            tensor or a tuple of tensors.

    Yields:
        The numbers of a piece's samples, and the result of `finish`, by default the images.

    Raises:
        DataError: an image cannot be read, sizes differ, or a loader process was killed.
    """
    if getattr(stream.dataset, "in_memory", False) and not stream.is_costly:
        num_workers = 0
    size = batch_size // (parts * splits)
    first = part * size * splits

    def pieces() -> Iterator[range]:
        for step in range(start, stop):
            for split in range(splits):
                n = step * batch_size + first + split * size
                yield range(n, n + size)

    loader = DataLoader(
        _Answers(stream, finish),
        batch_sampler=pieces(),
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_signals,
    )
    iterator, workers = _start(loader)
    # also runs at exit, before Python waits for the workers, as a traceback may keep this generator
    end = Finalize(None, _kill, args=(workers,), exitpriority=1)
    try:
        for numbers in pieces():
            yield numbers, _next(iterator, workers)
    finally:
        end()


class _Answers(Dataset):
    """A stream that returns errors instead of raising them.

    PyTorch would raise an exception of a loader process with a traceback in its text, and would
    wait forever for a batch that does not fit in shared memory.
    """

    def __init__(self, stream: TrainingStream, finish: Callable[[Sequence[int], Tensor], Batch]):
        self.stream = stream
        self.finish = finish

    def __getitems__(self, numbers: Sequence[int]) -> Batch | Exception:
        try:
            batch = self.finish(numbers, self.stream.__getitems__(numbers))
            if get_worker_info() is not None:
                for tensor in (batch,) if isinstance(batch, Tensor) else batch:
                    tensor.share_memory_()
            return batch
        except (DataError, OSError, MemoryError) as error:
            return error
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return DataError(
                f"a batch has no place in shared memory ({error}); set data.num_workers to 0, or "
                "make /dev/shm larger (in a container: --shm-size)"
            )


def _start(loader: DataLoader) -> tuple[Iterator[Batch | Exception], list[BaseProcess]]:
    """Iterator of the loader's batches, and its processes.

    PyTorch's handler of SIGCHLD, which raises in the middle of any work of the main process, is
    removed; `_next` also notices a dead process.
    """
    others = multiprocessing.active_children()
    iterator = iter(loader)
    in_main = threading.current_thread() is threading.main_thread()
    if loader.num_workers and in_main and hasattr(signal, "SIGCHLD"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return iterator, [p for p in multiprocessing.active_children() if p not in others]


def _next(iterator: Iterator[Batch | Exception], workers: Sequence[BaseProcess]) -> Batch:
    """Next batch; raises the error returned in its place, or a DataError if a process has died."""
    try:
        batch = next(iterator)
    except (RuntimeError, OSError, EOFError) as error:
        # an incomplete batch of a dying process raises various errors
        if not wait([worker.sentinel for worker in workers], timeout=DYING):
            raise
        raise DataError(
            "a process that reads images was killed, probably for want of memory (in a container "
            "perhaps of /dev/shm: --shm-size); set a smaller data.num_workers, 0 for none"
        ) from error
    if isinstance(batch, Exception):
        try:
            raise batch
        finally:
            del batch  # breaks a cycle with the traceback, which keeps the loader's processes
    return batch


def _stack(images: Sequence[Tensor]) -> Tensor:
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise DataError(
            f"expected images of one size in a batch, got {shapes}; set data.image_size or "
            "data.crop, or use batch size 1"
        )
    return torch.stack(list(images))  # (B, 1, H, W)


def _as_it_is(batch: Batch) -> Batch:
    """The batch itself, as `TrainingStream` already collates."""
    return batch


def _kill(workers: Sequence[BaseProcess]) -> None:
    """Kill loader processes, which ignore other signals."""
    for worker in workers:
        worker.kill()


def _ignore_signals(_worker: int) -> None:
    """Ignore signals in a loader process, as schedulers and terminals signal all processes.

    The main process may still need its batches, and ends loader processes by `_kill`.
    """
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
