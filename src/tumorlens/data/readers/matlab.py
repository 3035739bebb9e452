"""MATLAB 7.3 files (HDF5) as the figshare brain tumour set has them: picture, label, patient, mask and border."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.readers.entry import Entry, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Float32, Slice

SUFFIXES = (".mat",)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, 512, 1024, 2048)  # where the signature may stand; MATLAB writes 512 bytes of its own before it
_VERSION_5 = b"MATLAB 5.0 MAT-file"
_GROUP = "cjdata"
_LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
_FULL_SIDE, _SPACING = 512, 0.49  # the set's description: 512 x 512 pixels of 0.49 mm
_MAX_ID = 64
_MAX_BORDER = 1_000_000


@dataclass(frozen=True)
class Case:
    """One file of the set.

    `pixels` (h, w) float32 and `mask` (h, w) bool, rows downwards as the picture is shown; `border` (n, 2) float32,
    the outline's points as stored (x, y); `patient_id` as stored, empty where the file has none.
    """

    label: str
    patient_id: str
    pixels: Float32
    mask: NDArray[np.bool_]
    border: Float32

    @property
    def patient_group(self) -> str:
        """The id without the letters of a later visit: MR040240B is MR040240."""
        return re.sub(r"(?<=[0-9])[A-Za-z]+$", "", self.patient_id)


def is_hdf5(entry: Entry) -> bool:
    """Whether HDF5's signature stands at the beginning or behind a user block."""
    head = entry.head(_USER_BLOCKS[-1] + len(_SIGNATURE))
    return any(head[start : start + len(_SIGNATURE)] == _SIGNATURE for start in _USER_BLOCKS)


def is_version_5(entry: Entry) -> bool:
    """Whether it is a MATLAB file of a version before 7.3, which is another format."""
    return entry.head(len(_VERSION_5)) == _VERSION_5


def read(entry: Entry, check_size: Callable[..., None], options: ReadOptions) -> list[Slice]:
    """Read the picture of a file; only `cjdata/image` need be there.

    Raises:
        InputError: damaged, of another version, without a picture, or of a size that `check_size` refuses.
    """
    with _opened(entry) as file:
        pixels = _image(_fields(entry, file, ("image",))["image"], entry, check_size)
    return [Slice(pixels=pixels, source=entry.address, spacing=_spacing(pixels))]


def read_case(entry: Entry, check_size: Callable[..., None]) -> Case:
    """Read all that a file of the figshare set holds.

    Raises:
        InputError: damaged, of another version, a field missing or not as it should be, or a refused size.
    """
    with _opened(entry) as file:
        fields = _fields(entry, file, ("label", "PID", "image", "tumorMask", "tumorBorder"))
        pixels = _image(fields["image"], entry, check_size)
        mask = _plane(fields["tumorMask"], entry, check_size) > 0
        if mask.shape != pixels.shape:
            raise InputError(
                f"{entry.name}: tumorMask is {_size(mask)} pixels, the image {_size(pixels)}; they must be alike. "
                "Download the file again"
            )
        return Case(_label(fields["label"], entry), _patient(fields["PID"], entry), pixels, mask,
                    _border(fields["tumorBorder"], entry))  # fmt: skip


@contextmanager
def _opened(entry: Entry) -> Iterator[Any]:
    if is_version_5(entry):
        raise InputError(
            f"{entry.name}: a MATLAB file of version 5 to 7; only version 7.3 can be read. Load it in MATLAB and save "
            "it with save(..., '-v7.3')"
        )
    import h5py

    try:
        # Values beyond float32 become infinite, which is checked; numpy's warning would only repeat it.
        with entry.open() as stream, h5py.File(stream, "r") as file, np.errstate(over="ignore", invalid="ignore"):
            yield file
    except InputError:
        raise
    except Exception as error:  # h5py raises many kinds on damaged files; all mean: this one cannot be read
        raise InputError(
            f"{entry.name}: cannot be read as MATLAB 7.3 ({type(error).__name__}: {error}). Download or save it again"
        ) from error


def _fields(entry: Entry, file: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The datasets of the group, none of which may lie in another file."""
    import h5py

    def item(parent: Any, name: str, kind: type[Any]) -> Any:
        # A soft or external link could lead anywhere, also to files of the reader's own.
        link = parent.get(name, getlink=True)
        found = parent.get(name) if isinstance(link, h5py.HardLink) else None
        return found if isinstance(found, kind) else None

    group = item(file, _GROUP, h5py.Group)
    if group is None:
        raise InputError(f"{entry.name}: no group {_GROUP} in it, so it is no file of the figshare brain tumour set. "
                         "Give its own files, or pictures")  # fmt: skip
    fields = {name: item(group, name, h5py.Dataset) for name in names}
    missing = [f"{_GROUP}/{name}" for name, field in fields.items() if field is None]
    if missing:
        raise InputError(f"{entry.name}: fields missing: {', '.join(missing)}. Download the file again")
    for name, field in fields.items():
        if field.dtype.kind not in "biuf":
            raise InputError(
                f"{entry.name}: {_GROUP}/{name} holds {field.dtype}, but numbers are needed. Save the plain values"
            )
        if field.external or field.is_virtual:
            raise InputError(f"{entry.name}: {_GROUP}/{name} lies in another file, which is never read. Save it whole")
    return fields


def _plane(field: Any, entry: Entry, check_size: Callable[..., None]) -> NDArray[Any]:
    if field.ndim != 2:
        raise InputError(f"{entry.name}: {field.name} has the shape {field.shape}; a picture has two sides")
    # MATLAB stores columns first, so HDF5 shows every picture transposed.
    width, height = (int(side) for side in field.shape)
    check_size(entry, height, width)
    if field.id.get_storage_size() > field.nbytes + 1_000_000:
        raise InputError(f"{entry.name}: {field.name} takes more bytes than it has values. Download the file again")
    return np.asarray(field[()]).T


def _image(field: Any, entry: Entry, check_size: Callable[..., None]) -> Float32:
    values = _plane(field, entry, check_size).astype(np.float32)
    return np.ascontiguousarray(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))


def _flat(field: Any, entry: Entry, most: int) -> NDArray[Any]:
    if field.attrs.get("MATLAB_empty"):
        return np.zeros(0)  # MATLAB writes the shape of what is empty as the values
    if field.size is None or field.size > most:
        raise InputError(f"{entry.name}: {field.name} has {field.size} values (at most {most:,}). Download it again")
    return np.asarray(field[()]).reshape(-1)


def _label(field: Any, entry: Entry) -> str:
    values = _flat(field, entry, 1)
    label = _LABELS.get(float(values[0])) if values.size else None  # type: ignore[call-overload]
    if label is None:
        raise InputError(
            f"{entry.name}: label {values.tolist()} is not one of 1 (meningioma), 2 (glioma) and 3 (pituitary)"
        )
    return str(label)


def _patient(field: Any, entry: Entry) -> str:
    codes = _flat(field, entry, _MAX_ID)
    whole = codes.astype(np.int64)
    if not (np.equal(whole, codes).all() and ((whole >= 0) & (whole < 0x10000)).all()):
        raise InputError(f"{entry.name}: PID {codes.tolist()} is no text. Download the file again")
    text = "".join(chr(code) for code in whole).strip("\0 ")
    if not text.isprintable():
        raise InputError(f"{entry.name}: PID {text!r} is no text that can be printed. Download the file again")
    return text


def _border(field: Any, entry: Entry) -> Float32:
    values = _flat(field, entry, _MAX_BORDER).astype(np.float32)
    if values.size % 2 or not np.isfinite(values).all():
        raise InputError(
            f"{entry.name}: tumorBorder has {values.size} values; pairs of finite x and y are needed. Download it again"
        )
    # (n, 2) in MATLAB is (2, n) here; a vector alternates x and y.
    if field.ndim == 2 and field.shape[0] == 2 and field.shape[1] > 1 and values.size:
        return np.ascontiguousarray(values.reshape(2, -1).T)
    return values.reshape(-1, 2)


def _spacing(pixels: Float32) -> tuple[float, float] | None:
    return (_SPACING, _SPACING) if pixels.shape == (_FULL_SIDE, _FULL_SIDE) else None


def _size(plane: NDArray[Any]) -> str:
    return f"{plane.shape[1]} x {plane.shape[0]}"
