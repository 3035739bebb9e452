"""From a slice to the square a network sees, and back: the one preprocessing used in training, prediction and app.

Robust intensity scaling, a crop to the head (so that the field of view says little of the source), padding to
a square, and an antialiased resize. Pixels that are not square are stretched first. Numpy and Pillow only.
"""

import numpy as np
from PIL import Image

from tumorlens.config import PreprocessSettings
from tumorlens.errors import InputError
from tumorlens.records import Float32, Geometry, Slice

_SQUARE_ENOUGH = 0.02  # ratio of spacings beyond 1 up to which pixels count as square
_MAX_STRETCH = 20.0  # ratio of spacings beyond which a header is not believed; real cuts stay below 16
_MAX_SIDE = 8192  # of a stretched crop; that of a slice as it is read
_MIN_CROP = 0.3  # a box below this share of the side is no head but a speck: keep the whole picture


def prepare(picture: Slice, settings: PreprocessSettings) -> tuple[Float32, Geometry]:
    """Scale, crop, pad and resize one slice.

    Returns:
        The square (size, size), float32 in [0, 1], and the geometry that lays maps back over the picture.

    Raises:
        InputError: the picture is of one single intensity, so there is nothing to see.
    """
    scaled = _scale_intensity(picture, settings)
    box = _head_box(scaled, settings)
    top, left, bottom, right = box
    crop = scaled[top:bottom, left:right]
    height, width = square_pixels(crop.shape[0], crop.shape[1], picture.spacing)
    if (height, width) != crop.shape:
        crop = resize(crop, height, width)
    side = max(height, width)
    pad = ((side - height) // 2, (side - width) // 2)
    square = np.zeros((side, side), dtype=np.float32)
    square[pad[0] : pad[0] + height, pad[1] : pad[1] + width] = crop
    resized = resize(square, settings.size, settings.size)
    geometry = Geometry(picture.pixels.shape[0], picture.pixels.shape[1], box, side, pad, (height, width))
    return np.clip(resized, 0.0, 1.0), geometry


def to_picture(values: Float32, geometry: Geometry) -> Float32:
    """Lay a map (h, w) over the prepared square back onto the original picture.

    Returns:
        The map at the picture's own size (height, width), float32, zero outside the crop.
    """
    square = resize(values, geometry.side, geometry.side)
    top, left, bottom, right = geometry.box
    row, column = geometry.pad
    height, width = geometry.shape or (bottom - top, right - left)
    crop = square[row : row + height, column : column + width]
    if crop.shape != (bottom - top, right - left):
        crop = resize(crop, bottom - top, right - left)
    out = np.zeros((geometry.height, geometry.width), dtype=np.float32)
    out[top:bottom, left:right] = crop
    return out


def to_square(values: Float32, geometry: Geometry, size: int) -> Float32:
    """Lay a plane over the original picture, say a mask, onto the prepared square: what `to_picture` undoes.

    Returns:
        The plane (size, size), float32, zero where the square shows no picture.
    """
    top, left, bottom, right = geometry.box
    row, column = geometry.pad
    height, width = geometry.shape or (bottom - top, right - left)
    square = np.zeros((geometry.side, geometry.side), dtype=np.float32)
    square[row : row + height, column : column + width] = resize(values[top:bottom, left:right], height, width)
    return resize(square, size, size)


def resize(values: Float32, height: int, width: int) -> Float32:
    """Resize a plane (h, w) to (height, width): bilinear, antialiased where it shrinks."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def square_pixels(height: int, width: int, spacing: tuple[float, float] | None) -> tuple[int, int]:
    """The size at which a crop's pixels are square and as fine as its finest; its own where the spacing is no help."""
    if spacing is None or not min(spacing) > 0:
        return height, width
    ratio = spacing[0] / spacing[1]
    if abs(ratio - 1) <= _SQUARE_ENOUGH or not 1 / _MAX_STRETCH <= ratio <= _MAX_STRETCH:
        return height, width
    rows, columns = height * max(ratio, 1.0), width * max(1 / ratio, 1.0)
    shrink = min(1.0, _MAX_SIDE / max(rows, columns))
    return max(1, round(rows * shrink)), max(1, round(columns * shrink))


def _scale_intensity(picture: Slice, settings: PreprocessSettings) -> Float32:
    low, high = np.percentile(picture.pixels, [settings.low_percentile, settings.high_percentile])
    if not high > low:
        low, high = float(picture.pixels.min()), float(picture.pixels.max())
    if not high > low:
        raise InputError(
            f"{picture.source}: every pixel has the value {low:g}, so there is nothing to see. "
            "Check the export or the window"
        )
    scaled = (picture.pixels - np.float32(low)) / np.float32(high - low)
    return np.asarray(np.clip(scaled, 0.0, 1.0), dtype=np.float32)


def _head_box(scaled: Float32, settings: PreprocessSettings) -> tuple[int, int, int, int]:
    """Bounding box of rows and columns with at least 1 % foreground, so that specks and labels do not count."""
    foreground = scaled > settings.foreground
    height, width = scaled.shape
    rows = np.flatnonzero(foreground.mean(axis=1) > 0.01)
    columns = np.flatnonzero(foreground.mean(axis=0) > 0.01)
    if rows.size < _MIN_CROP * height or columns.size < _MIN_CROP * width:
        return 0, 0, height, width
    border = round(settings.margin * max(rows[-1] - rows[0], columns[-1] - columns[0]))
    return (
        max(int(rows[0]) - border, 0),
        max(int(columns[0]) - border, 0),
        min(int(rows[-1]) + 1 + border, height),
        min(int(columns[-1]) + 1 + border, width),
    )
