"""NIfTI volumes, cut into slices as a radiologist looks at them.

Whatever way a volume is stored, its affine says where right, front and up are. Slices are shown in the radiological
convention: the patient's right on the left of the picture, nose or crown up; a sagittal slice looks to the left.
An oblique volume is cut along its own axes, named after the nearest plane. Without sform and qform, nibabel's reading
of the old Analyze convention holds: x is stored from the patient's left, y from the back, z from below.
"""

import gzip
import hashlib
import io
import itertools
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
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
_KEPT_BYTES = 512 << 20  # of volumes beside the last one
_HEADER = 600
_MAX_OFFSET = 64 << 20  # where values begin at the latest; what lies before are header extensions
_TO_MM = {"meter": 1e3, "micron": 1e-3}
_STRIP = 4  # times longer than wide: no slice of a head
_MIN_DETERMINANT = 1e-3  # of the axes' directions; 1 where they are at right angles, 0 where two are the same


@dataclass(frozen=True)
class _Volume:
    """`values` (right, front, up, time), float32, finite; `zooms` in mm along the first three, and where these voxels
    lie: `affine` (4, 4), in mm."""

    values: Float32
    zooms: tuple[float, float, float]
    affine: NDArray[np.float64]

    def cut(self, plane: Plane) -> Float32:
        """Slices (frames, rows, columns) of every volume in turn; a view where that is possible."""
        return _cut(self.values, plane or self.acquired)

    @property
    def acquired(self) -> Plane:
        """The plane across the coarsest axis, axial where all are alike; none whose slices would be mere strips."""
        planes: list[Plane] = ["axial", "coronal", "sagittal"]

        def preference(plane: Plane) -> tuple[bool, float]:
            short, long = sorted(side for axis, side in enumerate(self.values.shape[:3]) if axis != _NORMALS[plane])
            return _STRIP * short >= long, round(self.zooms[_NORMALS[plane]], 3)

        return max(planes, key=preference)


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
    volume = _load(entry, check_size, options)
    plane = options.plane or volume.acquired
    slices = volume.cut(plane)
    check_size(entry, *slices.shape[1:])
    numbers = _numbers(slices, volume.values.shape[3], options, entry)
    spacing = _spacing(volume.zooms, plane)
    # Copies: the volume stays for the next row of a manifest, and a slice may be written to.
    return [Slice(np.array(slices[number]), entry.address, number, spacing, plane) for number in numbers]


def read_mask(entry: Entry, options: ReadOptions) -> list[NDArray[np.bool_]]:
    """Cut a mask like its picture: every slice, or the one of `options.frame`; true where it is above 0.

    Raises:
        InputError: as `read`.
    """
    from tumorlens.data.readers import check_size  # a mask may lie about its size like any other volume

    volume = _load(entry, check_size, options)
    slices = volume.cut(options.plane)
    numbers = range(len(slices)) if options.frame is None else _numbers(slices, 1, options, entry)
    return [np.ascontiguousarray(slices[number] > 0) for number in numbers]


def same_grid(first: Entry, second: Entry) -> bool:
    """Whether the voxels of two volumes lie in one place, however each is stored: as many, and the corners of both less
    than a voxel apart along each axis.

    Raises:
        InputError: as `read`.
    """
    from tumorlens.data.readers import check_size

    one, other = (_load(entry, check_size, ReadOptions()) for entry in (first, second))
    shape = one.values.shape[:3]
    if shape != other.values.shape[:3]:
        return False
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in shape))])
    apart = (corners @ (one.affine - other.affine).T)[:, :3]
    return bool((np.abs(np.linalg.solve(one.affine[:3, :3], apart.T)) < 1).all())


def write_like(entry: Entry, maps: Mapping[int, Float32], plane: Plane, path: Path) -> None:
    """Write maps of a volume's slices as a volume that lies where the other does.

    Args:
        entry: the volume.
        maps: (rows, columns) by frame, as `read` counts them; what is missing is 0.
        plane: the plane in which it was cut.
        path: a .nii.gz file, float32, with the affine and the units of `entry`.

    Raises:
        InputError: as `read`.
    """
    import nibabel
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    from tumorlens.data.readers import check_size

    volume = _load(entry, check_size, ReadOptions(plane=plane))
    image = _image(entry, check_size)
    flat = np.zeros(volume.values.size, dtype=np.float32)
    # Where each pixel of a slice comes from: the same cut, of the places instead of the values.
    places = _cut(np.arange(volume.values.size).reshape(volume.values.shape), plane or volume.acquired)
    for frame, values in maps.items():
        flat[places[frame]] = values
    back = ornt_transform(axcodes2ornt("RAS"), io_orientation(image.affine))
    values = np.asarray(apply_orientation(flat.reshape(volume.values.shape), back)).reshape(_volume_shape(image))
    # The affine that was read by; a broken second form of it, which some files have, is not passed on.
    made = type(image)(values, image.affine)
    with suppress(KeyError, ValueError):  # units that are not known
        made.header.set_xyzt_units(*image.header.get_xyzt_units())
    nibabel.save(made, path)


def _volume_shape(image: Any) -> tuple[int, ...]:
    """Its dimensions without those of one that trail the third."""
    shape = tuple(int(side) for side in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _numbers(slices: Float32, volumes: int, options: ReadOptions, entry: Entry) -> list[int]:
    """The frames that are asked for: one, or every n-th of all, or of those that show enough of the head."""
    if options.frame is not None:
        if not 0 <= options.frame < len(slices):
            raise InputError(
                f"{entry.name}: no slice {options.frame}; there are 0 to {len(slices) - 1}. Name one of them"
            )
        return [options.frame]
    chosen = np.arange(len(slices))
    if not options.whole:
        # Volume by volume: in a series, one echo or weighting may be far brighter than the others.
        shows = [_shows_head(volume) for volume in np.split(slices, volumes)]
        chosen = np.flatnonzero(np.concatenate(shows))
    return [int(number) for number in chosen[:: options.every]]


def _shows_head(slices: Float32) -> NDArray[np.bool_]:
    """Which slices (frames, rows, columns) of one volume show at least a quarter of the head's largest area."""
    threshold = _FOREGROUND * float(np.percentile(slices, 99.5))
    areas = np.array([(piece > threshold).mean() for piece in slices])
    return np.asarray(areas >= _HEAD_SHARE * areas.max())


def _cut(values: NDArray[Any], plane: Plane) -> NDArray[Any]:
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
    """The last volumes, so that a manifest's rows of one volume and its mask do not unpack it each time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._volumes: OrderedDict[object, _Volume] = OrderedDict()

    def get(self, key: object, make: Callable[[], _Volume]) -> _Volume:
        with self._lock:
            if key not in self._volumes:
                # The older one goes first: two are never held while a third is made.
                while len(self._volumes) > 1 or sum(v.values.nbytes for v in self._volumes.values()) > _KEPT_BYTES:
                    self._volumes.popitem(last=False)
                self._volumes[key] = make()
            self._volumes.move_to_end(key)
            return self._volumes[key]

    def clear(self) -> None:
        """Keep none."""
        with self._lock:
            self._volumes.clear()


_RECENT = _Recent()


def forget() -> None:
    """Let go of the volumes that are kept; they are read again when needed."""
    _RECENT.clear()


def _load(entry: Entry, check_size: Callable[..., None], options: ReadOptions) -> _Volume:
    if options.plane and options.plane not in _NORMALS:
        raise InputError(
            f"{entry.name}: no plane {options.plane!r}; allowed are {', '.join(_NORMALS)}, or none for the one it was "
            "acquired in"
        )
    if entry.data is not None:
        key: object = (entry.address, hashlib.sha256(entry.data).digest())
    else:
        try:
            state = Path(entry.address).stat()
        except OSError as error:
            raise InputError(f"{entry.address}: cannot be opened ({error.strerror}). Check the path") from error
        key = (entry.address, state.st_mtime_ns, state.st_size)
    return _RECENT.get(key, lambda: _decode(entry, check_size))


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
    with entry.open() as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        head = file.read(_HEADER)
        kind = _kind(head, entry)
        wanted = _claimed(kind.header_class.from_fileobj(io.BytesIO(head), check=False), entry, check_size)
        # Never beyond what the header claims: a gzip bomb ends here.
        data = head + file.read(max(0, wanted - len(head)))
        # One byte more: where the stream ends as it should, gzip compares its checksum only now.
        file.read(1)
    if len(data) < wanted:
        raise InputError(
            f"{entry.name}: cut short, {len(data):,} of {wanted:,} bytes are there. Copy or export it again"
        )
    return kind.from_bytes(data)


def _kind(head: bytes, entry: Entry) -> Any:
    """The class for NIfTI-1 or NIfTI-2 in one file."""
    import nibabel

    if head[344:348] == b"ni1\x00" or head[4:8] == b"ni2\x00":
        raise InputError(
            f"{entry.name}: only the header of a pair .hdr and .img; allowed are volumes in one file. Convert the pair "
            "to .nii or .nii.gz"
        )
    return nibabel.Nifti2Image if head[4:8] == b"n+2\x00" else nibabel.Nifti1Image


def _claimed(header: Any, entry: Entry, check_size: Callable[..., None]) -> int:
    """How many bytes the header says there are, once it is found to ask for nothing unreasonable."""
    shape = _shape(header.get_data_shape(), entry)
    values = header.get_data_dtype()
    if values.kind not in "iufb":
        kind = "coloured" if values.names else str(values)
        raise InputError(f"{entry.name}: values are {kind}; allowed are whole and real numbers. Export magnitudes")
    # Volumes are cut in any plane, so no side may be too small but the one they were acquired along.
    longest = sorted(shape[:3])[-2:]
    check_size(entry, *longest, math.prod(shape) // (longest[0] * longest[1]))
    offset = int(header.get_data_offset())
    if not 0 <= offset <= _MAX_OFFSET:
        raise InputError(
            f"{entry.name}: its header puts the values at byte {offset:,}; allowed are 0 to {_MAX_OFFSET:,}. Copy or "
            "export it again"
        )
    return offset + math.prod(shape) * int(values.itemsize)


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
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    affine = np.array(image.affine, dtype=float)
    affine[:3] *= _scale(image, affine)
    axes = affine[:3, :3]
    zooms = np.sqrt((axes**2).sum(axis=0))
    if not _plausible(zooms) or not np.isfinite(affine).all() or abs(np.linalg.det(axes / zooms)) < _MIN_DETERMINANT:
        raise InputError(
            f"{entry.name}: its affine tells no directions, so right and left are unknown. Export it with a "
            "valid sform or qform"
        )
    # nibabel's right is the direction in which x grows, so this is RAS.
    orientation = io_orientation(affine)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(image.dataobj, dtype=np.float32)
    values = values.reshape(_shape(values.shape, entry))
    values = np.nan_to_num(values if values.ndim == 4 else values[..., None], nan=0.0, posinf=0.0, neginf=0.0)
    right, front, up = (float(zooms[int(np.flatnonzero(orientation[:, 0] == axis)[0])]) for axis in range(3))
    turned = np.asarray(apply_orientation(values, orientation), dtype=np.float32)
    return _Volume(turned, (right, front, up), affine @ inv_ornt_aff(orientation, values.shape[:3]))


def _scale(image: Any, affine: NDArray[np.float64]) -> float:
    """Millimetres in the header's unit of length; 1 where its code means nothing, or what it says cannot be."""
    try:
        scale = _TO_MM.get(image.header.get_xyzt_units()[0], 1.0)
    except KeyError:
        return 1.0
    return scale if _plausible(scale * np.sqrt((affine[:3, :3] ** 2).sum(axis=0))) else 1.0


def _plausible(zooms: NDArray[np.float64]) -> bool:
    """A real voxel is between a micrometre and a metre; the bounds also keep what is computed from it finite."""
    return bool((zooms > 1e-3).all() and (zooms < 1e3).all())
