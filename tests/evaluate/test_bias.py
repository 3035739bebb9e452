"""What simple features reach beside the model, and which mistakes are shown."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.evaluate.made_runs import make_predictions, write_folds, write_run
from tumorlens.data.predictions import read_predictions, write_predictions
from tumorlens.errors import RunError
from tumorlens.evaluate.bias import SIMPLE, bias_rows
from tumorlens.evaluate.evaluation import evaluate_run
from tumorlens.evaluate.mistakes import PICTURES, confident_mistakes, picture_name
from tumorlens.evaluate.results import evaluate_folder
from tumorlens.records import CLASSES, Prediction


def guess(item: Prediction) -> Prediction:
    """Features that know the source: figshare's is glioma, TCGA's and BRISC's no tumour."""
    said = "glioma" if item.origin == "figshare" else "no_tumor"
    return replace(item, probabilities=tuple(0.7 if name == said else 0.1 for name in CLASSES))


def test_sources_told_apart_help_over_all_of_them_and_not_within_one() -> None:
    model = make_predictions()
    rows = {row.question: row for row in bias_rows(model, [guess(item) for item in reversed(model)], rounds=200)}
    assert list(rows) == [
        "Which class",
        "Tumour or none, all sources",
        "Which tumour, within figshare",
        "Tumour or none, within tcga_lgg",
    ]
    pooled, within = rows["Tumour or none, all sources"], rows["Tumour or none, within tcga_lgg"]
    # 24 of 33 tumours come from figshare: those are ranked first, TCGA's tie with all that are healthy.
    assert pooled.features.value == pytest.approx((24 + 9 / 2) / 33)
    assert within.features.value == pytest.approx(0.5)
    assert within.difference.value == pytest.approx(within.model.value - 0.5)
    assert within.difference.low == pytest.approx(within.model.low - 0.5)  # the features' 0.5 is the same in every draw
    assert rows["Which tumour, within figshare"].features.value == pytest.approx(1 / 3)
    assert rows["Which tumour, within figshare"].chance == pytest.approx(1 / 3)


def test_few_healthy_patients_give_no_auc() -> None:
    """One healthy patient beside nine with tumours: the model's own tables withhold that figure too."""
    model = make_predictions(parts=(("tcga_lgg", "glioma", 9), ("tcga_lgg", "no_tumor", 1)))
    assert [row.question for row in bias_rows(model, [guess(item) for item in model], rounds=10)] == ["Which class"]


def test_slices_without_an_answer_of_the_features_are_named() -> None:
    model = make_predictions()
    with pytest.raises(RunError, match=r"nothing there for 1 of 156 slices, first brisc/no_tumor/9_2.png"):
        bias_rows(model, [guess(item) for item in model[:-1]], rounds=10)


def test_mistakes_are_ordered_by_confidence_one_a_patient() -> None:
    model = make_predictions(seed=3)
    wrong = [item for item in model if item.predicted != item.label]
    found = confident_mistakes(model)
    assert len(found) == len({item.patient_group for item in wrong})
    assert [item.confidence for item in found] == sorted((item.confidence for item in found), reverse=True)
    assert found[0] == max(wrong, key=lambda item: item.confidence)
    for item in found:
        own = [other.confidence for other in wrong if other.patient_group == item.patient_group]
        assert item.confidence == max(own)
    assert confident_mistakes(model, most=2) == found[:2]
    assert confident_mistakes([replace(item, label="") for item in model]) == []


def test_the_report_shows_what_is_there(tmp_path: Path) -> None:
    model = make_predictions(seed=3)
    run = write_run(tmp_path / "run", model)
    evaluate_folder(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "The most confident mistakes" in page and "data:image/jpeg" not in page
    assert "Does it see tumours, or sources?" not in page
    first, second = confident_mistakes(model)[:2]
    table = page[page.index("The most confident mistakes") :]
    assert table.index(first.patient_group) < table.index(second.patient_group)
    (run / PICTURES).mkdir()
    (run / PICTURES / picture_name(second)).write_bytes(b"picture")
    write_predictions([guess(item) for item in model], run / SIMPLE, CLASSES)
    evaluate_folder(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,cGljdHVyZQ==") == 1
    assert "Does it see tumours, or sources?" in page


def test_all_folds_or_none_are_asked(tmp_path: Path) -> None:
    run = write_folds(tmp_path / "cv")
    for fold in ("fold0", "fold1"):
        tested = [item for item in read_predictions(run / fold / "predictions.csv") if item.split == "test"]
        write_predictions([guess(item) for item in tested], run / fold / SIMPLE, CLASSES)
    assert evaluate_run(run, rounds=10).bias == ()
    tested = [item for item in read_predictions(run / "fold2" / "predictions.csv") if item.split == "test"]
    write_predictions([guess(item) for item in tested], run / "fold2" / SIMPLE, CLASSES)
    rows = evaluate_run(run, rounds=10).bias
    assert rows[0].model.n_slices == 156
