"""Ordinary pictures: PNG, JPEG and what else Pillow reads safely."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from tumorlens.errors import InputError
from tumorlens.records import Float32, Slice

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")


class NotAPictureError(InputError):
    """The content is of no picture format that is read here."""


def read(path: Path, check_size: Callable[..., None]) -> list[Slice]:
    """Read a picture, or every page of one, as grey, upright by its EXIF orientation.

    16-bit and floating point greys keep their depth; colours become luminance; transparent parts become black.

    Raises:
        InputError: not a picture, truncated, or of a size that `check_size` refuses.
    """
    try:
        with warnings.catch_warnings():
            # check_size gives the limit in one place; Pillow's own warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                check_size(path, image.height, image.width, getattr(image, "n_frames", 1))
                pages = [_grey(ImageOps.exif_transpose(page)) for page in ImageSequence.Iterator(image)]
    except UnidentifiedImageError as error:
        raise NotAPictureError(
            f"{path.name}: not a picture that can be read; allowed are {', '.join(FORMATS)} and DICOM. "
            "Its content decides, not its name"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name}: far too many pixels for one slice ({error})") from error
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files; all mean: this one cannot be read
        raise InputError(f"{path.name}: damaged or incomplete ({error}). Copy or export it again") from error
    return [Slice(pixels=pixels, source=str(path), frame=number) for number, pixels in enumerate(pages)]


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
