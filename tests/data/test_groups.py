"""Slices of one file are one patient's, where nobody says whose they are."""

from dataclasses import replace
from pathlib import Path

import pytest

from tumorlens.cli.split import _grouped
from tumorlens.data.similarity import COPY, NEAR
from tumorlens.data.split_record import SplitPlan, write_split
from tumorlens.data.splits import fill_groups
from tumorlens.records import Sample


@pytest.mark.parametrize("similar", [None, [0, 1, 1, 2, 3, 4]])
def test_slices_of_one_volume_stay_together(similar: list[int] | None) -> None:
    """Of three volumes, the first two share an equal slice or a near copy; no slice has a patient."""
    base = Sample("", "glioma", "", "", "made", "", "", 64, 64)
    slices = [("a.nii", 0), ("a.nii", 1), ("b.nii", 0), ("b.nii", 1), ("c.nii", 0), ("c.nii", 1)]
    hashes = ["a0", "x", "x", "b1", "c0", "c1"]
    rows = [
        replace(base, path=path, frame=frame, sha256=digest)
        for (path, frame), digest in zip(slices, hashes, strict=True)
    ]
    filled = [row.patient_group for row in fill_groups(rows, similar)]
    first, third = ("similar:0", "similar:3") if similar else ("file:a0", "file:c0")
    assert filled == [first] * 4 + [third] * 2
    named = [*rows[:1], replace(rows[1], patient_id="8", patient_group="made:8"), *rows[2:4]]
    assert {row.patient_group for row in fill_groups(named, similar and similar[:4])} <= {"made:8"}
    unhashed = [replace(row, path=row.path + str(row.frame), sha256="") for row in rows]
    assert len({row.patient_group for row in fill_groups(unhashed, [0, 1, 2, 3, 4, 5])}) == 6
    known = replace(base, path="mine.png", patient_id="7", patient_group="made:7", sha256="b1")
    assert [row.patient_group for row in fill_groups([*rows, known], similar and [*similar, 9])][:5] == [
        *["made:7"] * 4, third,
    ]  # fmt: skip


@pytest.mark.parametrize(("path", "near"), [("one.png", NEAR), ("other.nii", COPY)])
def test_between_volumes_copies_alone_count(
    path: str, near: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def groups(samples: list[Sample], root: Path, near: float, on_progress: object) -> list[int]:
        asked.append(near)
        return list(range(len(samples)))

    monkeypatch.setattr("tumorlens.cli.split.similarity_groups", groups)
    rows = [Sample("other.nii", "glioma", "", "", "made", "", "x", 64, 64)]
    rows.append(Sample(path, "glioma", "", "", "made", "", "y", 64, 64, frame=1))
    _grouped(rows, tmp_path, by_similarity=True, most=0)
    assert asked == [near]


def test_a_patient_id_without_a_group_is_a_group() -> None:
    """As in a manifest made by hand, where the column is there and empty."""
    row = Sample("a.png", "glioma", "P1", "", "made", "", "a", 64, 64)
    other = replace(row, path="b.png", patient_id="", sha256="b")
    groups = [item.patient_group for item in fill_groups([row, other], [0, 0])]
    assert groups == ["made:P1", "made:P1"]


def test_manifests_have_the_rights_that_other_files_have(tmp_path: Path) -> None:
    row = Sample("a.png", "glioma", "P1", "made:P1", "made", "", "a", 64, 64, split="train")
    (tmp_path / "other").write_text("")
    write_split([row], tmp_path / "m.csv", SplitPlan(kind="holdout"))
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert set(modes) == {"m.csv", "m.split.json", "other"} and len(set(modes.values())) == 1
