"""NIfTI volumes, cut into slices as a radiologist looks at them.

Whatever way a volume is stored, its affine says where right, front and up are. Slices are shown in the radiological
convention: the patient's right on the left of the picture, nose or crown up; a sagittal slice looks to the left.
An oblique volume is cut along its own axes, named after the nearest plane.
"""

import gzip
import io
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.readers.entry import Entry, Plane, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Float32, Slice

SUFFIXES = (".nii", ".nii.gz")

#: Axis of a volume in RAS order (right, front, up) that is perpendicular to each plane.
_NORMALS: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_HEAD_SHARE = 0.25  # of the largest slice's head area, below which a slice shows too little to matter
_FOREGROUND = 0.1  # of the volume's 99.5 percentile
_KEPT = 2
_HEADER = 600


@dataclass(frozen=True)
class _Volume:
    """`values` (right, front, up, time), float32, finite; `zooms` in mm along the first three."""

    values: Float32
    zooms: tuple[float, float, float]


def is_nifti(entry: Entry) -> bool:
    """Whether the content, packed by gzip or not, has the mark of NIfTI-1 or NIfTI-2 in one file."""
    try:
        head = entry.head(_HEADER)
        if head[:2] == b"\x1f\x8b":
            # A part of the stream gives the beginning, and never more than is asked for.
            head = zlib.decompressobj(31).decompress(entry.head(1 << 16), _HEADER)
    except (OSError, zlib.error, InputError):
        return False
    return head[344:348] in (b"n+1\x00", b"ni1\x00") or head[4:8] in (b"n+2\x00", b"ni2\x00")


def read(entry: Entry, check_size: Callable[..., None], options: ReadOptions) -> list[Slice]:
    """Cut a volume into slices.

    Frames count from feet to head (axial), from back to front (coronal), from right to left (sagittal); those of a
    series of volumes go on counting from volume to volume. Without `options.whole` or `options.frame`, slices that
    show little of the head are left out.

    Returns:
        Slices with their plane, and the spacing of rows and columns in mm.

    Raises:
        InputError: damaged or cut short, not three- or four-dimensional, complex or coloured, or of a refused size.
    """
    volume = _load(entry, check_size)
    plane = options.plane or _acquired(volume.zooms)
    slices = _cut(volume.values, plane)
    numbers = _numbers(slices, options, entry)
    spacing = _spacing(volume.zooms, plane)
    return [
        Slice(np.ascontiguousarray(slices[number]), entry.address, number, spacing, plane) for number in numbers
    ]  # fmt: skip


def read_mask(entry: Entry, options: ReadOptions) -> list[NDArray[np.bool_]]:
    """Cut a mask like its picture: every slice, or the one of `options.frame`; true where it is above 0.

    Raises:
        InputError: as `read`.
    """
    volume = _load(entry, lambda *size: None)
    slices = _cut(volume.values, options.plane or _acquired(volume.zooms))
    numbers = range(len(slices)) if options.frame is None else _numbers(slices, options, entry)
    return [np.ascontiguousarray(slices[number] > 0) for number in numbers]


def _numbers(slices: Float32, options: ReadOptions, entry: Entry) -> list[int]:
    if options.frame is not None:
        if not 0 <= options.frame < len(slices):
            raise InputError(
                f"{entry.name}: no slice {options.frame}; there are 0 to {len(slices) - 1}. Name one of them"
            )
        return [options.frame]
    chosen = np.arange(len(slices))
    if not options.whole:
        top = float(np.percentile(slices, 99.5))
        areas = (slices > _FOREGROUND * top).mean(axis=(1, 2))
        chosen = np.flatnonzero(areas >= _HEAD_SHARE * areas.max())
    return [int(number) for number in chosen[:: options.every]]


def _acquired(zooms: tuple[float, float, float]) -> Plane:
    """The plane across the coarsest axis; axial where all are alike."""
    planes: list[Plane] = ["axial", "coronal", "sagittal"]
    return max(planes, key=lambda plane: round(zooms[_NORMALS[plane]], 3))


def _cut(values: Float32, plane: Plane) -> Float32:
    """Slices (frames, rows, columns) of a volume (right, front, up, time); a view."""
    by_time = np.moveaxis(values, 3, 0)
    if plane == "axial":
        cut = by_time.transpose(0, 3, 2, 1)  # time, up, front, right
    elif plane == "coronal":
        cut = by_time.transpose(0, 2, 3, 1)  # time, front, up, right
    else:
        cut = by_time.transpose(0, 1, 3, 2)[:, ::-1]  # time, right to left, up, front
    # Stored values grow to the patient's right, front and up (see _load); rows go down, so they turn round. Columns
    # of a sagittal slice go from front to back, those of the others from the patient's right to the left.
    turned = cut[:, :, ::-1, ::-1]
    return turned.reshape(-1, *turned.shape[2:])


def _spacing(zooms: tuple[float, float, float], plane: Plane) -> tuple[float, float]:
    right, front, up = zooms
    return {"axial": (front, right), "coronal": (up, right), "sagittal": (up, front)}[plane]


class _Recent:
    """The last volumes, so that a manifest's rows of one volume do not unpack it each time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._volumes: OrderedDict[object, tuple[Entry, _Volume]] = OrderedDict()

    def get(self, key: object, entry: Entry, make: Callable[[], _Volume]) -> _Volume:
        with self._lock:
            if key not in self._volumes:
                # The entry is kept too: the identity of bytes in memory is part of the key.
                self._volumes[key] = (entry, make())
                while len(self._volumes) > _KEPT:
                    self._volumes.popitem(last=False)
            self._volumes.move_to_end(key)
            return self._volumes[key][1]


_RECENT = _Recent()


def _load(entry: Entry, check_size: Callable[..., None]) -> _Volume:
    if entry.data is not None:
        key: object = (entry.address, zlib.crc32(entry.data), len(entry.data))
    else:
        state = Path(entry.address).stat()
        key = (entry.address, state.st_mtime_ns, state.st_size)
    return _RECENT.get(key, entry, lambda: _decode(entry, check_size))


def _decode(entry: Entry, check_size: Callable[..., None]) -> _Volume:
    try:
        image = _image(entry, check_size)
        return _upright(image, entry)
    except InputError:
        raise
    except Exception as error:  # nibabel raises many kinds on damaged files; all mean: this one cannot be read
        raise InputError(
            f"{entry.name}: cannot be read as NIfTI ({type(error).__name__}: {error}). Copy or export it again"
        ) from error


def _image(entry: Entry, check_size: Callable[..., None]) -> Any:
    """The volume as nibabel sees it, its size checked by the header before its values are unpacked."""
    import nibabel

    with entry.open() as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        head = file.read(_HEADER)
        kind = nibabel.Nifti2Image if head[4:8] in (b"n+2\x00", b"ni2\x00") else nibabel.Nifti1Image
        header = kind.header_class.from_fileobj(io.BytesIO(head), check=False)
        shape = _shape(header.get_data_shape(), entry)
        if header.get_data_dtype().kind not in "iufb":
            raise InputError(
                f"{entry.name}: values of type {header.get_data_dtype()}; allowed are whole and real numbers. Export "
                "magnitudes"
            )
        # Volumes are cut in any plane, so no side may be too small but the one they were acquired along.
        longest = sorted(shape[:3])[-2:]
        check_size(entry, *longest, int(np.prod(shape)) // max(1, longest[0] * longest[1]))
        offset = int(header.get_data_offset())
        wanted = offset + int(np.prod(shape, dtype=np.int64)) * header.get_data_dtype().itemsize
        if not 0 <= offset <= wanted:
            raise InputError(f"{entry.name}: its header puts the values at byte {offset}. Copy or export it again")
        # Never beyond what the header claims: a gzip bomb ends here.
        data = head + file.read(max(0, wanted - len(head)))
    if len(data) < wanted:
        raise InputError(
            f"{entry.name}: cut short, {len(data):,} of {wanted:,} bytes are there. Copy or export it again"
        )
    return kind.from_bytes(data)


def _shape(shape: tuple[int, ...], entry: Entry) -> tuple[int, ...]:
    kept = tuple(int(side) for side in shape)
    while len(kept) > 3 and kept[-1] == 1:
        kept = kept[:-1]
    if len(kept) not in (3, 4) or min(kept, default=0) < 1:
        raise InputError(
            f"{entry.name}: {' x '.join(map(str, shape)) or 'no'} values; allowed are three dimensions, or four with "
            "time or echo last. Export one volume"
        )
    return kept


def _upright(image: Any, entry: Entry) -> _Volume:
    """Turn a volume to (right, front, up, time), each growing that way."""
    from nibabel.orientations import apply_orientation, io_orientation

    affine = np.asarray(image.affine, dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            f"{entry.name}: its affine tells no directions, so right and left are unknown. Export it with a "
            "valid sform or qform"
        )
    # nibabel's right is the direction in which x grows, so this is RAS.
    orientation = io_orientation(affine)
    values = np.asarray(image.dataobj, dtype=np.float32)
    values = values.reshape(_shape(values.shape, entry))
    values = np.nan_to_num(values if values.ndim == 4 else values[..., None], nan=0.0, posinf=0.0, neginf=0.0)
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    right, front, up = (float(zooms[int(np.flatnonzero(orientation[:, 0] == axis)[0])]) for axis in range(3))
    return _Volume(np.asarray(apply_orientation(values, orientation), dtype=np.float32), (right, front, up))
