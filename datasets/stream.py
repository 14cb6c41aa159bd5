"""The endless training stream: which image comes when is a function of (seed, sample number)."""

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
DYING = 1.0  # seconds from a process's last sign to its end


class TrainingStream(Dataset):
    """Item n is the n-th training image of the whole run, over all epochs.

    Epoch e = n // len(dataset) goes through the data in an order that depends on (seed, e) only,
    and item n is augmented with random numbers that depend on (seed, n) only. So a run that is
    resumed at any n sees what an uninterrupted one sees, whatever the number of workers.

    Args:
        dataset: gives a `Sample` each, or with a method `images` a batch of images at once.
        seed: of order and augmentation.
        shuffle: whether each epoch has an order of its own; else the data's.
        crop: side of random crops in pixels; 0 for whole images.
        shrink: smallest random scale before the crop; 1 for none.
        flip: random flips.
        rotate: random rotations by multiples of 90 degrees.
        gamma, invert, shading, background: see `augment`; 0 for none.
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
        }
        self.is_augmented = shrink != 1 or any(
            (crop, flip, rotate, gamma, invert, shading, background)
        )
        # more work than a crop: a process of its own pays even for images in memory
        self.is_costly = shrink != 1 or any((gamma, shading, background))
        self._epoch, self._order = -1, torch.empty(0)

    def __getitem__(self, n: int) -> Tensor:
        """``(1, H, W)`` float32 in [0, 1]."""
        return self.__getitems__([n])[0]

    def __getitems__(self, numbers: Sequence[int]) -> Tensor:
        """A batch ``(B, 1, H, W)``, as a `DataLoader` asks for it.

        Raises:
            DataError: images of different sizes.
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
    """The images of a batch as they are."""
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
    """The batches of steps `start` to `stop` - 1, or one process's part of them.

    Args:
        stream: the images.
        start: first step.
        stop: last step + 1.
        batch_size: images a step, over all processes; a multiple of parts * splits.
        num_workers: processes that read ahead; images that are in memory or in the disk cache
            (mapped into memory) and hardly augmented are taken in this process, as copying them
            to it costs more.
        part: which of the `parts` equal parts of each batch is wanted.
        parts: number of processes that share a batch.
        splits: pieces that this part comes in, one after the other (gradient accumulation).
        finish: called with the numbers n of a piece's samples and their images
            ``(B / (parts splits), 1, H, W)`` on the CPU, where they are read; gives a tensor, or
            a tuple of them.

    Yields:
        the numbers of a piece's samples, and what `finish` gave: by default the images.

    Raises:
        DataError: as `TrainingStream`, or a loader process was killed.
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
    # once this ends, and else before the exit waits for them: a traceback may hold this generator
    end = Finalize(None, _kill, args=(workers,), exitpriority=1)
    try:
        for numbers in pieces():
            yield numbers, _next(iterator, workers)
    finally:
        end()


class _Answers(Dataset):
    """A stream that gives errors back in place of images.

    PyTorch raises an exception of a loader process anew with a traceback in its text, and waits for
    ever for a batch that has no place in shared memory.
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
    """The loader's batches, and its processes.

    PyTorch sets a handler of SIGCHLD that raises wherever the main process is, so amid other work,
    too. It is taken out: `_next` notices a death, as well.
    """
    others = multiprocessing.active_children()
    iterator = iter(loader)
    if loader.num_workers and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return iterator, [p for p in multiprocessing.active_children() if p not in others]


def _next(iterator: Iterator[Batch | Exception], workers: Sequence[BaseProcess]) -> Batch:
    """The next batch; raises the error that comes in its place, or that a process has died."""
    try:
        batch = next(iterator)
    except (RuntimeError, OSError, EOFError) as error:
        # a batch that a dying process has sent breaks off in many ways
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
            del batch  # a cycle with its traceback, which holds the loader's processes
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
    """`TrainingStream` collates by itself."""
    return batch


def _kill(workers: Sequence[BaseProcess]) -> None:
    """End processes that ignore other signals."""
    for worker in workers:
        worker.kill()


def _ignore_signals(_worker: int) -> None:
    """Leave it to the main process to stop: schedulers and terminals signal all processes.

    It may want to go on with its batches, and then ends these by `_kill`.
    """
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
