import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.conftest import real_path
from tests.data.test_similarity import textures
from tumorlens.cli import main
from tumorlens.data.audit.bias import source_bias
from tumorlens.data.audit.findings import Audit, Match, _units, audit
from tumorlens.data.audit.recover import transferred_mask
from tumorlens.data.manifest import read_manifest, write_manifest
from tumorlens.data.readers import read_mask
from tumorlens.errors import InputError
from tumorlens.records import Sample

LABELS = ("glioma", "meningioma", "no_tumor", "pituitary")


def save(path: Path, pixels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((128, 128)).save(path)
    return path.name


def sample(path: str, label: str, group: str = "", split: str = "", sha256: str = "") -> Sample:
    patient = group.partition(":")[2]
    return Sample(path, label, patient, group, "made", "", sha256 or path, 128, 128, split)


def finding(result: Audit, check: str) -> tuple[str, str]:
    (found,) = [item for item in result.findings if item.check == check]
    return found.severity, found.summary


@pytest.fixture
def clean(tmp_path: Path) -> list[Sample]:
    """Twelve patients, one picture each, nothing shared."""
    return [
        sample(save(tmp_path / f"{number}.png", pixels), LABELS[number % 4], f"made:{number}",
               "train" if number < 8 else "test")
        for number, pixels in enumerate(textures(12)[:, 0])
    ]  # fmt: skip


def test_a_clean_set_passes(tmp_path: Path, clean: list[Sample]) -> None:
    result = audit(clean, tmp_path)
    assert not result.failed, [item for item in result.findings if item.severity == "error"]
    assert finding(result, "shared between sides") == (
        "fine", "0 of 4 test images share a patient, a copy or a near copy with another side",
    )  # fmt: skip


def test_a_mirrored_copy_across_sides_fails(tmp_path: Path, clean: list[Sample]) -> None:
    save(tmp_path / "9.png", np.ascontiguousarray(textures(12)[2, 0][:, ::-1]))
    result = audit(clean, tmp_path)
    assert result.failed
    assert finding(result, "shared between sides")[1].startswith("1 of 4 test images share")
    assert (
        finding(result, "copies between groups")[1]
        == "1 pairs of copies (1 copy; 1 turned or mirrored) in different groups"
    )
    (match,) = result.within
    assert (match.first.path, match.second.path, match.turned) == ("2.png", "9.png", "mirrored")


def test_the_same_file_and_the_same_pixels(tmp_path: Path, clean: list[Sample]) -> None:
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    Image.open(tmp_path / "2.png").save(tmp_path / "3.png", compress_level=1)
    rows = [
        sample(s.path, "glioma", s.patient_group, s.split, "one" if s.path in ("0.png", "1.png") else "") for s in clean
    ]
    kinds = {(match.first.path, match.second.path): match.kind for match in audit(rows, tmp_path).within}
    assert kinds == {("0.png", "1.png"): "same file", ("2.png", "3.png"): "same pixels"}


def test_patients_on_two_sides(tmp_path: Path, clean: list[Sample]) -> None:
    rows = [
        sample(s.path, s.label, "made:1" if s.path in ("1.png", "10.png") else s.patient_group, s.split) for s in clean
    ]
    result = audit(rows, tmp_path)
    assert finding(result, "patients on two sides") == ("error", "1 of 11 patient groups are on two sides")
    assert finding(result, "shared between sides")[1].startswith("1 of 4 test images share")


def test_copies_with_different_labels(tmp_path: Path, clean: list[Sample]) -> None:
    save(tmp_path / "5.png", textures(12)[4, 0])  # 4 is a glioma, 5 a meningioma
    result = audit(clean, tmp_path)
    assert finding(result, "copies with different labels") == ("error", "1 images whose copy has another label")


def test_copies_inside_a_group_do_no_harm(tmp_path: Path, clean: list[Sample]) -> None:
    save(tmp_path / "4.png", textures(12)[0, 0])
    rows = [sample(s.path, s.label, "made:0" if s.path == "4.png" else s.patient_group, s.split) for s in clean]
    result = audit(rows, tmp_path)
    assert not result.failed
    assert finding(result, "copies inside groups")[1] == "1 pairs of copies or near copies inside groups"


def test_bad_pictures_are_told_and_cost_nothing_else(tmp_path: Path, clean: list[Sample]) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    Image.new("L", (128, 128), 9).save(tmp_path / "1.png")
    Image.fromarray(textures(12)[2, 0][:, :20]).save(tmp_path / "2.png")
    colour = np.stack([textures(12)[3, 0], np.zeros((64, 64), np.uint8), textures(12)[3, 0] // 2], axis=2)
    Image.fromarray(colour).resize((128, 128)).save(tmp_path / "3.png")
    (tmp_path / "deep").mkdir()
    (tmp_path / "4.png").rename(tmp_path / "deep" / "6.png")
    rows = [sample("deep/6.png" if s.path == "4.png" else s.path, s.label, s.patient_group, s.split) for s in clean]
    result = audit(rows, tmp_path)
    severities = {item.check: item.severity for item in result.findings}
    assert severities["unreadable"] == severities["blank"] == "error"
    assert [severities[name] for name in ("tiny", "odd aspect", "not grey", "duplicate names")] == ["warning"] * 4
    assert finding(result, "shared between sides")[0] == "fine"


def test_source_bias_sees_a_telling_feature_and_no_other() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 10)).astype(np.float32)
    labels = ["glioma" if number % 2 else "no_tumor" for number in range(300)]
    groups = [str(number // 3) for number in range(300)]
    blind = source_bias(features, labels, groups)
    assert blind is not None
    assert not blind.tells
    features[1::2, 4] += 3  # border intensity
    told = source_bias(features, labels, groups)
    assert told is not None
    assert told.tells
    assert told.balanced_accuracy.value > 0.85
    assert told.importance[0][0] == "border intensity"
    assert source_bias(features, ["glioma"] * 300, groups) is None


@pytest.fixture(scope="module")
def kaggle_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real slices of four patients upright in Training and mirrored, reduced and re-encoded in Testing."""
    figshare = real_path("figshare")
    folder = tmp_path_factory.mktemp("kaggle")
    with (figshare / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    picked = {row["patient_group"]: row for row in rows[::40]}
    for number, row in enumerate(list(picked.values())[:8]):
        image = Image.open(figshare / row["image"]).convert("L")
        for part, turned in (("Training", image), ("Testing", ImageOps.mirror(image))):
            path = folder / part / row["label"] / f"{part[:2]}_{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            turned.resize((224, 224)).save(path, quality=70)
    return folder


@pytest.fixture(scope="module")
def figshare_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figshare") / "figshare.csv"
    from tumorlens.data.index import index_folder

    write_manifest(index_folder(real_path("figshare"), path.parent).samples[::5], path)
    return path


def test_patients_and_masks_come_back(kaggle_like: Path, figshare_manifest: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "kaggle.csv"
    assert main(["data", "index", str(kaggle_like), "--out", str(manifest)]) == 0
    assert {row.split for row in read_manifest(manifest)} == {"train", "test"}
    code = main(
        ["data", "audit", str(manifest), "--against", str(figshare_manifest), "--recover", str(tmp_path / "back")]
    )
    assert code == 1
    told = json.loads((tmp_path / "kaggle.audit" / "audit.json").read_text(), parse_constant=pytest.fail)
    summaries = {item["check"]: item["summary"] for item in told["findings"]}
    assert summaries["shared between sides"].startswith("8 of 8 test images share")
    page = (tmp_path / "kaggle.audit" / "audit.html").read_text()
    assert page.count("data:image/jpeg") >= 16
    assert "http" not in page
    rows = read_manifest(tmp_path / "back" / "manifest.csv")
    assert all(row.patient_group.startswith("figshare:") for row in rows if row.mask)
    assert sum(bool(row.mask) for row in rows) >= 14
    assert main(["data", "audit", str(manifest), "--against", str(figshare_manifest)]) == 1  # already there


def test_a_mask_lies_on_the_mirrored_tumour(kaggle_like: Path, figshare_manifest: Path, tmp_path: Path) -> None:
    from tumorlens.data.index import index_folder

    others = read_manifest(figshare_manifest)
    result = audit(index_folder(kaggle_like, tmp_path).samples, tmp_path, others, figshare_manifest.parent)
    matches = [match for match in result.recovered.values() if match.kind == "copy"]
    assert {match.turned for match in matches} == {"upright", "mirrored"}
    for match in matches:
        mask = transferred_mask(match, tmp_path, figshare_manifest.parent)
        truth = Image.open(figshare_manifest.parent / match.second.mask).convert("L")
        turned = ImageOps.mirror(truth) if match.turned == "mirrored" else truth
        wanted = np.asarray(turned.resize((224, 224))) > 127
        dice = 2 * (mask & wanted).sum() / (mask.sum() + wanted.sum())
        assert dice > 0.9, (match.first.path, match.second.path, dice)


def test_recover_needs_a_set_that_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "audit", str(tmp_path / "m.csv"), "--recover", str(tmp_path / "x")]) == 1
    assert "--recover needs --against" in capsys.readouterr().err


def test_a_folder_that_is_no_audit_is_kept(tmp_path: Path, clean: list[Sample]) -> None:
    write_manifest(clean, tmp_path / "m.csv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    call = ["data", "audit", str(tmp_path / "m.csv"), "--out", str(tmp_path / "mine"), "--overwrite"]
    assert main(call) == 1
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_near_copy_of_the_other_set_joins_no_patients_that_are_known(tmp_path: Path, clean: list[Sample]) -> None:
    """It may be of another head; a copy is not."""
    other = sample("9.png", "glioma", "other:1", "", "")
    for kind, shared in (("near copy", False), ("copy", True)):
        recovered = {number: Match(clean[number], other, kind, 0.85, 0, foreign=True) for number in (0, 9)}
        units = _units(clean, [], recovered)
        assert (units[0] == units[9]) is shared


def test_a_mask_of_one_page_is_of_its_row_whatever_the_frame(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((40, 40), value, dtype=np.uint8)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "volume.tif", save_all=True, append_images=pages[1:])
    drawn = np.zeros((40, 40), dtype=np.uint8)
    drawn[5:9, 5:9] = 255
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    row = replace(sample("volume.tif", "glioma"), frame=2, mask="mask.png", width=40, height=40)
    mask = read_mask(tmp_path, row)
    assert mask is not None and mask.sum() == 16
    Image.fromarray(drawn).save(tmp_path / "mask.jpg", quality=60)  # leaves traces around the outline
    mask = read_mask(tmp_path, replace(row, mask="mask.jpg"))
    assert mask is not None and np.array_equal(mask, drawn > 0)
    masks = [Image.fromarray(np.zeros((40, 40), dtype=np.uint8)) for _ in range(2)]
    masks[0].save(tmp_path / "masks.tif", save_all=True, append_images=masks[1:])
    with pytest.raises(InputError, match="no page 2 in it"):
        read_mask(tmp_path, replace(row, mask="masks.tif"))
