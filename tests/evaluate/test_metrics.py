import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from tests.evaluate.made_runs import write_run
from tumorlens.bootstrap import PatientBootstrap, mean, share
from tumorlens.cli import main
from tumorlens.data.predictions import read_predictions, write_predictions
from tumorlens.errors import RunError
from tumorlens.evaluate.answers import Answers, collect
from tumorlens.evaluate.evaluation import evaluate_predictions, evaluate_run
from tumorlens.evaluate.kinds import share_estimate, wilson
from tumorlens.evaluate.metrics import tabulate, tumour_figures
from tumorlens.evaluate.patients import patient_figures
from tumorlens.evaluate.report import write_report
from tumorlens.records import CLASSES, Prediction


def make_answers(patients: int = 40, slices: int = 6, seed: int = 0) -> Answers:
    """Answers in which a patient's slices fail together, as they do in life."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 4, patients), slices)
    shift = np.repeat(rng.normal(0, 1.2, (patients, 4)), slices, axis=0)
    logits = 2.0 * np.eye(4)[labels] + shift + rng.normal(0, 0.5, (patients * slices, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Answers(CLASSES, labels, shares, tuple(f"p{n // slices}" for n in range(patients * slices)))


def as_predictions(answers: Answers, split: str = "test") -> list[Prediction]:
    return [
        Prediction(
            f"{split}{n}.png",
            0,
            "ok",
            CLASSES,
            tuple(row),
            label=CLASSES[label],
            patient_group=f"{split}{group}",
            split=split,
        )
        for n, (row, label, group) in enumerate(zip(answers.probabilities, answers.labels, answers.groups, strict=True))
    ]


def test_every_figure_agrees_with_scikit_learn() -> None:
    answers = make_answers()
    table = tabulate(answers, rounds=20)
    truth, said = answers.labels, answers.predicted
    assert table.overall["accuracy"].value == pytest.approx(reference.accuracy_score(truth, said))
    assert table.overall["balanced_accuracy"].value == pytest.approx(reference.balanced_accuracy_score(truth, said))
    assert table.overall["f1"].value == pytest.approx(reference.f1_score(truth, said, average="macro"))
    assert table.overall["log_loss"].value == pytest.approx(reference.log_loss(truth, answers.probabilities))
    assert table.overall["auc"].value == pytest.approx(
        reference.roc_auc_score(truth, answers.probabilities, multi_class="ovr")
    )
    assert np.array_equal(table.confusion, reference.confusion_matrix(truth, said))
    assert sum(table.by_class[name]["sensitivity"].n_slices for name in CLASSES) == len(truth)
    assert sum(table.by_class[name]["sensitivity"].n for name in CLASSES) == 40
    for number, name in enumerate(CLASSES):
        own = table.by_class[name]
        assert own["sensitivity"].value == pytest.approx(reference.recall_score(truth == number, said == number))
        assert own["specificity"].value == pytest.approx(reference.recall_score(truth != number, said != number))
        assert own["ppv"].value == pytest.approx(reference.precision_score(truth == number, said == number))
        assert own["f1"].value == pytest.approx(reference.f1_score(truth == number, said == number))


def test_what_is_the_same_in_every_draw_has_no_interval() -> None:
    draws = PatientBootstrap([f"p{n % 9}" for n in range(36)], 200)
    for values in (np.zeros(36), np.full(36, 0.1), np.full(36, 1 / 3), np.tile([1.0] * 9 + [0.0] * 9, 2)):
        assert draws.estimate(mean(values)).interval == ""
    assert draws.estimate(mean(np.arange(36) % 9)).interval != ""


def test_intervals_resample_patients_not_slices() -> None:
    """With slices that fail together the interval must be about as wide as if each patient had one slice."""
    answers = make_answers(patients=60, slices=10)
    hits = answers.labels == answers.predicted
    by_patient = tabulate(answers, rounds=500).overall["accuracy"]
    shares = hits.reshape(60, 10).mean(axis=1)
    width = 2 * 1.96 * shares.std(ddof=1) / np.sqrt(60)
    assert by_patient.high - by_patient.low == pytest.approx(width, rel=0.2)
    by_slice = PatientBootstrap([str(n) for n in range(600)], 500).estimate(share(hits))
    assert by_patient.high - by_patient.low > 1.7 * (by_slice.high - by_slice.low)
    assert (by_patient.n, by_patient.n_slices) == (60, 600)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        patient = rng.beta(8, 2, 50)  # true mean accuracy 0.8
        hits = rng.random((50, 4)) < patient[:, None]
        groups = [str(n) for n in range(50) for _ in range(4)]
        found = PatientBootstrap(groups, 300, seed).estimate(share(hits.ravel()))
        covered += found.low <= 0.8 <= found.high
    assert covered >= 51  # 95 % of 60 is 57; 51 has a probability below 1 % if the interval is right


def test_a_tumour_called_healthy_is_wrong() -> None:
    shares = np.array(
        [
            [0.1, 0.1, 0.7, 0.1],
            [0.8, 0.1, 0.05, 0.05],
            [0.1, 0.8, 0.05, 0.05],
            [0.0, 0.0, 1.0, 0.0],
            [0, 0, 0, 1.0],
        ]
    )
    answers = Answers(CLASSES, np.array([0, 0, 1, 2, 3]), shares, ("a", "b", "c", "d", "e"))
    assert tumour_figures(answers, rounds=10)["accuracy"].value == pytest.approx(3 / 4)
    assert tumour_figures(answers, rounds=10)["accuracy"].n == 4


def test_missing_classes_are_undefined_not_wrong() -> None:
    answers = make_answers().only(["glioma"])
    table = tabulate(answers, rounds=10)
    assert np.isnan(table.overall["auc"].value)
    assert set(table.by_class) == {"glioma"}


def test_predictions_round_trip(tmp_path: Path) -> None:
    written = [
        *(replace(item, origin="figshare") for item in as_predictions(make_answers(5, 2))),
        Prediction("bad.png", 0, "error", CLASSES, message="damaged, truly"),
    ]
    write_predictions(written, tmp_path / "p.csv", CLASSES)
    read = read_predictions(tmp_path / "p.csv")
    assert [(r.source, r.status, r.label, r.message, r.predicted, r.origin) for r in read] == [
        (w.source, w.status, w.label, w.message, w.predicted, w.origin) for w in written
    ]
    assert np.allclose(read[0].probabilities, written[0].probabilities, rtol=1e-8, atol=0)
    assert np.isnan(read[-1].confidence)


def test_a_slice_split_is_called_by_its_name() -> None:
    answers = make_answers(10, 4)
    tested = as_predictions(answers, "test")
    leaky = [*tested, *(replace(item, source=f"{item.source}x", split="train") for item in tested)]
    assert "SPLIT BY SLICE: 10 of 10" in evaluate_predictions(leaky, "leaky", 10).warnings[0]
    honest = [*as_predictions(answers, "test"), *as_predictions(answers, "train")]
    assert evaluate_predictions(honest, "honest", 10).warnings == ()


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no predictions there"):
        evaluate_run(tmp_path)
    with pytest.raises(RunError, match="no labelled"):
        collect([Prediction("a", 0, "ok", CLASSES, (1, 0, 0, 0))])
    (tmp_path / "predictions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match="not a table of predictions"):
        evaluate_run(tmp_path)


def test_metrics_json_and_report_of_a_run(tiny_run: Path) -> None:
    figures = json.loads((tiny_run / "metrics.json").read_text())
    assert figures["schema_version"] == 3
    assert set(figures["splits"]) == {"train", "val", "test"}
    page = (tiny_run / "report.html").read_text()
    assert "Not a medical device" in page
    assert page.count("<svg") >= 7  # confusion, ROC, precision and recall, training, reliability, selective, subgroups
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "<script" not in page


def test_names_in_reports_are_escaped(tmp_path: Path) -> None:
    evaluation = evaluate_predictions(as_predictions(make_answers(8, 2)), "<script>alert(1)</script>", 10)
    write_report(evaluation, tmp_path / "r.html")
    assert "<script>alert" not in (tmp_path / "r.html").read_text()


def test_what_no_figure_counts_is_said() -> None:
    items = as_predictions(make_answers())
    told = [replace(items[0], status="refused"), replace(items[1], status="error"), replace(items[2], label="")]
    found = evaluate_predictions([*told, *items[3:]], "part", 10)
    assert f"3 of {len(items)} slices in test are in no figure: 1 refused, 1 not readable, 1 without a label." in (
        found.warnings
    )


@pytest.mark.parametrize(("column", "value"), [("status", "OK"), ("split", "holdout")])
def test_words_that_mean_nothing_here_are_refused(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(as_predictions(make_answers(patients=4)), path, CLASSES)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[1][column] = value
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(RunError, match=rf"line 3: {column} is '{value}', allowed are"):
        read_predictions(path)


def test_a_share_of_all_counts_the_patients_who_speak() -> None:
    """Three patients of one class, all right: Wilson's interval is of three, however many others there are."""
    answers = make_answers(patients=40)
    few = answers.labels == answers.labels[0]
    few &= np.isin(answers.groups, sorted({g for g, mine in zip(answers.groups, few, strict=True) if mine})[:3])
    draws = PatientBootstrap(answers.groups, 50)
    found = share_estimate(draws, "sensitivity", np.ones(len(answers), dtype=bool), few)
    assert (found.low, found.high) == wilson(1.0, 3) and found.n == 3


def test_a_table_alone_gets_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_predictions(as_predictions(make_answers(patients=8)), tmp_path / "mine.csv", CLASSES)
    assert main(["evaluate", str(tmp_path / "mine.csv")]) == 0
    assert (tmp_path / "mine" / "report.html").is_file()
    assert main(["evaluate", str(tmp_path / "mine" / "predictions.csv")]) == 0
    (tmp_path / "other").mkdir()
    shutil.copyfile(tmp_path / "mine.csv", tmp_path / "other.csv")
    assert main(["evaluate", str(tmp_path / "other.csv")]) == 1
    assert "in the way of the report" in capsys.readouterr().err
    run = write_run(tmp_path / "run", as_predictions(make_answers(patients=8, seed=1)), fold="0")
    before = (run / "predictions.csv").read_bytes()
    shutil.copyfile(tmp_path / "mine.csv", tmp_path / "run.csv")
    assert main(["evaluate", str(tmp_path / "run.csv")]) == 1
    assert (run / "predictions.csv").read_bytes() == before  # a run's answers are not replaced


def test_a_draw_without_a_class_says_nothing_of_its_f1() -> None:
    """One patient of a class, and two others called so: draws without that patient are no F1 of 0."""
    labels = np.array([3] + [0] * 30)
    said = labels.copy()
    said[1:3] = 3
    answers = Answers(CLASSES, labels, np.eye(4)[said] * 0.96 + 0.01, tuple(f"p{n}" for n in range(31)))
    figures = tabulate(answers, rounds=200)
    assert figures.by_class["pituitary"]["f1"].low > 0.25
    assert figures.overall["f1"].low > 0.5


def test_a_model_that_knows_one_type_has_no_figures_of_types() -> None:
    classes = ("glioma", "no_tumor")
    answers = Answers(classes, np.array([0, 0, 1, 1]), np.full((4, 2), 0.5), ("a:1", "a:2", "a:3", "a:4"))
    assert "type_accuracy" not in tumour_figures(answers, 10)
    assert patient_figures(answers, 10) == {}
