"""Which split the figures are of, and that a leaky one is called so by every table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tumorlens.cli.tables import show_evaluation
from tumorlens.data.predictions import write_predictions
from tumorlens.errors import RunError
from tumorlens.evaluate.evaluation import evaluate_predictions, evaluate_run, save_metrics
from tumorlens.evaluate.report import write_report
from tumorlens.records import CLASSES, Prediction

HASH = "0123456789abcdef" * 4


def predictions_of(labels: tuple[str, ...] = CLASSES, patients: int = 4) -> list[Prediction]:
    rng = np.random.default_rng(0)
    return [
        Prediction(f"{label}{n}", 0, "ok", CLASSES, tuple(rng.dirichlet(np.ones(4))), label=label,
                   patient_group=f"{label}{n}", split="test")
        for label in labels for n in range(patients)
    ]  # fmt: skip


def config(folder: Path, leaky: bool) -> None:
    split = {"assignment_sha256": HASH, "kind": "holdout", "leaky_by_slice": leaky}
    (folder / "config.json").write_text(json.dumps({"split": split}))


@pytest.mark.parametrize("leaky", [True, False])
def test_the_label_travels_from_config_to_every_table(
    tmp_path: Path, leaky: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    write_predictions(predictions_of(), tmp_path / "predictions.csv", CLASSES)
    config(tmp_path, leaky)
    evaluation = evaluate_run(tmp_path, rounds=10)
    save_metrics(evaluation, tmp_path / "metrics.json")
    kept = json.loads((tmp_path / "metrics.json").read_text())
    assert kept["split"] == {"assignment_sha256": HASH, "leaky_by_slice": leaky}
    assert any("SPLIT BY SLICE" in text for text in kept["warnings"]) == leaky
    write_report(evaluation, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert ("Split 0123456789ab, SPLIT BY SLICE." in page) == leaky
    tables = page.count("<table>")
    assert page.count("<caption>split 0123456789ab") == tables > 6
    assert page.count("<caption>split 0123456789ab, SPLIT BY SLICE") == (tables if leaky else 0)
    show_evaluation(evaluation)
    shown = " ".join(capsys.readouterr().out.split())
    titles = shown.count("split 0123456789ab")  # in the title of each table
    assert titles > 3
    assert shown.count("SPLIT BY SLICE") == (titles + 1 if leaky else 0)


def test_what_the_predictions_show_needs_no_config() -> None:
    leaky = [*predictions_of(), *(replace(item, source=f"{item.source}x", split="train") for item in predictions_of())]
    evaluation = evaluate_predictions(leaky, "leaky", 10)
    assert evaluation.leaky and evaluation.split_note == "SPLIT BY SLICE"
    assert evaluation.warnings[0].startswith("SPLIT BY SLICE: 16 of 16")
    honest = evaluate_predictions(predictions_of(), "honest", 10)
    assert not honest.leaky and honest.split_note == ""
    assert honest.to_json()["split"] == {"assignment_sha256": None, "leaky_by_slice": False}


@pytest.mark.parametrize("source", ["cost$^$", "x$\\foo$", "<i>$", "a|b"])
def test_sources_with_odd_names_are_evaluated(tmp_path: Path, source: str) -> None:
    """Between two dollars Matplotlib would read mathematics."""
    said = [replace(item, origin=source if number % 2 else "other") for number, item in enumerate(predictions_of())]
    evaluation = evaluate_predictions(said, "folder \udce9", 20)
    write_report(evaluation, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>") and "folder \\udce9" in page


@pytest.mark.parametrize("labels", [("no_tumor",), ("glioma",), ("glioma", "no_tumor")])
def test_a_source_without_every_class_is_evaluated(tmp_path: Path, labels: tuple[str, ...]) -> None:
    evaluation = evaluate_predictions(predictions_of(labels), "source", 20)
    assert set(evaluation.tables["test"].by_class) == set(labels)
    assert np.isnan(evaluation.tables["test"].overall["auc"].value) == (len(labels) == 1)
    assert np.isfinite(evaluation.tables["test"].overall["accuracy"].value)
    save_metrics(evaluation, tmp_path / "metrics.json")
    write_report(evaluation, tmp_path / "report.html")
    show_evaluation(evaluation)


@pytest.mark.parametrize("text", ["{", "[]", '{"split": 3}'])
def test_a_damaged_config_is_not_passed_over(tmp_path: Path, text: str) -> None:
    write_predictions(predictions_of(), tmp_path / "predictions.csv", CLASSES)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json: damaged"):
        evaluate_run(tmp_path, rounds=10)
