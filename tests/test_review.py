"""Looking at the tested images again: mistakes with pictures, simple features, and the tumours' sizes."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs the extra `train`")

from tumorlens.cli import main
from tumorlens.data.manifest import file_hash, read_manifest, write_manifest
from tumorlens.data.predictions import read_predictions, write_predictions
from tumorlens.evaluate.bias import SIMPLE
from tumorlens.evaluate.mistakes import PICTURES, confident_mistakes, picture_name
from tumorlens.explain.overlay import OUTLINE
from tumorlens.records import CLASSES
from tumorlens.review import HEIGHT, review, side_by_side


@pytest.fixture
def reviewed(tiny_run: Path, drawn_manifest: Path, tmp_path: Path) -> Path:
    """The small run with two wrong answers; its manifest has a mask for one of them."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    samples = read_manifest(drawn_manifest)
    tested = [item.path for item in samples if item.split == "test"]
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[24:48, 24:48] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    root = drawn_manifest.parent
    moved = [
        replace(item, path=str(root / item.path), mask=str(tmp_path / "mask.png") if item.path == tested[0] else "")
        for item in samples
    ]
    write_manifest(moved, tmp_path / "manifest.csv")
    config = (run / "config.json").read_text()
    config = config.replace(str(drawn_manifest), str(tmp_path / "manifest.csv"))
    (run / "config.json").write_text(config.replace(file_hash(drawn_manifest), file_hash(tmp_path / "manifest.csv")))
    said = []
    for item in read_predictions(run / "predictions.csv"):
        wrong = [
            0.9 if name != item.label and name == CLASSES[item.label == CLASSES[0]] else 0.1 / 3 for name in CLASSES
        ]
        shares = tuple(wrong) if item.source in tested[:1] + tested[5:6] else item.probabilities
        said.append(replace(item, source=str(root / item.source), probabilities=shares))
    write_predictions(said, run / "predictions.csv", CLASSES)
    return run


def test_a_run_is_reviewed_at_the_end_of_training(tiny_run: Path) -> None:
    tested = [item for item in read_predictions(tiny_run / "predictions.csv") if item.split == "test"]
    simple = read_predictions(tiny_run / SIMPLE)
    assert [item.source for item in simple] == [item.source for item in tested]
    assert {item.split for item in simple} == {"test"}
    assert simple[0].probabilities != tested[0].probabilities
    assert "Does it see tumours, or sources?" in (tiny_run / "report.html").read_text(encoding="utf-8")


def test_mistakes_get_pictures_and_tumours_their_size(reviewed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (reviewed / PICTURES).mkdir(exist_ok=True)
    (reviewed / PICTURES / "former.jpg").write_bytes(b"of an earlier review")
    assert main(["review", str(reviewed)]) == 0
    assert "Which class" in capsys.readouterr().out
    rows = read_predictions(reviewed / "predictions.csv")
    sizes = [item.tumour_share for item in rows if not math.isnan(item.tumour_share)]
    assert sizes == [pytest.approx(1 / 16)]
    mistakes = confident_mistakes(item for item in rows if item.split == "test")
    assert len(mistakes) >= 2
    drawn = {path.name for path in (reviewed / PICTURES).iterdir()}
    assert drawn == {picture_name(item) for item in mistakes}
    with Image.open(reviewed / PICTURES / picture_name(mistakes[0])) as picture:
        assert picture.size == (2 * HEIGHT + 4, HEIGHT)
    assert (reviewed / "report.html").read_text(encoding="utf-8").count("data:image/jpeg") == len(mistakes)


def test_the_outline_runs_along_the_mask() -> None:
    mask = np.zeros((110, 110), dtype=bool)
    mask[20:50, 30:60] = True
    grey = Image.new("RGB", (110, 110), (50, 50, 50))
    panel = np.asarray(side_by_side(grey, grey, mask))
    drawn = (panel[:, :HEIGHT] == OUTLINE).all(axis=2)
    assert np.argwhere(drawn).min(axis=0).tolist() == [40, 60]
    assert np.argwhere(drawn).max(axis=0).tolist() == [99, 119]
    assert not drawn[50:90, 70:110].any()  # the tumour itself stays visible
    assert (panel[:, HEIGHT + 4 :] == panel[:, :HEIGHT]).all()
    assert not (np.asarray(side_by_side(grey, grey, None)) == OUTLINE).all(axis=2).any()


def test_a_run_without_its_manifest_says_so(reviewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.csv").unlink()
    assert main(["review", str(reviewed)]) == 1
    assert "the manifest that it was made from is gone or was changed" in capsys.readouterr().err


def test_folds_are_reviewed_one_by_one_and_pooled(reviewed: Path, tmp_path: Path) -> None:
    folds = tmp_path / "cv"
    answers = read_predictions(reviewed / "predictions.csv")
    # The second fold has the sides the other way round: what the first tested it has learned from.
    turned = [replace(item, split={"test": "train", "train": "test"}.get(item.split, item.split)) for item in answers]
    for number, said in enumerate((answers, turned)):
        shutil.copytree(reviewed, folds / f"fold{number}")
        write_predictions(said, folds / f"fold{number}" / "predictions.csv", CLASSES)
    tested = [item for said in (answers, turned) for item in said if item.split == "test"]
    write_predictions(tested, folds / "predictions.csv", CLASSES)
    review(folds)
    pooled = read_predictions(folds / "predictions.csv")
    assert [item.source for item in pooled] == [item.source for item in tested]
    assert sum(not math.isnan(item.tumour_share) for item in pooled) == 1
    assert (folds / "fold0" / SIMPLE).is_file() and not (folds / SIMPLE).exists()
