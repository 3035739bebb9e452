"""Ordinary pictures: PNG, JPEG and what else Pillow reads safely."""

import warnings
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tumorlens.data.orientation import turn
from tumorlens.data.readers.entry import Entry, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Float32, Slice

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
#: EXIF's orientations as those of `data.orientation`.
_EXIF = {2: 1, 3: 4, 4: 5, 5: 7, 6: 6, 7: 3, 8: 2}
_PHOTOMETRIC, _KIND_OF_PAGE = 262, 254  # TIFF tags
_PREVIEW = 1
_FEW_LEVELS = 64


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

    16-bit and floating point greys keep their depth; colours become luminance; transparent parts become black. Of a
    file with several pages those marked as previews of others are left out.

    Raises:
        InputError: not a picture, truncated, without the wanted page, of a size that `check_size` refuses, or of 16-bit
            colours that use few of their levels.
    """
    try:
        with warnings.catch_warnings():
            # check_size gives the limit in one place; Pillow's own warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with entry.open() as file, Image.open(file, formats=FORMATS) as image:
                # The second picture of an MPO, which cameras write as .jpg, is a preview of the first.
                numbers = _wanted(entry, 1 if image.format == "MPO" else getattr(image, "n_frames", 1), options)
                return _pages(image, numbers, entry, check_size)
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


def _wanted(entry: Entry, count: int, options: ReadOptions) -> list[int]:
    if options.frame is None:
        return list(range(0, count, options.every))
    if not 0 <= options.frame < count:
        raise InputError(f"{entry.name}: no page {options.frame} in it; it has 0 to {count - 1}. Give one of these")
    return [options.frame]


def _pages(image: Image.Image, numbers: list[int], entry: Entry, check_size: Callable[..., None]) -> list[Slice]:
    found = []
    for number in numbers:
        image.seek(number)
        if len(numbers) > 1 and number and getattr(image, "tag_v2", {}).get(_KIND_OF_PAGE, 0) & _PREVIEW:
            continue
        check_size(entry, image.height, image.width, len(numbers))  # pages of one file may differ in size
        found.append(_page(image, number, entry))
    return found


def _page(image: Image.Image, number: int, entry: Entry) -> Slice:
    # Pillow keeps the upper 8 of 16 bits, save in plain grey. Loading, which PNG does for its EXIF, empties `tile`.
    cut = not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    said = image.getexif().get(ExifTags.Base.Orientation) or 1
    orientation = _EXIF.get(said, 0)
    inverted = image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    image.load()
    turned = said != 1 and not image.getexif().get(ExifTags.Base.Orientation)  # Pillow does it itself for TIFF
    pixels = _grey(image)
    if cut and pixels.max() < _FEW_LEVELS:
        raise InputError(
            f"{entry.name}: of its 16 bits a channel the upper 8 are read, which have but {int(pixels.max()) + 1} grey "
            "levels here. Save it as 16-bit grey without transparency, or stretch its values"
        )
    if inverted:  # TIFF's MINISWHITE, which Pillow heeds in 8 bits only
        pixels = pixels.max() - pixels
    upright = np.ascontiguousarray(pixels if turned else turn(pixels, orientation))
    return Slice(pixels=upright, source=entry.address, frame=number, orientation=orientation)


def _grey(image: Image.Image) -> Float32:
    if "transparency" in image.info and image.mode in ("P", "L", "RGB"):
        image = image.convert("RGBA")
    elif image.mode == "P":
        image = image.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA"):
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image, dtype=np.float32)
    else:
        pixels = np.asarray(image.convert("RGB").convert("L"), dtype=np.float32)
    return np.nan_to_num(pixels, nan=0.0, posinf=0.0, neginf=0.0)
