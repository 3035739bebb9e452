"""One door for every format: `read_slices(path)` returns the slices of a file, whatever it is.

Axes are (row, column), rows downwards as the picture is shown; values are float32, finite, of any range and
with bright meaning bright (MONOCHROME1 is inverted). A file is recognised by its content, not by its name. It may lie
in a ZIP archive; then its address is `set.zip!1.mat`, wherever a path is asked for.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.orientation import turn, turn_back
from tumorlens.data.readers import archive, dicom, dicom_header, matlab, nifti, picture
from tumorlens.data.readers.archive import Member, Refused, natural
from tumorlens.data.readers.entry import SEPARATOR, Entry, Plane, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Float32, Sample, Slice

__all__ = [
    "ALL_SLICES", "ARCHIVES", "SUFFIXES", "VOLUMES", "Entry", "Plane", "ReadOptions", "Refused", "check_size",
    "entries_in",
    "find_inputs", "forget", "has_window", "header_facts", "images_below", "in_uploads", "is_known", "is_volume",
    "open_entry", "read_mask",
    "read_slice",
    "read_slices", "stem_of", "write_maps",
]  # fmt: skip

#: What a folder or an archive is searched for; a file named directly is tried whatever its name.
SUFFIXES: tuple[str, ...] = (*picture.SUFFIXES, *dicom.SUFFIXES, *nifti.SUFFIXES, *matlab.SUFFIXES)
#: What may hold them.
ARCHIVES = archive.SUFFIXES
#: What has many slices in one file.
VOLUMES = nifti.SUFFIXES
#: The options that change nothing.
ALL_SLICES = ReadOptions()

MIN_SIDE = 16
MAX_SIDE = 8192
MAX_PIXELS = 4096 * 4096
MAX_FILE_PIXELS = 400_000_000


def check_size(entry: Entry, height: int, width: int, frames: int = 1) -> None:
    """Refuse pictures too small to show anything or too large to be a slice, before they are decoded.

    Raises:
        InputError: a side below 16 or above 8192 pixels, more than 4096 x 4096 in a slice, or 400 million in
            one file.
    """
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"{entry.name}: {width} x {height} pixels are too few; a slice needs at least "
            f"{MIN_SIDE} x {MIN_SIDE}. Give the original picture, not a thumbnail"
        )
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise InputError(
            f"{entry.name}: {width} x {height} pixels are too many for one slice (at most "
            f"{MAX_PIXELS:,} and {MAX_SIDE} a side). Reduce it, or give the slice alone"
        )
    if height * width * frames > MAX_FILE_PIXELS:
        raise InputError(
            f"{entry.name}: {frames} frames of {width} x {height} pixels are too many for one file (at most "
            f"{MAX_FILE_PIXELS // 1_000_000} million pixels). Give it in parts"
        )


def read_slices(path: Path | Entry, options: ReadOptions = ALL_SLICES) -> list[Slice]:
    """Read the slices of one file.

    Args:
        path: the file, or the address of a member of an archive.
        options: which slices; all of them by default.

    Returns:
        At least one slice; several for a volume, a multi-frame DICOM file, a multi-page TIFF or an animation.

    Raises:
        InputError: the file is missing, empty, truncated, of an unknown format, or of an unusable size.
    """
    if options.every < 1:
        raise InputError(f"every {options.every} slices is nothing; allowed are 1 (each) and more")
    entry = _loaded(path)

    def check(entry: Entry, height: int, width: int, frames: int = 1) -> None:
        check_size(entry, height, width, frames)
        wanted = 1 if options.frame is not None else -(-frames // options.every)
        if options.most and height * width * wanted > options.most:
            raise InputError(
                f"{entry.name}: {wanted} slices of {width} x {height} pixels are more than what is left of the limit "
                "here. Give it in parts, or use `tumorlens predict`"
            )

    slices = cast(list[Slice], _reader(entry).read(entry, check, options))
    if not slices:
        raise InputError(f"{entry.name}: no slice in it that was asked for. Ask for others")
    return slices


def open_entry(root: Path, address: str) -> Entry:
    """The file that a manifest's `path` or `mask` names; a member of an archive has its bytes in memory.

    Raises:
        InputError: it is missing, or the archive or the member cannot be read.
    """
    return archive.open_member(str(root / address))


def read_slice(root: Path, sample: Sample) -> Slice:
    """Read the one slice that a row of a manifest names.

    Raises:
        InputError: it is missing or cannot be read.
    """
    return _row_slice(open_entry(root, sample.path), sample)


def read_mask(root: Path, sample: Sample) -> NDArray[np.bool_] | None:
    """Read the tumour's outline of one row of a manifest, (height, width) like its picture; None where it has none.

    Raises:
        InputError: the mask is missing, cannot be read, or is not of the picture's size.
    """
    if not sample.mask:
        return None
    entry = open_entry(root, sample.mask)
    if matlab.is_hdf5(entry):
        mask = matlab.read_case(entry, check_size).mask
    elif nifti.is_nifti(entry):
        (mask,) = nifti.read_mask(entry, _row_options(sample))
    else:
        # Drawn on the pixels as they are stored; the picture may have been turned upright.
        shown = read_slice(root, sample)
        drawn = _drawn(entry, sample.frame)
        # JPEG leaves traces of the outline around it.
        border = drawn.pixels.max() / 2 if entry.head(2) == b"\xff\xd8" else 0
        mask = turn(turn_back(drawn.pixels > border, drawn.orientation), shown.orientation)
        sample = replace(sample, height=shown.pixels.shape[0], width=shown.pixels.shape[1])
    if mask.shape != (sample.height, sample.width):
        raise InputError(
            f"{entry.name}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {sample.width} x "
            f"{sample.height}; they must be alike. Give the mask of this picture"
        )
    return mask


def _drawn(entry: Entry, frame: int) -> Slice:
    """The page of a drawn mask; one that has but one page is of this very row, whatever the frame of its picture."""
    try:
        return read_slices(entry, ReadOptions(frame=frame))[0]
    except InputError:
        found = read_slices(entry)
        if len(found) > 1:
            raise
        return found[0]


def find_inputs(paths: Sequence[Path]) -> list[Entry | Refused]:
    """What `paths` name: files as they are, folders and archives searched, DICOM slices ordered as they were scanned.

    Returns:
        Entries, read when they are opened, and a `Refused` for what cannot be used: a missing file, a folder or an
        archive with nothing in it, a bad member of an archive.
    """
    # What is named twice is one; of two members of one name the second is refused, and both are told.
    found = {(item.address, isinstance(item, Refused)): item for path in paths for item in _listed(path)}
    return _ordered(list(found.values()))


def in_uploads(entries: Sequence[Entry]) -> list[Entry | Refused]:
    """What files that are held in memory have in them, as `find_inputs` does it for paths."""
    found: list[Entry | Refused] = []
    for entry in entries:
        inside = list(archive.members(entry, _is_wanted)) if archive.is_archive(entry) else [entry]
        found += inside or [Refused(entry.address, f"{entry.name}: no pictures in this archive. Check it")]
    return _ordered(found)


def write_maps(entry: Entry, maps: Mapping[int, Float32], plane: str, path: Path) -> bool:
    """Write maps of the slices of a NIfTI volume, by frame, as a volume of the same place; False for other files.

    Raises:
        InputError: the volume cannot be read.
    """
    if not nifti.is_nifti(entry):
        return False
    nifti.write_like(entry, maps, cast(Plane, plane), path)
    return True


def forget() -> None:
    """Let go of archives and volumes that are kept between two calls, so that uploads do not outlive their use."""
    archive.close_archives()
    nifti.forget()


def header_facts(entry: Entry) -> dict[str, str]:
    """What a DICOM header says of the scan and nothing of the patient; empty for other files."""
    return dicom_header.facts(entry) if dicom_header.is_dicom(entry) else {}


def stem_of(name: str) -> str:
    """A name without its ending. Known ones alone: what follows the last dot of a DICOM UID tells it from others."""
    ending = max((end for end in (*SUFFIXES, *ARCHIVES) if name.lower().endswith(end)), key=len, default="")
    return name[: len(name) - len(ending)] or name


def is_volume(entry: Entry) -> bool:
    """Whether it can be cut in any plane."""
    return _is_read_by(nifti, entry)


def has_window(entry: Entry) -> bool:
    """Whether it is DICOM, whose header may say which grey values to show."""
    return _is_read_by(dicom, entry)


def _is_read_by(reader: ModuleType, entry: Entry) -> bool:
    try:
        return _reader(_loaded(entry)) is reader
    except InputError:  # reading it will say why
        return False


def is_known(entry: Entry) -> bool:
    """Whether a folder is searched for such a file: by its suffix, or by DICOM's mark."""
    return entry.name.lower().endswith((*SUFFIXES, *ARCHIVES)) or dicom_header.is_dicom(entry)


def entries_in(path: Path) -> Iterator[Entry | Refused]:
    """Every file that can be read below a folder or in an archive, archives opened, in natural order; else the file."""
    try:
        folder = path.is_dir()
    except OSError:  # in a folder that cannot be entered: what finds the file says so
        folder = False
    for file in images_below(path) if folder else [path]:
        if isinstance(file, Refused):
            yield file
            continue
        try:
            entry = archive.find(str(file))
        except InputError as error:
            yield Refused(str(file), str(error))
            continue
        if archive.is_archive(entry):
            yield from archive.members(entry, _is_wanted)
        else:
            yield entry


def images_below(folder: Path) -> list[Path | Refused]:
    """Every image file and archive below a folder, in natural order: by suffix, or by DICOM's mark.

    Links to folders are followed, each folder once, and none upwards: they may lead in a circle. A folder that cannot
    be opened is told of.
    """
    found: list[tuple[Path, Path | Refused]] = []

    def shut(error: OSError) -> None:
        path = Path(error.filename)
        sentence = f"{path}: this folder cannot be opened ({error.strerror}). Check its permissions"
        found.append((path, Refused(str(path), sentence)))

    home, seen, waiting = folder.resolve(), set[Path](), [folder]
    while waiting:  # links after all folders, which are found by their own names
        for top, folders, names in os.walk(waiting.pop(0), onerror=shut):
            real = Path(top).resolve()
            if real in seen or (real != home and home.is_relative_to(real)):
                folders.clear()
                continue
            seen.add(real)
            try:
                waiting += [Path(top, name) for name in folders if Path(top, name).is_symlink()]
                for name in names:
                    path = Path(top, name)
                    if path.is_file() and not name.startswith("._") and is_known(Entry(str(path))):
                        found.append((path, path))
            except OSError as error:  # a folder that may be listed but not entered
                error.filename = top
                shut(error)
                folders.clear()
    found.sort(key=lambda item: [natural(part) for part in item[0].relative_to(folder).parts])
    return [item for _, item in found]


def _ordered(found: Sequence[Entry | Refused]) -> list[Entry | Refused]:
    ordered = iter(dicom_header.in_order([item for item in found if isinstance(item, Entry)]))
    return [next(ordered) if isinstance(item, Entry) else item for item in found]


def _listed(path: Path) -> list[Entry | Refused]:
    found = list(entries_in(path))
    if found:
        return found
    kind = "folder" if path.is_dir() else "archive"
    return [
        Refused(
            str(path),
            f"{path}: no pictures or DICOM files, NIfTI volumes or MATLAB files in this {kind}. Check the path",
        )
    ]


def _loaded(path: Path | Entry) -> Entry:
    entry = path if isinstance(path, Entry) else archive.find(str(path))
    if isinstance(entry, Member):
        entry = entry.load()
    if entry.data is None and not Path(entry.address).is_file():
        raise InputError(f"{entry.address}: no such file. Check the path")
    if entry.size == 0:
        raise InputError(f"{entry.name}: the file is empty (0 bytes). Copy it again")
    return entry


def _reader(entry: Entry) -> ModuleType:
    """The module that reads this content; where the content says nothing, the name does."""
    if dicom_header.is_dicom(entry):
        return dicom
    if matlab.is_hdf5(entry) or matlab.is_version_5(entry):
        return matlab
    if nifti.is_nifti(entry):
        return nifti
    if archive.is_archive(entry):
        raise InputError(
            f"{entry.name}: an archive, not a slice. Give it to `tumorlens predict` or `tumorlens data index`, or name "
            f"one of its members: {entry.name}{SEPARATOR}MEMBER"
        )
    # Old DICOM files may lack the mark, damaged volumes theirs; then the name is all there is to go by.
    for reader in (dicom, nifti):
        if entry.name.lower().endswith(reader.SUFFIXES) and not picture.is_picture(entry):
            return reader
    return picture


def _is_wanted(entry: Entry) -> bool:
    try:
        return is_known(entry)
    except InputError:  # a damaged member is worth a sentence
        return True


def _row_options(sample: Sample) -> ReadOptions:
    # Whole: a row counts its slices in the whole volume, however little of the head one shows.
    return ReadOptions(plane=cast(Plane, sample.plane), frame=sample.frame, whole=True)


def _row_slice(entry: Entry, sample: Sample) -> Slice:
    return read_slices(entry, _row_options(sample))[0]
