"""``recon.h5``: the images of a results folder.

It has the data sets ``key`` (n,) str; ``reconstruction`` (n, H, W) float32, or complex64 for
complex images; if there are several posterior samples, ``std``, ``quantile_05`` and ``quantile_95``
(n, H, W) float32, of magnitudes (`samplers.posterior.Posterior`); ``shape`` (n, 2), as smaller
images are zero-padded at the end of each axis; and ``digest`` (n, 8) bytes, the BLAKE2b of each
slice's key and images, which is verified on reading. HDF5's own checksums (fletcher32) are for
other programs; they do not cover the structure of the file.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np

from configs import ConfigError
from datasets.files import replacing

NAMES = ("reconstruction", "std", "quantile_05", "quantile_95")
DIGEST_BYTES = 8


class Images(Mapping[str, np.ndarray]):
    """Images ``(H, W)`` of an open file by key, read on access."""

    def __init__(self, file: h5py.File, name: str):
        self.file, self.name = file, name
        with _intact(file.filename):
            keys = file["key"].asstr(errors="surrogateescape")[()]
            self.places = {key: i for i, key in enumerate(keys)}

    def __getitem__(self, key: str) -> np.ndarray:
        return self.all(key)[self.name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def all(self, key: str) -> dict[str, np.ndarray]:
        """All images of a slice by name, without padding."""
        place = self.places[key]
        with _intact(self.file.filename):
            height, width = self.file["shape"][place]
            names = [name for name in NAMES if name in self.file]
            images = {name: self.file[name][place, :height, :width] for name in names}
            if "digest" in self.file and bytes(self.file["digest"][place]) != _digest(key, images):
                raise ValueError(f"{key} does not fit its checksum")
        return images


@contextmanager
def _intact(path: str) -> Iterator[None]:
    """Context that turns any error of reading a file into a ConfigError."""
    try:
        yield
    except Exception as error:  # h5py raises anything on damaged bytes
        raise ConfigError(
            f"{path}: damaged ({error}); bring it back, or remove it and run evaluation.evaluate "
            "again, which then does all slices again"
        ) from error


def _digest(key: str, images: Mapping[str, np.ndarray]) -> bytes:
    total = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES)
    for name, image in sorted(images.items()):
        total.update(f"\0{name} {image.dtype.str} {image.shape}".encode())
        total.update(np.ascontiguousarray(image))
    return total.digest()


@contextmanager
def open_reconstructions(folder: Path, name: str = "reconstruction") -> Iterator[Images]:
    """Context manager with the `Images` of a results folder.

    Args:
        folder: results folder.
        name: one of `NAMES`.

    Raises:
        FileNotFoundError: there is no recon.h5, as not every slice was tried yet.
        ConfigError: the file is damaged; raised on opening or on reading an image.
    """
    path = folder / "recon.h5"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there yet; run evaluation.evaluate to its end")
    # no locks are needed, as the file is only replaced as a whole
    with _intact(str(path)):
        file = h5py.File(path, locking=False)
    with file:
        yield Images(file, name)


def read_images(folder: Path, name: str = "reconstruction") -> dict[str, np.ndarray]:
    """All images ``(H, W)`` of a results folder by key.

    Args:
        folder: results folder.
        name: one of `NAMES`.

    Raises:
        FileNotFoundError: there is no recon.h5, as not every slice was tried yet.
        ConfigError: the file is damaged.
    """
    with open_reconstructions(folder, name) as images:
        return dict(images)


def stored_keys(folder: Path) -> set[str]:
    """Keys of the images in recon.h5; none if there is no such file."""
    if not (folder / "recon.h5").is_file():
        return set()
    with open_reconstructions(folder) as images:
        return set(images)


def rewrite(
    folder: Path, keys: Sequence[str], load: Callable[[str], dict[str, np.ndarray] | None]
) -> None:
    """Replace recon.h5 by a file with the images of `keys`, in that order.

    Args:
        folder: results folder.
        keys: keys of the slices.
        load: function of a key that returns new images by name, or None to keep those of the
            file. Only one slice at a time is in memory.
    """
    path = folder / "recon.h5"
    with replacing(path) as target, ExitStack() as stack:
        # stays open, as another process may replace it by a newer one
        old = stack.enter_context(open_reconstructions(folder)) if path.is_file() else None

        def images(key: str) -> dict[str, np.ndarray]:
            new = load(key)
            if new is not None:
                return new
            if old is not None and key in old:
                return old.all(key)
            with open_reconstructions(folder) as newer:
                return newer.all(key)

        with h5py.File(target, "w") as file:
            shapes, digests = [], []
            for i, key in enumerate(keys):
                new = images(key)
                if old is not None:  # one of an earlier version has no quantiles
                    new = {name: image for name, image in new.items() if name in old.file}
                shapes.append(_append(file, i, new))
                digests.append(list(_digest(key, new)))
            file["shape"] = shapes
            file["digest"] = np.array(digests, dtype=np.uint8)
            names = [key.encode("utf-8", "surrogateescape") for key in keys]
            file.create_dataset("key", data=names, dtype=h5py.string_dtype())


def _append(file: h5py.File, i: int, images: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Append the images of slice i to the data sets, which grow; returns their shape."""
    for name, image in images.items():
        if name not in file:
            file.create_dataset(
                name,
                (0, *image.shape),
                image.dtype,
                maxshape=(None, None, None),
                chunks=(1, *image.shape),
                fletcher32=True,
            )
        data = file[name]
        data.resize((i + 1, *np.maximum(data.shape[1:], image.shape)))
        data[i, : image.shape[0], : image.shape[1]] = image
    return images["reconstruction"].shape
