"""Answering only when sure, label sets in tables, parts of the patients, and two models on the same patients."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.made_runs import make_predictions, write_run
from tumorlens.bootstrap import PatientBootstrap
from tumorlens.cli import main
from tumorlens.data.predictions import read_predictions, write_predictions
from tumorlens.errors import RunError
from tumorlens.evaluate.answers import collect
from tumorlens.evaluate.evaluation import evaluate_predictions
from tumorlens.evaluate.kinds import wilson
from tumorlens.evaluate.pairs import compare_pair, mcnemar
from tumorlens.evaluate.selective import label_set_figures, selective_curve
from tumorlens.evaluate.subgroups import subgroups
from tumorlens.records import CLASSES, Prediction


def test_the_surest_answers_are_right_more_often() -> None:
    answers = collect(make_predictions(slices=8))
    points = selective_curve(answers, PatientBootstrap(answers.groups, 50))
    assert points[0].answered.value == 1.0
    assert points[0].accuracy.value == pytest.approx(answers.right.mean())
    half = points[-1]
    kept = answers.confidences >= half.threshold
    assert half.accuracy.value == pytest.approx(answers.right[kept].mean()) and half.accuracy.n_slices == kept.sum()
    assert half.answered.value == pytest.approx(0.5, abs=0.02)
    assert half.accuracy.value > points[0].accuracy.value + 0.1


def test_label_sets_are_counted() -> None:
    made = [
        Prediction(f"{n}.png", 0, "ok", CLASSES, (0.6, 0.3, 0.05, 0.05), sets, label="glioma", patient_group=f"p{n}")
        for n, sets in enumerate([("glioma",), ("glioma", "meningioma"), ("meningioma",), ("glioma",)])
    ]
    answers = collect(made)
    found = label_set_figures(answers, PatientBootstrap(answers.groups, 20))
    assert found is not None
    assert (found.coverage.value, found.size.value, found.single.value) == (0.75, 1.25, 0.75)
    assert list(found.by_class) == ["glioma"]
    without = collect([replace(made[0], label_set=()), *made[1:]])
    assert label_set_figures(without, PatientBootstrap(without.groups, 20)) is None


def test_parts_of_the_patients() -> None:
    made = [
        replace(item, plane=("axial", "coronal")[n % 2], tumour_share=0.01 + 0.001 * n)
        for n, item in enumerate(make_predictions())
    ]
    answers = collect(made)
    found = {(part.divided_by, part.part.split(":")[0]): part.figures for part in subgroups(answers, rounds=10)}
    assert {("Plane", "axial"), ("Tumour size", "small"), ("Source", "tcga_lgg"), ("Class", "Glioma")} <= set(found)
    assert found["Source", "figshare"]["accuracy"].value == pytest.approx(answers.of("figshare").right.mean())
    sizes = [figures["accuracy"].n_slices for (by, _), figures in found.items() if by == "Tumour size"]
    tumours = sum(item.label != "no_tumor" for item in made)
    assert sum(sizes) == tumours and max(sizes) - min(sizes) <= 1
    # One plane alone divides nothing, and a part of few patients says nothing.
    few = collect([replace(item, plane="axial", origin="") for item in made[:9]])
    assert subgroups(few, rounds=10) == []


def test_two_models_on_the_same_patients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (make_predictions(seed) for seed in (0, 1))
    pair = compare_pair(collect(first), collect(second), rounds=200)
    right = [collect(made).right.mean() for made in (first, second)]
    found = pair.differences["accuracy"]
    assert found.value == pytest.approx(right[1] - right[0]) and found.low < found.value < found.high
    same = compare_pair(collect(first), collect(first), rounds=20)
    assert all(figure.value == 0 and not figure.interval for figure in same.differences.values())
    assert same.patients is not None and same.patients.p == 1.0 and same.patients.n == 33
    with pytest.raises(RunError, match="other slices, labels, patients or classes"):
        compare_pair(collect(first), collect(second[1:]))
    folders = [str(write_run(tmp_path / name, made)) for name, made in (("a", first), ("b", second))]
    assert main(["evaluate", *folders]) == 0
    assert "McNemar" in " ".join(capsys.readouterr().out.split())


def test_two_models_of_classes_with_other_names() -> None:
    names = ("healthy", "tumour")
    made = [
        replace(item, classes=names, probabilities=(item.probabilities[2], 1 - item.probabilities[2]),
                label="healthy" if item.label == "no_tumor" else "tumour")
        for item in make_predictions()
    ]  # fmt: skip
    pair = compare_pair(collect(made), collect(made), rounds=20)
    assert pair.patients is None and pair.differences["accuracy"].value == 0


def test_a_side_without_an_answer_costs_no_other_side_its_figures() -> None:
    refused = replace(make_predictions()[0], status="refused", split="val")
    found = evaluate_predictions([*make_predictions(), refused], "mine", rounds=20)
    assert list(found.tables) == ["test"]
    assert any("1 of 1 slices in val are in no figure: 1 refused" in text for text in found.warnings)
    with pytest.raises(RunError, match="no labelled, answered predictions"):
        evaluate_predictions([refused], "mine", rounds=20)


def test_mcnemar_of_a_worked_example() -> None:
    """Discordant 6 and 1 of seven: exact two-sided p is 2 (C(7,0) + C(7,1)) / 2^7 = 0.125."""
    first = np.array([True] * 6 + [False] + [True] * 5 + [False] * 3)
    second = np.array([False] * 6 + [True] + [True] * 5 + [False] * 3)
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only, found.n) == (6, 1, 15)
    assert found.p == pytest.approx(0.125)


def test_all_right_is_not_certainty() -> None:
    """Wilson's interval of 10 of 10 (Newcombe, Stat. Med. 1998, gives 0.7225 to 1)."""
    low, high = wilson(1.0, 10)
    assert (low, high) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))
    answers = collect([item for item in make_predictions() if item.predicted == item.label])
    accuracy = selective_curve(answers, PatientBootstrap(answers.groups, 20))[0].accuracy
    assert accuracy.value == 1.0 and 0.7 < accuracy.low < 1.0


ROW = "{name},0,ok,glioma,0.7,{shares},,,{label},p1,test,x,,\n"
HEAD = "input,frame,status,predicted,confidence,p_glioma,p_meningioma,p_no_tumor,p_pituitary,label_set,message,label,"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (ROW.format(name="b", shares="nan,0.1,0.1,0.1", label="glioma"), r"line 3: probabilities are \(nan"),
        (ROW.format(name="b", shares="0.7,0.7,0.1,0.1", label="glioma"), "line 3: .* add up to 1.6 instead of 1"),
        (ROW.format(name="b", shares="-0.1,0.9,0.1,0.1", label="glioma"), "line 3: probabilities are .-0.1"),
        (ROW.format(name="b", shares=",,,", label="glioma"), "line 3: probabilities are .., allowed"),
        (ROW.format(name="b", shares="0.7,0.1,0.1,many", label="glioma"), "line 3: could not convert"),
        (ROW.format(name="b", shares="0.7,0.1,0.1,0.1", label="cyst"), "b, frame 0: label 'cyst' is none of"),
        (ROW.format(name="a", shares="0.7,0.1,0.1,0.1", label="glioma"), "a, frame 0: there twice"),
    ],
)
def test_bad_rows_are_named(row: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    good = ROW.format(name="a", shares="0.7,0.1,0.1,0.1", label="glioma")
    path.write_text(f"{HEAD}patient_group,split,source,plane,tumour_share\n{good}{row}")
    with pytest.raises(RunError, match=says):
        collect(read_predictions(path))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("input,frame,p_glioma,p_no_tumor,label_set,message\na,0,0.5,0.5,,\n")
    with pytest.raises(RunError, match="has no column 'status'"):
        read_predictions(path)


def test_one_patient_alone_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_predictions(
        [replace(item, patient_group="p") for item in make_predictions()], tmp_path / "predictions.csv", CLASSES
    )
    assert main(["evaluate", str(tmp_path)]) == 0
    assert "One patient group alone" in " ".join(capsys.readouterr().out.split())
