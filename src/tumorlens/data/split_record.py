"""The split record: how a split was made and the hash of what came out, in a file beside its manifest."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import tumorlens
from tumorlens.data.manifest import read_manifest, write_manifest
from tumorlens.data.splits import patients_on_two_sides
from tumorlens.errors import SplitError
from tumorlens.records import FILE, SIMILAR, Sample
from tumorlens.textfile import write_whole

SCHEMA_VERSION = 1
IN_TRAINING = "always in training"  # the side of images without fold, where others have one

Kind = Literal["holdout", "folds", "leave-one-source-out"]


class SplitPlan(BaseModel):
    """How a split was asked for. What has no meaning for its kind is null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    leaky_by_slice: bool = False
    seed: int | None = None
    val: float | None = None
    test: float | None = None
    folds: int | None = None
    repeat: int | None = None
    repeats: int | None = None
    notes: tuple[str, ...] = ()


class SplitRecord(SplitPlan):
    """`NAME.split.json`: the plan and what came of it.

    `grouping` counts slices by what their patient group rests on; `sides` counts slices and patient groups by side and
    class.
    """

    schema_version: int = SCHEMA_VERSION
    assignment_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    grouping: dict[str, int]
    sides: dict[str, dict[str, dict[str, int]]]
    tumorlens_version: str


def record_path(manifest: Path) -> Path:
    """Where the record of a manifest's split lies: `NAME.split.json` beside `NAME.csv`."""
    return manifest.with_name(f"{manifest.stem}.split.json")


def assignment_hash(samples: Sequence[Sample]) -> str:
    """SHA-256 of which picture is on which side, whatever the order of rows: of the sorted lines, each a JSON list of
    the picture's hash, path, frame, split and fold.
    """
    lines = (json.dumps([s.sha256, s.path, int(s.frame), s.split, s.fold], ensure_ascii=False) for s in samples)
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogatepass")).hexdigest()


def side_name(sample: Sample) -> str:
    """The side of a sample as people read it."""
    return sample.split or (f"fold {sample.fold}" if sample.fold else IN_TRAINING)


def write_split(samples: Sequence[Sample], manifest: Path, plan: SplitPlan) -> SplitRecord:
    """Write a manifest with its sides and then, beside it, the record of the split. Each whole or not at all.

    Interrupted between the two, an older record stays and does not fit: it is noticed, not believed.
    """
    write_manifest(samples, manifest)
    written = read_manifest(manifest)  # the hash is of what others will read
    record = SplitRecord(
        **plan.model_dump(),
        assignment_sha256=assignment_hash(written),
        grouping=_grouping(written),
        sides=_sides(written),
        tumorlens_version=tumorlens.__version__,
    )
    write_whole(record_path(manifest), record.model_dump_json(indent=2) + "\n")
    return record


def read_record(manifest: Path) -> SplitRecord | None:
    """The record of a manifest's split; None where there is none.

    Raises:
        SplitError: it is damaged or of another version.
    """
    path = record_path(manifest)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("schema_version") != SCHEMA_VERSION:
            raise SplitError(
                f"{path}: schema_version is {data.get('schema_version')!r}, this version reads {SCHEMA_VERSION}. "
                "Split again with `tumorlens data split`, or install the matching version of tumorlens"
            )
        return SplitRecord.model_validate(data)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, ValidationError) as error:
        raise SplitError(
            f"{path}: damaged or not the record of a split ({error}). Split again with `tumorlens data split`"
        ) from error


def verified_split(manifest: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    """What a run keeps of its split: `assignment_sha256`, `leaky_by_slice`, and `kind`, null where no record is there.

    A split without a record is leaky where a patient group is on two of its sides.

    Args:
        manifest: where the samples were read from.
        samples: all rows of it, as they are in the file.

    Raises:
        SplitError: the record is damaged, the assignment is not the one it was written for, or images have no patient
            group, as after indexing a set that comes with a split of its own.
    """
    bare = [sample.path for sample in samples if not sample.patient_group]
    if bare:
        raise SplitError(
            f"{manifest}: {len(bare)} of {len(samples)} images have no patient group, first {bare[0]}, so nobody knows "
            "whether a patient is on two sides. Run `tumorlens data split` (`--group-by-similarity` finds near copies)"
        )
    found = assignment_hash(samples)
    record = read_record(manifest)
    if record is not None and record.assignment_sha256 != found:
        raise SplitError(
            f"{manifest}: the split was changed after it was made (SHA-256 of the assignment {found}, "
            f"{record_path(manifest).name} says {record.assignment_sha256}). Restore the manifest, split again with "
            "`tumorlens data split`, or delete that file if the change is meant"
        )
    return {
        "assignment_sha256": found,
        "kind": record.kind if record else None,
        "leaky_by_slice": bool(record and record.leaky_by_slice) or bool(patients_on_two_sides(samples)),
    }


def _grouping(samples: Sequence[Sample]) -> dict[str, int]:
    """Slices by what their group rests on; `other`: a copy of a patient's picture, or a group somebody gave."""
    counts = {"patient_id": 0, "similarity": 0, "identical_file": 0, "other": 0}
    formed = {SIMILAR: "similarity", FILE: "identical_file"}
    for sample in samples:
        kind = next((kind for start, kind in formed.items() if sample.patient_group.startswith(start)), "other")
        counts["patient_id" if sample.patient_id else kind] += 1
    return counts


def _sides(samples: Sequence[Sample]) -> dict[str, dict[str, dict[str, int]]]:
    table: dict[str, dict[str, dict[str, int]]] = {}
    for side in sorted({side_name(sample) for sample in samples}):
        part = [sample for sample in samples if side_name(sample) == side]
        table[side] = {
            label: {
                "slices": sum(sample.label == label for sample in part),
                "patient_groups": len({sample.patient_group for sample in part if sample.label == label}),
            }
            for label in sorted({sample.label for sample in part})
        }
    return table
