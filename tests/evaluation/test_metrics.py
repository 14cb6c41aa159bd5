"""Image quality of slices and volumes, by hand."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from evaluation.metrics import across_metrics, all_metrics, nmse, psnr, ssim, volume_metrics


def test_metrics_by_hand():
    rng = np.random.default_rng(0)
    target = rng.random((16, 16))
    image = target + 0.1 * rng.standard_normal((16, 16))
    error = np.mean((target - image) ** 2)
    assert psnr(target, image) == pytest.approx(-10 * np.log10(error))
    assert nmse(target, image) == pytest.approx(error * 256 / np.sum(target**2))
    assert nmse(target, image, study=True) == pytest.approx(error * 256 / np.sum(image**2))
    assert ssim(target, image) == structural_similarity(target, image, win_size=7, data_range=1)
    result = all_metrics(target, image * np.exp(0.3j))
    assert result["psnr"] == pytest.approx(psnr(target, np.abs(image)))
    with pytest.raises(ValueError, match=r"expected an image of shape \(16, 16\), got \(4, 4\)"):
        all_metrics(target, image[:4, :4])


def test_metrics_of_volumes_by_hand():
    """One range, that of the target's volume, and PSNR and NMSE over all slices together."""
    rng = np.random.default_rng(0)
    target = rng.random((3, 16, 16)) * np.array([1.0, 2.0, 5.0])[:, None, None]
    image = target + 0.1 * rng.standard_normal(target.shape) * np.array([1, 3, 9])[:, None, None]
    error, peak = np.mean((target - image) ** 2), target.max()
    found = volume_metrics(target, image)
    assert found["psnr"] == pytest.approx(10 * np.log10(peak**2 / error))
    assert found["nmse"] == pytest.approx(error / np.mean(target**2))
    slices = [
        structural_similarity(t, x, win_size=7, data_range=peak)
        for t, x in zip(target, image, strict=True)
    ]
    assert found["ssim"] == pytest.approx(np.mean(slices))


def test_metrics_across_the_slices_by_hand():
    """Of the images that cut the object, each with its own error; the steps have no offset."""
    target = np.zeros((4, 5, 6))
    target[1:3, 1:4, 2] = 2.0
    image = target.copy()
    image[:, 1] += 0.02  # a row of every slice
    image[:, 2] += 0.2
    image[:, 3] -= 0.2
    image[:, 0] += 9.0  # outside the object
    found = across_metrics(target, image)
    assert found["psnr_rows"] == pytest.approx((40 + 20 + 20) / 3)
    assert found["psnr_columns"] == pytest.approx(
        10 * np.log10(4 / np.mean([81, 0.02**2, 0.04, 0.04, 0]))
    )
    assert found["step_error"] == pytest.approx(0, abs=1e-12)
    image[1] += 1.0
    assert across_metrics(target, image)["step_error"] == pytest.approx(np.sqrt(2 / 3) / 2)
    assert across_metrics(target, image, peak=1.0)["step_error"] == pytest.approx(np.sqrt(2 / 3))
    assert all(np.isnan(list(across_metrics(0 * target, image).values())))
    with pytest.raises(ValueError, match=r"two slices or more, got shape \(1, 5, 6\)"):
        across_metrics(target[:1], image[:1])


def test_thin_images_have_no_ssim():
    target = np.random.default_rng(0).random((5, 40))
    found = all_metrics(target, 0.9 * target)
    assert np.isnan(found["ssim"])
    assert found["nmse"] == pytest.approx(0.01)
    assert np.isnan(volume_metrics(target[None], 0.9 * target[None])["ssim"])
    thick = np.tile(target, (2, 1))
    assert 0.9 < all_metrics(thick, 0.99 * thick)["ssim"] < 1
