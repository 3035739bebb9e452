"""DICOM images: single, multi-frame and enhanced, rescaled, upright, bright meaning bright."""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.orientation import turn
from tumorlens.data.readers.entry import SEPARATOR, Entry, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Float32, Slice

SUFFIXES = (".dcm", ".dicom", ".ima")
_PREAMBLE = 128
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
        InputError: not DICOM, no pixel data, a transfer syntax without a free decoder, or a refused size.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    dataset: Any = None
    try:
        with entry.open() as file:
            dataset = pydicom.dcmread(file, force=entry.suffix in SUFFIXES)
            if not any(name in dataset for name in _PIXELS):
                raise InputError(
                    f"{entry.name}: no picture in it (no PixelData; it may be a report, a directory or a key). "
                    "Give the image objects of the series"
                )
            count = int(dataset.get("NumberOfFrames") or 1)
            check_size(entry, int(dataset.Rows), int(dataset.Columns), count)
            return _slices(dataset, entry, options)
    except InvalidDicomError as error:
        raise InputError(f"{entry.name}: not a DICOM file ({error})") from error
    except InputError:
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds; all mean: this file cannot be read
        raise InputError(
            f"{entry.name}: cannot be decoded as DICOM ({type(error).__name__}: {error}; {_syntax(dataset)}). "
            "Export it uncompressed or as JPEG 2000, or check that it is complete"
        ) from error


def _slices(dataset: Any, entry: Entry, options: ReadOptions) -> list[Slice]:
    stored = _stored(dataset)
    frames = range(len(stored))
    if options.frame is not None:
        if options.frame not in frames:
            raise InputError(
                f"{entry.name}: no frame {options.frame}; there are 0 to {len(stored) - 1}. Name one of them"
            )
        frames = range(options.frame, options.frame + 1)
    return [_frame(dataset, stored[number], entry, number, options) for number in frames[:: options.every]]


def _frame(dataset: Any, stored: NDArray[Any], entry: Entry, number: int, options: ReadOptions) -> Slice:
    values = _values(dataset, stored, number, options.window)
    plane, orientation = _plane(_group(dataset, number, "PlaneOrientationSequence").get("ImageOrientationPatient"))
    spacing = _spacing(_group(dataset, number, "PixelMeasuresSequence").get("PixelSpacing"))
    if spacing and orientation // 2 % 2:
        spacing = spacing[::-1]
    upright = np.ascontiguousarray(turn(values, orientation))
    return Slice(upright, entry.address, number, spacing, plane, orientation)


def _stored(dataset: Any) -> NDArray[Any]:
    """The stored values of every frame, (frames, rows, columns); colours as luminance."""
    if not hasattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID"):  # a raw data set: DICOM's default
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ImplicitVRLittleEndian

        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    stored: NDArray[Any] = dataset.pixel_array
    if int(dataset.get("SamplesPerPixel", 1)) > 1:
        stored = stored[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return stored.reshape(-1, *stored.shape[-2:])


def _values(dataset: Any, stored: NDArray[Any], number: int, window: bool) -> Float32:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    # An enhanced object says in its functional groups, frame by frame, what others say at the top.
    values = apply_modality_lut(stored, _group(dataset, number, "PixelValueTransformationSequence"))
    if window:
        values = apply_voi_lut(values, _described(dataset, _group(dataset, number, "FrameVOILUTSequence")))
    values = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return values.max() - values if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else values


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
        return along, float(header.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        return 0.0, 0.0


def _header(entry: Entry, tags: Sequence[str]) -> Any:
    """Some tags of a header, or None where it cannot be read: reading the pixels will say what is wrong."""
    import pydicom

    try:
        with entry.open() as file:
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags), force=True)
    except Exception:
        return None


def _folder(address: str) -> str:
    return address.replace("\\", "/").replace(SEPARATOR, "/").rpartition("/")[0]


def _syntax(dataset: Any) -> str:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    return f"transfer syntax {syntax.name}" if syntax is not None else "transfer syntax unknown"
