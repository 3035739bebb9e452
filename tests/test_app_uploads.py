"""What the app takes in: uploads and what their headers say, without a browser."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import real_path
from tumorlens.app import study
from tumorlens.app.parts import entries_of, read_uploads
from tumorlens.app.study import Study
from tumorlens.data.readers import Entry, header_facts
from tumorlens.examples import EXAMPLES
from tumorlens.records import Slice


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def test_uploads_are_read_by_content_under_their_own_name() -> None:
    picture = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    slices, problems, _ = read_uploads(
        [("../../etc/passwd.png", buffer.getvalue()), ("holiday.png", b"words, only words"), ("nothing.png", b"")]
    )
    assert [(item.source, item.pixels.shape) for item in slices] == [("../../etc/passwd.png", (40, 50))]
    assert "holiday.png: not a picture" in problems[0] and "empty" in problems[1]


def test_an_archive_is_opened_in_memory_and_a_bad_member_costs_only_itself() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/2.png", png(np.eye(40, dtype=np.uint8) * 200))
        archive.writestr("a/10.png", png(np.eye(40, dtype=np.uint8) * 100))
        archive.writestr("../evil.png", png(np.eye(40, dtype=np.uint8)))
        archive.writestr("bad.png", b"no picture")
    slices, problems, _ = read_uploads([("series.zip", buffer.getvalue())])
    assert [item.source for item in slices] == ["series.zip!a/2.png", "series.zip!a/10.png"]
    assert len(problems) == 2 and any("leads out" in text for text in problems)


def test_a_bomb_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", b"\0" * (300 << 20))
    slices, problems, _ = read_uploads([("bomb.zip", buffer.getvalue())])
    assert not slices and len(problems) == 1
    wide = Image.new("1", (30_000, 30_000))
    buffer = io.BytesIO()
    wide.save(buffer, format="PNG")
    slices, problems, _ = read_uploads([("wide.png", buffer.getvalue())])
    assert not slices and "too many" in problems[0]


def test_facts_of_a_header_name_no_patient() -> None:
    path = sorted(real_path("dicom_brain").glob("*.dcm"))[6]
    (only,), problems, by_file = read_uploads([(path.name, path.read_bytes())])
    assert only.source == path.name and not problems
    facts = by_file[path.name]
    assert facts == header_facts(Entry(path.name, path.read_bytes()))
    assert facts["Modality"] == "MR"
    import pydicom

    header = pydicom.dcmread(path)
    for tag in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "InstitutionName"):
        value = str(header.get(tag) or "")
        assert not value or all(value not in shown for shown in facts.values())


def test_each_slice_of_a_series_has_the_facts_and_the_name_of_its_file(tmp_path: Path) -> None:
    import pydicom

    source = sorted(real_path("dicom_brain").glob("*.dcm"))[6]
    files = []
    for time in (3.0, 120.0):
        header = pydicom.dcmread(source)
        header.EchoTime, header.InstanceNumber = time, len(files) + 1
        header.save_as(tmp_path / "IM1")  # without an ending and once a series, as scanners call them
        files.append(("IM1", (tmp_path / "IM1").read_bytes()))
    slices, problems, facts = read_uploads(files)
    assert not problems
    found = Study("k", "IM1 and 1 more files", slices, facts=facts)
    assert [study._facts(found, item)["TE (ms)"] for item in slices] == ["3", "120"]
    assert [found.title(place) for place in (0, 1)] == ["IM1, slice 1 of 2", "IM1 (2), slice 2 of 2"]


def test_files_of_one_name_keep_their_ending_and_never_share_a_name() -> None:
    files = [("IM1", b"a"), ("IM1", b"b"), ("IM1 (2)", b"c"), ("x.nii.gz", b"d"), ("x.nii.gz", b"e"), ("IM1", b"a")]
    names = [entry.address for entry in entries_of(files)]
    assert names == ["IM1", "IM1 (2)", "IM1 (2) (2)", "x.nii.gz", "x (2).nii.gz"]


def test_a_volume_beyond_the_limit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = next(item for item in EXAMPLES if item.key == "lesion_volume").path
    monkeypatch.setattr("tumorlens.app.parts.MOST_PIXELS", 100_000)
    slices, problems, _ = read_uploads([(volume.name, volume.read_bytes())])
    assert not slices and "more than what is left of the limit" in problems[0]


def test_a_slice_is_called_by_its_frame_where_that_is_not_its_place() -> None:
    items = [Slice(np.zeros((20, 20), dtype=np.float32), "v.nii", frame) for frame in (10, 11)]
    assert Study("k", "v.nii", items).title(1) == "v.nii, slice 2 of 2 (frame 11 of its file)"


def test_codes_that_hold_a_name_are_left_out(tmp_path: Path) -> None:
    import pydicom

    path = sorted(real_path("dicom_brain").glob("*.dcm"))[0]
    header = pydicom.dcmread(path)
    header.add_new("ScanningSequence", "CS", "Jane Doe 1950-01-01")
    header.save_as(tmp_path / "x.dcm")
    assert "Jane" not in str(header_facts(Entry(str(tmp_path / "x.dcm"))))
