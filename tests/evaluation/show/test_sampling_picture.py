"""Pictures of masks, trajectories and beams."""

import base64
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.show.sampling_picture import figure, sampling_picture
from operators import FanBeamCT, NonCartesianMRI, ParallelBeamCT, SingleCoilMRI, SuperResolution
from operators.ct import few_view_angles


def numbers(text, tag, *names):
    """Attributes of all elements of a kind."""
    found = re.findall(rf"<{tag}[^>]*>", text)
    return [[float(re.search(rf"\b{name}='([^']*)'", item)[1]) for name in names] for item in found]


def drawing(operator):
    """The drawing as text; well-formed, as browsers want it of SVG in an image."""
    picture = sampling_picture(operator)
    assert picture.suffix == ".svg"
    text = picture.content.decode()
    assert ElementTree.fromstring(text).findtext("{*}title") == picture.caption
    assert "data:image/svg+xml;base64," in figure(picture)
    return text


def test_mask_is_shown_as_it_is():
    mask = torch.rand(12, 20, generator=torch.Generator().manual_seed(0)) < 0.3
    picture = sampling_picture(SingleCoilMRI(mask))
    assert picture.suffix == ".png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.content))), mask.numpy())
    assert f"{100 * mask.float().mean():.1f} % of k-space" in picture.caption
    text = figure(picture)
    uri = re.search(r'src="data:image/png;base64,([^"]*)"', text)[1]
    assert base64.b64decode(uri) == picture.content
    assert 'alt="Mask of 12 x 20' in text


def test_rays_have_the_angles_of_the_views():
    angles = [0.0, 30.0, 90.0, 135.0]
    text = drawing(ParallelBeamCT(16, angles))
    *rays, detector = numbers(text, "line", "x1", "y1", "x2", "y2")
    for angle, (x1, y1, x2, y2) in zip(angles, rays, strict=True):
        # from (-sin, cos) to (sin, -cos), y upwards; y of a picture points down
        turned = math.degrees(math.atan2(x2 - x1, y2 - y1))
        assert turned == pytest.approx(angle, abs=0.1)
        assert (x1 + x2, y1 + y2) == pytest.approx((0, 0), abs=0.11)
    assert detector[1] == detector[3] > 0  # at 0 degrees: below the image, horizontal
    assert "4 views over 135°, parallel beams" in text


def test_sources_of_a_fan_lie_around_the_image():
    operator = FanBeamCT(
        16, few_view_angles(6, 360.0), num_bins=40, source_distance=40.0, detector_distance=40.0
    )
    text = drawing(operator)
    sources = np.array(numbers(text, "circle", "cx", "cy"))
    width = numbers(text, "rect", "width")[0][0]
    assert len(sources) == 6
    assert np.hypot(*sources.T) == pytest.approx(np.full(6, 40 / 16 * width), rel=0.01)
    assert sources[0] == pytest.approx([0, 40 / 16 * width], abs=0.1)  # (0, -40), y upwards
    assert "fan beam" in text


def test_trajectory_is_drawn_where_it_runs():
    trajectory = torch.zeros(3, 5, 2)
    trajectory[:, :, 1] = torch.linspace(-0.5, 0.5, 5)  # along columns
    trajectory[1, :, 0], trajectory[2, :, 0] = 0.25, -0.5
    operator = NonCartesianMRI(trajectory, torch.ones(1, 16, 16, dtype=torch.complex64))
    text = drawing(operator)
    lines = [
        [tuple(map(float, place.split(","))) for place in points.split()]
        for points in re.findall(r'points="([^"]*)"', text)
    ]
    side = numbers(text, "rect", "width")[0][0]
    assert [line[0] for line in lines] == [(0, side / 2), (0, 0.75 * side), (0, 0)]
    assert lines[0][-1] == (side, side / 2)


def test_long_trajectories_and_many_views_are_thinned():
    trajectory = torch.rand(400, 600, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    operator = NonCartesianMRI(trajectory, torch.ones(1, 16, 16, dtype=torch.complex64))
    text = drawing(operator)
    assert len(text) < 300_000
    assert "400 lines of 600 positions, every 7th drawn" in text
    assert len(drawing(ParallelBeamCT(16, few_view_angles(2000)))) < 30_000


def test_no_picture_where_nothing_is_left_out():
    assert sampling_picture(SuperResolution((16, 16), factor=2)) is None
