"""The map of what is not decided by the data."""

import numpy as np
import pytest

from evaluation.show.undecided import over_grey, undecided

SIDE = 64


def noise(std, seed=0):
    return std * np.random.default_rng(seed).standard_normal((SIDE, SIDE))


def test_it_is_the_part_of_the_detail_that_differs():
    """Detail of variance a that samples share, and b in which they differ: b / (a + b)."""
    for shared, differing in [(0.3, 0.1), (0.1, 0.1), (0.1, 0.3)]:
        image = noise(shared)
        found = undecided(image, np.full((SIDE, SIDE), differing))
        expected = differing**2 / (shared**2 + differing**2)
        assert np.mean(found) == pytest.approx(expected, rel=0.1)


def test_where_samples_agree_all_is_decided_and_smooth_places_are_not_in_it():
    image = np.zeros((SIDE, SIDE))
    image[:, SIDE // 2 :] = 1.0
    assert not undecided(image, np.zeros_like(image)).any()
    found = undecided(image, np.full_like(image, 1e-3))  # a tenth of the contrast that counts
    assert found.max() < 0.011
    found = undecided(image, np.full_like(image, 0.1))
    assert found[:, :10].min() > 0.98  # flat, with large deviations
    assert found[:, SIDE // 2].max() < 0.1  # the edge is in all samples
    assert not undecided(np.ones((8, 8)), np.zeros((8, 8))).any()  # a constant image


def test_units_do_not_matter():
    image, std = noise(0.2), np.abs(noise(0.1, 1))
    np.testing.assert_allclose(undecided(1e5 * image, 1e5 * std), undecided(image, std), rtol=1e-5)


def test_orange_over_grey():
    pixels = over_grey(np.array([[0.0, 0.5, 2.0]]), np.array([[0.0, 0.0, 1.0]]))
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [[[0, 0, 0], [128, 128, 128], [230, 97, 0]]]
