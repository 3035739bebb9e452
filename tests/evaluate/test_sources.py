"""Each source on its own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from tests.evaluate.made_runs import PARTS, make_predictions, write_run
from tumorlens.bootstrap import LEAST_GROUPS
from tumorlens.cli.tables import show_evaluation
from tumorlens.cli.terminal import console
from tumorlens.data.manifest import file_hash, write_manifest
from tumorlens.data.predictions import read_predictions
from tumorlens.evaluate.answers import Answers, collect
from tumorlens.evaluate.evaluation import evaluate_predictions, evaluate_run, save_metrics
from tumorlens.evaluate.report import write_report
from tumorlens.evaluate.sources import figures_by_source, none_measures
from tumorlens.records import CLASSES, Sample

NONE = CLASSES.index("no_tumor")


def test_tumours_of_a_source_agree_with_scikit_learn() -> None:
    made = make_predictions()
    found = figures_by_source(collect(made), 20)["figshare"].tumours
    part = [item for item in made if item.origin == "figshare"]
    truth = [item.label for item in part]
    said = [item.predicted for item in part]
    assert found.slices["accuracy"].value == pytest.approx(reference.accuracy_score(truth, said))
    recalls = [reference.recall_score([t == c for t in truth], [s == c for s in said]) for c in sorted(set(truth))]
    assert found.slices["balanced_accuracy"].value == pytest.approx(np.mean(recalls))
    shares = np.array([item.probabilities for item in part])
    areas = [reference.roc_auc_score([t == c for t in truth], shares[:, CLASSES.index(c)]) for c in sorted(set(truth))]
    assert found.slices["auc"].value == pytest.approx(np.mean(areas))
    assert (found.slices["auc"].n, found.slices["auc"].n_slices) == (24, 72)
    assert set(found.patients) == {"accuracy", "auc"}
    assert (found.patients["auc"].n, found.patients["auc"].n_slices) == (24, 72)


def test_tumour_against_none_agrees_with_scikit_learn() -> None:
    made = make_predictions()
    found = figures_by_source(collect(made), 20)["tcga_lgg"].against_none
    part = [item for item in made if item.origin == "tcga_lgg"]
    truth = np.array([item.label != "no_tumor" for item in part])
    said = np.array([item.predicted != "no_tumor" for item in part])
    none = np.array([item.probabilities[NONE] for item in part])
    assert found.slices["auc"].value == pytest.approx(reference.roc_auc_score(truth, 1 - none))
    assert found.slices["sensitivity"].value == pytest.approx(reference.recall_score(truth, said))
    assert found.slices["specificity"].value == pytest.approx(reference.recall_score(~truth, ~said))
    assert (found.slices["auc"].n, found.slices["auc"].n_slices) == (9, 54)
    assert (found.slices["sensitivity"].n, found.slices["sensitivity"].n_slices) == (9, 27)
    # A patient's tumour slices are one unit, those without another; the patient is drawn with both.
    units: dict[tuple[str, bool], list[float]] = {}
    for item, sick in zip(part, truth, strict=True):
        logs = np.log(item.probabilities)
        units.setdefault((item.patient_group, bool(sick)), []).append(logs)
    pooled = {unit: np.mean(logs, axis=0) for unit, logs in units.items()}
    odds = [np.logaddexp.reduce(np.delete(mean, NONE)) - mean[NONE] for mean in pooled.values()]
    assert found.patients["auc"].value == pytest.approx(reference.roc_auc_score([sick for _, sick in pooled], odds))
    assert (found.patients["auc"].n, found.patients["auc"].n_slices) == (9, 54)
    assert (found.patients["specificity"].n, found.patients["specificity"].n_slices) == (9, 27)


def test_near_certain_answers_are_still_ranked() -> None:
    """1 - p would be 1 for both tumours and tie them."""
    shares = np.array([[1 - 1e-20, 0, 1e-20, 0], [1 - 1e-19, 0, 1e-19, 0], [0.4, 0, 0.6, 0]])
    shares[1] = [1, 0, 1e-19, 0]
    answers = Answers(CLASSES, np.array([0, NONE, NONE]), shares, ("a", "b", "c"))
    assert none_measures(answers).points()["auc"] == 1


def test_a_source_of_one_kind_has_its_recall_alone() -> None:
    found = figures_by_source(collect(make_predictions()), 20)
    assert list(found) == ["brisc", "figshare", "tcga_lgg"]
    assert set(found["tcga_lgg"].tumours.slices) == {"accuracy", "type_accuracy"}  # gliomas alone
    assert set(found["tcga_lgg"].tumours.patients) == {"accuracy"}
    assert set(found["figshare"].against_none.slices) == {"sensitivity"}
    assert set(found["brisc"].against_none.slices) == {"specificity"}
    for levels in (found["brisc"].tumours, found["brisc"].against_none, found["figshare"].against_none):
        assert levels.patients == {}


def test_few_groups_have_no_figures_of_their_own() -> None:
    few = [(source, label, LEAST_GROUPS - 1 if label == "glioma" else n) for source, label, n in PARTS[3:]]
    found = figures_by_source(collect(make_predictions(parts=few)), 20)
    assert found["tcga_lgg"].tumours.slices == {} and found["tcga_lgg"].tumours.patients == {}
    assert set(found["tcga_lgg"].against_none.slices) == {"specificity"}
    assert figures_by_source(collect(make_predictions(parts=[("x", "glioma", LEAST_GROUPS - 1)])), 20) == {}
    assert "x" in figures_by_source(collect(make_predictions(parts=[("x", "glioma", LEAST_GROUPS)])), 20)
    unknown = [replace(item, origin="") for item in make_predictions()]
    assert figures_by_source(collect(unknown), 20) == {}


def test_both_levels_are_in_json_report_and_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = evaluate_predictions(make_predictions(), "both", 20)
    save_metrics(evaluation, tmp_path / "metrics.json")
    kept = json.loads((tmp_path / "metrics.json").read_text())
    source = kept["sources"]["figshare"]["tumours"]
    assert source["slices"]["accuracy"]["n_slices"] == 72 and source["patients"]["accuracy"]["n"] == 24
    auc = kept["sources"]["tcga_lgg"]["tumour_against_none"]["patients"]["auc"]
    assert auc["value"] == 1.0 and auc["low"] is None  # every draw says the same: no interval
    assert kept["splits"]["test"]["tumour_patients"] == kept["tumour_patients"]
    write_report(evaluation, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    monkeypatch.setattr(console, "width", 200)
    show_evaluation(evaluation)
    shown = capsys.readouterr().out
    figure = evaluation.sources["figshare"].tumours.patients["accuracy"]
    for text in (page, shown):
        assert "Tumours told apart (test)" in text and "Tumour against none, by source (test)" in text
        assert "24 patients, 72 slices" in text and "72 slices, 24 groups" in text
        assert "Tumour type of patients: accuracy" in text
    assert f"{figure.value:.3f}<small>{figure.low:.3f} to {figure.high:.3f}</small>" in page
    assert str(figure) in shown


def old_run(folder: Path, manifest: Path) -> Path:
    """A run of before predictions said their source."""
    made = make_predictions()
    samples = [Sample(i.source, i.label, i.patient_group, i.patient_group, i.origin, "", "", 9, 9) for i in made]
    write_manifest(samples, manifest)
    kept = {"path": str(manifest), "sha256": file_hash(manifest), "fold": None}
    write_run(folder, [replace(item, origin="") for item in made], manifest=kept)
    path = folder / "predictions.csv"
    lines = [line.rsplit(",", 4)[0] for line in path.read_text().splitlines()]
    assert lines[0].endswith(",split")
    path.write_text("\n".join(lines) + "\n")
    return folder


def test_former_runs_take_their_sources_from_an_unchanged_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "data" / "m.csv"
    run = old_run(tmp_path / "runs" / "old", manifest)
    assert {item.origin for item in read_predictions(run / "predictions.csv")} == {""}
    assert list(evaluate_run(run, 10).sources) == ["brisc", "figshare", "tcga_lgg"]
    moved = tmp_path / "runs" / "m.csv"
    manifest.rename(moved)
    assert list(evaluate_run(run, 10).sources) == ["brisc", "figshare", "tcga_lgg"]
    moved.write_text(moved.read_text() + "\n")
    assert evaluate_run(run, 10).sources == {}
