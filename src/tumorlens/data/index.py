"""Find the labelled images of a folder or an archive, in the layouts that people have."""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

from tumorlens.config import PreprocessSettings
from tumorlens.data.manifest import whole_rows
from tumorlens.data.preprocess import prepare
from tumorlens.data.readers import (
    ALL_SLICES,
    ARCHIVES,
    ReadOptions,
    Refused,
    check_size,
    dicom,
    dicom_header,
    entries_in,
    matlab,
    nifti,
    read_slices,
)
from tumorlens.data.readers.archive import find, open_member, split_address
from tumorlens.data.readers.entry import SEPARATOR, Entry, Plane
from tumorlens.errors import InputError, ManifestError
from tumorlens.records import CLASSES, Sample, Slice

#: Folder names in use for each class, compared by their letters, whatever the case.
FOLDER_NAMES: dict[str, str] = {
    "glioma": "glioma", "gliomatumor": "glioma", "gliomatumour": "glioma",
    "meningioma": "meningioma", "meningiomatumor": "meningioma", "meningiomatumour": "meningioma",
    "notumor": "no_tumor", "notumour": "no_tumor", "no": "no_tumor", "normal": "no_tumor", "healthy": "no_tumor",
    "pituitary": "pituitary", "pituitarytumor": "pituitary", "pituitarytumour": "pituitary",
}  # fmt: skip

#: Folder names in use for the sides of a split.
SPLIT_FOLDERS: dict[str, str] = {
    "training": "train", "train": "train", "testing": "test", "test": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip

#: Pixels that a volume's mask must have in a slice for the slice to bear the label.
MASK_PIXELS = 10


@dataclass(frozen=True)
class Found:
    """A file before it is read: where it is, and what its layout says of it.

    `label` is empty where the file has to say it; the others are empty where unknown.
    """

    entry: Entry
    label: str
    patient_id: str = ""
    patient_group: str = ""
    mask: str = ""
    split: str = ""


@dataclass(frozen=True)
class Index:
    """The samples of a folder, and a sentence for each file that could not be used."""

    samples: list[Sample]
    skipped: list[str]


def class_of_folder(name: str) -> str | None:
    """The class that the name of a folder, or of an archive in an address, means, or None."""
    letters = "".join(letter for letter in name.lower() if letter.isalpha())
    if letters == "no" and any(letter.isdigit() for letter in name):
        return None  # a number, as in "No 1"
    return FOLDER_NAMES.get(letters)


def index_folder(folder: Path, relative_to: Path, label: str = "", salt: bytes = b"") -> Index:
    """Index one folder or ZIP archive: with an `index.csv`, class folders, `Training|Testing/<class>`, or `.mat` files.

    Archives stay packed: the paths are addresses (`set.zip!1.mat`). A volume or a file of several frames becomes a row
    a slice; where it has a mask, only slices with at least 10 pixels of it. Where folders tell a split, the samples
    have it. Files that cannot be read are left out and named in `skipped`; they cost nothing else.

    Args:
        folder: the data set, or one class folder of it; a ZIP archive; one file.
        relative_to: the folder of the manifest to be, which paths are written relative to.
        label: where given, every image below `folder` is of this class, whatever its layout.
        salt: goes into the pseudonyms that are made of the patient ids in DICOM files.

    Raises:
        ManifestError: no such folder, no known layout, no image, or an unknown label.
    """
    if not folder.exists():
        raise ManifestError(f"{folder}: no such folder. Give the folder or the ZIP archive of a data set")
    found = list(_find(folder, label))
    files = [item for item in found if isinstance(item, Found)]
    skipped = [item.message for item in found if isinstance(item, Refused)]
    if not found:
        raise ManifestError(
            f"{folder}: no labelled images. Allowed are an index.csv, folders named after classes (glioma, "
            "meningioma, no_tumor, pituitary, …), these below Training/ and Testing/, .mat files of the figshare set, "
            "ZIP archives of these, or CLASS=FOLDER for a folder of one class"
        )
    source = _source_name(folder.resolve())
    samples: list[Sample] = []
    for item in files:
        try:
            rows, problem = _samples(item, relative_to.resolve(), source, salt)
        except (InputError, OSError) as error:
            skipped.append(str(error))
            continue
        samples += rows
        skipped += [problem] if problem else []
    if not samples:
        raise ManifestError(f"{folder}: none of {len(found)} files can be read, first: {skipped[0]}")
    return Index(samples, skipped)


def _find(folder: Path, label: str) -> Iterator[Found | Refused]:
    if label:
        known = class_of_folder(label)
        if known is None:
            raise ManifestError(f"class {label!r} is not one of {', '.join(CLASSES)}")
        return (item if isinstance(item, Refused) else Found(item, known) for item in entries_in(folder))
    return _from_csv(folder) if (folder / "index.csv").is_file() else _from_layout(folder)


def _source_name(folder: Path) -> str:
    """The data set's own name: the first folder upwards that names neither a class nor a split."""
    while (class_of_folder(folder.name) or folder.name.lower() in SPLIT_FOLDERS) and folder.parent != folder:
        folder = folder.parent
    return (folder.stem if folder.suffix.lower() in ARCHIVES else folder.name) or "unnamed"


def _from_csv(folder: Path) -> Iterator[Found | Refused]:
    try:
        text = (folder / "index.csv").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{folder / 'index.csv'}: not UTF-8 ({error}). Save it as CSV UTF-8") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file, restval="")
        missing = {"image", "label"} - set(reader.fieldnames or [])
        if missing:
            raise ManifestError(
                f"{folder / 'index.csv'}: columns missing: {', '.join(sorted(missing))}; needed are image and "
                "label, optional are mask, patient_id and patient_group"
            )
        for number, row in enumerate(whole_rows(reader, folder / "index.csv"), start=2):
            label = class_of_folder(row["label"])
            if label is None:
                raise ManifestError(
                    f"{folder / 'index.csv'}, line {number}: label {row['label']!r} is not one of {', '.join(CLASSES)}"
                )
            patient = row.get("patient_id") or ""
            address = str(folder / row["image"])
            try:
                entry = find(address)
            except InputError as error:
                yield Refused(address, str(error))
                continue
            yield Found(
                entry,
                label,
                patient_id=patient,
                patient_group=row.get("patient_group") or patient,
                mask=str(folder / row["mask"]) if row.get("mask") else "",
            )


def _from_layout(folder: Path) -> Iterator[Found | Refused]:
    """What the names of folders and archives say; `.mat` files anywhere say their class themselves."""
    entries = list(entries_in(folder))
    parts = {item.address: _folders(item.address, folder) for item in entries}
    wrapped = _wrappers(parts)
    # A folder named after a class is one class, unless it has folders of classes in it.
    own = class_of_folder(folder.stem if folder.is_file() else folder.name)
    if own and any(class_of_folder(names[0]) for names in parts.values() if names):
        own = None
    for item in entries:
        label = _class_in(parts[item.address], wrapped, own)
        if isinstance(item, Refused):
            yield item
        elif label or item.suffix in matlab.SUFFIXES:
            yield Found(item, label or "", split=_split_in(parts[item.address]))


def _folders(address: str, folder: Path) -> tuple[str, ...]:
    """The names between the indexed folder and the file; those of archives without suffix, with a mark of their own."""
    inner = address.removeprefix(str(folder)).lstrip("/\\")
    *archives, last = inner.replace("\\", "/").split(SEPARATOR)
    names: list[str] = []
    for text in archives:
        above = PurePosixPath(text)
        names += [*above.parts[:-1], above.stem + SEPARATOR] if above.name else []
    return (*names, *PurePosixPath(last).parts[:-1])


def _wrappers(parts: dict[str, tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Folders into which a whole archive is wrapped: all there is in the archive lies below them."""
    inside: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for address, names in parts.items():
        if SEPARATOR in address:
            start = max((n + 1 for n, name in enumerate(names) if name.endswith(SEPARATOR)), default=0)
            inside.setdefault(names[:start], []).append(names[start:])
    return {
        (*above, *shared[: depth + 1])
        for above, below in inside.items()
        for shared in [_shared(below)]
        for depth in range(len(shared))
    }


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(os.path.commonprefix(list(paths)))  # noqa: RUF071  names are compared, not letters


def _class_in(names: tuple[str, ...], wrapped: set[tuple[str, ...]], own: str | None) -> str | None:
    for depth, name in enumerate(names):
        known = class_of_folder(name)
        if known:
            return known
        passed = name.endswith(SEPARATOR) or name.lower() in SPLIT_FOLDERS or names[: depth + 1] in wrapped
        if not passed:
            break
    return own


def _split_in(names: tuple[str, ...]) -> str:
    """The side on which whoever made the set has put an image, by the first folder that names one."""
    return next((SPLIT_FOLDERS[name.lower()] for name in names if name.lower() in SPLIT_FOLDERS), "")


def _samples(item: Found, base: Path, source: str, salt: bytes) -> tuple[list[Sample], str]:
    """The rows of one file, and a sentence on slices of it that were left out."""
    entry = open_member(item.entry.address)
    if matlab.is_hdf5(entry) or matlab.is_version_5(entry):
        item = _from_case(item, matlab.read_case(entry, check_size))
    elif not item.label:
        raise InputError(f"{entry.name}: no MATLAB 7.3 file, so nothing tells its class. Put it into a class folder")
    scanned = dicom_header.is_dicom(entry) or entry.suffix in dicom.SUFFIXES
    patient = item.patient_id or (dicom_header.patient_of(entry, salt) if scanned else "")
    group = item.patient_group or patient
    row = Sample(
        path=_relative(item.entry.address, base),
        label=item.label,
        patient_id=patient,
        # Prefixed: two sources may number their patients alike.
        patient_group=f"{source}:{group}" if group else "",
        source=source,
        mask=_mask_of(item, base),
        sha256="",
        width=0,
        height=0,
        split=item.split,
    )
    try:
        f"{row.path}{row.mask}{row.source}".encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{item.entry.address}: its name is not UTF-8, as a manifest is. Rename it") from error
    volume = nifti.is_nifti(entry)
    slices = read_slices(entry, ReadOptions(whole=True) if volume and item.mask else ALL_SLICES)
    digest = hashlib.sha256()
    with entry.open() as file:
        while block := file.read(1 << 20):
            digest.update(block)
    many = volume or len(slices) > 1
    rows = [_row(row, picture, digest, many, volume) for picture in slices]
    if volume and item.mask:
        rows, slices = _with_mask(rows, slices, base)
    elif item.mask and item.mask != item.entry.address and len(slices) > 1:
        drawn = len(read_slices(open_member(item.mask)))
        if drawn != len(slices):
            raise InputError(
                f"{item.entry.name}: {len(slices)} slices, its mask {item.mask} has {drawn}. Give one a slice"
            )
    return _learnable(rows, slices, entry)


def _from_case(item: Found, case: matlab.Case) -> Found:
    if item.label and item.label != case.label:
        raise InputError(
            f"{item.entry.name}: its folder says {item.label}, the file itself {case.label}. Move it to its class"
        )
    return replace(
        item,
        label=case.label,
        patient_id=item.patient_id or case.patient_id,
        patient_group=item.patient_group or case.patient_group,
        mask=item.mask or (item.entry.address if case.mask.any() else ""),
    )


def _row(row: Sample, picture: Slice, digest: Any, many: bool, volume: bool) -> Sample:
    height, width = picture.pixels.shape
    plane = picture.plane if volume else ""  # elsewhere it does not choose the slice
    if many:
        # Each slice is an image of its own: equal hashes mean equal images.
        digest = digest.copy()
        digest.update(f"#{picture.frame}{plane}".encode())
    return replace(row, sha256=digest.hexdigest(), width=width, height=height, frame=picture.frame, plane=plane)


def _with_mask(rows: list[Sample], slices: list[Slice], base: Path) -> tuple[list[Sample], list[Slice]]:
    mask = open_member(str(base / rows[0].mask))
    if not nifti.same_grid(open_member(str(base / rows[0].path)), mask):
        raise InputError(
            f"{rows[0].path}: its mask {rows[0].mask} is of another grid, by its size or its affine. Give the mask of "
            "this volume, saved with the volume's affine"
        )
    masks = nifti.read_mask(mask, ReadOptions(plane=cast(Plane, slices[0].plane), whole=True))
    if len(masks) != len(slices):
        raise InputError(
            f"{rows[0].path}: {len(slices)} slices, its mask {rows[0].mask} has {len(masks)}. Give one for each"
        )
    kept = [number for number, drawn in enumerate(masks) if drawn.sum() >= MASK_PIXELS]
    if not kept:
        raise InputError(f"{rows[0].path}: no slice with {MASK_PIXELS} pixels in its mask {rows[0].mask}. Check it")
    return [rows[number] for number in kept], [slices[number] for number in kept]


def _learnable(rows: Sequence[Sample], slices: Iterable[Slice], entry: Entry) -> tuple[list[Sample], str]:
    """Leave out what cannot be prepared, say a blank slice: it cannot be learned from."""
    kept: list[Sample] = []
    problems: list[str] = []
    for row, picture in zip(rows, slices, strict=True):
        try:
            prepare(picture, PreprocessSettings())
            kept.append(row)
        except InputError as error:
            problems.append(str(error))
    if not kept:
        raise InputError(problems[0])
    if problems:
        return kept, f"{entry.name}: {len(problems)} of {len(rows)} slices left out, first: {problems[0]}"
    return kept, ""


def _mask_of(item: Found, base: Path) -> str:
    if not item.mask:
        return ""
    try:
        find(item.mask)
    except InputError as error:
        raise InputError(
            f"{item.entry.name}: its mask {item.mask} is missing. Mend the index or leave the mask out"
        ) from error
    return _relative(item.mask, base)


def _relative(address: str, base: Path) -> str:
    path, inside = split_address(address)
    # Links of folders are resolved, as `..` goes up from where they lead to; the file keeps its name, as two links to
    # one file are two rows.
    path = path.parent.resolve() / path.name
    try:
        text = os.path.relpath(path, base)
    except ValueError:  # on another drive of Windows
        text = str(path)
    return f"{text}{SEPARATOR}{inside}" if inside else text
