"""Measured k-space, of one or of several coils."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from datasets.coil_maps import CALIB_WIDTH, LEAST_WIDTH
from datasets.measured import Measured
from datasets.sample import DataError
from datasets.slices import choose_slices
from evaluation.inputs.base import (
    Input,
    centre,
    check_fields,
    choose_shape,
    draw_mask,
    hash_masks,
    load_array,
)
from operators.espirit import acs_width, espirit_maps
from operators.masks import effective_acceleration
from operators.noise import kspace_noise
from operators.problem import Problem, crop_readout, mri_problem
from operators.prospective import recover_mask

SILENT = 0.1  # part of the positions said to be measured that may be 0 without a note


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
            return centre(maps, tuple(kspace.shape[-2:]))
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
        return centre(images, self.image_shape)


def open_kspace(measured: Measured, config: ConfigDict) -> KspaceInput:
    """The chosen slices, checked, with their masks and maps; errors as `open_input`."""
    check_fields(config, "k-space")
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
        image_shape=choose_shape(config.data.image_size, measured.image_shape, shape),
    )
    given = measured.extras.get("mask")
    if config.data.mask:
        given = load_array(config.data.mask, "data.mask")
    mask = None if given is None else _line_mask(given, tuple(shape))
    if config.operator.mask:
        drawn = draw_mask(config, tuple(shape))
        mask = drawn if mask is None else mask & drawn
    opened.masks = _check_slices(opened, mask, drawn=bool(config.operator.mask))
    maps = measured.extras.get("sens_maps")
    if config.data.sens_maps:
        maps = load_array(config.data.sens_maps, "data.sens_maps")
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
        "mask_sha256": hash_masks(opened.masks),
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
    corners, middle = (centre(e, (2 * rows, 2 * columns)).sum() for e in (shifted, energy))
    if corners > middle:
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
