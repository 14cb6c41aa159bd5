"""Measured k-space, of one or of several coils."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from datasets.coil_maps import CALIB_WIDTH
from datasets.measured import Measured
from datasets.sample import DataError
from datasets.slices import choose_slices
from evaluation.own.base import (
    OF_A_MASK,
    Input,
    centre,
    check_fields,
    check_without_effect,
    choose_shape,
    hash_masks,
    load_array,
    read_maps,
)
from evaluation.own.holdout import HoldOut, choose_positions, hold_out
from evaluation.run.coil_maps import calibration_width, estimate_maps, for_calibration
from operators import SingleCoilMRI
from operators.batch import derive_seed
from operators.create import create_mask, given_fields
from operators.espirit_sets import espirit_sets, overlap
from operators.fourier import ifft2c
from operators.inverse_problem import InverseProblem, around_peak, crop_readout, mri_problem
from operators.kspace_peak import PROMINENT, find_peak
from operators.masks import effective_acceleration
from operators.noise import kspace_noise
from operators.prospective import recover_mask

SILENT = 0.1  # part of the positions said to be measured that may be 0 without a note
CONTRADICTED = 0.5  # part of them that may be 0 at all
BESIDE = 1 / 64  # part of an axis that the peak of k-space may lie beside the origin without a note
CORNER = 1 / 8  # part of an axis, from its first position on either side, that is no echo shift
NEAR = 1 / 16  # part of an axis around the peak that a mask is expected to cover
OVERLAP = 0.06  # part of the pixels with two points from which a second set of maps is needed
SURE_WIDTH = 16  # of a calibration square that can tell two points in a pixel from one
EXPLAINED = 0.7  # part of the energy of low-resolution coil images that given maps should explain


@dataclass
class KspaceInput(Input):
    """Slices of measured k-space.

    Attributes:
        measured: the file.
        masks: bool ``(n, H, W)`` of the chosen slices.
        sens_maps: coil maps that are given, ``(S, C, H, W)`` or ``(1, C, H, W)``; None to estimate
            them.
        sets: number of sets of coil maps to estimate.
        image_shape: rows and columns of the result.
    """

    measured: Measured | None = None
    masks: Tensor | None = None
    sens_maps: Tensor | None = None
    sets: int = 1
    image_shape: tuple[int, int] = (0, 0)

    @property
    def doubtful_noise(self) -> bool:
        """Whether points of k-space were measured one by one, not lines from end to end."""
        return not all(
            any((mask == mask.any(axis, keepdim=True)).all() for axis in (0, 1))
            for mask in self.masks
        )

    def problem(self, items: Sequence[int]) -> InverseProblem:
        """Inverse problem of a batch of slices, without readout oversampling.

        Coil maps are estimated if they are not given.

        Args:
            items: numbers of the slices among the chosen ones, from 0.
        """
        parts = [self._slice(item) for item in items]
        kspace, masks, noise, maps = (
            None if part[0] is None else torch.stack(part) for part in zip(*parts, strict=True)
        )
        return mri_problem(
            kspace, masks[:, None], maps, noise=noise, estimated_maps=self._estimates_maps
        )

    def holdout(self, item: int, part: float, seed: int) -> HoldOut:
        """K-space without some lines or points outside its centre, which are to be predicted.

        Whole lines are left out if whole lines were measured.

        Args:
            item: number of the slice among the chosen ones, from 0.
            part: fraction of the measured lines or points that is left out.
            seed: seed of the choice, together with the slice's key.

        Raises:
            ValueError: nothing was measured outside the centre.
        """
        kspace, mask, noise = self._measured(item)
        generator = torch.Generator().manual_seed(derive_seed(seed, "holdout", self.keys[item]))
        centre, _ = find_peak(kspace)
        held, what = choose_positions(mask, part, centre, CALIB_WIDTH, generator)
        kept = mask & ~held
        maps = self._maps(kspace * kept, item)
        problem = mri_problem(
            kspace[None],
            kept[None, None],
            None if maps is None else maps[None],
            noise=noise[None],
            estimated_maps=self._estimates_maps,
        )
        operator = type(problem.operator)(held[None, None], problem.operator.sens_maps)
        count = 2 * len(kspace) * int(held.sum())
        return hold_out(problem, operator, (kspace * held)[None], count, what)

    def first_operator(self) -> SingleCoilMRI:
        """Operator with the mask of the first slice, without coil maps."""
        return SingleCoilMRI(self.masks[0])

    def _slice(self, item: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """K-space ``(C, H, W)``, mask ``(H, W)``, noise ``()`` and maps ``(C, H, W)``."""
        kspace, mask, noise = self._measured(item)
        return kspace, mask, noise, self._maps(kspace, item)

    def _measured(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        """K-space ``(C, H, W)`` without readout oversampling, mask ``(H, W)``, noise ``()``."""
        full = self.masks[item]
        measured = torch.from_numpy(self.measured.read(self.numbers[item])) * full
        # cropping leaves the level of white noise as it is, but fills exact zeros with leakage
        noise = kspace_noise(measured[None])[0]
        return *crop_readout(measured, full, self.image_shape), noise

    @property
    def _estimates_maps(self) -> bool:
        return self.sens_maps is None and self.facts["coils"] > 1

    def _maps(self, kspace: Tensor, item: int) -> Tensor | None:
        """Coil maps ``(C, H, W)`` or several sets ``(S, C, H, W)``; None for one coil."""
        if self.sens_maps is not None:
            maps = self.sens_maps[self.numbers[item] if len(self.sens_maps) > 1 else 0]
            return centre(maps, tuple(kspace.shape[-2:]))
        if len(kspace) == 1:
            return None
        with self._maps_may_be_given(item):
            return estimate_maps(kspace, sets=self.sets)

    def _calibration(self, kspace: Tensor, item: int) -> int:
        with self._maps_may_be_given(item):
            return calibration_width(kspace)

    @contextmanager
    def _maps_may_be_given(self, item: int) -> Iterator[None]:
        """Context that adds the slice and the remedy to an error of the estimate of coil maps."""
        try:
            yield
        except ValueError as error:
            raise DataError(f"{self.keys[item]}: {error}; give maps with data.sens_maps") from None

    def finish(self, images: Tensor) -> Tensor:
        """Reconstructed images, cropped along phase encoding, too.

        Args:
            images: ``(B, 1, H, W)``.
        """
        return centre(images, self.image_shape)


def open_kspace(measured: Measured, config: ConfigDict) -> KspaceInput:
    """Input of measured k-space: the chosen slices with masks and coil maps, checked.

    Args:
        measured: the file.
        config: config with the fields of configs/reconstruct.py.

    Raises:
        DataError, ValueError: unfit data, or a field that k-space does not have.
    """
    check_fields(config, "k-space")
    if not config.operator.mask:
        reason = "no mask is drawn; set operator.mask, such as gaussian1d"
        check_without_effect(config, OF_A_MASK, reason)
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
        notes=list(measured.notes),
        voxel_size=measured.voxel_size,
        is_complex=True,
        measured=measured,
        image_shape=_image_shape(config.data.image_size, measured, tuple(shape)),
    )
    given = measured.extras.get("mask")
    if config.data.mask:
        given = load_array(config.data.mask, "data.mask")
    mask = None if given is None else _given_mask(opened, given)
    _check_peaks(opened, mask)
    if config.operator.mask:
        described = given_fields(config.operator, create_mask)
        drawn = create_mask(tuple(shape), seed=config.seed, **described)  # (H, W)
        mask = drawn.expand(len(numbers), -1, -1) if mask is None else mask & drawn
    opened.masks = _check_slices(opened, mask, drawn=bool(config.operator.mask))
    maps = measured.extras.get("sens_maps")
    if config.data.sens_maps:
        maps = read_maps(config.data.sens_maps)
    if maps is not None:
        opened.sens_maps = check_maps(maps, (measured.shape[0], coils, *shape))
        if measured.whitening is not None:  # given maps are of the measured coils
            mix = torch.from_numpy(measured.whitening)
            opened.sens_maps = torch.einsum("dc,schw->sdhw", mix, opened.sens_maps)
        _compare_maps(opened)
    elif coils > 1:
        opened.sets = _look_at_calibration(opened, config.data.map_sets)
    if maps is not None or coils == 1:
        check_without_effect(config, ["data.map_sets"], "no coil maps are estimated")
    accelerations = [round(effective_acceleration(m), 3) for m in opened.masks]
    opened.facts |= {
        "coils": coils,
        "matrix": list(shape),
        "image_shape": list(opened.image_shape),
        "mask": _mask_origin(config, measured),
        "mask_sha256": hash_masks(opened.masks),
        "effective_acceleration": sorted(set(accelerations)),
        "coil_maps": _maps_origin(opened),
    }
    return opened


def _maps_origin(opened: KspaceInput) -> str:
    if opened.sens_maps is not None:
        return "given"
    if opened.measured.shape[1] == 1:
        return "none"
    return "ESPIRiT" if opened.sets == 1 else f"ESPIRiT, {opened.sets} sets"


def _look_at_calibration(opened: KspaceInput, asked: int | None) -> int:
    """Number of sets of coil maps that the scan needs; an error if calibration data are missing.

    The slice with the most energy decides, so that all slices have the same number.
    """
    energies = []
    for item, number in enumerate(opened.numbers):
        kspace = torch.from_numpy(opened.measured.read(number)) * opened.masks[item]
        if kspace.any():
            opened._calibration(for_calibration(kspace), item)
        energies.append(float(kspace.abs().square().sum()))
    if asked is not None:
        if asked not in (1, 2):
            raise ValueError(f"expected data.map_sets of 1 or 2, got {asked}")
        return asked
    item = energies.index(max(energies))
    kspace, _, _ = opened._measured(item)
    if not kspace.any():
        return 1
    centred = for_calibration(kspace)
    width = opened._calibration(centred, item)
    if width < SURE_WIDTH:
        return 1
    both = overlap(espirit_sets(centred, calib_width=width))
    if both <= OVERLAP:
        return 1
    opened.notes.append(
        f"in {100 * both:.0f} % of the pixels lie two points, as the coils see it: is the field of "
        "view smaller than the object? Reconstructed with two sets of coil maps (data.map_sets)"
    )
    return 2


def _check_slices(opened: KspaceInput, given: Tensor | None, *, drawn: bool) -> Tensor:
    """Masks ``(n, H, W)`` of the chosen slices, each of which is read once."""
    masks, silent, empty = [], 0.0, 0
    for item, (key, number) in enumerate(zip(opened.keys, opened.numbers, strict=True)):
        mask = None if given is None else given[item]
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
        masks.append(measured)
    if empty == len(masks):
        raise DataError(f"{opened.measured.path}: k-space is 0 in every chosen slice")
    if empty:
        opened.notes.append(f"{empty} slices of k-space are 0, and so are their images")
    if given is not None and silent > SILENT:
        opened.notes.append(
            f"{100 * silent:.0f} % of the positions that the mask calls measured are 0 in some "
            "slice: zero-padded? They count as measured"
        )
    return torch.stack(masks)


def _recover(kspace: Tensor, notes: list[str], *, quiet: bool) -> Tensor:
    """Mask from the zeros of k-space; unusual properties are added to `notes`, once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = recover_mask(kspace)
    messages = [str(w.message) for w in caught]
    notes += [m for m in dict.fromkeys(messages) if not quiet and m not in notes]
    return mask


def _first_measured(opened: KspaceInput) -> Tensor | None:
    """K-space ``(C, H, W)`` of the first chosen slice that is not 0, or None."""
    for number in opened.numbers:
        kspace = torch.from_numpy(opened.measured.read(number))
        if kspace.any():
            return kspace
    return None


def _check_peaks(opened: KspaceInput, masks: Tensor | None) -> None:
    """Check where the peak of k-space is in the slices that have one (that do not show air).

    Raises:
        DataError: the peak is at the origin of numpy.fft, or a mask does not contain its centre.
    """
    beside, flat, masked = [0, 0], 0, False
    for item, (key, number) in enumerate(zip(opened.keys, opened.numbers, strict=True)):
        kspace = torch.from_numpy(opened.measured.read(number))
        peak, prominence = find_peak(kspace)
        if prominence < PROMINENT:
            flat += 1
            continue
        sides = kspace.shape[-2:]
        corner = [min(p, n - p) <= CORNER * n for p, n in zip(peak, sides, strict=True)]
        if any(corner):
            axes = " and ".join(
                name for name, there in zip(("rows", "columns"), corner, strict=True) if there
            )
            raise DataError(
                f"{key}: expected k-space with its origin at (H // 2, W // 2) = "
                f"{tuple(n // 2 for n in sides)}, got its peak at {peak}, where the origin lies "
                f"without a shift of the {axes}; apply numpy.fft.fftshift to k-space, and to an "
                "image transformed by numpy.fft.fft2 numpy.fft.ifftshift before that"
            )
        beside = [max(b, abs(p - n // 2)) for b, p, n in zip(beside, peak, sides, strict=True)]
        masked |= masks is not None and not _covers_peak(masks[item], peak, key)
    if any(b > max(1, BESIDE * n) for b, n in zip(beside, opened.measured.shape[-2:], strict=True)):
        opened.notes.append(
            f"the peak of k-space lies up to {beside[0]} rows and {beside[1]} columns beside "
            "(H // 2, W // 2): an echo shift? It stays, as a phase of the image"
        )
    if masked:
        opened.notes.append("the mask leaves out the peak of k-space in some slice")
    if flat == len(opened.keys):
        opened.notes.append("k-space has no peak: is there only noise, or are these images?")


def _covers_peak(mask: Tensor, peak: tuple[int, int], key: str) -> bool:
    """Whether a given mask ``(H, W)`` contains the peak of k-space.

    Raises:
        DataError: the centre of the mask is elsewhere.
    """
    shifted = torch.fft.fftshift(mask)
    here, there = (_near(m, peak) for m in (mask, shifted))
    if there > 0.9 and here < 0.5:
        raise DataError(
            f"{key}: expected a mask with its origin at (H // 2, W // 2), as k-space has, got one "
            f"that has {100 * here:.0f} % of the centre of k-space and all of its corners; apply "
            "numpy.fft.fftshift to the mask"
        )
    return bool(mask[peak])


def _near(mask: Tensor, peak: tuple[int, int]) -> float:
    """Fraction of the positions around `peak` that a mask contains."""
    rows, columns = (max(1, round(NEAR * n / 2)) for n in mask.shape)
    moved = torch.roll(mask, (rows - peak[0], columns - peak[1]), (0, 1))
    return float(moved[: 2 * rows + 1, : 2 * columns + 1].double().mean())


def _image_shape(text: str, measured: Measured, shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the result, not more than those of k-space."""
    wanted = choose_shape(text, measured.image_shape, shape)
    if wanted[0] > shape[0] or wanted[1] > shape[1]:
        raise ValueError(
            f"expected data.image_size of at most {shape[0]},{shape[1]}, as k-space has, got "
            f"'{text}'; a larger image has no more to show, interpolate the result where it helps"
        )
    return wanted


def _given_mask(opened: KspaceInput, given: np.ndarray) -> Tensor:
    """Masks ``(n, H, W)`` of the chosen slices, checked against k-space.

    Args:
        opened: the input.
        given: mask of all slices, ``(H, W)``, or its columns ``(W,)`` or rows ``(H,)``; or a mask
            for each slice of the file. If H and W are equal, lines are columns unless the zeros of
            k-space show that they are rows.

    Raises:
        DataError: other values than 0 and 1, another shape, or k-space is 0 in most of the mask.
    """
    slices, _, *shape = opened.measured.shape
    mask = np.asarray(given).squeeze()
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise DataError(
            f"expected a mask of 0 and 1, got {mask.dtype} with other values; give mask > 0, if "
            "that is where it was measured"
        )
    found = torch.from_numpy(mask.astype(bool))
    if not found.any():
        raise DataError("expected a mask with measured positions, got none")
    if tuple(found.shape) == (slices, *shape):
        return _mask_of_each(opened, found)
    if list(found.shape) == shape:
        choices = [found]
    elif found.ndim == 1 and len(found) in shape:
        choices = [found.expand(*shape)] if len(found) == shape[1] else []
        choices += [found[:, None].expand(*shape)] if len(found) == shape[0] else []
    else:
        raise DataError(
            f"expected a mask of shape {tuple(shape)}, or of its {shape[1]} columns, as k-space "
            f"has, or one of each slice, {(slices, *shape)}, got {tuple(mask.shape)}"
        )
    kspace = _first_measured(opened)
    rows = False
    if kspace is not None:
        there = (kspace != 0).any(0)  # (H, W)
        fits = [_held(choice, there) for choice in choices]
        rows = len(choices) == 2 and fits[1] > fits[0] + SILENT
        _check_fit(choices[rows], there, fits[rows])
    if rows:
        opened.notes.append("the mask's lines are taken as rows: in its columns k-space is 0")
    return choices[rows].expand(len(opened.numbers), -1, -1)


def _mask_of_each(opened: KspaceInput, masks: Tensor) -> Tensor:
    """Masks of the chosen slices out of those of all slices, checked as in `_given_mask`."""
    numbers = opened.numbers
    chosen = masks[numbers.start : numbers.stop : numbers.step]  # (n, H, W)
    for key, number, mask in zip(opened.keys, numbers, chosen, strict=True):
        if not mask.any():
            raise DataError(f"{key}: expected a mask with measured positions, got none")
        there = (torch.from_numpy(opened.measured.read(number)) != 0).any(0)  # (H, W)
        if there.any():
            _check_fit(mask, there, _held(mask, there))
    return chosen


def _held(mask: Tensor, there: Tensor) -> float:
    """Fraction of the positions of a mask where k-space is not 0."""
    return float((mask & there).sum() / mask.sum())


def _check_fit(mask: Tensor, there: Tensor, fit: float) -> None:
    if fit >= CONTRADICTED:
        return
    others = {
        "numpy.fft.fftshift of it": torch.fft.fftshift(mask),
        "its complement": ~mask,
        "its mirror image": mask.flip(0, 1),
    }
    if mask.shape[0] == mask.shape[1]:
        others["its transpose"] = mask.T
    better = [name for name, other in others.items() if other.any() and _held(other, there) > 0.9]
    raise DataError(
        f"expected a mask of where k-space was measured, got one with k-space 0 in "
        f"{100 * (1 - fit):.0f} % of it; "
        + (f"{' or '.join(better)} fits" if better else "leave data.mask out: the zeros say it")
    )


def check_maps(maps: np.ndarray, shape: tuple[int, int, int, int]) -> Tensor:
    """Given coil maps as complex64 ``(S, C, H, W)``, S slices or 1.

    Args:
        maps: ``(C, H, W)`` or ``(S, C, H, W)``.
        shape: (S, C, H, W) that they should have.

    Raises:
        DataError: another shape, real maps, zeros, NaN or infinity.
    """
    maps = maps if maps.ndim == 4 else maps[None]
    if maps.dtype.kind != "c" or maps.shape[1:] != shape[1:] or maps.shape[0] not in (1, shape[0]):
        last = maps.shape[1:] == (*shape[2:], shape[1])
        raise DataError(
            f"expected complex coil maps of shape {shape[1:]} or {shape}, as k-space has, got "
            f"{maps.dtype} of shape {maps.shape}"
            + ("; move the coils forward: numpy.moveaxis(maps, -1, -3)" if last else "")
        )
    if not np.isfinite(maps).all() or not maps.any():
        raise DataError("expected finite coil maps, not all 0, got others")
    return torch.from_numpy(maps.astype(np.complex64))


def _compare_maps(opened: KspaceInput) -> None:
    """Add a note if given maps do not explain the coil images of the first nonzero slice."""
    for item, number in enumerate(opened.numbers):
        kspace = torch.from_numpy(opened.measured.read(number)) * opened.masks[item]
        if not kspace.any():
            continue
        coils = ifft2c(around_peak(kspace))  # (C, H, W)
        maps = opened.sens_maps[number if len(opened.sens_maps) > 1 else 0]
        part = _explained(coils, maps)
        others = {
            "their complex conjugate": maps.conj(),
            "numpy.fft.fftshift of their last two axes": torch.fft.fftshift(maps, dim=(-2, -1)),
            "their transpose": maps.mT if maps.shape[-1] == maps.shape[-2] else maps,
        }
        better = [name for name, other in others.items() if _explained(coils, other) > 0.9]
        if part < EXPLAINED:
            opened.notes.append(
                f"the coil maps explain {100 * part:.0f} % of the coil images at low resolution: "
                + (f"{' or '.join(better)} would" if better else "are coils in another order?")
            )
        return


def _explained(coils: Tensor, maps: Tensor) -> float:
    """Fraction of the energy of coil images ``(C, H, W)`` that lies along the maps."""
    size = maps.abs().square().sum(0)  # (H, W)
    along = (maps.conj() * coils).sum(0).abs().square() / torch.where(size > 0, size, 1.0)
    return float(along.sum() / coils.abs().square().sum())


def _mask_origin(config: ConfigDict, measured: Measured) -> str:
    if config.data.mask:
        origin = "given"
    else:
        origin = "of the file" if "mask" in measured.extras else "from the zeros of k-space"
    return f"{origin}, undersampled by {config.operator.mask}" if config.operator.mask else origin
