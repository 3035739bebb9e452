"""Find the labelled images of a folder, in the layouts that people have."""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tumorlens.config import PreprocessSettings
from tumorlens.data.manifest import file_hash
from tumorlens.data.preprocess import prepare
from tumorlens.data.readers import images_below, read_slices
from tumorlens.data.readers.dicom import is_dicom, patient_of
from tumorlens.errors import InputError, ManifestError
from tumorlens.records import CLASSES, Sample

#: Folder names in use for each class, compared without case, spaces, dashes and underscores.
FOLDER_NAMES: dict[str, str] = {
    "glioma": "glioma", "gliomatumor": "glioma", "gliomatumour": "glioma",
    "meningioma": "meningioma", "meningiomatumor": "meningioma", "meningiomatumour": "meningioma",
    "notumor": "no_tumor", "notumour": "no_tumor", "no": "no_tumor", "normal": "no_tumor", "healthy": "no_tumor",
    "pituitary": "pituitary", "pituitarytumor": "pituitary", "pituitarytumour": "pituitary",
}  # fmt: skip

SPLIT_FOLDERS = ("training", "testing", "train", "test", "val", "valid", "validation")


@dataclass(frozen=True)
class Found:
    """An image before it is opened: where it is, and what its layout says of it."""

    path: Path
    label: str
    patient_id: str = ""
    patient_group: str = ""
    mask: Path | None = None


@dataclass(frozen=True)
class Index:
    """The samples of a folder, and a sentence for each file that could not be used."""

    samples: list[Sample]
    skipped: list[str]


def class_of_folder(name: str) -> str | None:
    """The class that a folder's name means, or None."""
    return FOLDER_NAMES.get("".join(letter for letter in name.lower() if letter.isalpha()))


def index_folder(folder: Path, relative_to: Path, label: str = "") -> Index:
    """Index one folder: with an `index.csv`, with class folders, or with `Training|Testing/<class>`.

    Files that cannot be read are left out and named in `skipped`; they cost nothing else.

    Args:
        folder: the data set, or one class folder of it.
        relative_to: the folder of the manifest to be, which paths are written relative to.
        label: where given, every image below `folder` is of this class, whatever its layout.

    Raises:
        ManifestError: no such folder, no known layout, no image, or an unknown label.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder. Give the folder of a data set")
    found = list(_find(folder, label))
    if not found:
        raise ManifestError(
            f"{folder}: no labelled images. Allowed are an index.csv, folders named after classes (glioma, "
            "meningioma, no_tumor, pituitary, …), these below Training/ and Testing/, or CLASS=FOLDER for a "
            "folder of one class"
        )
    source = _source_name(folder.resolve())
    samples: list[Sample] = []
    skipped: list[str] = []
    for item in found:
        try:
            samples.append(_sample(item, relative_to, source))
        except InputError as error:
            skipped.append(str(error))
    if not samples:
        raise ManifestError(f"{folder}: none of {len(found)} files can be read, first: {skipped[0]}")
    return Index(samples, skipped)


def _find(folder: Path, label: str) -> Iterator[Found]:
    if label:
        known = class_of_folder(label)
        if known is None:
            raise ManifestError(f"class {label!r} is not one of {', '.join(CLASSES)}")
        return _files(folder, known)
    return _from_csv(folder) if (folder / "index.csv").is_file() else _from_folders(folder)


def _source_name(folder: Path) -> str:
    """The data set's own name: the first folder upwards that names neither a class nor a split."""
    while (class_of_folder(folder.name) or folder.name.lower() in SPLIT_FOLDERS) and folder.parent != folder:
        folder = folder.parent
    return folder.name or "unnamed"


def _from_csv(folder: Path) -> Iterator[Found]:
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
        for number, row in enumerate(reader, start=2):
            label = class_of_folder(row["label"])
            if label is None:
                raise ManifestError(
                    f"{folder / 'index.csv'}, line {number}: label {row['label']!r} is not one of {', '.join(CLASSES)}"
                )
            patient = row.get("patient_id") or ""
            yield Found(
                path=folder / row["image"],
                label=label,
                patient_id=patient,
                patient_group=row.get("patient_group") or patient,
                mask=folder / row["mask"] if row.get("mask") else None,
            )


def _from_folders(folder: Path) -> Iterator[Found]:
    parts = [part for part in sorted(folder.iterdir()) if part.is_dir()]
    own = class_of_folder(folder.name)
    if own and not any(class_of_folder(part.name) for part in parts):
        yield from _files(folder, own)
    for part in parts:
        label = class_of_folder(part.name)
        if label:
            yield from _files(part, label)
        elif part.name.lower() in SPLIT_FOLDERS:
            yield from _from_folders(part)


def _files(folder: Path, label: str) -> Iterator[Found]:
    for path in images_below(folder):
        yield Found(path, label)


def _sample(item: Found, relative_to: Path, source: str) -> Sample:
    slices = read_slices(item.path)
    if len(slices) > 1:
        raise InputError(f"{item.path.name}: {len(slices)} frames in one file; training takes single slices. Split it")
    prepare(slices[0], PreprocessSettings())  # what cannot be prepared, say a blank slice, cannot be learned from
    height, width = slices[0].pixels.shape
    patient = item.patient_id or (patient_of(item.path) if is_dicom(item.path) else "")
    group = item.patient_group or patient
    if item.mask is not None and not item.mask.is_file():
        raise InputError(f"{item.path.name}: its mask {item.mask} is missing. Mend the index or leave the mask out")
    base = relative_to.resolve()
    # Prefixed: two sources may number their patients alike.
    group = f"{source}:{group}" if group else ""
    return Sample(
        path=os.path.relpath(item.path.resolve(), base),
        label=item.label,
        patient_id=patient,
        patient_group=group,
        source=source,
        mask=os.path.relpath(item.mask.resolve(), base) if item.mask else "",
        sha256=file_hash(item.path),
        width=width,
        height=height,
    )
