"""The pixels of a DICOM image: checked against its header, decoded, and turned into the values that it means."""

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.readers.entry import Entry
from tumorlens.errors import InputError
from tumorlens.records import Float32

_NAMES = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def has_pixels(dataset: Any) -> bool:
    """Whether there is a picture in it."""
    return any(name in dataset for name in _NAMES)


def check_pixels(dataset: Any, entry: Entry, count: int, wanted: range) -> None:
    """Refuse a header whose size is not that of the pixels: they would be read askew, or fill the memory."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.utils import get_expected_length

    if "PixelData" not in dataset:
        return
    said = (int(dataset.Columns), int(dataset.Rows))
    if not _is_compressed(dataset):
        length, there = get_expected_length(dataset), len(dataset.PixelData)
        # Too few fail by themselves. A few too many are padding; more than a row are another picture.
        if there > length + max(256, length // (count * said[1])):
            raise InputError(
                f"{entry.name}: {there:,} bytes of pixels, but its header says {said[0]} x {said[1]} x {count}, which "
                f"is {length:,}. Export it again"
            )
        return
    for stream in islice(generate_frames(dataset.PixelData, number_of_frames=count), wanted.stop):
        found = _size_in_stream(stream, dataset.file_meta.TransferSyntaxUID)
        if found not in (None, said):
            raise InputError(
                f"{entry.name}: its header says {said[0]} x {said[1]} pixels, its pixel data {found[0]} x {found[1]}. "
                "Export it again"
            )


def stored_frames(dataset: Any, numbers: range) -> Iterator[NDArray[Any]]:
    """The stored values (rows, columns) of each wanted frame; colours as luminance."""
    from pydicom.pixels import apply_color_lut, iter_pixels

    shift = _shift(dataset)
    # pydicom takes the lowest bits for the stored ones. Where they are not, their place is found here.
    options = {} if shift is None else {"correct_unused_bits": False}
    frames: Iterable[NDArray[Any]]
    if dataset.get("BitsAllocated") == 1:  # frames of single bits need not begin at a byte, which it reads only whole
        whole = dataset.pixel_array
        frames = whole.reshape(-1, *whole.shape[-2:])[numbers.start : numbers.stop : numbers.step]
    else:
        frames = iter_pixels(dataset, indices=numbers, **options)
    for stored in frames:
        values = stored if shift is None else (stored << shift[0]) >> shift[1]
        if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            values = apply_color_lut(values, dataset)
        if values.ndim == 3:
            values = values[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        yield values


def frame_values(dataset: Any, stored: NDArray[Any], number: int, window: bool) -> Float32:
    """What the stored values (rows, columns) of a frame mean: rescaled, windowed if asked, bright meaning bright."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    # An enhanced object says in its functional groups, frame by frame, what others say at the top.
    scale = group_of(dataset, number, "PixelValueTransformationSequence")
    # Who anonymises a file may leave the tags and empty them.
    emptied = any(name in scale and scale.get(name) is None for name in ("RescaleSlope", "RescaleIntercept"))
    values = stored if emptied else apply_modality_lut(stored, scale)
    # Only grey pixels of whole numbers have a window; others are as they should be shown.
    grey = str(dataset.get("PhotometricInterpretation")).startswith("MONOCHROME")
    if window and grey and "PixelData" in dataset:
        with suppress(ValueError):  # a window narrower than 1, which maps of small numbers have, is not defined
            values = apply_voi_lut(values, _described(dataset, group_of(dataset, number, "FrameVOILUTSequence")))
    values = np.nan_to_num(np.array(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        values = values.max() - values
    return _without_padding(values, _padding(dataset, stored)) if grey else values


def group_of(dataset: Any, number: int, name: str) -> Any:
    """The item of a functional group for one frame: its own, else the shared one, else the data set itself."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (own[number : number + 1], dataset.get("SharedFunctionalGroupsSequence") or []):
        for item in groups:
            if item.get(name):
                return item[name][0]
    return dataset


def _is_compressed(dataset: Any) -> bool:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    return bool(syntax is not None and syntax.is_transfer_syntax and syntax.is_encapsulated)


def _size_in_stream(stream: bytes, syntax: Any) -> tuple[int, int] | None:
    """(columns, rows) as a JPEG 2000 or JPEG-LS stream has them, None for others; decoders trust these alone."""
    from pydicom.uid import JPEGLSTransferSyntaxes

    head = stream[:4096]
    if syntax in JPEGLSTransferSyntaxes:
        start = head.find(b"\xff\xf7")  # start of frame
        if 0 <= start <= len(head) - 9:
            rows, columns = struct.unpack_from(">2H", head, start + 5)
            return columns, rows
        return None
    start = head.find(b"\xff\x4f\xff\x51")  # start of codestream, then its size
    if 0 <= start <= len(head) - 24:
        right, bottom, left, top = struct.unpack_from(">4I", head, start + 8)
        return right - left, bottom - top
    return None


def _shift(dataset: Any) -> tuple[int, int] | None:
    """How far left, then right, to move values whose highest bit is above the number of bits stored; None mostly."""
    if "PixelData" not in dataset or _is_compressed(dataset):
        return None
    allocated, stored = int(dataset.BitsAllocated), int(dataset.get("BitsStored") or dataset.BitsAllocated)
    said = dataset.get("HighBit")
    high = stored - 1 if said is None else int(said)
    return (allocated - 1 - high, allocated - stored) if stored - 1 < high < allocated else None


def _padding(dataset: Any, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Which stored values only fill the frame, as PixelPaddingValue and its range limit say."""
    first = dataset.get("PixelPaddingValue")
    last = dataset.get("PixelPaddingRangeLimit")
    if not isinstance(first, int) or stored.dtype.kind not in "iu":  # a damaged tag pads nothing
        return np.zeros(stored.shape, dtype=bool)
    # Written without its sign, a value is that of the same bits.
    bits = np.asarray([first, last if isinstance(last, int) else first]).astype(stored.dtype)
    return np.asarray((stored >= bits.min()) & (stored <= bits.max()))


def _without_padding(values: Float32, padding: NDArray[np.bool_]) -> Float32:
    """Padding far from all other values, or above them, turned to the darkest of these; else it is like air already."""
    if not padding.any() or padding.all():
        return values
    low, high = (float(bound(values[~padding])) for bound in (np.min, np.max))
    far = padding & ((values > high) | (values < low - (high - low)))
    return np.where(far, np.float32(low), values)


def _described(dataset: Any, item: Any) -> Any:
    """A group's item together with what describes the pixels, which windowing needs."""
    from pydicom.dataset import Dataset

    if item is dataset:
        return dataset
    whole = Dataset()
    whole.update(item)
    for name in ("PhotometricInterpretation", "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"):
        if name in dataset:
            setattr(whole, name, dataset.get(name))
    return whole
