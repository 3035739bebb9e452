"""A heatmap over its picture, as an image for people."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tumorlens.data.preprocess import square_pixels
from tumorlens.records import Float32

PANEL = 320  # pixels of height
OUTLINE = (0, 220, 255)
LEVELS = (0.25, 0.5, 0.75)  # of the peak, where contours are drawn
_GAP, _SCALE, _LINE = 6, 8, 2


def overlay(pixels: Float32, values: Float32, opacity: float = 0.5) -> Image.Image:
    """Lay a heatmap over a grey picture.

    The colour runs from dark violet to yellow with the map's own range; where the map is zero, the picture shows
    unchanged, so that the anatomy stays readable.

    Args:
        pixels: (height, width), any range.
        values: the map at the same size, at least 0.
        opacity: of the map where it is strongest, 0 to 1.

    Returns:
        An RGB image of the picture's size.
    """
    grey = to_grey(pixels)
    drawn = np.repeat(grey[..., None], 3, axis=2)
    peak = float(values.max())
    rows, columns = (np.flatnonzero((values > 0).any(axis=axis)) for axis in (1, 0))
    if peak > 0 and rows.size:  # most of a map is often empty: there the picture stays
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        level = _level(values[box] / np.float32(peak))
        drawn[box] = _mixed(opacity).take(grey[box].astype(np.intp) * len(_COLOURS) + level, axis=0)
    return Image.fromarray(drawn)


def contoured(pixels: Float32, values: Float32, levels: tuple[float, ...] = LEVELS) -> Image.Image:
    """Lines where a heatmap passes shares of its peak, over a grey picture; the anatomy inside stays as it is.

    Args:
        pixels: (height, width), any range.
        values: the map at the same size, at least 0.
        levels: shares of the peak, rising.

    Returns:
        An RGB image of the picture's size.
    """
    from scipy.ndimage import binary_erosion  # heavy, and the command line imports this module at its start

    drawn = np.repeat(to_grey(pixels)[..., None], 3, axis=2)
    peak = float(values.max())
    for level in levels if peak > 0 else ():
        inside = values >= level * peak
        drawn[inside & ~binary_erosion(inside, iterations=_LINE)] = line_colour(level).astype(np.uint8)
    return Image.fromarray(drawn)


def line_colour(level: float) -> Float32:
    """The colour (3,) of the line at a share of the peak, from orange to pale yellow: darker ones drown in grey."""
    return np.asarray(colour(np.array([0.55 + 0.45 * level], dtype=np.float32))[0])


def as_seen(picture: Image.Image, spacing: tuple[float, float] | None) -> Image.Image:
    """A picture with square pixels: a slice cut across thick ones is a strip otherwise.

    Args:
        picture: of a slice.
        spacing: distance of its rows and of its columns in mm; None where unknown.
    """
    height, width = square_pixels(picture.height, picture.width, spacing)
    if (width, height) == picture.size:
        return picture
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def panel(
    pixels: Float32,
    values: Float32,
    region: NDArray[np.bool_] | None = None,
    spacing: tuple[float, float] | None = None,
) -> Image.Image:
    """The slice, the heatmap over it with its scale, and the outline of a region, beside each other.

    Args:
        pixels: (height, width), any range.
        values: the map at the same size, at least 0.
        region: (height, width), or None for a panel of two.
        spacing: distance of rows and of columns in mm; None where unknown.

    Returns:
        An RGB image, each part `PANEL` pixels high.
    """
    plain = Image.fromarray(to_grey(pixels)).convert("RGB")
    seen_height, seen_width = square_pixels(plain.height, plain.width, spacing)
    width = max(1, round(seen_width * PANEL / seen_height))
    parts = [plain, overlay(pixels, values)]
    shown = [np.asarray(part.resize((width, PANEL), Image.Resampling.BICUBIC)) for part in parts]
    if region is not None:
        shown.append(outlined(shown[0], region))
    gap = np.full((PANEL, _GAP, 3), 255, dtype=np.uint8)
    scale = np.repeat(colour(np.linspace(1, 0, PANEL, dtype=np.float32))[:, None], _SCALE, axis=1).astype(np.uint8)
    pieces = [shown[0], gap, shown[1], scale, *(piece for part in shown[2:] for piece in (gap, part))]
    return Image.fromarray(np.concatenate(pieces, axis=1))


def outlined(picture: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """An RGB picture (h, w, 3) with the outline of a region (height, width), stretched to it."""
    from scipy.ndimage import binary_erosion  # heavy, and the command line imports this module at its start

    large = np.asarray(Image.fromarray(region).resize(picture.shape[1::-1], Image.Resampling.NEAREST))
    drawn = picture.copy()
    drawn[large & ~binary_erosion(large, iterations=_LINE)] = OUTLINE
    return drawn


def to_grey(pixels: Float32) -> NDArray[np.uint8]:
    """Stretch a picture of any range to 0…255 between its 0.5 and 99.5 percentiles."""
    low, high = np.percentile(pixels, [0.5, 99.5])
    span = max(float(high - low), 1e-6)
    return np.asarray(np.round(np.clip((pixels - low) / span, 0, 1) * 255), dtype=np.uint8)


def colour(strength: Float32) -> Float32:
    """Values in [0, 1] (…) to RGB (…, 3) in 0…255, along matplotlib's inferno, perceptually even."""
    return np.asarray(_COLOURS[_level(strength)])


@lru_cache(maxsize=2)
def _mixed(opacity: float) -> NDArray[np.uint8]:
    """Every grey under every colour, (256 · levels, 3): looking a pixel up is quicker than mixing it."""
    alpha = np.float32(opacity) * np.sqrt(np.linspace(0, 1, len(_COLOURS), dtype=np.float32))[:, None]
    grey = np.arange(256, dtype=np.uint8)[:, None, None]
    table = (grey * (1 - alpha) + _COLOURS * alpha + np.float32(0.5)).astype(np.uint8).reshape(-1, 3)
    table.flags.writeable = False  # all share it
    return table


def _level(strength: Float32) -> NDArray[np.intp]:
    """The row of the table of colours for values in [0, 1]."""
    steps = np.clip(strength, 0, 1) * np.float32(len(_COLOURS) - 1) + np.float32(0.5)
    return np.asarray(steps.astype(np.intp))


# Seventeen stops of inferno: enough for the eye, and no plotting library at start-up.
_INFERNO = np.array(
    [
        [0, 0, 4], [11, 7, 36], [33, 12, 74], [61, 9, 101], [87, 16, 110],
        [113, 25, 110], [138, 34, 106], [163, 44, 97], [188, 55, 84], [210, 70, 68],
        [228, 90, 49], [241, 115, 29], [249, 142, 9], [252, 172, 17], [249, 203, 53],
        [242, 234, 105], [252, 255, 164],
    ],
    dtype=np.float32,
)  # fmt: skip
# One table for all: looking a colour up is five times as quick as mixing it.
_COLOURS = np.stack(
    [np.interp(np.linspace(0, 16, 1024), np.arange(17), channel) for channel in _INFERNO.T], axis=1
).astype(np.float32)
