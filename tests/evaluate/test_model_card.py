"""The page about a model, from an evaluation and its bundle's card."""

from pathlib import Path

from tests.evaluate.made_runs import make_predictions, write_run
from tumorlens.evaluate.evaluation import evaluate_run
from tumorlens.evaluate.model_card import PAGE, write_model_card
from tumorlens.model.bundle import load_card


def test_a_set_without_patient_ids_has_a_page_too(tiny_run: Path, tmp_path: Path) -> None:
    """Images without ids, as in many public sets, are no patients: there is nothing to say of these."""
    parts = [("brisc", label, 6) for label in ("glioma", "meningioma", "no_tumor")]
    evaluation = evaluate_run(write_run(tmp_path / "run", make_predictions(parts=parts)))
    assert evaluation.tumours and not evaluation.levels.patients
    write_model_card(evaluation, load_card(tiny_run / "bundle"), tmp_path / PAGE)
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "**Tumour slices alone**" in page and "**Patients**" not in page


def test_patients_are_told_of_where_there_are_any(tiny_run: Path, tmp_path: Path) -> None:
    evaluation = evaluate_run(write_run(tmp_path / "run", make_predictions()))
    write_model_card(evaluation, load_card(tiny_run / "bundle"), tmp_path / PAGE)
    assert "**Patients**" in (tmp_path / PAGE).read_text(encoding="utf-8")
