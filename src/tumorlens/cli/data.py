"""`tumorlens data …`"""

from collections import Counter
from pathlib import Path

from tyro.conf import Positional

from tumorlens.cli.terminal import say
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import write_manifest
from tumorlens.errors import ManifestError
from tumorlens.records import CLASSES, Sample


def index(
    folders: Positional[tuple[str, ...]],
    /,
    out: Path = Path("manifest.csv"),
    salt_file: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Find the labelled images of one or more data sets and write a manifest.

    Understood are a folder with an index.csv (columns image, label; optional mask, patient_id, patient_group), class
    folders (glioma, meningioma, no_tumor, pituitary and the other names in use), these below Training/ and Testing/
    (which become the split), .mat files of the figshare set, and ZIP archives of all this, read without unpacking.
    Volumes and multi-frame files become a row a slice.

    Args:
        folders: Data sets. CLASS=FOLDER gives every image below FOLDER that class.
        out: Where to write the manifest. Paths in it are relative to it.
        salt_file: A file with a secret that goes into the pseudonyms made of the patient ids in DICOM files; without it
            whoever knows the ids can match them.
        overwrite: Replace a manifest that is there.
    """
    _refuse_overwrite(out, overwrite)
    if not folders:
        raise ManifestError("no folder given; give at least one data set")
    salt = salt_file.read_bytes().strip() if salt_file else b""
    if salt_file and not salt:
        raise ManifestError(f"{salt_file}: empty. Put a long random line into it, and keep it secret")
    samples: list[Sample] = []
    for text in folders:
        label, name = _labelled(text)
        found = index_folder(Path(name), out.parent, label, salt)
        samples += found.samples
        for problem in found.skipped:
            say(f"left out: {problem}")
    places = Counter((sample.path, sample.frame, sample.plane) for sample in samples)
    repeated = [path for (path, _, _), count in places.items() if count > 1]
    if repeated:
        raise ManifestError(f"{len(repeated)} images are in two of the folders, first: {repeated[0]}. Name each once")
    write_manifest(samples, out)
    _summary(samples)
    say(f"wrote {out}")
    return 0


def _labelled(text: str) -> tuple[str, str]:
    """CLASS and FOLDER of CLASS=FOLDER; a folder may have the sign in its name."""
    label, sign, name = text.partition("=")
    return (label, name) if sign and not Path(text).exists() else ("", text)


def _summary(samples: list[Sample]) -> None:
    for source in sorted({sample.source for sample in samples}):
        part = [sample for sample in samples if sample.source == source]
        patients = {sample.patient_group for sample in part if sample.patient_group}
        known = f"{len(patients)} patient groups" if patients else "no patient ids"
        say(f"{source}: {len(part)} images, {known} ({class_counts(part)})")


def class_counts(samples: list[Sample]) -> str:
    """Images by class, in words."""
    counts = Counter(sample.label for sample in samples)
    return ", ".join(f"{name} {counts[name]}" for name in CLASSES if counts[name])


def _refuse_overwrite(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise ManifestError(f"{out}: already there. Give another --out, or --overwrite to replace it")
