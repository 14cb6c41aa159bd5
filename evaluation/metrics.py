"""Image quality metrics against a target: of slices as in the study, of volumes as in fastMRI."""

import math

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

DATA_RANGE = 1.0  # targets are scaled to [0, 1]
SSIM_WINDOW = 7  # side of the uniform window in pixels
LEAST_SLICES = 8  # of a volume that is looked at from the side
OBJECT = 0.1  # part of the peak that images across the slices exceed somewhere, if they cut it


def psnr(target: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error), of ``(H, W)`` images."""
    return float(peak_signal_noise_ratio(target, image, data_range=DATA_RANGE))


def ssim(target: np.ndarray, image: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), the mean over uniform 7 x 7 windows.

    NaN if an image is smaller than the window. Images are ``(H, W)``.
    """
    return _similarity(target, image, DATA_RANGE)


def _similarity(target: np.ndarray, image: np.ndarray, peak: float) -> float:
    if min(target.shape) < SSIM_WINDOW:
        return float("nan")
    return float(structural_similarity(target, image, win_size=SSIM_WINDOW, data_range=peak))


def nmse(target: np.ndarray, image: np.ndarray, *, study: bool = False) -> float:
    """Normalised mean squared error, |target - image|^2 / |target|^2, of real arrays.

    With `study` it is divided by |image|^2, as in the original study's code.
    """
    reference = image if study else target
    return float(np.sum((target - image) ** 2) / np.sum(reference**2))


def all_metrics(target: np.ndarray, image: np.ndarray, *, study: bool = False) -> dict[str, float]:
    """PSNR (dB), SSIM and NMSE of a slice.

    Args:
        target: ``(H, W)``, scaled to [0, 1]; of a complex image the magnitude is taken.
        image: ``(H, W)``; of a complex image the magnitude is taken.
        study: whether NMSE is that of the original study's code, see `nmse`.

    Raises:
        ValueError: the shapes differ.
    """
    target, image = _comparable(target, image)
    return {
        "psnr": psnr(target, image),
        "ssim": ssim(target, image),
        "nmse": nmse(target, image, study=study),
    }


def volume_metrics(target: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """PSNR (dB), SSIM and NMSE of a volume, as on fastMRI's leaderboard.

    The data range is the maximum of the target volume. PSNR and NMSE are over all pixels of the
    volume, SSIM is the mean over slices (uniform 7 x 7 windows, K1 = 0.01, K2 = 0.03).

    Args:
        target: ``(S, H, W)``; of a complex volume the magnitude is taken.
        image: ``(S, H, W)``; of a complex volume the magnitude is taken.

    Raises:
        ValueError: the shapes differ.

    Source: J. Zbontar et al., fastMRI, arXiv:1811.08839 (2018).
    """
    target, image = _comparable(target, image)
    peak = float(target.max())
    slices = [_similarity(t, x, peak) for t, x in zip(target, image, strict=True)]
    return {
        "psnr": float(peak_signal_noise_ratio(target, image, data_range=peak)),
        "ssim": float(np.mean(slices)),
        "nmse": nmse(target, image),
    }


def across_metrics(
    target: np.ndarray, image: np.ndarray, *, peak: float | None = None
) -> dict[str, float]:
    """How good a volume of neighbouring slices is in the images across them.

    `psnr_rows` is the mean PSNR in dB of the images that cut the slices along a row each (coronal
    ones of axial slices), `psnr_columns` of those along a column (sagittal). Images that do not cut
    the object do not count. `step_error` is the root mean square error of the steps from slice to
    slice, relative to the peak: slices that are wrong each in their own way have a large one.

    Args:
        target: ``(S, H, W)`` with background 0; of a complex volume the magnitude is taken.
        image: ``(S, H, W)``; of a complex volume the magnitude is taken.
        peak: data range; None: the maximum of the target.

    Returns:
        The metrics by name; all are NaN if the peak is 0.

    Raises:
        ValueError: the shapes differ, or there are fewer than two slices.
    """
    target, image = _comparable(target, image)
    if target.ndim != 3 or len(target) < 2:
        raise ValueError(f"expected a volume of two slices or more, got shape {target.shape}")
    peak = float(target.max()) if peak is None else peak
    if not peak > 0:
        return dict.fromkeys(("psnr_rows", "psnr_columns", "step_error"), math.nan)
    steps = np.diff(image - target, axis=0)
    return {
        "psnr_rows": _across(target, image, 1, peak),
        "psnr_columns": _across(target, image, 2, peak),
        "step_error": float(np.sqrt(np.mean(steps**2))) / peak,
    }


def _across(target: np.ndarray, image: np.ndarray, axis: int, peak: float) -> float:
    """Mean PSNR of the images at the places along an axis where there is something."""
    others = tuple({0, 1, 2} - {axis})
    cut = target.max(others) > OBJECT * peak
    with np.errstate(divide="ignore"):
        levels = 10 * np.log10(peak**2 / ((target - image) ** 2).mean(others)[cut])
    return float(levels.mean()) if cut.any() else float("nan")


def _comparable(target: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays as float64, of complex ones the magnitude."""
    if target.shape != image.shape:
        raise ValueError(f"expected an image of shape {target.shape}, got {image.shape}")
    magnitudes = (np.abs(x) if np.iscomplexobj(x) else x for x in (target, image))
    target, image = (x.astype(np.float64) for x in magnitudes)
    return target, image
