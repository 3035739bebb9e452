"""The manifest: one CSV row an image, paths relative to the manifest itself."""

import csv
import dataclasses
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from tumorlens.data.readers.archive import find
from tumorlens.data.readers.entry import Plane
from tumorlens.errors import InputError, ManifestError
from tumorlens.records import CLASSES, Sample

COLUMNS = tuple(field.name for field in dataclasses.fields(Sample))
REQUIRED = tuple(name for name in COLUMNS if name not in ("split", "fold", "frame", "plane"))
PLANES: tuple[str, ...] = get_args(Plane)
_NUMBERS = ("width", "height", "frame")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(samples: Sequence[Sample], path: Path) -> None:
    """Write a manifest whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(dataclasses.astuple(sample) for sample in samples)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_manifest(path: Path) -> list[Sample]:
    """Read a manifest.

    Raises:
        ManifestError: no such file, missing columns, no rows, or a row that is malformed.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest. Make one with `tumorlens data index FOLDER --out {path}`")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 ({error}). Save it as CSV UTF-8") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file, restval="")
        missing = [name for name in REQUIRED if name not in (reader.fieldnames or [])]
        if missing:
            raise ManifestError(
                f"{path}: columns missing: {', '.join(missing)}; found {reader.fieldnames}. "
                "Make it anew with `tumorlens data index`"
            )
        rows = enumerate(whole_rows(reader, path), start=2)
        samples = [_sample(row, f"{path}, line {number}") for number, row in rows]
    if not samples:
        raise ManifestError(f"{path}: no images in it. Index a folder that has some")
    return samples


def whole_rows(reader: "csv.DictReader[str]", path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table.

    Raises:
        ManifestError: a field that does not end.
    """
    try:
        yield from reader
    except csv.Error as error:
        raise ManifestError(
            f"{path}, line {reader.line_num}: {error}. Look for a quotation mark that is not closed"
        ) from error


def check_files(samples: Sequence[Sample], root: Path) -> None:
    """Make sure that every picture and mask of a manifest is there, also inside archives.

    Raises:
        ManifestError: some are missing; the first few are named.
    """
    names = dict.fromkeys(name for sample in samples for name in (sample.path, sample.mask) if name)
    missing = [name for name in names if not _exists(str(root / name))]
    if missing:
        raise ManifestError(
            f"{len(missing)} of {len(names)} files of the manifest are missing below {root}, first: "
            f"{', '.join(missing[:3])}. Keep the manifest where its paths hold, or index again"
        )


def _exists(address: str) -> bool:
    try:
        find(address)
    except InputError:
        return False
    return True


def _sample(row: dict[str, str], where: str) -> Sample:
    try:
        # Manifests from before volumes could be indexed have no frame.
        width, height, frame = (int(row.get(name) or ("0" if name == "frame" else "")) for name in _NUMBERS)
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{where}: width, height and frame must be whole numbers ({error})") from error
    if frame < 0:
        raise ManifestError(f"{where}: frame {frame} is below 0; frames count from 0. Index again")
    if row["label"] not in CLASSES:
        raise ManifestError(f"{where}: label {row['label']!r} is not one of {', '.join(CLASSES)}")
    texts = {name: row.get(name) or "" for name in COLUMNS if name not in _NUMBERS}
    if texts["plane"] not in PLANES:
        raise ManifestError(
            f"{where}: plane {texts['plane']!r} is not one of {', '.join(filter(None, PLANES))}, or empty. Index again"
        )
    return Sample(width=width, height=height, frame=frame, **texts)
