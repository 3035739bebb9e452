"""The table of a cross-validation, from made-up run folders."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from tests.evaluate.made_runs import make_predictions, write_folds, write_run
from tumorlens.cli.tables import show_evaluation
from tumorlens.data.predictions import write_predictions
from tumorlens.errors import RunError
from tumorlens.evaluate.evaluation import evaluate_run, save_metrics
from tumorlens.evaluate.folds import fold_table, mean_and_sd, save_folds
from tumorlens.evaluate.recalibrate import recalibrate
from tumorlens.evaluate.report import write_report
from tumorlens.evaluate.run_folder import read_folds
from tumorlens.evaluate.tables import overall_grid
from tumorlens.records import CLASSES


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_fold_with_mean_and_sd(tmp_path: Path) -> None:
    table = fold_table(read_folds(write_folds(tmp_path / "cv")))
    save_folds(table, tmp_path / "folds.csv")
    lines = lines_of(tmp_path / "folds.csv")
    assert [line["fold"] for line in lines] == ["0", "1", "2", "mean", "sd"]
    assert [line["epochs"] for line in lines[:3]] == ["2", "2", "2"]
    assert [line["seconds"] for line in lines] == ["20", "21", "22", "21", "1"]
    for fold in range(3):
        tested = make_predictions(which=slice(fold, None, 3))
        part = [item for item in tested if item.origin == "figshare"]
        accuracy = reference.accuracy_score([i.label for i in part], [i.predicted for i in part])
        assert float(lines[fold]["figshare:tumour_slice_accuracy"]) == pytest.approx(accuracy)
        assert int(lines[fold]["slices"]) == len(tested)
        tcga = [item for item in tested if item.origin == "tcga_lgg"]
        area = reference.roc_auc_score(
            [item.label != "no_tumor" for item in tcga], [1 - item.probabilities[2] for item in tcga]
        )
        assert float(lines[fold]["tcga_lgg:tumour_or_none_slice_auc"]) == pytest.approx(area)
    column = [float(line["figshare:tumour_patient_auc"]) for line in lines]
    assert column[3] == pytest.approx(np.mean(column[:3])) and column[4] == pytest.approx(np.std(column[:3], ddof=1))
    assert "tcga_lgg:tumour_slice_auc" not in lines[0]  # gliomas alone
    assert not any(name.startswith("brisc") for name in lines[0])


def test_what_a_fold_lacks_is_left_out_of_the_mean(tmp_path: Path) -> None:
    """Sources left out one by one: each fold has other columns; and a fold without history."""
    for name in ("figshare", "tcga_lgg"):
        tested = [item for item in make_predictions() if item.origin == name]
        write_run(tmp_path / f"fold{name}", tested, name, (5.0,) if name == "figshare" else ())
    table = fold_table(read_folds(tmp_path))
    assert table.names == ("figshare", "tcga_lgg")
    assert np.isnan(table.values("tcga_lgg:tumour_slice_accuracy")[0])
    assert table.mean("seconds") == 5 and np.isnan(table.sd("seconds"))
    kept = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert kept["rows"][1]["seconds"] is None and kept["sd"]["seconds"] is None
    save_folds(table, tmp_path / "folds.csv")
    assert lines_of(tmp_path / "folds.csv")[1]["epochs"] == ""
    assert [float(value) for value in mean_and_sd([])] == pytest.approx([np.nan, np.nan], nan_ok=True)


def test_folds_are_in_the_order_of_their_numbers_and_only_what_was_pooled(tmp_path: Path) -> None:
    made = make_predictions()
    for fold in ("10", "2", "1"):
        write_run(tmp_path / f"fold{fold}", made, fold)
    write_run(tmp_path / "fold3", [replace(item, split="train") for item in made], "3")  # nothing tested
    (tmp_path / "fold4").mkdir()  # just begun
    assert [run.fold for run in read_folds(tmp_path)] == ["1", "2", "10"]
    (tmp_path / "config.json").write_text(json.dumps({"folds": ["2"]}))
    assert [run.fold for run in read_folds(tmp_path)] == ["2"]
    assert evaluate_run(tmp_path, 10).tables["test"].overall["accuracy"].n_slices == len(made)


def test_report_terminal_and_json_have_the_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folds(tmp_path / "cv", split={"assignment_sha256": "ab" * 32, "leaky_by_slice": False})
    evaluation = evaluate_run(folder, 20)  # without predictions of its own: what the folds tested
    assert list(evaluation.tables) == ["test"] and evaluation.assignment == "ab" * 32
    assert evaluation.tables["test"].overall["accuracy"].n_slices == len(make_predictions())
    assert evaluation.patients["test"]["accuracy"].n == 33
    save_metrics(evaluation, folder / "metrics.json")
    assert len(json.loads((folder / "metrics.json").read_text())["folds"]["rows"]) == 3
    write_report(evaluation, folder / "report.html")
    page = (folder / "report.html").read_text()
    show_evaluation(evaluation)
    shown = capsys.readouterr().out
    for text in (page, shown):
        for title in ("Fold by fold", "Fold by fold, figshare", "Fold by fold, tcga_lgg", "mean ± SD"):
            assert title in text
    assert page.count("<table>") == page.count("<caption>split abababababab") > 9
    # One run alone has no such table.
    write_predictions(make_predictions(), tmp_path / "predictions.csv", CLASSES)
    alone = evaluate_run(tmp_path, 20)
    assert alone.folds is None and alone.to_json()["folds"] is None


def test_folds_that_were_taught_more_are_pooled_anew(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "cv")
    before = str(evaluate_run(folder, 20).tables["test"].overall["accuracy"])
    write_predictions(make_predictions(seed=5), folder / "predictions.csv", CLASSES)  # pooled from other answers
    assert str(evaluate_run(folder, 20).tables["test"].overall["accuracy"]) == before


def test_a_leaky_fold_labels_the_pool(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "cv", split={"assignment_sha256": "cd" * 32, "leaky_by_slice": True})
    evaluation = evaluate_run(folder, 10)
    assert evaluation.leaky and "SPLIT BY SLICE" in evaluation.warnings[0]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "cv")
    (folder / "fold1" / "history.csv").write_text("epoch,seconds\n1,soon\n")
    with pytest.raises(RunError, match=r"fold1.history\.csv: malformed row"):
        evaluate_run(folder, 10)
    (folder / "fold1" / "history.csv").unlink()
    (folder / "fold2" / "config.json").write_text('{"manifest": 3}')
    with pytest.raises(RunError, match=r"fold2.config\.json: damaged \(manifest is 3\)"):
        evaluate_run(folder, 10)


def test_patients_in_two_folds_label_the_pool_and_stop_calibration(tmp_path: Path) -> None:
    """Each fold's model learned from what the other tested."""
    folder = tmp_path / "cv"
    for fold in range(2):
        tested = [
            replace(item, source=f"{fold}/{item.source}")
            for item in make_predictions(which=slice(fold, fold + 2))  # one patient of each kind in both
        ]
        write_run(folder / f"fold{fold}", tested, str(fold))
    evaluation = evaluate_run(folder, 10)
    assert evaluation.leaky and "SPLIT BY SLICE" in evaluation.warnings[0]
    assert "unseen" not in overall_grid(evaluation).heads[1]
    with pytest.raises(RunError, match=r"5 patient groups are on two sides"):
        recalibrate(read_folds(folder), 0.9, rounds=10)


def test_a_patient_on_two_sides_of_one_fold_labels_the_pool(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "cv")
    rows = make_predictions(which=slice(0, None, 3))
    learned = [replace(item, source=f"more/{item.source}", split="train") for item in rows[:1]]
    write_predictions([*rows, *learned], folder / "fold0" / "predictions.csv", CLASSES)
    assert evaluate_run(folder, 10).leaky
