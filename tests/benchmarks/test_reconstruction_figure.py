"""The figure of quality against cost: no empty space down to a method that failed."""

import pytest

from benchmarks import reconstruction
from benchmarks.reconstruction import REACH, Point, draw


def test_what_is_far_below_is_written_at_the_edge(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        reconstruction, "write_figure", lambda figure, *_, **__: drawn.append(figure)
    )
    points = [
        Point("MR", "pnp", 20, "float32", 20, 2.0, 39.0, 0.9),
        Point("MR", "dds", 20, "float32", 20, 2.5, 36.0, 0.9),
        Point("MR", "annealed_langevin", 50, "float32", 150, 14.0, 39.0 - REACH - 3, 0.7),
    ]
    draw(points, tmp_path / "x.png")
    for axis in drawn[0].axes:
        low, high = axis.get_ylim()
        assert 34 < low < 36  # not 24
        assert 39 < high < 40
        (note,) = axis.texts
        assert note.get_text() == f"{39 - REACH - 3:.1f} dB"
        # at its own place along the axis, the lower edge across
        assert note.xy == (150 if axis.get_xlabel() == "network calls" else 14, 0)
        assert [len(line.get_ydata()) for line in axis.lines] == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("psnr", [39.0 - REACH, 38.0])
def test_what_is_near_is_a_point(tmp_path, monkeypatch, psnr):
    drawn = []
    monkeypatch.setattr(
        reconstruction, "write_figure", lambda figure, *_, **__: drawn.append(figure)
    )
    points = [Point("MR", "pnp", n, "float32", n, n, p, 0.9) for n, p in ((10, 39.0), (20, psnr))]
    draw(points, tmp_path / "x.png")
    assert not drawn[0].axes[0].texts
    assert drawn[0].axes[0].get_ylim()[0] < psnr
