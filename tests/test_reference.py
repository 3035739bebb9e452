"""The model that ships: whole, documented, and better than the floor that the project promises."""

import csv

import pytest

from tests.conftest import real_path
from tumorlens.data.readers import read_slices
from tumorlens.examples import EXAMPLES
from tumorlens.model.bundle import ONNX, load_card
from tumorlens.pipeline import BATCH, REFERENCE, Explained
from tumorlens.records import CLASSES
from tumorlens.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(REFERENCE)


def test_it_is_whole_and_says_what_it_is() -> None:
    card = load_card(REFERENCE, needs=ONNX)
    assert card.classes == CLASSES
    assert "commercial" in card.licence
    assert card.metrics["overall"]["accuracy"]["low"] < card.metrics["overall"]["accuracy"]["high"]
    text = (REFERENCE / "MODEL_CARD.md").read_text()
    accuracy = card.metrics["tumour_classes"]["accuracy"]
    assert f"{accuracy['value']:.3f} ({accuracy['low']:.3f} to {accuracy['high']:.3f})" in text
    licence = (REFERENCE / "LICENSE").read_text()
    assert "non-commercial" in licence and "NO WARRANTIES" in licence


def test_examples_are_answered_with_a_map(predictor: Predictor) -> None:
    refused = set()
    for example in EXAMPLES:
        for picture in read_slices(example.path)[::7]:
            item = Explained(predictor.predict([picture])[0], picture)
            if item.answer.evidence is None:
                refused.add(example.key)
                continue
            assert item.heatmap().shape == picture.pixels.shape
            assert item.heatmap().max() > 0
    assert refused == {"cartoon"}


def test_a_drawn_lesion_is_never_plainly_called_tumour_free(predictor: Predictor) -> None:
    lesions = [example for example in EXAMPLES if example.key in ("ring_lesion", "convexity_mass", "sellar_mass")]
    for example in lesions:
        found = predictor.predict([read_slices(example.path)[0]])[0].prediction
        assert found.probabilities
        assert (found.status, found.predicted) != ("ok", "no_tumor")


def test_it_knows_tumours_of_patients_it_never_saw(predictor: Predictor) -> None:
    """A smoke test on patients that it was not trained on; the figures with intervals are in the card."""
    folder = real_path("figshare")
    unseen = (REFERENCE / "UNSEEN_PATIENTS.txt").read_text().split()
    rows = [r for r in csv.DictReader((folder / "index.csv").open()) if f"figshare:{r['patient_group']}" in unseen]
    assert len({row["patient_group"] for row in rows}) >= 15
    right = []
    for start in range(0, len(rows), 5 * BATCH):  # every fifth batch is enough here
        part = rows[start : start + BATCH]
        answers = predictor.predict([read_slices(folder / row["image"])[0] for row in part])
        right += [a.prediction.predicted == r["label"] for a, r in zip(answers, part, strict=True)]
    assert sum(right) / len(right) > 0.75
