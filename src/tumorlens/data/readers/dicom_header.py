"""DICOM headers: opening a data set, whose it is, its place in a series, and how it was scanned."""

import hashlib
import hmac
import re
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from tumorlens.data.readers.dicom_place import axes_of
from tumorlens.data.readers.entry import SEPARATOR, Entry
from tumorlens.errors import InputError

_PREAMBLE = 128
_MAX_INFLATED = 512 << 20  # bytes of a deflated data set, which pydicom unpacks at once

#: Tags that say how was scanned and nothing of whom: codes of a fixed vocabulary, and numbers. No free text.
_CODES = {"Modality": "Modality", "MRAcquisitionType": "Acquisition", "ScanningSequence": "Sequence"}
_MEASURES = {
    "MagneticFieldStrength": "Field strength (T)", "RepetitionTime": "TR (ms)", "EchoTime": "TE (ms)",
    "InversionTime": "TI (ms)", "FlipAngle": "Flip angle (°)", "SliceThickness": "Slice thickness (mm)",
    "SpacingBetweenSlices": "Slice spacing (mm)", "PixelSpacing": "Pixel spacing (mm)",
}  # fmt: skip
_CODE = re.compile(r"[A-Z0-9_]{1,16}")


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


def dataset_of(entry: Entry, **how: Any) -> Any:
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


def _header(entry: Entry, tags: Sequence[str]) -> Any:
    """Some tags of a header, or None where it cannot be read: reading the pixels will say what is wrong."""
    try:
        header = dataset_of(entry, stop_before_pixels=True, specific_tags=list(tags), force=True)
        for tag in tags:
            header.get(tag)  # pydicom converts values only now, and a damaged one may fail
        return header
    except Exception:
        return None


def _folder(address: str) -> str:
    return address.replace("\\", "/").replace(SEPARATOR, "/").rpartition("/")[0]


def _place(header: Any) -> tuple[float, float]:
    """Where a slice lies along its normal, and its instance number; 0 where unknown."""
    if header is None:
        return 0.0, 0.0
    directions = axes_of(header.get("ImageOrientationPatient"))
    along = 0.0
    try:
        if directions is not None:
            position = np.asarray([float(value) for value in header.get("ImagePositionPatient") or (0, 0, 0)])
            along = round(float(np.cross(directions[1], directions[0]) @ position), 3)
        # What is no number compares with nothing, and would leave the order to chance.
        return (along if np.isfinite(along) else 0.0), float(header.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        return 0.0, 0.0
