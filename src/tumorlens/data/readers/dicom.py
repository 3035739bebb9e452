"""DICOM images: single, multi-frame and enhanced, rescaled, upright, bright meaning bright."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.orientation import turn
from tumorlens.data.readers.dicom_header import dataset_of
from tumorlens.data.readers.dicom_pixels import check_pixels, frame_values, group_of, has_pixels, stored_frames
from tumorlens.data.readers.dicom_place import plane_of, spacing_of
from tumorlens.data.readers.entry import Entry, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Slice

SUFFIXES = (".dcm", ".dicom", ".ima")


def read(entry: Entry, check_size: Callable[..., None], options: ReadOptions) -> list[Slice]:
    """Read the frames of a DICOM image, turned upright where the header says how they lie.

    Values are the modality's (after rescale or modality LUT), all of them; with `options.window` those that the header
    asks to show (VOI LUT or window).

    Raises:
        InputError: not DICOM, no pixel data, a transfer syntax without a free decoder, a refused size, or one that is
            not that of its pixel data.
    """
    from pydicom.errors import InvalidDicomError

    dataset: Any = None
    try:
        dataset = dataset_of(entry, force=entry.suffix in SUFFIXES)
        if not has_pixels(dataset):
            raise InputError(
                f"{entry.name}: no picture in it (no PixelData; it may be a report, a directory or a key). "
                "Give the image objects of the series"
            )
        count = int(dataset.get("NumberOfFrames") or 1)
        if count < 1:
            raise InputError(f"{entry.name}: its header says {count} frames; at least 1 is needed. Export it again")
        check_size(entry, int(dataset.Rows), int(dataset.Columns), count)
        numbers = _numbers(entry, count, options)
        check_pixels(dataset, entry, count, numbers)
        return [
            _frame(dataset, stored, entry, number, options)
            for number, stored in zip(numbers, stored_frames(dataset, numbers), strict=True)
        ]
    except InvalidDicomError as error:
        raise InputError(f"{entry.name}: not a DICOM file ({error})") from error
    except InputError:
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds; all mean: this file cannot be read
        raise InputError(_undecoded(dataset, entry, error)) from error


def _undecoded(dataset: Any, entry: Entry, error: Exception) -> str:
    """The sentence for pixels that cannot be decoded: no decoder for their transfer syntax, or damage."""
    text = " ".join(str(error).split())
    if "missing dependencies" in text or "does not support" in text or "no pixel data decoders" in text.lower():
        return (
            f"{entry.name}: no decoder here for its {_syntax(dataset)}. Export it uncompressed or as JPEG 2000, or "
            "convert it with `gdcmconv --raw`"
        )
    return (
        f"{entry.name}: cannot be decoded as DICOM ({type(error).__name__}: {text}; {_syntax(dataset)}). "
        "Export it uncompressed or as JPEG 2000, or check that it is complete"
    )


def _numbers(entry: Entry, count: int, options: ReadOptions) -> range:
    if options.frame is None:
        return range(0, count, options.every)
    if not 0 <= options.frame < count:
        raise InputError(f"{entry.name}: no frame {options.frame}; there are 0 to {count - 1}. Name one of them")
    return range(options.frame, options.frame + 1)


def _frame(dataset: Any, stored: NDArray[Any], entry: Entry, number: int, options: ReadOptions) -> Slice:
    values = frame_values(dataset, stored, number, options.window)
    plane, orientation = plane_of(group_of(dataset, number, "PlaneOrientationSequence").get("ImageOrientationPatient"))
    spacing = spacing_of(group_of(dataset, number, "PixelMeasuresSequence").get("PixelSpacing"))
    if spacing and orientation // 2 % 2:
        spacing = spacing[::-1]
    upright = np.ascontiguousarray(turn(values, orientation))
    return Slice(upright, entry.address, number, spacing, plane, orientation)


def _syntax(dataset: Any) -> str:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    # Of a damaged header it may be several, or no UID at all.
    return f"transfer syntax {getattr(syntax, 'name', syntax)}" if syntax is not None else "transfer syntax unknown"
