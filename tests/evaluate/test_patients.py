"""Patients: their slices are pooled, asked for the tumour type alone, and drawn together."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn import metrics as reference

from tests.evaluate.made_runs import make_predictions
from tumorlens.bootstrap import PatientBootstrap, share
from tumorlens.evaluate.answers import TUMOURS, Answers, collect, restrict
from tumorlens.evaluate.evaluation import evaluate_predictions, save_metrics
from tumorlens.evaluate.metrics import tumour_figures
from tumorlens.evaluate.patients import is_patient, patient_figures, patient_slices, pool
from tumorlens.records import CLASSES


def answers_of(rows: list[tuple[str, str, tuple[float, ...]]]) -> Answers:
    """Answers from (patient group, label, probabilities)."""
    return Answers(
        CLASSES,
        np.array([CLASSES.index(label) for _, label, _ in rows]),
        np.array([shares for _, _, shares in rows]),
        tuple(group for group, _, _ in rows),
    )


def test_pooling_is_the_mean_logit() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (7, 4))
    groups = ["a", "b", "a", "b", "a", "a", "b"]
    pooled = pool(
        answers_of([(g, "glioma", tuple(row)) for g, row in zip(groups, softmax(logits, axis=1), strict=True)])
    )
    assert pooled.groups == ("a", "b")
    for number, group in enumerate("ab"):
        mean = logits[[own == group for own in groups]].mean(axis=0)
        assert np.allclose(np.log(pooled.probabilities[number]), log_softmax(mean))


def test_a_patient_is_asked_for_each_label() -> None:
    """Tumour and tumour-free slices of one person are two units of one patient."""
    rows = [("a", "glioma", (0.7, 0.1, 0.1, 0.1)), ("a", "no_tumor", (0.1, 0.1, 0.7, 0.1))]
    pooled = pool(answers_of([*rows, *rows]))
    assert pooled.groups == ("a", "a") and pooled.labels.tolist() == [0, 2]
    assert pooled.predicted.tolist() == [0, 2]


def test_certain_answers_stay_finite() -> None:
    """A probability of 0 is a logit far away, not minus infinity: other slices can still be heard together."""
    zero = [("a", "glioma", (0.0, 0.0, 0.0, 1.0)), ("a", "glioma", (1.0, 0.0, 0.0, 0.0))]
    pooled = pool(answers_of([*zero, ("a", "glioma", (0.6, 0.2, 0.1, 0.1))]))
    assert np.isfinite(pooled.probabilities).all() and pooled.probabilities.sum() == pytest.approx(1)
    assert pooled.predicted.tolist() == [0]
    lost = restrict(answers_of([("a", "glioma", (0.0, 0.0, 1.0, 0.0))]), TUMOURS)
    assert lost.probabilities == pytest.approx(np.full((1, 3), 1 / 3))


def test_the_type_is_asked_of_tumour_slices_and_tumour_classes_alone() -> None:
    rows = [
        ("a", "glioma", (0.2, 0.1, 0.7, 0.0)),  # overlooked, but rather a glioma
        ("a", "no_tumor", (0.0, 0.9, 0.1, 0.0)),  # a slice without tumour has no say
        ("b", "meningioma", (0.5, 0.4, 0.0, 0.1)),  # two slices that are right outvote one that is wrong
        ("b", "meningioma", (0.1, 0.8, 0.0, 0.1)),
        ("b", "meningioma", (0.2, 0.7, 0.0, 0.1)),
        ("c", "pituitary", (0.5, 0.0, 0.1, 0.4)),
        ("similar:4", "pituitary", (0.0, 0.0, 0.0, 1.0)),  # no patient
        ("file:x.png", "glioma", (1.0, 0.0, 0.0, 0.0)),
    ]
    figures = patient_figures(answers_of(rows), rounds=20)
    assert figures["accuracy"].value == pytest.approx(2 / 3)
    assert (figures["accuracy"].n, figures["accuracy"].n_slices) == (3, 5)
    slices = tumour_figures(answers_of(rows), rounds=20)
    assert slices["accuracy"].value == pytest.approx(4 / 7)  # the overlooked one is wrong here
    assert slices["type_accuracy"].value == pytest.approx(5 / 7)


def test_patient_figures_agree_with_scikit_learn() -> None:
    answers = collect(make_predictions())
    pooled = pool(restrict(patient_slices(answers, TUMOURS), TUMOURS))
    assert pooled.classes == TUMOURS and len(pooled) == 33
    figures = patient_figures(answers, rounds=20)
    assert figures["accuracy"].value == pytest.approx(reference.accuracy_score(pooled.labels, pooled.predicted))
    expected = reference.roc_auc_score(pooled.labels, pooled.probabilities, multi_class="ovr")
    assert figures["auc"].value == pytest.approx(expected)
    assert 0.5 < expected < 1


def test_the_interval_draws_patients() -> None:
    answers = collect(make_predictions())
    pooled = pool(restrict(patient_slices(answers, TUMOURS), TUMOURS))
    hits = pooled.labels == pooled.predicted
    figure = patient_figures(answers, rounds=300)["accuracy"]
    drawn = PatientBootstrap(pooled.groups, 300).estimate(share(hits))
    assert (figure.low, figure.high) == (drawn.low, drawn.high)
    assert figure.low < figure.value < figure.high


def test_one_type_has_no_auc_and_no_patients_have_nothing() -> None:
    answers = collect(make_predictions())
    assert set(patient_figures(answers.only(["glioma"]), 10)) == {"accuracy"}
    assert set(tumour_figures(answers.only(["glioma"]), 10)) == {"accuracy", "type_accuracy"}
    assert patient_figures(answers.of("brisc"), 10) == {}
    assert patient_figures(answers.only(["no_tumor"]), 10) == {}
    assert len(pool(answers.only([]))) == 0


def test_images_without_a_group_are_no_patients() -> None:
    made = [replace(item, patient_group="") for item in make_predictions()]
    answers = collect(made)
    assert not any(map(is_patient, answers.groups)) and len(set(answers.groups)) == len(made)
    evaluation = evaluate_predictions(made, "ungrouped", 10)
    assert evaluation.patients == {"test": {}}
    assert len(evaluation.warnings) == 1 and "no patient group" in evaluation.warnings[0]


@pytest.mark.parametrize("labels", [("glioma",), ("no_tumor",), ("glioma", "no_tumor")])
def test_one_patient_alone_is_evaluated(tmp_path: Path, labels: tuple[str, ...]) -> None:
    made = make_predictions(parts=[("tcga_lgg", label, 1) for label in labels])
    evaluation = evaluate_predictions(made, "one", 20)
    save_metrics(evaluation, tmp_path / "metrics.json")
    kept = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert kept["splits"]["test"]["overall"]["auc"]["value"] is None or len(labels) == 2
    assert ("accuracy" in kept["tumour_patients"]) == ("glioma" in labels)
    assert kept["sources"] == {}  # too few groups
    assert all(math.isfinite(item.value) for item in evaluation.patients["test"].values())
