from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_head, real_path
from tumorlens.data.index import class_of_folder, index_folder
from tumorlens.data.manifest import check_files, read_manifest, write_manifest
from tumorlens.data.readers import read_mask, read_slice
from tumorlens.data.similarity import similarity_groups
from tumorlens.data.splits import (
    fill_groups,
    patients_on_two_sides,
    sides_of_fold,
    split_folds,
    split_shares,
    thin_clusters,
)  # fmt: skip
from tumorlens.errors import ManifestError, SplitError
from tumorlens.records import CLASSES, Sample


def put(path: Path, label: str = "glioma", number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_head(label, 0, number)).save(path)


@pytest.mark.parametrize(
    ("name", "label"),
    [("notumor", "no_tumor"), ("no_tumor", "no_tumor"), ("No Tumour", "no_tumor"), ("glioma_tumor", "glioma"),
     ("Meningioma", "meningioma"), ("pituitary_tumor", "pituitary"), ("cats", None), ("No 1", None), ("NO_003", None)],
)  # fmt: skip
def test_folder_names(name: str, label: str | None) -> None:
    assert class_of_folder(name) == label


def test_kaggle_layout(tmp_path: Path) -> None:
    for number, name in enumerate(["Training/glioma_tumor/a.png", "Testing/notumor/b.png", "Training/cats/c.png"]):
        put(tmp_path / "set" / name, number=number)
    found = index_folder(tmp_path / "set", tmp_path)
    assert {(s.path, s.label, s.source, s.split) for s in found.samples} == {
        ("set/Training/glioma_tumor/a.png", "glioma", "set", "train"),
        ("set/Testing/notumor/b.png", "no_tumor", "set", "test"),
    }
    assert {s.sha256 for s in found.samples}.__len__() == 2
    assert all((s.width, s.height) == (96, 96) for s in found.samples)


def test_one_class_folder_and_a_label_for_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "set" / "Training" / "pituitary" / "a.png")
    put(tmp_path / "heap" / "x.png")
    (own,) = index_folder(tmp_path / "set" / "Training" / "pituitary", tmp_path).samples
    (labelled,) = index_folder(tmp_path / "heap", tmp_path, "no_tumor").samples
    assert (own.label, own.source) == ("pituitary", "set")
    assert (labelled.label, labelled.source) == ("no_tumor", "heap")


def test_index_csv_gives_patients_and_masks(drawn_folder: Path) -> None:
    samples = index_folder(drawn_folder, drawn_folder.parent).samples
    assert len(samples) == 72
    assert samples[0].patient_id == "glioma0"
    assert samples[0].patient_group.endswith(":glioma0")
    assert samples[0].path.startswith(f"{drawn_folder.name}/images/")


def test_bad_files_are_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path / "glioma" / "good.png")
    (tmp_path / "glioma" / "bad.png").write_text("no picture")
    found = index_folder(tmp_path, tmp_path)
    assert [s.path for s in found.samples] == ["glioma/good.png"]
    assert len(found.skipped) == 1
    assert "bad.png" in found.skipped[0]


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no labelled images"):
        index_folder(tmp_path, tmp_path)
    with pytest.raises(ManifestError, match="no such folder"):
        index_folder(tmp_path / "nowhere", tmp_path)


def test_manifest_round_trip(samples: list[Sample], tmp_path: Path) -> None:
    write_manifest(samples, tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv") == samples
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


def test_manifest_whose_files_are_missing(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"160 of 160 files .* missing"):
        check_files(samples, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [("a,b\n1,2\n", "columns missing"), ("", "columns missing"),
     ("path,label,patient_id,patient_group,source,mask,sha256,width,height\n", "no images"),
     ("path,label,patient_id,patient_group,source,mask,sha256,width,height\na,cat,,,,,,1,1\n", "line 2: label 'cat'"),
     ("path,label,patient_id,patient_group,source,mask,sha256,width,height\na,glioma,,,,,,x,1\n", "whole numbers")],
)  # fmt: skip
def test_malformed_manifests(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=says):
        read_manifest(tmp_path / "m.csv")


def sides(samples: list[Sample]) -> dict[str, set[str]]:
    table: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        table[sample.patient_group].add(sample.split or sample.fold)
    return table


@pytest.mark.parametrize("seed", range(5))
def test_splits_keep_patients_on_one_side_and_classes_everywhere(samples: list[Sample], seed: int) -> None:
    shares = split_shares(samples, 0.2, 0.2, seed)
    folds = split_folds(samples, 5, seed)
    for divided in (shares, folds):
        assert all(len(names) == 1 for names in sides(divided).values())
        assert patients_on_two_sides(divided) == []
        for label in CLASSES:
            assert len({s.split or s.fold for s in divided if s.label == label}) == (3 if divided is shares else 5)
    assert sum(s.split == "test" for s in shares) == 32


def test_the_seed_decides(samples: list[Sample]) -> None:
    assert split_folds(samples, 5, 1) == split_folds(samples, 5, 1)
    assert split_folds(samples, 5, 1) != split_folds(samples, 5, 2)


def test_a_class_with_one_patient(samples: list[Sample]) -> None:
    poor = [s for s in samples if s.label != "pituitary" or s.patient_id == "pituitary0"]
    with pytest.raises(SplitError, match=r"class pituitary has 1 patient group"):
        split_shares(poor, 0.2, 0.2, 0)
    with pytest.raises(SplitError, match=r"class pituitary has 1 patient group"):
        split_folds(poor, 5, 0)


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.5, 0.5), (0.2, 1.2)])
def test_shares_that_leave_nothing(samples: list[Sample], shares: tuple[float, float]) -> None:
    with pytest.raises(SplitError, match="leave a share to train on"):
        split_shares(samples, *shares, 0)


def test_by_slice_is_noticed(samples: list[Sample]) -> None:
    assert len(patients_on_two_sides(split_shares(samples, 0.2, 0.2, 0, leaky_by_slice=True))) > 20


def test_sides_of_a_fold(samples: list[Sample]) -> None:
    folds = split_folds(samples, 5, 0)
    divided = sides_of_fold(folds, "3", 0.125, 0)
    assert all((s.split == "test") == (s.fold == "3") for s in divided)
    assert patients_on_two_sides(divided) == []
    with pytest.raises(SplitError, match="fold 9 is not in the manifest"):
        sides_of_fold(folds, "9", 0.125, 0)


def test_a_quotation_mark_left_open_is_a_sentence(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    write_manifest(samples * 20, path)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, '"' + rows[0], *rows[1:]]))
    with pytest.raises(ManifestError, match=r"m\.csv, line \d+: field larger .* quotation mark"):
        read_manifest(path)
    (tmp_path / "index.csv").write_text("image,label\n" + '"a.png,glioma\n' + "b.png,glioma\n" * 20000)
    with pytest.raises(ManifestError, match=r"index\.csv, line \d+: field larger .* quotation mark"):
        index_folder(tmp_path, tmp_path)


def test_images_without_patients_are_grouped_by_file(samples: list[Sample]) -> None:
    bare = [
        replace(s, patient_id="", patient_group="", sha256="same" if n < 2 else s.sha256) for n, s in enumerate(samples)
    ]
    filled = fill_groups(bare)
    assert filled[0].patient_group == filled[1].patient_group == "file:same"
    assert len({s.patient_group for s in filled}) == len(samples) - 1


def test_turned_and_mirrored_copies_are_one_cluster(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        np.clip(Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8)).resize((90, 90)), 40, 255)
        for _ in range(3)
    ]
    made = [*pictures, np.rot90(pictures[0]), pictures[1][:, ::-1], np.rot90(pictures[2][::-1], 3)]
    samples = []
    for number, pixels in enumerate(made):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.jpg", quality=80)
        samples.append(Sample(f"{number}.jpg", "no_tumor", "", "", "made", "", str(number), 90, 90))
    groups = similarity_groups(samples, tmp_path)
    assert groups[:3] == groups[3:]
    assert len(set(groups)) == 3
    assert thin_clusters(samples, groups, 1) == [True] * 3 + [False] * 3


def test_real_figshare_and_tcga_counts() -> None:
    figshare = index_folder(real_path("figshare"), real_path("figshare")).samples
    tcga = index_folder(real_path("tcga_lgg"), real_path("tcga_lgg")).samples
    assert (len(figshare), len({s.patient_group for s in figshare})) == (2449, 168)
    assert sum(s.label == "no_tumor" for s in tcga) == 411
    assert all(bool(s.mask) == (s.label == "glioma") for s in tcga)
    divided = split_folds([*figshare, *tcga], 5, 0)
    assert patients_on_two_sides(divided) == []


def test_regrouping_replaces_what_was_formed_before(samples: list[Sample]) -> None:
    bare = [replace(s, patient_id="", patient_group="") for s in samples[:6]]
    again = fill_groups(fill_groups(bare), [0, 0, 0, 1, 1, 1])
    assert [s.patient_group for s in again] == ["similar:0"] * 3 + ["similar:1"] * 3


def test_a_copy_without_an_id_joins_its_patient(samples: list[Sample]) -> None:
    copy = replace(samples[0], path="elsewhere.png", patient_id="", patient_group="")
    assert fill_groups([*samples, copy])[-1].patient_group == samples[0].patient_group


@pytest.mark.parametrize(("share", "expected"), [(0.4, 64), (0.3, 48), (0.1, 16), (0.7, 112)])
def test_shares_are_met(samples: list[Sample], share: float, expected: int) -> None:
    divided = split_shares(samples, 0.1, share, 0)
    assert abs(sum(s.split == "test" for s in divided) - expected) <= 8


def test_too_many_folds_for_a_class(samples: list[Sample]) -> None:
    with pytest.raises(SplitError, match="10 patient group"):
        split_folds(samples, 12, 0)


def test_dicom_files_bring_their_patient(tmp_path: Path) -> None:
    import pydicom
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
    (tmp_path / "glioma").mkdir()
    for number, patient in enumerate(["Jane", "Jane", "John"]):
        dataset.PatientID = patient
        dataset.save_as(tmp_path / "glioma" / f"1.2.840.{number}")
    found = index_folder(tmp_path, tmp_path).samples
    assert len(found) == 3
    assert found[0].patient_group == found[1].patient_group != found[2].patient_group
    assert not any("Jane" in s.patient_id + s.patient_group for s in found)


def test_blank_files_and_pages_are_left_out_and_pages_are_rows(tmp_path: Path) -> None:
    put(tmp_path / "glioma" / "good.png")
    blank = Image.fromarray(np.full((50, 50), 9, dtype=np.uint8))
    blank.save(tmp_path / "glioma" / "blank.png")
    pages = [Image.fromarray(draw_head("glioma", 0, n)) for n in range(3)]
    pages = [pages[0], blank.copy(), *pages[1:], pages[0].copy()]
    pages[0].save(tmp_path / "glioma" / "pages.tif", save_all=True, append_images=pages[1:])
    found = index_folder(tmp_path, tmp_path)
    assert [(s.path, s.frame) for s in found.samples] == [
        ("glioma/good.png", 0), *[("glioma/pages.tif", frame) for frame in (0, 2, 3, 4)],
    ]  # fmt: skip
    assert len({s.sha256 for s in found.samples}) == 5
    assert "every pixel has the value 9" in found.skipped[0]
    assert "pages.tif: 1 of 5 slices left out" in found.skipped[1]
    write_manifest(found.samples, tmp_path / "m.csv")
    for number, row in zip((0, 1, 2, 0), read_manifest(tmp_path / "m.csv")[1:], strict=True):
        assert np.array_equal(read_slice(tmp_path, row).pixels, draw_head("glioma", 0, number))


def make_volume(folder: Path) -> None:
    """A volume of 12 axial slices of heads, and a mask with 30 pixels in slices 4 to 6 and 3 pixels in slice 7."""
    import nibabel

    values = np.stack([draw_head("glioma", 0, number).T for number in range(12)], axis=2)
    mask = np.zeros_like(values)
    mask[40:45, 20:26, 4:7] = 1
    mask[40:43, 20, 7] = 1
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / "t1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "seg.nii")


def test_a_volume_with_its_mask_gives_the_slices_with_tumour(tmp_path: Path) -> None:
    make_volume(tmp_path)
    (tmp_path / "index.csv").write_text("image,label,mask,patient_id\nt1.nii.gz,glioma,seg.nii,p1\n")
    found = index_folder(tmp_path, tmp_path)
    assert [(s.frame, s.plane, s.patient_id) for s in found.samples] == [(n, "axial", "p1") for n in (4, 5, 6)]
    assert len({s.sha256 for s in found.samples}) == 3
    write_manifest(found.samples, tmp_path / "m.csv")
    for row in read_manifest(tmp_path / "m.csv"):
        mask = read_mask(tmp_path, row)
        assert mask is not None and mask.sum() == 30 and mask.shape == (row.height, row.width)
        # Stored x grows to the patient's right and y to the front: shown, both are turned round.
        assert np.array_equal(read_slice(tmp_path, row).pixels, draw_head("glioma", 0, row.frame)[::-1, ::-1])
        assert mask[::-1, ::-1][20:26, 40:45].all()


def test_a_volume_whose_mask_is_of_another_grid_or_empty(tmp_path: Path) -> None:
    import nibabel

    make_volume(tmp_path)
    for name, shape in (("small.nii", (96, 96, 11)), ("none.nii", (96, 96, 12)), ("twice.nii", (96, 96, 12, 2))):
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.diag([1.0, 1, 5, 1])), tmp_path / name)
    rows = [f"t1.nii.gz,glioma,{name}.nii" for name in ("small", "none", "twice", "gone", "seg")]
    (tmp_path / "index.csv").write_text("\n".join(["image,label,mask", *rows]))
    found = index_folder(tmp_path, tmp_path)
    assert len(found.samples) == 3
    told = ["of another grid", "no slice with 10 pixels", "12 slices, its mask twice.nii has 24", "is missing"]
    for text, says in zip(found.skipped, told, strict=True):
        assert says in text


def test_one_page_is_no_mask_of_every_page(tmp_path: Path) -> None:
    pages = [Image.fromarray(draw_head("glioma", 0, number)) for number in range(3)]
    for name, count in (("many", 3), ("masks", 3), ("one", 1)):
        pages[0].save(tmp_path / f"{name}.tif", save_all=True, append_images=pages[1:count])
    (tmp_path / "index.csv").write_text("image,label,mask\nmany.tif,glioma,one.tif\nmany.tif,glioma,masks.tif\n")
    found = index_folder(tmp_path, tmp_path)
    assert [(row.frame, row.mask) for row in found.samples] == [(number, "masks.tif") for number in range(3)]
    assert len(found.skipped) == 1 and "3 slices, its mask" in found.skipped[0] and "has 1" in found.skipped[0]


def test_a_volume_without_mask_and_many_framed_dicom(tmp_path: Path) -> None:
    import pydicom
    from pydicom.data import get_testdata_file

    (tmp_path / "glioma").mkdir()
    make_volume(tmp_path)
    (tmp_path / "t1.nii.gz").rename(tmp_path / "glioma" / "t1.nii.gz")
    dataset = pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
    stored = dataset.pixel_array
    dataset.NumberOfFrames, dataset.PatientID = "2", "Jane"
    dataset.PixelData = stored.tobytes() + (stored // 2).tobytes()
    dataset.save_as(tmp_path / "glioma" / "multi.dcm")
    salted, plain = (index_folder(tmp_path, tmp_path, salt=salt).samples for salt in (b"salt", b""))
    assert [(s.path, s.frame, s.plane) for s in plain] == [
        *[("glioma/multi.dcm", frame, "") for frame in (0, 1)],
        *[("glioma/t1.nii.gz", frame, "axial") for frame in range(12)],
    ]  # fmt: skip
    assert len({s.sha256 for s in plain}) == 14
    assert plain[0].patient_group == plain[1].patient_group != salted[0].patient_group
    whole, half = (read_slice(tmp_path, row).pixels for row in plain[:2])
    assert np.array_equal(np.sort(half, axis=None), np.sort(stored // 2, axis=None)) and whole.max() > half.max()


OLD = "path,label,patient_id,patient_group,source,mask,sha256,width,height"


def test_manifests_from_before_volumes(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"{OLD}\na.png,glioma,p,g,s,,h,3,4\n")
    assert read_manifest(tmp_path / "m.csv") == [Sample("a.png", "glioma", "p", "g", "s", "", "h", 3, 4)]


@pytest.mark.parametrize(
    ("frame", "plane", "says"),
    [("-1", "", "line 2: frame -1 is below 0"), ("1.5", "", "line 2: width, height and frame must be whole"),
     ("x", "", "line 2: width, height and frame"), ("1", "oblique", "line 2: plane 'oblique' is not one of")],
)  # fmt: skip
def test_frames_and_planes_of_a_manifest(tmp_path: Path, frame: str, plane: str, says: str) -> None:
    (tmp_path / "m.csv").write_text(f"{OLD},frame,plane\na.png,glioma,p,g,s,,h,3,4,{frame},{plane}\n")
    with pytest.raises(ManifestError, match=says):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "says"),
    [(b"image,label\na.png\n", "label ''"), ("image,label\nKöpfe.png,glioma\n".encode("latin-1"), "not UTF-8"),
     (b"image,label\na.png,cat\n", "label 'cat'"), (b"picture\n", "columns missing")],
)  # fmt: skip
def test_malformed_index_files(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "index.csv").write_bytes(text)
    with pytest.raises(ManifestError, match=says):
        index_folder(tmp_path, tmp_path)


def test_excel_marks_are_no_column_names(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text("image,label\na.png,glioma\n", encoding="utf-8-sig")
    assert len(index_folder(tmp_path, tmp_path).samples) == 1


def test_an_image_without_an_id_joins_the_patient_that_it_looks_like() -> None:
    base = Sample("", "glioma", "", "", "made", "", "", 64, 64)
    rows = [
        replace(base, path="a", patient_id="7", patient_group="made:7", sha256="a"),
        replace(base, path="b", sha256="b"),
        replace(base, path="c", sha256="c"),
    ]
    assert [row.patient_group for row in fill_groups(rows, [0, 0, 1])] == ["made:7", "made:7", "similar:1"]
