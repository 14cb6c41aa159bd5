"""Pictures of what is measured: a mask, a trajectory, the beams of CT."""

import base64
import io
import math
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from operators import LinearOperator
from operators.ct import RayTransform

MOST_LINES = 64  # of a trajectory or of views that are drawn
MOST_POINTS = 256  # of each line
SIDE, MARGIN = 200, 8  # of a drawing
INK, AREA, ACCENT = "#1b1f24", "#ddeefa", "#0060a0"  # of drawings, which are on white
THIN, THICK, DOT = 0.5, 1.5, 1.5  # of lines and radius of dots, where the drawing is `SIDE` wide


class Picture(NamedTuple):
    """A picture as the content of a file.

    Attributes:
        suffix: ".png" or ".svg".
        content: bytes of the file.
        caption: what it shows, in words.
    """

    suffix: str
    content: bytes
    caption: str


def sampling_picture(operator: LinearOperator) -> Picture | None:
    """Picture of an operator's sampling; None if it has none that can be drawn.

    It is the mask (white: measured, the centre of k-space in the middle), the lines of a
    trajectory, or the rays through the centre of rotation, with the source of a fan beam.

    Args:
        operator: the operator of one slice.
    """
    pattern = operator.sampled()
    if pattern is None:
        return None
    values = np.asarray(pattern)
    if isinstance(operator, RayTransform):
        return _beams(operator)
    if values.ndim == 2 and values.dtype == bool:
        return _mask(values, operator.range_complex)
    if values.ndim == 3 and values.shape[-1] == 2:
        return _trajectory(values)
    return None


def figure(picture: Picture) -> str:
    """HTML figure with the picture in it.

    As an image, a drawing from somebody else's folder cannot run scripts.
    """
    kind = {".png": "png", ".svg": "svg+xml"}[picture.suffix]
    uri = f"data:image/{kind};base64,{base64.b64encode(picture.content).decode()}"
    caption = escape(picture.caption)
    image = f'<img src="{uri}" alt="{caption}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _mask(mask: np.ndarray, is_kspace: bool) -> Picture:
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG", optimize=True)
    where = "k-space, its centre in the middle" if is_kspace else "the image"
    caption = (
        f"Mask of {mask.shape[0]} x {mask.shape[1]}, white: measured, {100 * mask.mean():.1f} % of "
        f"{where}"
    )
    return Picture(".png", content.getvalue(), caption)


def _trajectory(positions: np.ndarray) -> Picture:
    """Lines through ``(L, N, 2)``, row and column in cycles per pixel."""
    lines, count = positions.shape[:2]
    each, every = math.ceil(lines / MOST_LINES), math.ceil(count / MOST_POINTS)
    drawn = "".join(
        '<polyline points="{}"/>'.format(
            " ".join(f"{SIDE * (c + 0.5):.1f},{SIDE * (r + 0.5):.1f}" for r, c in line[::every])
        )
        for line in positions[::each]
    )
    part = f", every {_ordinal(each)} drawn" if each > 1 else ""
    caption = f"Trajectory in k-space: {lines} lines of {count} positions{part}"
    area = f"<rect width='{SIDE}' height='{SIDE}' fill='{AREA}' stroke='none'/>"
    return _svg(area + drawn, caption, SIDE / 2)


def _beams(operator: RayTransform) -> Picture:
    """Central rays, in units of the image's side; y points up, as in `operators.ct`."""
    angles = np.deg2rad(operator.angles_deg)
    each = math.ceil(len(angles) / (2 * MOST_LINES))
    side = max(operator.size)
    half = SIDE / 2 + MARGIN
    distance = getattr(operator, "source_distance", None)
    height, width = (SIDE / 2 * n / side for n in operator.size)
    box = (
        f"<rect x='{-width / 2}' y='{-height / 2}' width='{width}' height='{height}' "
        f"fill='{AREA}' stroke='none'/>"
    )
    if distance is None:
        reach, kind = 0.36 * SIDE, "parallel beams"
        drawn = "".join(_line(-reach, reach, angle) for angle in angles[::each])
        drawn += _detector(operator.num_bins * SIDE / 2 / side, reach, angles[0], half)
    else:
        reach, kind = distance / side * SIDE / 2, "fan beam"
        half = max(reach + MARGIN, half)
        drawn = "".join(
            f"<circle cx='{reach * math.sin(a):.1f}' cy='{reach * math.cos(a):.1f}' "
            f"r='{_scaled(DOT, half)}' fill='{INK}' stroke='none'/>"
            for a in angles[::each]
        )
        edges = (operator.ray_angles.min(), operator.ray_angles.max())
        drawn += "".join(_fan(reach, angles[0], edge, half) for edge in edges)
    span = operator.angles_deg.max() - operator.angles_deg.min()
    part = f", every {_ordinal(each)} drawn" if each > 1 else ""
    caption = (
        f"{len(angles)} views over {span:.4g}°, {kind}, {operator.num_bins} detector bins{part}; "
        "square: the image"
    )
    return _svg(box + drawn, caption, half, centred=True)


def _line(start: float, end: float, angle: float) -> str:
    """Part of the ray through the centre, which travels along (sin, -cos)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    return (
        f"<line x1='{start * sine:.1f}' y1='{start * cosine:.1f}' "
        f"x2='{end * sine:.1f}' y2='{end * cosine:.1f}'/>"
    )


def _detector(length: float, reach: float, angle: float, half: float) -> str:
    """The detector of the first view, along (cos, sin), beyond the image."""
    sine, cosine = math.sin(angle), math.cos(angle)
    x, y = reach * sine, reach * cosine
    dx, dy = length / 2 * cosine, -length / 2 * sine
    return (
        f"<line x1='{x - dx:.1f}' y1='{y - dy:.1f}' x2='{x + dx:.1f}' y2='{y + dy:.1f}' "
        f"{_thick(half)}/>"
    )


def _fan(reach: float, angle: float, edge: float, half: float) -> str:
    """Outer ray of the first view's fan, from the source to the other side of the image."""
    x, y = reach * math.sin(angle), reach * math.cos(angle)
    towards = angle - edge
    length = 1.7 * reach
    return (
        f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{x - length * math.sin(towards):.1f}' "
        f"y2='{y - length * math.cos(towards):.1f}' {_thick(half)}/>"
    )


def _thick(half: float) -> str:
    return f"stroke='{ACCENT}' stroke-width='{_scaled(THICK, half)}'"


def _scaled(size: float, half: float) -> str:
    """A size in a drawing that is 2 `half` wide, so that it looks as large as in any other."""
    return f"{size * 2 * half / SIDE:.3g}"


def _svg(content: str, caption: str, half: float, *, centred: bool = False) -> Picture:
    start = -half if centred else 0
    view = f"{start:.4g} {start:.4g} {2 * half:.4g} {2 * half:.4g}"
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" stroke="{INK}" '
        f'stroke-width="{_scaled(THIN, half)}" fill="none"><title>{escape(caption)}</title>'
        f"{content}</svg>\n"
    )
    return Picture(".svg", text.encode(), caption)


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"} if number % 100 not in (11, 12, 13) else {}
    return f"{number}{endings.get(number % 10, 'th')}"
