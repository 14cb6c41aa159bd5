"""Complex images, coils and coil maps computed from fastMRI's `kspace`."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import torch
from torch import Tensor

from datasets.bad_input import reading
from datasets.coil_maps import cached_coil_maps
from datasets.fit import centre_crop
from datasets.hdf5 import get_array, open_hdf5
from datasets.ismrmrd import ANY
from datasets.sample import DataError, Sample, make_complex_sample
from datasets.slices import SliceDataset
from operators.fourier import fft2c, ifft2c

KSPACE_KEY, MASK_KEY, HEADER_KEY = "kspace", "mask", "ismrmrd_header"
NO_KSPACE = "set data.mode to magnitude, or data.root to files with k-space"
RANKS = {3: "single-coil", 4: "multi-coil", 5: "prostate (averages first)"}


class FastMRIKspace(SliceDataset):
    """Complex slices computed from k-space; made by `open_fastmri`.

    The image is computed from `kspace` as in the public fastMRI tools: centred orthonormal inverse
    Fourier transform, then a central crop in image space to `image_size` or to the size of the
    reconstruction in the header, with rows and columns as stored. It is divided by its largest
    magnitude (nothing is subtracted), so that its magnitude times this peak, ``scale[1]``, is the
    public `reconstruction_esc`.

    Single-coil samples have no extras. For multi-coil data the image is the combination
    sum_c conj(S_c) x_c of the coils, and the extras, on the grid and in the unit of the image, are

    - ``"kspace"`` ``(C, H, W)`` complex64: transform of the cropped coil images,
    - ``"sens_maps"`` ``(C, H, W)`` complex64: ESPIRiT maps of that k-space, cached on disk,
    - ``"rss"`` ``(1, H, W)`` float32: root sum of squares of the coil images.

    Prostate volumes hold three averages, each with every other column. They are merged (mean of the
    measured values), padded to the encoded width and flipped as in the public tools. The public
    `reconstruction_rss` fills each average by GRAPPA instead, so that its noise differs.

    Prospective files (with `mask`, from the public test sets) have no target: the image is
    zero-filled and not cropped, ``"kspace"`` is as measured (single-coil ``(1, H, W)``), and
    ``"mask"``, bool ``(H, W)``, is the sampling mask.
    """

    def __init__(
        self,
        slices: Sequence[tuple[Path, int]],
        *,
        image_size: int | None = None,
        multicoil: bool = False,
        cache_dir: str = "",
        skipped: Sequence[str] = (),
    ):
        super().__init__(slices, skipped=skipped)
        self.image_size = image_size
        self.multicoil = multicoil
        self.cache_dir = cache_dir

    def read(self, source: Path, indices: Sequence[int]) -> list[Sample]:
        """Samples of some slices of one file."""
        return [self._read_slice(source, index) for index in indices]

    def _read_slice(self, source: Path, index: int) -> Sample:
        key = f"{source.name}:{index}"
        with open_hdf5(source) as file:
            mask = _read_mask(file, source)
            kspace = _read_kspace(file, source, index)  # (C, H, W)
            crop = None if mask is not None else self.image_size or _image_shape(file, source)
        if not torch.isfinite(torch.view_as_real(kspace)).all():
            raise DataError(f"{key}: NaN or infinite k-space; repair the file or leave it out")
        if not kspace.any():
            raise DataError(f"{key}: k-space is all zeros; leave the slice or the file out")
        coils = ifft2c(kspace)  # (C, H, W)
        if crop:
            coils = _crop(coils, crop)
            kspace = fft2c(coils)
        extras = {} if mask is None else {"mask": mask}
        image = coils[0]
        if self.multicoil:
            maps = cached_coil_maps(source, index, crop, kspace, key, self.cache_dir)
            image = (maps.conj() * coils).sum(0)  # (H, W)
            extras["sens_maps"] = maps
        sample = make_complex_sample(image.numpy(), key, extras)
        peak = sample.scale[1]
        if self.multicoil or mask is not None:
            sample.extras["kspace"] = kspace / peak
        if self.multicoil:
            sample.extras["rss"] = torch.linalg.vector_norm(coils, dim=0, keepdim=True) / peak
        return sample


def check_kspace(file: h5py.File, path: Path, image_size: int | None, *, multicoil: bool) -> int:
    """Number of slices of a volume, after checking that its k-space can be read as requested.

    Args:
        file: the open file.
        path: its path, for errors.
        image_size: side of the central crop; None or 0 for none.
        multicoil: whether multi-coil k-space is expected.

    Raises:
        DataError: there is no k-space, or it has the wrong rank or type or is too small to crop.
    """
    data = get_array(file, path, KSPACE_KEY, NO_KSPACE)
    if data.ndim not in RANKS or data.dtype.kind != "c":
        raise DataError(
            f"{path}: expected '{KSPACE_KEY}' complex, of shape (slices, height, width) with "
            f"(averages and) coils before height, got {data.dtype} of shape {data.shape}; "
            f"{NO_KSPACE}"
        )
    if multicoil == (data.ndim == 3):
        other = "complex" if multicoil else "multicoil"
        raise DataError(
            f"{path}: expected {'multi' if multicoil else 'single'}-coil '{KSPACE_KEY}', got "
            f"{RANKS[data.ndim]} of shape {data.shape}; set data.mode to {other}"
        )
    if image_size and MASK_KEY in file:
        raise DataError(
            f"{path}: undersampled when it was measured, and cropping would mix what was measured "
            f"with what was not (data.image_size {image_size}); set data.image_size to 0"
        )
    height, width = _padded_shape(file, path)
    if min(height, width) < (image_size or 1):
        raise DataError(
            f"{path}: expected k-space of at least {image_size} x {image_size}, got {height} x "
            f"{width}; set data.image_size to at most {min(height, width)}"
        )
    _image_shape(file, path)  # so that an unreadable header is found here, and mask
    _read_mask(file, path)
    return data.shape[1] if data.ndim == 5 else data.shape[0]


def _read_kspace(file: h5py.File, path: Path, index: int) -> Tensor:
    """K-space of a slice: complex64 ``(C, H, W)``."""
    data = file[KSPACE_KEY]
    if data.ndim == 5:
        merged = _merge_averages(data[:, index])  # (C, H, W)
        short = _padded_shape(file, path)[1] - merged.shape[-1]
        merged = np.pad(merged, ((0, 0), (0, 0), (short // 2, short - short // 2)))
        image = ifft2c(torch.from_numpy(merged))
        return fft2c(image.flip(-2))  # upside down, as in the public reconstruction
    kspace = torch.from_numpy(data[index].astype(np.complex64))
    return kspace if data.ndim == 4 else kspace[None]  # (C, H, W)


def _merge_averages(kspace: np.ndarray) -> np.ndarray:
    """Mean of the measured values of averages ``(A, C, H, W)``: complex64 ``(C, H, W)``."""
    count = (kspace != 0).any(axis=(1, 2), keepdims=True).sum(axis=0)  # (1, 1, W): whole columns
    return (kspace.sum(axis=0) / np.maximum(count, 1)).astype(np.complex64)


def _read_mask(file: h5py.File, path: Path) -> Tensor | None:
    """Sampling mask, bool ``(H, W)``, of a prospective file; None for other files."""
    if MASK_KEY not in file:
        return None
    shape = tuple(file[KSPACE_KEY].shape[-2:])
    mask = torch.from_numpy(np.asarray(file[MASK_KEY]).astype(bool)).squeeze()  # (W,) or (H, W)
    if tuple(mask.shape) not in (shape, shape[1:]):
        raise DataError(
            f"{path}: expected '{MASK_KEY}' of the {shape[1]} columns of k-space, or of shape "
            f"{shape}, got {tuple(mask.shape)}; correct it"
        )
    return mask.expand(shape).clone()  # (H, W)


def _padded_shape(file: h5py.File, path: Path) -> tuple[int, int]:
    """Height and width of k-space, for prostate files including columns to pad by the header."""
    shape = file[KSPACE_KEY].shape
    if len(shape) < 5:
        return shape[-2], shape[-1]
    size = _header(file, path, "encodedSpace", "matrixSize", "x")
    last = _header(file, path, "encodingLimits", "kspace_encoding_step_1", "maximum")
    if size is None or last is None:
        raise DataError(
            f"{path}: expected '{HEADER_KEY}' to tell how far k-space is to be padded; probably "
            "corrupt, copy or download it again"
        )
    return shape[-2], shape[-1] + max(0, size - last - 1)


def _image_shape(file: h5py.File, path: Path) -> tuple[int, int] | None:
    """Height and width to which the public reconstruction is cropped; None if it is not.

    Some brain volumes (FLAIR 203) have fewer columns; the public tools then crop to a square whose
    side is the number of columns.
    """
    height, width = _padded_shape(file, path)
    if "reconstruction_rss" in file:
        wanted = file["reconstruction_rss"].shape[-2:]
    else:
        names = [("reconSpace", "matrixSize", axis) for axis in "xy"]
        wanted = tuple(_header(file, path, *name) for name in names)
    if len(wanted) != 2 or None in wanted or 0 in wanted:
        return None
    if width < wanted[1]:
        wanted = (width, width)
    return min(wanted[0], height), min(wanted[1], width)


def _header(file: h5py.File, path: Path, *names: str) -> int | None:
    """Number in the XML header of the file; None if there is none."""
    if HEADER_KEY not in file or not file[HEADER_KEY][()]:  # emptied by an anonymiser
        return None
    with reading(path, f"an XML text in '{HEADER_KEY}'"):
        root = ElementTree.fromstring(file[HEADER_KEY][()])
        tags = "/".join(f"{ANY}{name}" for name in ("encoding", *names))
        text = root.findtext(tags)
        return None if text is None else int(text)


def _crop(coils: Tensor, crop: int | tuple[int, int]) -> Tensor:
    if isinstance(crop, int):
        return torch.from_numpy(np.ascontiguousarray(centre_crop(coils.numpy(), crop)))
    top, left = ((n - m) // 2 for n, m in zip(coils.shape[-2:], crop, strict=True))
    return coils[..., top : top + crop[0], left : left + crop[1]].contiguous()
