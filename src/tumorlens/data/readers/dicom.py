"""DICOM images: single and multi-frame, rescaled, bright meaning bright."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tumorlens.errors import InputError
from tumorlens.records import Float32, Slice

SUFFIXES = (".dcm", ".dicom", ".ima")
_PREAMBLE = 128


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark after its preamble."""
    try:
        with path.open("rb") as file:
            head = file.read(_PREAMBLE + 4)
    except OSError:
        return False
    return head[_PREAMBLE:] == b"DICM"


def patient_of(path: Path) -> str:
    """A stable name for the patient of a DICOM file, or an empty string where the header has none.

    It is a hash of the PatientID, so that a manifest does not spell identities out; unsalted, it is a pseudonym that
    whoever knows the ids can match, no anonymity.
    """
    import pydicom

    try:
        patient = str(
            pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID") or ""
        )
    except Exception:  # a header that cannot be read names nobody; reading the pixels will say what is wrong
        return ""
    return f"dicom-{hashlib.sha256(patient.encode()).hexdigest()[:16]}" if patient else ""


def read(path: Path, check_size: Callable[..., None]) -> list[Slice]:
    """Read every frame of a DICOM image.

    Raises:
        InputError: not DICOM, no pixel data, a transfer syntax without a free decoder, or a refused size.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        dataset = pydicom.dcmread(path, force=path.suffix.lower() in SUFFIXES)
        if "PixelData" not in dataset:
            raise InputError(
                f"{path.name}: no picture in it (no PixelData; it may be a report, a directory or a key). "
                "Give the image objects of the series"
            )
        check_size(path, int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1))
        frames = _frames(dataset)
    except InvalidDicomError as error:
        raise InputError(f"{path.name}: not a DICOM file ({error})") from error
    except InputError:
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds; all mean: this file cannot be read
        raise InputError(
            f"{path.name}: cannot be decoded as DICOM ({type(error).__name__}: {error}). "
            "Export it uncompressed or as JPEG 2000, or check that it is complete"
        ) from error
    return [Slice(pixels=frame, source=str(path), frame=index) for index, frame in enumerate(frames)]


def _frames(dataset: Any) -> list[Float32]:
    from pydicom.pixels import apply_rescale

    if not hasattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID"):  # a raw data set: DICOM's default
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ImplicitVRLittleEndian

        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    stored = dataset.pixel_array
    colour = int(dataset.get("SamplesPerPixel", 1)) > 1
    if colour:
        stored = stored[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    values = np.asarray(apply_rescale(stored, dataset), dtype=np.float32)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        values = values.max() - values
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    return [values] if values.ndim == 2 else list(values)
