import numpy as np
import pytest
from scipy.special import softmax

from tumorlens.errors import BundleError
from tumorlens.model.label_sets import COVERAGES, fit_label_sets, label_set
from tumorlens.records import CLASSES


def drawn(patients: int, slices: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Slices of patients who are easy or hard as a whole."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % 4, slices)
    shift = np.repeat(rng.normal(0, 1, (patients, 4)), slices, axis=0)
    logits = 1.8 * np.eye(4)[labels] + shift + rng.normal(0, 0.5, (patients * slices, 4))
    return softmax(logits, axis=1), labels, [f"p{n // slices}" for n in range(patients * slices)]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_one_slice_a_patient_is_plain_split_conformal(coverage: float) -> None:
    """The five lines that define it, class by class."""
    shares, labels, groups = drawn(400, 1, 0)
    found = fit_label_sets(shares, labels, groups, CLASSES).at(coverage)
    for c, name in enumerate(CLASSES):
        scores = np.sort(1 - shares[labels == c, c])
        rank = int(np.ceil(coverage * (len(scores) + 1)))
        assert found[name] == pytest.approx(1 - scores[rank - 1], abs=1e-8)


def test_mapie_agrees() -> None:
    mapie = pytest.importorskip("mapie.classification", reason="MAPIE is the reference here")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Told(ClassifierMixin, BaseEstimator):
        """A classifier that hands its input through as probabilities."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> "Told":
            self.classes_ = np.arange(4)
            self.fitted_ = True
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return np.asarray(x)

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.asarray(x).argmax(axis=1)

    shares, labels, groups = drawn(300, 1, 1)
    asked, _, _ = drawn(100, 1, 2)
    for c, name in enumerate(CLASSES):  # class-conditional: one calibration a class
        own = labels == c
        sets = mapie.SplitConformalClassifier(Told().fit(shares, labels), confidence_level=0.9, prefit=True)
        sets.conformalize(shares[own], labels[own])
        theirs = sets.predict_set(asked)[1][:, c, 0]
        threshold = fit_label_sets(shares, labels, groups, CLASSES).at(0.9)[name]
        assert np.array_equal(theirs, asked[:, c] >= threshold)


def test_every_class_is_covered_on_new_patients() -> None:
    fitted = fit_label_sets(*drawn(600, 5, 3), CLASSES).at(0.9)
    shares, labels, _ = drawn(2000, 5, 4)
    hit = np.array(
        [CLASSES[y] in label_set(row, CLASSES, fitted) for row, y in zip(shares.tolist(), labels, strict=True)]
    )
    for c in range(4):
        assert 0.86 < hit[labels == c].mean() < 0.96


def test_a_patient_weighs_the_same_however_many_slices() -> None:
    shares, labels, groups = drawn(80, 1, 5)
    again = np.concatenate([np.arange(80), np.repeat(np.arange(0, 80, 3), 7)])  # every third patient eight times
    once, more = (
        fit_label_sets(shares[rows], labels[rows], [groups[row] for row in rows], CLASSES)
        for rows in (range(80), again)
    )
    assert once.thresholds == more.thresholds


def test_too_few_patients_rule_nothing_out() -> None:
    few = fit_label_sets(*drawn(8, 10, 6), CLASSES)
    assert set(few.at(0.9).values()) == {0.0}
    assert label_set([0.97, 0.01, 0.01, 0.01], CLASSES, few.at(0.9)) == CLASSES
    empty = fit_label_sets(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), [], CLASSES)
    assert empty.thresholds["glioma"] == (0.0,) * len(COVERAGES)


def test_sets_grow_with_coverage_and_are_never_empty() -> None:
    fitted = fit_label_sets(*drawn(400, 3, 7), CLASSES)
    shares = drawn(50, 2, 8)[0]
    for row in shares.tolist():
        sizes = [len(label_set(row, CLASSES, fitted.at(coverage))) for coverage in (0.5, 0.8, 0.9, 0.99)]
        assert sizes == sorted(sizes) and sizes[0] >= 1
    with pytest.raises(BundleError, match=r"no label sets of coverage 0\.905.*0\.5 to 0\.99"):
        fitted.at(0.905)
