"""A user's file and a config as inverse problems, slice by slice: k-space, sinograms, images.

Everything that can be wrong with the file is looked for when it is opened.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

import configs
from configs.reconstruct import get_config
from datasets.bad_input import reading
from datasets.coil_maps import CALIB_WIDTH, LEAST_WIDTH
from datasets.dicom import parse_window, read_header
from datasets.image_series import ImageSeries, is_image_path, open_images
from datasets.measured import KSPACE, Measured, open_measured
from datasets.sample import DataError
from datasets.slices import choose_slices
from operators import FanBeamCT, LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.ct import few_view_angles
from operators.espirit import acs_width, espirit_maps
from operators.masks import effective_acceleration, make_mask
from operators.noise import ORDER, kspace_noise
from operators.problem import Problem, crop_readout, ct_problem, image_problem, mri_problem
from operators.prospective import recover_mask

DEFAULT_MASK = "gaussian1d"  # of images; the study's first
SILENT = 0.1  # part of the positions said to be measured that may be 0 without a note
UNEVEN = 0.1  # relative spread of the views' sums from which parallel-beam data look wrong
# fields that only some inputs read
ONLY = {
    "data.first_axis": ("k-space",),
    "data.mask": ("k-space",),
    "data.sens_maps": ("k-space",),
    "data.image_size": ("k-space", "a sinogram"),
    "data.angles": ("a sinogram",),
    "data.axis": ("images",),
    "data.window": ("images",),
    "operator.name": ("images",),
    "operator.mask": ("k-space", "images"),
    "operator.num_views": ("images",),
    "operator.end_angle": ("a sinogram", "images"),
    "operator.geometry": ("a sinogram",),
    "operator.pixel_size": ("a sinogram",),
    "operator.bin_spacing": ("a sinogram",),
    "operator.source_distance": ("a sinogram",),
    "operator.detector_distance": ("a sinogram",),
}


@dataclass
class Input:
    """What all inputs have.

    Attributes:
        kind: "k-space", "a sinogram" or "images".
        numbers: the chosen slices, as the file counts them.
        keys: their names.
        unit: of the reconstruction.
        direct: what the reconstruction without a prior is called.
        facts: what was found in the file, for the summary.
        notes: what looks unusual.
        series: images: what they were read from.
        voxel_size: mm (row, column, slice), where known.
        sources: the files of the input.
        others: further files that the config names.
    """

    kind: str
    numbers: range
    keys: list[str]
    unit: str
    direct: str
    sources: tuple[Path, ...]
    others: tuple[Path, ...] = ()
    facts: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    series: ImageSeries | None = None
    voxel_size: tuple[float, float, float] | None = None

    def problem(self, items: Sequence[int]) -> Problem:
        """The batch of the chosen slices `items`, counted from 0."""
        raise NotImplementedError

    def truth(self, item: int) -> np.ndarray | None:
        """The image ``(H, W)`` in its unit, where the measurement is simulated."""
        return None

    def finish(self, images: Tensor) -> Tensor:
        """Restored images ``(B, 1, H, W)`` in the shape that is asked for."""
        return images


def open_input(path: Path, config: ConfigDict) -> Input:
    """Open `path` and check the chosen slices.

    Args:
        path: a measurement (`datasets.measured`), or images to simulate one of.
        config: as `configs.reconstruct`.

    Raises:
        DataError, ValueError: unreadable or unfit, or a field that this input does not read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check --input")
    if is_image_path(path):
        return _open_images(path, config)
    measured = open_measured(path, first_axis=config.data.first_axis)
    return (_open_kspace if measured.kind == KSPACE else _open_sinogram)(measured, config)


def digest(files: Sequence[Path]) -> str:
    """A hash of the contents of files, in their order."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


# ---------------------------------------------------------------------------------------- k-space


@dataclass
class KspaceInput(Input):
    """Slices of measured k-space.

    Attributes:
        measured: the file.
        masks: ``(n, H, W)`` bool, of the chosen slices.
        sens_maps: ``(S, C, H, W)`` or ``(1, C, H, W)`` that were given; None: estimated.
        image_shape: of the result.
    """

    measured: Measured | None = None
    masks: Tensor | None = None
    sens_maps: Tensor | None = None
    image_shape: tuple[int, int] = (0, 0)

    def problem(self, items: Sequence[int]) -> Problem:
        """Readout oversampling removed, coil maps estimated where they are not given."""
        parts = [self._slice(item) for item in items]
        kspace, masks, noise, maps = (
            None if part[0] is None else torch.stack(part) for part in zip(*parts, strict=True)
        )
        return mri_problem(kspace, masks[:, None], maps, noise=noise)

    def _slice(self, item: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """k-space ``(C, H, W)``, mask ``(H, W)``, noise ``()``, maps ``(C, H, W)``."""
        full = self.masks[item]
        measured = torch.from_numpy(self.measured.read(self.numbers[item])) * full
        # cropping leaves the level of white noise as it is, but fills exact zeros with leakage
        noise = kspace_noise(measured[None])[0]
        kspace, mask = crop_readout(measured, full, self.image_shape)
        return kspace, mask, noise, self._maps(kspace, item)

    def _maps(self, kspace: Tensor, item: int) -> Tensor | None:
        """Coil maps ``(C, H, W)``; None for one coil without."""
        if self.sens_maps is not None:
            maps = self.sens_maps[self.numbers[item] if len(self.sens_maps) > 1 else 0]
            return _centre(maps, tuple(kspace.shape[-2:]))
        if len(kspace) == 1:
            return None
        if not kspace.any():
            return torch.zeros_like(kspace)
        return espirit_maps(kspace, calib_width=self._calibration(kspace, item))

    def _calibration(self, kspace: Tensor, item: int) -> int:
        width = min(CALIB_WIDTH, acs_width(kspace))
        if width < LEAST_WIDTH:
            raise DataError(
                f"{self.keys[item]}: expected the central {LEAST_WIDTH} x {LEAST_WIDTH} of "
                f"k-space to be measured, for coil maps, got {width} x {width}; give maps with "
                "data.sens_maps"
            )
        return width

    def finish(self, images: Tensor) -> Tensor:
        """Cropped along phase encoding, too."""
        return _centre(images, self.image_shape)


def _open_kspace(measured: Measured, config: ConfigDict) -> KspaceInput:
    _check_fields(config, "k-space")
    _, coils, *shape = measured.shape
    numbers = choose_slices(config.data.slices, measured.shape[0], measured.path)
    opened = KspaceInput(
        kind="k-space",
        numbers=numbers,
        keys=[f"{measured.path.name}:{number}" for number in numbers],
        unit="of the k-space (centred orthonormal inverse DFT)",
        direct="zero-filled",
        sources=(measured.path,),
        others=tuple(Path(p) for p in (config.data.mask, config.data.sens_maps) if p),
        voxel_size=measured.voxel_size,
        measured=measured,
        image_shape=_image_shape(config.data.image_size, measured.image_shape, shape),
    )
    given = measured.extras.get("mask")
    if config.data.mask:
        given = _load(config.data.mask, "data.mask")
    mask = None if given is None else _line_mask(given, tuple(shape))
    if config.operator.mask:
        drawn = _draw_mask(config, tuple(shape))
        mask = drawn if mask is None else mask & drawn
    opened.masks = _check_slices(opened, mask, drawn=bool(config.operator.mask))
    maps = measured.extras.get("sens_maps")
    if config.data.sens_maps:
        maps = _load(config.data.sens_maps, "data.sens_maps")
    if maps is not None:
        opened.sens_maps = _check_maps(maps, (measured.shape[0], coils, *shape))
    elif coils > 1:  # so that a missing calibration region is found now
        for item in range(len(numbers)):
            kspace = torch.from_numpy(measured.read(numbers[item])) * opened.masks[item]
            if kspace.any():
                opened._calibration(kspace, item)
    accelerations = [round(effective_acceleration(m), 3) for m in opened.masks]
    opened.facts |= {
        "coils": coils,
        "matrix": list(shape),
        "image_shape": list(opened.image_shape),
        "mask": _mask_origin(config, measured),
        "mask_sha256": _hash_masks(opened.masks),
        "effective_acceleration": sorted(set(accelerations)),
        "coil_maps": "given" if maps is not None else "ESPIRiT" if coils > 1 else "none",
    }
    return opened


def _check_slices(opened: KspaceInput, mask: Tensor | None, *, drawn: bool) -> Tensor:
    """Masks ``(n, H, W)`` of the chosen slices, each of which is read once."""
    masks, silent, empty = [], 0.0, 0
    for key, number in zip(opened.keys, opened.numbers, strict=True):
        kspace = torch.from_numpy(opened.measured.read(number))
        there = (kspace != 0).any(0)  # (H, W)
        if not there.any():
            empty += 1
            masks.append(torch.ones_like(there) if mask is None else mask)
            continue
        found = _recover(kspace, opened.notes, quiet=mask is not None)
        measured = found if mask is None else (mask & found if drawn else mask)
        if not (measured & there).any():
            raise DataError(f"{key}: k-space is 0 wherever the mask says that it was measured")
        silent = max(silent, float((measured & ~there).sum() / measured.sum()))
        _check_centred(kspace * measured, key)
        masks.append(measured)
    if empty == len(masks):
        raise DataError(f"{opened.measured.path}: k-space is 0 in every chosen slice")
    if empty:
        opened.notes.append(f"{empty} slices of k-space are 0, and so are their images")
    if mask is not None and silent > SILENT:
        opened.notes.append(
            f"{100 * silent:.0f} % of the positions that the mask calls measured are 0 in some "
            "slice: zero-padded? They count as measured"
        )
    return torch.stack(masks)


def _recover(kspace: Tensor, notes: list[str], *, quiet: bool) -> Tensor:
    """The mask from the zeros; what is unusual about it goes to `notes`, once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = recover_mask(kspace)
    messages = [str(w.message) for w in caught]
    notes += [m for m in dict.fromkeys(messages) if not quiet and m not in notes]
    return mask


def _check_centred(kspace: Tensor, key: str) -> None:
    """Raise a DataError if the corners hold more than the centre."""
    energy = kspace.abs().square().sum(0)  # (H, W)
    rows, columns = (max(1, n // 8) for n in energy.shape)
    shifted = torch.fft.fftshift(energy)
    corners, centre = (_centre(e, (2 * rows, 2 * columns)).sum() for e in (shifted, energy))
    if corners > centre:
        raise DataError(
            f"{key}: expected k-space with its origin at (H // 2, W // 2), got more in the corners "
            "than there; apply numpy.fft.fftshift to its last two axes"
        )


def _line_mask(mask: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """A mask ``(H, W)``, or of columns ``(W,)`` (of rows ``(H,)`` where H and W differ)."""
    mask = np.asarray(mask).squeeze()
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise DataError(f"expected a mask of 0 and 1, got {mask.dtype} with other values")
    found = torch.from_numpy(mask.astype(bool))
    if tuple(found.shape) == shape:
        pass
    elif tuple(found.shape) == shape[1:]:
        found = found.expand(shape)
    elif tuple(found.shape) == shape[:1]:
        found = found[:, None].expand(shape)
    else:
        raise DataError(
            f"expected a mask of shape {shape}, or of its {shape[1]} columns, as k-space has, got "
            f"{tuple(mask.shape)}"
        )
    if not found.any():
        raise DataError("expected a mask with measured positions, got none")
    return found.clone()


def _check_maps(maps: np.ndarray, shape: tuple[int, int, int, int]) -> Tensor:
    maps = maps if maps.ndim == 4 else maps[None]
    if maps.dtype.kind != "c" or maps.shape[1:] != shape[1:] or maps.shape[0] not in (1, shape[0]):
        raise DataError(
            f"expected complex coil maps of shape {shape[1:]} or {shape}, as k-space has, got "
            f"{maps.dtype} of shape {maps.shape}"
        )
    if not np.isfinite(maps).all() or not maps.any():
        raise DataError("expected finite coil maps, not all 0, got others")
    return torch.from_numpy(maps.astype(np.complex64))


def _mask_origin(config: ConfigDict, measured: Measured) -> str:
    if config.data.mask:
        origin = "given"
    else:
        origin = "of the file" if "mask" in measured.extras else "from the zeros of k-space"
    return f"{origin}, undersampled by {config.operator.mask}" if config.operator.mask else origin


# -------------------------------------------------------------------------------------- sinograms


@dataclass
class SinogramInput(Input):
    """Slices of measured line integrals; lengths in pixels inside, in the user's unit outside."""

    measured: Measured | None = None
    operator: ParallelBeamCT | FanBeamCT | None = None
    pixel_size: float = 1.0

    def problem(self, items: Sequence[int]) -> Problem:
        """All slices share one geometry."""
        views = [torch.from_numpy(self.measured.read(self.numbers[item])) for item in items]
        return ct_problem(self.operator, torch.stack(views)[:, None])

    def finish(self, images: Tensor) -> Tensor:
        """From attenuation a pixel to attenuation a unit of length."""
        return images / self.pixel_size


def _open_sinogram(measured: Measured, config: ConfigDict) -> SinogramInput:
    _check_fields(config, "a sinogram")
    numbers = choose_slices(config.data.slices, measured.shape[0], measured.path)
    operator, size = _ct_operator(measured, config)
    opened = SinogramInput(
        kind="a sinogram",
        numbers=numbers,
        keys=[f"{measured.path.name}:{number}" for number in numbers],
        unit="attenuation per unit of operator.pixel_size",
        direct="FBP",
        sources=(measured.path,),
        others=(Path(config.data.angles),) if config.data.angles else (),
        measured=measured,
        operator=operator,
        pixel_size=config.operator.pixel_size,
    )
    angles = operator.angles_deg
    if len(angles) > 10 and np.abs(angles).max() <= 2 * np.pi:
        opened.notes.append(
            f"angles are {angles.min():g} to {angles.max():g} degrees: are they radians?"
        )
    empty = 0
    for number in numbers:
        sums = measured.read(number).sum(1)  # (views,)
        empty += not measured.read(number).any()
        spread = sums.std() / abs(sums.mean()) if sums.mean() else 0.0
        if config.operator.geometry == "parallel" and spread > UNEVEN and not opened.notes:
            opened.notes.append(
                f"slice {number}: the views' sums spread by {100 * spread:.0f} %, where those of "
                "a parallel beam are equal: is the array (views, bins)? Is the object inside?"
            )
    if empty == len(numbers):
        raise DataError(f"{measured.path}: the sinogram is 0 in every chosen slice")
    opened.facts |= {
        "geometry": config.operator.geometry,
        "views": len(angles),
        "bins": operator.num_bins,
        "angles_deg": [float(angles.min()), float(angles.max())],
        "image_shape": list(size),
    }
    return opened


def _ct_operator(
    measured: Measured, config: ConfigDict
) -> tuple[ParallelBeamCT | FanBeamCT, tuple[int, int]]:
    o = config.operator
    _, views, bins = measured.shape
    if bins <= ORDER:
        raise DataError(
            f"{measured.path}: expected at least {ORDER + 1} bins, got {bins}; sinograms are "
            "(views, bins)"
        )
    for name in ("pixel_size", "bin_spacing"):
        if not o[name] > 0:
            raise ValueError(f"expected a positive operator.{name}, got {o[name]}")
    angles = measured.extras.get("angles")
    if config.data.angles:
        angles = _load(config.data.angles, "data.angles")
    if angles is None:
        angles = few_view_angles(views, o.end_angle or (360.0 if o.geometry == "fan" else 180.0))
    angles = np.asarray(angles, dtype=np.float64).reshape(-1)
    if len(angles) != views:
        raise DataError(
            f"{measured.path}: expected an angle for each of {views} views, got {len(angles)}; "
            "sinograms are (views, bins)"
        )
    spacing = o.bin_spacing / o.pixel_size
    if o.geometry == "parallel":
        size = _image_shape(config.data.image_size, None, (round(bins * spacing),) * 2)
        return ParallelBeamCT(size, angles, num_bins=bins, bin_spacing=spacing), size
    if o.geometry != "fan":
        raise ValueError(f"expected operator.geometry parallel or fan, got {o.geometry!r}")
    if o.source_distance is None or o.detector_distance is None:
        raise ValueError("expected operator.source_distance and detector_distance for a fan beam")
    source, detector = o.source_distance / o.pixel_size, o.detector_distance / o.pixel_size
    half_angle = math.atan(bins * spacing / 2 / (source + detector))
    seen = round(2 * source * math.sin(half_angle))  # diameter of what every view sees
    size = _image_shape(config.data.image_size, None, (seen, seen))
    operator = FanBeamCT(
        size,
        angles,
        source_distance=source,
        detector_distance=detector,
        num_bins=bins,
        bin_spacing=spacing,
    )
    return operator, size


# ----------------------------------------------------------------------------------------- images


@dataclass
class ImageInput(Input):
    """Slices of images, of which a measurement is simulated."""

    operator: LinearOperator | None = None
    images: np.ndarray | None = None  # (n, H, W)

    def problem(self, items: Sequence[int]) -> Problem:
        """Without noise; one mask or geometry for all slices."""
        images = torch.from_numpy(self.images[list(items)])[:, None]  # (B, 1, H, W)
        return image_problem(self.operator, images)

    def truth(self, item: int) -> np.ndarray:
        """The slice, clipped to the window."""
        return self.images[item]


def _open_images(path: Path, config: ConfigDict) -> ImageInput:
    _check_fields(config, "images")
    series = open_images(path, axis=config.data.axis)
    numbers = choose_slices(config.data.slices, len(series.images), path)
    images = series.images[numbers.start : numbers.stop]
    window = parse_window(config.data.window)
    if window:
        images = np.clip(images, *map(np.float32, window))
    if images.max() == images.min():
        raise DataError(f"{path}: expected images, got the constant {images.max():g}")
    shape = images.shape[1:]
    name = config.operator.name or _default_operator(series)
    if name == "ct":
        angles = few_view_angles(config.operator.num_views, config.operator.end_angle or 180.0)
        operator: LinearOperator = ParallelBeamCT(shape, angles)
        facts = {"simulated": "ct", "views": len(angles)}
    elif name == "mri":
        mask = _draw_mask(config, shape)
        operator = SingleCoilMRI(mask)
        facts = {
            "simulated": "mri",
            "mask": config.operator.mask or DEFAULT_MASK,
            "mask_sha256": _hash_masks(mask[None]),
            "effective_acceleration": [round(effective_acceleration(mask), 3)],
        }
    else:
        raise ValueError(f"expected operator.name mri or ct, got {name!r}")
    return ImageInput(
        kind="images",
        numbers=numbers,
        keys=[series.keys[number] for number in numbers],
        unit="of the images",
        direct="FBP" if name == "ct" else "zero-filled",
        sources=series.files,
        facts={**facts, "image_shape": list(shape)},
        series=series,
        operator=operator,
        images=np.ascontiguousarray(images),
    )


def _default_operator(series: ImageSeries) -> str:
    if series.volume is not None:
        return "mri"
    return "ct" if read_header(series.files[0]).get("Modality") == "CT" else "mri"


# ----------------------------------------------------------------------------------------- shared


def _draw_mask(config: ConfigDict, shape: tuple[int, int]) -> Tensor:
    return make_mask(
        config.operator.mask or DEFAULT_MASK,
        shape,
        seed=config.seed,
        acceleration=config.operator.acceleration,
        center_fraction=config.operator.center_fraction,
    )


def _check_fields(config: ConfigDict, kind: str) -> None:
    """Raise a ValueError for a field that is set and that this kind of input does not read."""
    given = configs.flatten(config.to_dict())
    neutral = configs.flatten(get_config().to_dict())
    for name, kinds in ONLY.items():
        if kind not in kinds and given[name] != neutral[name]:
            raise ValueError(
                f"{name} is for {' and '.join(kinds)}, the input is {kind}; leave it at "
                f"{neutral[name]!r}"
            )


def _image_shape(
    text: str, asked: tuple[int, int] | None, largest: Sequence[int]
) -> tuple[int, int]:
    """Rows and columns of the result: `text`, else what the file asks for, else all."""
    if not text:
        shape = asked or tuple(largest)
        return min(shape[0], largest[0]), min(shape[1], largest[1])
    sides = text.split(",")
    if not all(side.strip().isdecimal() for side in sides) or len(sides) > 2 or "0" in sides:
        raise ValueError(f"expected data.image_size as N or HEIGHT,WIDTH in pixels, got '{text}'")
    return int(sides[0]), int(sides[-1])


def _centre(values: Tensor, shape: tuple[int, int]) -> Tensor:
    """The central ``(..., H, W)``; sides that are not longer stay."""
    for axis, wanted in zip((-2, -1), shape, strict=True):
        size = values.shape[axis]
        if wanted < size:
            values = values.narrow(axis, (size - wanted) // 2, wanted)
    return values


def _load(path: str, what: str) -> np.ndarray:
    with reading(Path(path), f"an .npy file for {what}"):
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an .npz file")
    return array


def _hash_masks(masks: Tensor) -> str:
    return hashlib.sha256(np.packbits(masks.numpy()).tobytes()).hexdigest()
