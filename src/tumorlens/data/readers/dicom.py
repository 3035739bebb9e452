"""DICOM images: single, multi-frame and enhanced, rescaled, upright, bright meaning bright."""

import hashlib
import hmac
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.orientation import turn
from tumorlens.data.readers.entry import SEPARATOR, Entry, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Float32, Slice

SUFFIXES = (".dcm", ".dicom", ".ima")
_PREAMBLE = 128
_MAX_INFLATED = 512 << 20  # bytes of a deflated data set, which pydicom unpacks at once
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

#: For each plane the directions in which rows and columns of an upright slice go, in DICOM's axes (to the patient's
#: left, back and head): radiological convention, nose or crown up, sagittal slices looking to the left.
_UPRIGHT = {
    "sagittal": ((0, 0, -1), (0, 1, 0)),
    "coronal": ((0, 0, -1), (1, 0, 0)),
    "axial": ((0, 1, 0), (1, 0, 0)),
}


def is_dicom(entry: Entry) -> bool:
    """Whether the file carries DICOM's mark after its preamble."""
    try:
        return entry.head(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except (OSError, InputError):
        return False


def patient_of(entry: Entry, salt: bytes = b"") -> str:
    """A stable name for the patient of a DICOM file, else for the study, or an empty string where it names neither.

    It is a hash, so that a manifest does not spell identities out. Without a salt it is a pseudonym that whoever knows
    the ids can match; with one (HMAC-SHA-256), only who knows the salt as well can.
    """
    header = _header(entry, ("PatientID", "StudyInstanceUID"))
    if header is None:
        return ""
    for prefix, tag in (("dicom", "PatientID"), ("study", "StudyInstanceUID")):
        text = str(header.get(tag) or "").strip()
        if text:
            digest = hmac.new(salt, text.encode(), "sha256") if salt else hashlib.sha256(text.encode())
            return f"{prefix}-{digest.hexdigest()[:16]}"
    return ""


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """DICOM slices in the order in which they lie in the body, series by series; all else keeps its place.

    Series of one folder or archive come in the order of their first file. Slices are ordered along the normal of
    their plane, else by instance number, else as they came.
    """
    slots = [number for number, entry in enumerate(entries) if is_dicom(entry)]
    first: dict[tuple[str, str], int] = {}
    keyed = []
    for number in slots:
        header = _header(
            entries[number], ("SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient", "InstanceNumber")
        )
        series = (_folder(entries[number].address), str(header.get("SeriesInstanceUID", "")) if header else "")
        keyed.append((first.setdefault(series, number), *_place(header), number))
    ordered = list(entries)
    for slot, key in zip(slots, sorted(keyed), strict=True):
        ordered[slot] = entries[key[-1]]
    return ordered


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
        dataset = _dataset(entry, force=entry.suffix in SUFFIXES)
        if not any(name in dataset for name in _PIXELS):
            raise InputError(
                f"{entry.name}: no picture in it (no PixelData; it may be a report, a directory or a key). "
                "Give the image objects of the series"
            )
        count = int(dataset.get("NumberOfFrames") or 1)
        if count < 1:
            raise InputError(f"{entry.name}: its header says {count} frames; at least 1 is needed. Export it again")
        check_size(entry, int(dataset.Rows), int(dataset.Columns), count)
        numbers = _numbers(entry, count, options)
        _check_pixels(dataset, entry, count, numbers)
        return [
            _frame(dataset, stored, entry, number, options)
            for number, stored in zip(numbers, _stored(dataset, numbers), strict=True)
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


def _check_pixels(dataset: Any, entry: Entry, count: int, wanted: range) -> None:
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


def _dataset(entry: Entry, **how: Any) -> Any:
    """What pydicom reads; a deflated data set only after it is known to be of a bearable size."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

    with entry.open() as file:
        if is_dicom(entry):
            read_preamble(file, force=True)
            # Stops before the first element that is not of the file's own header, group 2.
            meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                _check_inflated(file, entry)
            file.seek(0)
        dataset = pydicom.dcmread(file, **how)
    if not hasattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID"):  # a raw data set: DICOM's default
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def _check_inflated(file: BinaryIO, entry: Entry) -> None:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    while rest := file.read(1 << 20):
        while rest:
            total += len(inflate.decompress(rest, 1 << 24))
            rest = inflate.unconsumed_tail
            if total > _MAX_INFLATED:
                raise InputError(
                    f"{entry.name}: unpacks to more than {_MAX_INFLATED >> 20} MB; no deflated slice is as large. "
                    "Export it again, in parts"
                )


def _frame(dataset: Any, stored: NDArray[Any], entry: Entry, number: int, options: ReadOptions) -> Slice:
    values = _values(dataset, stored, number, options.window)
    plane, orientation = _plane(_group(dataset, number, "PlaneOrientationSequence").get("ImageOrientationPatient"))
    spacing = _spacing(_group(dataset, number, "PixelMeasuresSequence").get("PixelSpacing"))
    if spacing and orientation // 2 % 2:
        spacing = spacing[::-1]
    upright = np.ascontiguousarray(turn(values, orientation))
    return Slice(upright, entry.address, number, spacing, plane, orientation)


def _stored(dataset: Any, numbers: range) -> Iterator[NDArray[Any]]:
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


def _shift(dataset: Any) -> tuple[int, int] | None:
    """How far left, then right, to move values whose highest bit is above the number of bits stored; None mostly."""
    if "PixelData" not in dataset or _is_compressed(dataset):
        return None
    allocated, stored = int(dataset.BitsAllocated), int(dataset.get("BitsStored") or dataset.BitsAllocated)
    said = dataset.get("HighBit")
    high = stored - 1 if said is None else int(said)
    return (allocated - 1 - high, allocated - stored) if stored - 1 < high < allocated else None


def _values(dataset: Any, stored: NDArray[Any], number: int, window: bool) -> Float32:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    # An enhanced object says in its functional groups, frame by frame, what others say at the top.
    scale = _group(dataset, number, "PixelValueTransformationSequence")
    # Who anonymises a file may leave the tags and empty them.
    emptied = any(name in scale and scale.get(name) is None for name in ("RescaleSlope", "RescaleIntercept"))
    values = stored if emptied else apply_modality_lut(stored, scale)
    # Only grey pixels of whole numbers have a window; others are as they should be shown.
    grey = str(dataset.get("PhotometricInterpretation")).startswith("MONOCHROME")
    if window and grey and "PixelData" in dataset:
        with suppress(ValueError):  # a window narrower than 1, which maps of small numbers have, is not defined
            values = apply_voi_lut(values, _described(dataset, _group(dataset, number, "FrameVOILUTSequence")))
    values = np.nan_to_num(np.array(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        values = values.max() - values
    return _without_padding(values, _padding(dataset, stored)) if grey else values


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


def _group(dataset: Any, number: int, name: str) -> Any:
    """The item of a functional group for one frame: its own, else the shared one, else the data set itself."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (own[number : number + 1], dataset.get("SharedFunctionalGroupsSequence") or []):
        for item in groups:
            if item.get(name):
                return item[name][0]
    return dataset


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


def _directions(cosines: Any) -> NDArray[np.float64] | None:
    """The directions in which rows and columns go, (2, 3), or None where the header does not say."""
    try:
        along = np.asarray([float(value) for value in cosines or ()])
    except (TypeError, ValueError):
        return None
    if along.shape != (6,) or not np.isfinite(along).all():
        return None
    columns, rows = along[:3], along[3:]
    unit = np.allclose([columns @ columns, rows @ rows], 1, atol=0.02) and abs(columns @ rows) < 0.02
    return np.stack([rows, columns]) if unit else None


def _plane(cosines: Any) -> tuple[str, int]:
    """The nearest plane, and the turn that makes the picture upright; ("", 0) where the header does not say."""
    directions = _directions(cosines)
    if directions is None:
        return "", 0
    rows, columns = directions
    plane = ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(np.cross(columns, rows))))]
    wanted = np.asarray(_UPRIGHT[plane], dtype=float)
    fits = []
    for orientation in range(8):
        down, right = rows, columns
        for _ in range(orientation // 2):
            down, right = -right, down  # a quarter turn anticlockwise
        fits.append(down @ wanted[0] + (-right if orientation % 2 else right) @ wanted[1])
    return plane, int(np.argmax(fits))


def _spacing(values: Any) -> tuple[float, float] | None:
    try:
        row, column = (float(value) for value in values or ())
    except (TypeError, ValueError):
        return None
    return (row, column) if 0 < row < 1e3 and 0 < column < 1e3 else None


def _place(header: Any) -> tuple[float, float]:
    """Where a slice lies along its normal, and its instance number; 0 where unknown."""
    if header is None:
        return 0.0, 0.0
    directions = _directions(header.get("ImageOrientationPatient"))
    along = 0.0
    try:
        if directions is not None:
            position = np.asarray([float(value) for value in header.get("ImagePositionPatient") or (0, 0, 0)])
            along = round(float(np.cross(directions[1], directions[0]) @ position), 3)
        # What is no number compares with nothing, and would leave the order to chance.
        return (along if np.isfinite(along) else 0.0), float(header.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        return 0.0, 0.0


#: Tags that say how was scanned and nothing of whom: codes of a fixed vocabulary, and numbers. No free text.
_CODES = {"Modality": "Modality", "MRAcquisitionType": "Acquisition", "ScanningSequence": "Sequence"}
_MEASURES = {
    "MagneticFieldStrength": "Field strength (T)", "RepetitionTime": "TR (ms)", "EchoTime": "TE (ms)",
    "InversionTime": "TI (ms)", "FlipAngle": "Flip angle (°)", "SliceThickness": "Slice thickness (mm)",
    "SpacingBetweenSlices": "Slice spacing (mm)", "PixelSpacing": "Pixel spacing (mm)",
}  # fmt: skip
_CODE = re.compile(r"[A-Z0-9_]{1,16}")


def facts(entry: Entry) -> dict[str, str]:
    """How a slice was scanned, by title, without anything that tells the patient, the place or the day."""
    header = _header(entry, (*_CODES, *_MEASURES))
    found = {}
    for tag, title in (_CODES | _MEASURES).items():
        value = header.get(tag) if header is not None else None
        parts = [value] if value is None or isinstance(value, (str, float, int)) else list(value)
        if tag in _CODES:  # what is no code may be a name
            known = [str(part) for part in parts if part is not None and _CODE.fullmatch(str(part))]
        else:
            known = [f"{float(part):g}" for part in parts if isinstance(part, (float, int))]
        if known:
            found[title] = " × ".join(known)
    return found


def _header(entry: Entry, tags: Sequence[str]) -> Any:
    """Some tags of a header, or None where it cannot be read: reading the pixels will say what is wrong."""
    try:
        header = _dataset(entry, stop_before_pixels=True, specific_tags=list(tags), force=True)
        for tag in tags:
            header.get(tag)  # pydicom converts values only now, and a damaged one may fail
        return header
    except Exception:
        return None


def _folder(address: str) -> str:
    return address.replace("\\", "/").replace(SEPARATOR, "/").rpartition("/")[0]


def _syntax(dataset: Any) -> str:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    # Of a damaged header it may be several, or no UID at all.
    return f"transfer syntax {getattr(syntax, 'name', syntax)}" if syntax is not None else "transfer syntax unknown"
