"""What a split promises, on made-up manifests; and the record that keeps it."""

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumorlens.cli import main
from tumorlens.data import splits
from tumorlens.data.manifest import read_manifest, write_manifest
from tumorlens.data.split_record import (
    SplitPlan,
    assignment_hash,
    read_record,
    record_path,
    verified_split,
    write_split,
)
from tumorlens.data.splits import (
    fold_names,
    leave_one_source_out,
    patients_on_two_sides,
    sides_of_fold,
    split_folds,
    split_shares,
)  # fmt: skip
from tumorlens.errors import SplitError
from tumorlens.records import CLASSES, Sample

SOURCES = ("north", "south", "east")
PROFILE = settings(max_examples=50, deadline=None, derandomize=True)


@st.composite
def manifests(draw: st.DrawFn, several: bool = False, wandering: bool = False) -> list[Sample]:
    """Groups of random size, class and source; of `several` classes or `wandering` between sources if asked for."""
    made = []
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=1, unique=True))
    for number in range(draw(st.integers(1, 6)) * draw(st.integers(1, 6))):
        label, source = draw(st.sampled_from(classes)), draw(st.sampled_from(SOURCES))
        away = draw(st.sampled_from(SOURCES)) if wandering and number % 9 == 8 else source
        for count in range(draw(st.integers(1, 7))):
            own = draw(st.sampled_from(classes)) if several else label
            place = away if count % 2 else source
            name = f"{number}_{count}"
            made.append(Sample(name, own, f"p{number}", f"g{number}", place, "", name, 9, 9))
    return made


def groups_of(samples: list[Sample]) -> dict[str, int]:
    groups: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        groups[sample.label].add(sample.patient_group)
    return {label: len(own) for label, own in groups.items()}


def whole(divided: list[Sample], sides: set[str]) -> None:
    """No group on two sides, and every class on every side."""
    assert patients_on_two_sides(divided) == []
    for label in {sample.label for sample in divided}:
        assert {sample.split or sample.fold for sample in divided if sample.label == label} == sides


def names_a_class(error: pytest.ExceptionInfo[SplitError], samples: list[Sample]) -> str:
    found = re.search(r"class (\w+)", str(error.value))
    assert found and found[1] in {sample.label for sample in samples}
    return found[1]


@PROFILE
@given(manifests(), st.integers(0, 99), st.sampled_from([(0.15, 0.2), (0.1, 0.1), (0.3, 0.5), (0.02, 0.97)]))
def test_holdout(samples: list[Sample], seed: int, shares: tuple[float, float]) -> None:
    if min(groups_of(samples).values()) < 3:
        with pytest.raises(SplitError) as error:
            split_shares(samples, *shares, seed)
        assert groups_of(samples)[names_a_class(error, samples)] < 3
        return
    divided = split_shares(samples, *shares, seed)
    whole(divided, {"train", "val", "test"})
    assert [replace(sample, split="") for sample in divided] == samples
    assert split_shares(samples, *shares, seed) == divided


@PROFILE
@given(manifests(), st.integers(0, 99), st.integers(2, 5))
def test_folds_and_their_sides(samples: list[Sample], seed: int, folds: int) -> None:
    need = 4 if folds == 2 else folds
    if min(groups_of(samples).values()) < need:
        with pytest.raises(SplitError) as error:
            split_folds(samples, folds, seed)
        assert groups_of(samples)[names_a_class(error, samples)] < need
        return
    for repeat in range(2):
        divided = split_folds(samples, folds, seed + repeat)
        whole(divided, {str(number) for number in range(folds)})
        for fold in fold_names(divided):
            sides = sides_of_fold(divided, fold, 0.125, seed)
            whole(sides, {"train", "val", "test"})
            assert all((sample.split == "test") == (sample.fold == fold) for sample in sides)


@PROFILE
@given(manifests(several=True), st.integers(0, 99), st.integers(2, 5))
def test_groups_of_several_classes_are_whole_or_refused(samples: list[Sample], seed: int, folds: int) -> None:
    try:
        divided = split_shares(samples, 0.15, 0.2, seed)
        whole(divided, {"train", "val", "test"})
        divided = split_folds(samples, folds, seed)
        whole(divided, {str(number) for number in range(folds)})
        for fold in fold_names(divided):
            whole(sides_of_fold(divided, fold, 0.125, seed), {"train", "val", "test"})
    except SplitError as error:
        assert re.search(rf"class ({'|'.join({sample.label for sample in samples})})", str(error))


@PROFILE
@given(manifests(wandering=True) | manifests(), st.integers(0, 99))
def test_sources_left_out(samples: list[Sample], seed: int) -> None:
    try:
        divided, notes = leave_one_source_out(samples)
    except SplitError as error:
        assert re.search(rf"class ({'|'.join({sample.label for sample in samples})})", str(error))
        for source in {sample.source for sample in samples}:
            rest = groups_of([sample for sample in samples if sample.source != source])
            assert wanders(samples) or any(rest.get(label, 0) < 2 for label in groups_of(samples))
        return
    assert patients_on_two_sides(divided) == []
    for sample in divided:
        assert not sample.fold or sample.source in sample.fold.split("+")
    for source in {sample.source for sample in samples}:
        folds = {sample.fold for sample in divided if sample.source == source}
        assert len(folds) == 1
        assert folds != {""} or any(f"{source}" in note and "is not left out" in note for note in notes)
    for fold in fold_names(divided):
        try:
            sides = sides_of_fold(divided, fold, 0.125, seed)
        except SplitError as error:  # two groups, each with another class that needs both
            assert "some patients have several" in str(error)
            continue
        assert patients_on_two_sides(sides) == []
        for label in {sample.label for sample in samples}:
            assert {"train", "val"} <= {sample.split for sample in sides if sample.label == label}


def wanders(samples: list[Sample]) -> bool:
    places: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        places[sample.patient_group].add(sample.source)
    return any(len(names) > 1 for names in places.values())


@PROFILE
@given(manifests(), st.integers(0, 99))
def test_slices_are_whole_too(samples: list[Sample], seed: int) -> None:
    if min(Counter(sample.label for sample in samples).values()) < 3:
        return
    divided = split_shares(samples, 0.15, 0.2, seed, leaky_by_slice=True)
    for label in {sample.label for sample in samples}:
        assert len({sample.split for sample in divided if sample.label == label}) == 3


def test_a_good_draw_is_not_touched(samples: list[Sample]) -> None:
    """The reference model's folds came from a plain draw."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.array([sample.patient_group for sample in samples])
    strata = np.array([f"{sample.label}|{sample.source}" for sample in samples])
    divided = split_folds(samples, 5, 0)
    drawn = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(groups, strata, groups)
    for number, (_, held_out) in enumerate(drawn):
        assert {divided[n].fold for n in held_out} == {str(number)}


def test_a_bad_draw_is_mended(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_assign", lambda samples, groups, folds, seed: [0] * len(samples))
    whole(split_folds(samples, 5, 0), {"0", "1", "2", "3", "4"})
    whole(split_shares(samples, 0.2, 0.2, 0), {"train", "val", "test"})


def test_classes_that_cannot_be_had_are_named() -> None:
    """Three groups of two classes each: on two sides one class always lacks somewhere."""
    pairs = [("glioma", "meningioma"), ("meningioma", "pituitary"), ("pituitary", "glioma")]
    made = [
        Sample(f"{n}{label}", label, f"{n}", f"g{n}", "s", "", f"{n}{label}", 9, 9, fold="")
        for n, pair in enumerate(pairs) for label in pair
    ]  # fmt: skip
    tested = [
        Sample(f"t{label}", label, "t", f"t{label}", "s", "", f"t{label}", 9, 9, fold="0")
        for pair in pairs for label in pair
    ]  # fmt: skip
    with pytest.raises(SplitError, match="too few patient groups for side"):
        sides_of_fold([*made, *tested], "0", 0.5, 0)


def test_all_trains_on_what_the_first_fold_tests(samples: list[Sample]) -> None:
    folds = split_folds(samples, 3, seed=1)
    first, every = (sides_of_fold(folds, name, 0.125, 1) for name in ("0", "all"))
    assert {item.split for item in every} == {"train", "val"}
    for one, other in zip(first, every, strict=True):
        assert other.split == ("train" if one.split == "test" else one.split)
    with pytest.raises(SplitError, match="fold all is not in the manifest"):
        sides_of_fold(samples, "all", 0.125, 1)


def test_a_fold_that_takes_all_of_a_class(samples: list[Sample]) -> None:
    folds = [replace(sample, fold="1" if sample.label == "glioma" else "0") for sample in samples]
    with pytest.raises(SplitError, match=r"class glioma has 0 patient group\(s\) outside fold 1"):
        sides_of_fold(folds, "1", 0.125, 0)


def by_source(samples: list[Sample]) -> list[Sample]:
    """North has every class; south all but glioma, of which the rest keeps one; east is healthy heads."""
    made = []
    for sample in samples:
        patient = int(sample.patient_id.removeprefix(sample.label))
        source = "north" if patient < 5 else "south"
        if sample.label == "glioma":
            source = "south" if patient == 9 else "north"
        if sample.label == "no_tumor" and patient > 7:
            source = "east"
        made.append(replace(sample, source=source, patient_group=f"{source}:{sample.patient_id}"))
    return made


def test_a_source_that_cannot_be_spared_stays_and_says_so(samples: list[Sample]) -> None:
    divided, notes = leave_one_source_out(by_source(samples))
    assert fold_names(divided) == ["east", "south"]
    assert notes == [
        "source north is not left out: without it class glioma would keep one patient group to train and validate on"
    ]
    assert {sample.fold for sample in divided if sample.source == "north"} == {""}
    only = [replace(sample, source="north") for sample in samples]
    with pytest.raises(SplitError, match=r"no source can be left out.*north.*class glioma would keep no patients"):
        leave_one_source_out(only)


def test_sources_that_share_a_patient_go_together(samples: list[Sample]) -> None:
    made = by_source(samples)
    copy = next(sample for sample in made if sample.source == "south" and sample.label == "no_tumor")
    divided, notes = leave_one_source_out([*made, replace(copy, source="east", path="copy")])
    assert fold_names(divided) == ["east+south"]
    assert "sources east and south share patient groups and are left out together" in notes


def test_fold_names_are_in_order(samples: list[Sample]) -> None:
    names = ["10", "9", "south", "east", "", "0"]
    assert fold_names(replace(samples[0], fold=name) for name in names) == ["0", "9", "10", "east", "south"]


@pytest.fixture
def manifest(samples: list[Sample], tmp_path: Path) -> Path:
    path = tmp_path / "set.csv"
    write_manifest(by_source(samples), path)
    return path


def test_the_hash_is_of_the_sides_not_of_the_rows(samples: list[Sample]) -> None:
    divided = split_folds(samples, 5, 0)
    assert assignment_hash(divided) == assignment_hash(divided[::-1])
    moved = [replace(divided[0], fold="4" if divided[0].fold != "4" else "3"), *divided[1:]]
    assert assignment_hash(divided) != assignment_hash(moved)
    assert assignment_hash(divided) != assignment_hash(divided[1:])
    assert assignment_hash(divided) != assignment_hash([replace(divided[0], frame=1), *divided[1:]])


def test_a_record_tells_what_was_done(manifest: Path, samples: list[Sample]) -> None:
    assert main(["data", "split", str(manifest), "--seed", "3"]) == 0
    record = read_record(manifest)
    assert record is not None
    assert (record.kind, record.seed, record.val, record.test, record.folds) == ("holdout", 3, 0.15, 0.2, None)
    assert record.grouping == {"patient_id": len(samples), "similarity": 0, "identical_file": 0, "other": 0}
    assert sum(row["slices"] for side in record.sides.values() for row in side.values()) == len(samples)
    assert sum(row["patient_groups"] for side in record.sides.values() for row in side.values()) == 40
    kept = verified_split(manifest, read_manifest(manifest))
    assert kept == {"assignment_sha256": record.assignment_sha256, "kind": "holdout", "leaky_by_slice": False}
    assert [path.name for path in manifest.parent.iterdir() if path.suffix == ".part"] == []


def test_a_changed_split_is_refused(manifest: Path) -> None:
    assert main(["data", "split", str(manifest)]) == 0
    before = read_record(manifest)
    divided = read_manifest(manifest)
    number = next(n for n, sample in enumerate(divided) if sample.split == "test")
    divided[number] = replace(divided[number], split="train")
    write_manifest(divided, manifest)
    with pytest.raises(SplitError, match="changed after it was made") as error:
        verified_split(manifest, read_manifest(manifest))
    assert before and before.assignment_sha256 in str(error.value) and assignment_hash(divided) in str(error.value)
    record_path(manifest).unlink()
    kept = verified_split(manifest, read_manifest(manifest))
    assert kept["kind"] is None and kept["leaky_by_slice"]  # a patient is on two sides now


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "damaged"), ("[]", "damaged"), ('{"schema_version": 9}', "schema_version is 9"),
     ('{"schema_version": 1}', "damaged")],
)  # fmt: skip
def test_damaged_records(manifest: Path, text: str, says: str) -> None:
    record_path(manifest).write_text(text)
    with pytest.raises(SplitError, match=says):
        verified_split(manifest, read_manifest(manifest))


def test_the_leaky_flag_is_kept_where_it_cannot_be_seen(tmp_path: Path, samples: list[Sample]) -> None:
    single = [replace(s, patient_group=s.path, patient_id=s.path) for s in samples]  # a slice each
    path = tmp_path / "m.csv"
    divided = split_shares(single, 0.2, 0.2, 0, leaky_by_slice=True)
    assert patients_on_two_sides(divided) == []
    write_split(divided, path, SplitPlan(kind="holdout", seed=0, val=0.2, test=0.2, leaky_by_slice=True))
    assert verified_split(path, read_manifest(path))["leaky_by_slice"]


def test_repeats_lie_beside_the_manifest(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = manifest.read_bytes()
    call = ["data", "split", str(manifest), "--folds", "4", "--repeats", "3", "--seed", "5"]
    assert main(call) == 0
    assert manifest.read_bytes() == before and read_record(manifest) is None
    hashes = set()
    for number in (1, 2, 3):
        path = manifest.with_name(f"set.repeat{number}.csv")
        divided, record = read_manifest(path), read_record(path)
        whole(divided, {"0", "1", "2", "3"})
        assert record and (record.repeat, record.repeats, record.seed) == (number, 3, 4 + number)
        hashes.add(verified_split(path, divided)["assignment_sha256"])
    assert len(hashes) == 3
    capsys.readouterr()
    assert main(call) == 1
    assert "set.repeat1.csv: already there" in capsys.readouterr().err
    assert main([*call, "--overwrite"]) == 0


def test_leaving_sources_out_by_command(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", str(manifest), "--leave-one-source-out"]) == 0
    shown = capsys.readouterr().out
    assert "source north is not left out: without it class glioma" in shown
    assert "fold south:" in shown and "always in training:" in shown
    record = read_record(manifest)
    assert record and record.kind == "leave-one-source-out" and record.notes and record.seed is None
    assert set(record.sides) == {"fold east", "fold south", "always in training"}


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--folds", "3", "--leave-one-source-out"], "exclude each other"), (["--repeats", "2"], "only with --folds"),
     (["--repeats", "0", "--folds", "3"], "--repeats 0"), (["--leave-one-source-out", "--leaky-by-slice"], "folds are"),
     (["--seed", "-1"], "--seed -1"), (["--folds", "-2"], "at least 2 are needed")],
)  # fmt: skip
def test_calls_that_make_no_sense(
    manifest: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    before = manifest.read_bytes()
    assert main(["data", "split", str(manifest), *options]) == 1
    assert says in capsys.readouterr().err
    assert manifest.read_bytes() == before and not record_path(manifest).exists()


def test_a_split_by_slice_says_so(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", str(manifest), "--leaky-by-slice"]) == 0
    assert "SPLIT BY SLICE" in capsys.readouterr().out
    assert json.loads(record_path(manifest).read_text())["leaky_by_slice"] is True


def test_groups_that_somebody_gave_are_kept(tmp_path: Path) -> None:
    """Without a patient id, but with a group: all of it stays on one side; a copy of it without any goes along."""
    rows = [Sample(f"{n}.png", CLASSES[n % 4], "", f"set:p{n // 4}", "set", "", f"{n:064}", 9, 9) for n in range(40)]
    rows.append(replace(rows[0], path="copy.png", patient_group=""))
    write_manifest(rows, tmp_path / "m.csv")
    assert main(["data", "split", str(tmp_path / "m.csv"), "--folds", "2"]) == 0
    found = read_manifest(tmp_path / "m.csv")
    assert not patients_on_two_sides(found)
    assert [item.patient_group for item in found] == [*(f"set:p{n // 4}" for n in range(40)), "set:p0"]
