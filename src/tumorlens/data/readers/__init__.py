"""One door for every format: `read_slices(path)` returns the slices of a file, whatever it is.

Axes are (row, column), rows downwards as the picture is shown; values are float32, finite, of any range and
with bright meaning bright (MONOCHROME1 is inverted). A file is recognised by its content, not by its name.
"""

from collections.abc import Iterator
from pathlib import Path

from tumorlens.data.readers import dicom, picture
from tumorlens.errors import InputError
from tumorlens.records import Slice

#: What a folder is searched for; a file named directly is tried whatever its name.
SUFFIXES = (*picture.SUFFIXES, *dicom.SUFFIXES)

MIN_SIDE = 16
MAX_SIDE = 8192
MAX_PIXELS = 4096 * 4096
MAX_FILE_PIXELS = 400_000_000


def check_size(path: Path, height: int, width: int, frames: int = 1) -> None:
    """Refuse pictures too small to show anything or too large to be a slice, before they are decoded.

    Raises:
        InputError: a side below 16 or above 8192 pixels, more than 4096 x 4096 in a slice, or 400 million in
            one file.
    """
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"{path.name}: {width} x {height} pixels are too few; a slice needs at least "
            f"{MIN_SIDE} x {MIN_SIDE}. Give the original picture, not a thumbnail"
        )
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise InputError(
            f"{path.name}: {width} x {height} pixels are too many for one slice (at most "
            f"{MAX_PIXELS:,} and {MAX_SIDE} a side). Reduce it, or give the slice alone"
        )
    if height * width * frames > MAX_FILE_PIXELS:
        raise InputError(
            f"{path.name}: {frames} frames of {width} x {height} pixels are too many for one file (at most "
            f"{MAX_FILE_PIXELS // 1_000_000} million pixels). Give it in parts"
        )


def read_slices(path: Path) -> list[Slice]:
    """Read every slice of one file.

    Returns:
        At least one slice; several for a multi-frame DICOM file, a multi-page TIFF or an animation.

    Raises:
        InputError: the file is missing, empty, truncated, of an unknown format, or of an unusable size.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name}: the file is empty (0 bytes). Copy it again")
    if dicom.is_dicom(path):
        return dicom.read(path, check_size)
    try:
        return picture.read(path, check_size)
    except picture.NotAPictureError:
        # Old DICOM files may lack the mark; then the name is all there is to go by.
        if path.suffix.lower() in dicom.SUFFIXES:
            return dicom.read(path, check_size)
        raise


def find_inputs(paths: list[Path]) -> Iterator[Path]:
    """The files that `paths` name: files as they are, folders searched by suffix, in a stable order.

    Yields:
        Paths of files. A folder in which nothing is found yields itself, so that its emptiness is reported.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        yield from images_below(path) or [path]


def images_below(folder: Path) -> list[Path]:
    """Every image file below a folder, sorted: by suffix, or by DICOM's mark where the suffix says nothing."""
    return sorted(
        entry
        for entry in folder.rglob("*")
        if entry.is_file() and (entry.suffix.lower() in SUFFIXES or dicom.is_dicom(entry))
    )
