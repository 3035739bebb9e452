import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression

from tumorlens.bootstrap import PatientBootstrap
from tumorlens.evaluate import calibration
from tumorlens.evaluate.answers import Answers
from tumorlens.records import CLASSES


def said_as_it_is(factor: float, shift: float = 0.0, patients: int = 1500, slices: int = 2) -> Answers:
    """Labels drawn from the probabilities themselves, which are then told `factor` times too boldly."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1.5, (patients * slices, 4))
    true = softmax(logits, axis=1)
    labels = np.array([rng.choice(4, p=row) for row in true])
    told = softmax(factor * logits + shift * np.eye(4)[0], axis=1)
    return Answers(CLASSES, labels, told, tuple(f"p{n // slices}" for n in range(patients * slices)))


def point(metric, answers: Answers) -> float:
    return float(metric(PatientBootstrap(answers.groups, 0))[0])


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_slope_is_one_over_the_boldness(factor: float) -> None:
    answers = said_as_it_is(factor)
    found = PatientBootstrap(answers.groups, 200).estimate(calibration.calibration_slope(answers), "one")
    assert found.low < 1 / factor < found.high
    assert found.high - found.low < 0.3 / factor


def test_scores_agree_with_scikit_learn_and_by_hand() -> None:
    answers = said_as_it_is(1.5)
    assert point(calibration.log_loss(answers), answers) == pytest.approx(
        reference.log_loss(answers.labels, answers.probabilities)
    )
    truth = np.eye(4)[answers.labels]
    assert point(calibration.brier(answers), answers) == pytest.approx(
        np.mean(np.sum((answers.probabilities - truth) ** 2, axis=1))
    )


def test_class_slope_and_intercept_agree_with_logistic_regression() -> None:
    answers = said_as_it_is(1.6, shift=-0.7)
    odds = calibration.log_odds(answers, 0)
    model = LogisticRegression(C=np.inf).fit(odds[:, None], answers.labels == 0)
    assert point(calibration.class_slope(answers, 0), answers) == pytest.approx(model.coef_[0, 0], rel=1e-3)
    shift = point(calibration.calibration_in_the_large(answers, 0), answers)
    assert np.mean(expit(odds + shift)) == pytest.approx(np.mean(answers.labels == 0), abs=1e-4)
    assert shift > 0.3  # the class was told too small


def test_calibration_error_of_a_worked_example() -> None:
    """Ten answers in two bins: said 0.6 with 4 of 5 right, and 0.9 with 4 of 5 right: (0.2 + 0.1) / 2."""
    shares = np.array([[0.6, 0.4, 0, 0]] * 5 + [[0.9, 0.1, 0, 0]] * 5)
    labels = np.array([0, 0, 0, 0, 1] * 2)
    answers = Answers(CLASSES, labels, shares, tuple("abcdefghij"))
    error = calibration.expected_calibration_error(answers, calibration.even_edges(10))
    assert point(error, answers) == pytest.approx(0.15)


def test_the_interval_of_the_error_takes_out_most_of_what_chance_adds() -> None:
    """Of perfectly calibrated answers the error is above zero by chance alone, and in draws of them still more so."""
    answers = said_as_it_is(1.0, patients=300)
    error = calibration.expected_calibration_error(answers, calibration.even_shares(answers))
    draws = PatientBootstrap(answers.groups, 400)
    plain, found = draws.estimate(error, "lower"), draws.estimate(error, "lower", "basic")
    assert plain.low > 0.8 * plain.value  # nearly the whole interval lies above the value
    assert found.low < 0.4 * found.value and found.value <= found.high < plain.high


def test_reliability_bins_hold_everything_once() -> None:
    answers = said_as_it_is(2.0, patients=400)
    bins = calibration.reliability(answers, PatientBootstrap(answers.groups, 50))
    assert len(bins) == 10
    assert all(item.low < item.said <= item.high for item in bins)
    assert bins[-1].said - bins[-1].right.value > 0.03  # overconfident


def test_answers_without_a_mistake_have_no_slope() -> None:
    answers = Answers(CLASSES, np.array([0, 1, 2, 3] * 5), np.eye(4)[[0, 1, 2, 3] * 5] * 0.9 + 0.025, tuple("abcd" * 5))
    assert np.isnan(point(calibration.calibration_slope(answers), answers))
    assert np.isnan(point(calibration.class_slope(answers, 0), answers))


def test_draws_without_a_class_have_no_slope_of_it() -> None:
    """One of twenty patients has the class: a third of the draws lack it, and theirs would be where Newton began."""
    rng = np.random.default_rng(1)
    labels = np.array([1] * 9 + [0] * 171)
    shares = softmax(rng.normal(0, 1, (180, 4)) + 0.7 * np.eye(4)[labels], axis=1)
    answers = Answers(CLASSES, labels, shares, tuple(f"p{n // 9}" for n in range(180)))
    draws = PatientBootstrap(answers.groups, 500)
    slope, intercept = (
        metric(answers, 1)(draws) for metric in (calibration.class_slope, calibration.calibration_in_the_large)
    )
    assert 100 < np.isnan(intercept).sum() < 250 and np.isfinite(slope[0])
    assert np.isnan(slope[np.isnan(intercept)]).all()
    assert np.isnan(point(calibration.class_slope(answers, 2), answers))
