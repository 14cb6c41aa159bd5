"""Windows that fit the images, and scales of maps."""

import numpy as np
import pytest

from datasets.lodopab import LARGEST, LoDoPaB
from evaluation.show.windows import CT_WINDOWS, FULL, HU, RANGE, full_scale, windows


def test_whole_ct_begins_with_soft_tissue():
    names = [window.name for window in windows(HU, -1000, 1500)]
    assert names == [*(window.name for window in CT_WINDOWS), "full range"]
    whole = windows(HU, -1000, 1500)[-1]
    assert (whole.level, whole.width) == (250, 2500)


def test_images_clipped_to_a_window_begin_with_it():
    first, *others = windows(HU, 0, 80)
    assert (first.name, first.level, first.width) == ("full range", 40, 80)
    assert [window.name for window in others] == ["brain"]


def test_other_images_have_no_unit():
    assert windows(RANGE, -0.1, 1.2) == [FULL]


@pytest.mark.parametrize(
    ("large", "scale"), [(0.037, 0.05), (0.024, 0.02), (0.9, 1), (230, 200), (81, 100), (0, 1)]
)
def test_scales_are_round(large, scale):
    maps = [np.full((4, 4), large), np.full((4, 4), large), np.full((4, 4), 1e4)]
    assert full_scale(maps) == scale


def test_lodopab_in_hounsfield_units():
    factor, offset = LoDoPaB.hounsfield
    # its authors' scale: 3071 HU become 1, water becomes 20 / 81.35858, air 0.02 / 81.35858
    assert factor + offset == pytest.approx(3071, abs=0.01)
    assert factor * 20 / LARGEST + offset == pytest.approx(0, abs=1e-9)
    assert factor * 0.02 / LARGEST + offset == pytest.approx(-1000)
