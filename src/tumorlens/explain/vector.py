"""A slice with its heatmap's contours as SVG: sharp at any size, and each line can be edited for a figure."""

from base64 import b64encode
from html import escape
from io import BytesIO

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image

from tumorlens.data.preprocess import square_pixels
from tumorlens.explain.overlay import LEVELS, OUTLINE, line_colour, to_grey
from tumorlens.records import Float32

#: A dash for each level, so that lines are told apart without colour.
_DASHES = ("1.5 2.5", "5 2.5", "none")
_HEIGHT, _LEGEND, _LINE = 480, 150, 22  # of the drawing, whatever the slice's size


def contours_svg(
    pixels: Float32,
    values: Float32,
    title: str,
    region: NDArray[np.bool_] | None = None,
    spacing: tuple[float, float] | None = None,
) -> str:
    """The slice, lines where the heatmap passes shares of its peak, the outline of a region, and a legend.

    Args:
        pixels: (height, width), any range.
        values: the map at the same size, at least 0; nothing is drawn of an empty one.
        title: said below the slice, and to screen readers.
        region: (height, width), or None.
        spacing: distance of rows and of columns in mm; None where unknown.

    Returns:
        The file's text. The slice is inside it, as PNG; the same input gives the same bytes.
    """
    height, width = square_pixels(pixels.shape[0], pixels.shape[1], spacing)
    wide = round(width * _HEIGHT / height)
    scale = (wide / pixels.shape[1], _HEIGHT / pixels.shape[0])
    png = BytesIO()
    Image.fromarray(to_grey(pixels)).save(png, "PNG")
    parts = [
        f'<image width="{wide}" height="{_HEIGHT}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{b64encode(png.getvalue()).decode()}"/>'
    ]
    legend = []
    peak = float(values.max())
    for level, dash in zip(LEVELS, _DASHES, strict=True) if peak > 0 else ():
        look = f'stroke="{_hex(line_colour(level))}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<path d="{_path(values, level * peak, scale)}" fill="none" {look}/>')
        legend.append((look, f"{level:.0%} of the peak"))
    if region is not None and region.any():
        look = f'stroke="{_hex(np.array(OUTLINE))}" stroke-width="2"'
        parts.append(f'<path d="{_path(region.astype(np.float32), 0.5, scale)}" fill="none" {look}/>')
        legend.append((look, "evidence region"))
    for number, (look, name) in enumerate(legend):
        y = _LINE * (number + 1)
        parts.append(
            f'<rect x="{wide + 8}" y="{y - 8}" width="30" height="16" fill="#222"/>'
            f'<line x1="{wide + 11}" x2="{wide + 35}" y1="{y}" y2="{y}" {look}/>'
            f'<text x="{wide + 44}" y="{y + 4}">{name}</text>'
        )
    parts.append(f'<text x="2" y="{_HEIGHT + 16}">{escape(title)}</text>')
    full = f"{wide + _LEGEND} {_HEIGHT + _LINE}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full}" font-family="sans-serif" font-size="12" '
        f'fill="#333"><title>{escape(title)}</title>{"".join(parts)}</svg>\n'
    )


def _path(values: Float32, level: float, scale: tuple[float, float]) -> str:
    """Contours of (height, width) at a level as path data, x and y scaled; a border closes those that leave."""
    padded = np.pad(values, 1)
    lines = contour_generator(z=padded).lines(level)
    # Pixel (row, column) has its middle at half a pixel, and one more is the border.
    return "".join(
        "M" + "L".join(f"{(x - 0.5) * scale[0]:.1f},{(y - 0.5) * scale[1]:.1f}" for x, y in np.asarray(line))
        for line in lines
    )  # fmt: skip


def _hex(rgb: NDArray[np.generic]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in rgb)
