"""Images as text: exact to half a step, whatever is in them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from evaluation.show.pixels import MOST, encode
from tests.helpers.report_pixels import decode


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(-3, 3, width=32),
    )
)
def test_images_are_kept_to_half_a_step(image):
    kept = decode(encode(image, 1 / 4096), image.shape)
    assert np.abs(kept - image).max() <= 0.5 / 4096 + 1e-9


def test_extreme_and_missing_values():
    image = np.array([[1e9, -1e9, np.nan], [np.inf, 1e9, -1e9]])
    kept = decode(encode(image, 0.5), image.shape)
    most = 0.5 * MOST
    assert kept.tolist() == [[most, -most, 0], [0, most, -most]]


def test_smooth_images_take_little_space():
    y, x = np.mgrid[:64, :64] / 64
    smooth = encode(x * y, 1 / 4096)["data"]
    noisy = encode(np.random.default_rng(0).random((64, 64)), 1 / 4096)["data"]
    assert len(smooth) < 0.3 * len(noisy)
    assert len(noisy) < 64 * 64 * 16 / 6  # less than 16 bits a pixel, of which a letter has 6
