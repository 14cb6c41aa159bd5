"""Image quality metrics against a target: of slices as in the study, of volumes as in fastMRI."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

DATA_RANGE = 1.0  # targets are scaled to [0, 1]
SSIM_WINDOW = 7  # side of the uniform window in pixels


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


def _comparable(target: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays as float64, of complex ones the magnitude."""
    if target.shape != image.shape:
        raise ValueError(f"expected an image of shape {target.shape}, got {image.shape}")
    magnitudes = (np.abs(x) if np.iscomplexobj(x) else x for x in (target, image))
    target, image = (x.astype(np.float64) for x in magnitudes)
    return target, image
