"""Ordinary pictures: PNG, JPEG and what else Pillow reads safely."""

import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tumorlens.data.readers.entry import Entry, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Float32, Slice

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")


class NotAPictureError(InputError):
    """The content is of no picture format that is read here."""


def is_picture(entry: Entry) -> bool:
    """Whether it begins like a picture, sound or not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with entry.open() as file, Image.open(file, formats=FORMATS):
                return True
    except UnidentifiedImageError:
        return False
    except Exception:  # it was known, and then found to be damaged or too large: `read` says so
        return True


def read(entry: Entry, check_size: Callable[..., None], options: ReadOptions) -> list[Slice]:
    """Read a picture, or the wanted pages of one, as grey, upright by its EXIF orientation.

    16-bit and floating point greys keep their depth; colours become luminance; transparent parts become black.

    Raises:
        InputError: not a picture, truncated, without the wanted page, or of a size that `check_size` refuses.
    """
    try:
        with warnings.catch_warnings():
            # check_size gives the limit in one place; Pillow's own warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with entry.open() as file, Image.open(file, formats=FORMATS) as image:
                numbers = _wanted(entry, getattr(image, "n_frames", 1), options)
                pages = [_page(image, number, entry, check_size, len(numbers)) for number in numbers]
    except UnidentifiedImageError as error:
        raise NotAPictureError(
            f"{entry.name}: not a picture that can be read; allowed are {', '.join(FORMATS)}, DICOM, NIfTI, MATLAB 7.3 "
            "and ZIP archives of them. What counts is the content of the file, not its name"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{entry.name}: far too many pixels for one slice ({error})") from error
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files; all mean: this one cannot be read
        raise InputError(f"{entry.name}: damaged or incomplete ({error}). Copy or export it again") from error
    return [
        Slice(pixels=pixels, source=entry.address, frame=number) for number, pixels in zip(numbers, pages, strict=True)
    ]


def _wanted(entry: Entry, count: int, options: ReadOptions) -> list[int]:
    if options.frame is None:
        return list(range(0, count, options.every))
    if not 0 <= options.frame < count:
        raise InputError(f"{entry.name}: no page {options.frame} in it; it has 0 to {count - 1}. Give one of these")
    return [options.frame]


def _page(image: Image.Image, number: int, entry: Entry, check_size: Callable[..., None], count: int) -> Float32:
    if number:
        image.seek(number)
    check_size(entry, image.height, image.width, count)  # pages of one file may differ in size
    return _grey(ImageOps.exif_transpose(image))


def _grey(image: Image.Image) -> Float32:
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("RGBA", "LA", "PA"):
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image, dtype=np.float32)
    else:
        pixels = np.asarray(image.convert("RGB").convert("L"), dtype=np.float32)
    return np.nan_to_num(pixels, nan=0.0, posinf=0.0, neginf=0.0)
