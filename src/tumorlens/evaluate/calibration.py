"""Do probabilities mean what they say? Proper scores, calibration errors, slope and intercept.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (expected calibration error); Cox, Two further
applications of a model for binary regression, Biometrika 1958, and Van Calster et al., Calibration: the Achilles heel
of predictive analytics, BMC Medicine 2019 (slope and intercept).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from tumorlens.bootstrap import Metric, PatientBootstrap, Values, mean, ratio
from tumorlens.evaluate.answers import Answers
from tumorlens.evaluate.kinds import share_estimate
from tumorlens.records import Estimate

BINS = 15
#: Slopes and intercepts looked at; those of data that a line parts without error lie beyond and are undefined.
_SLOPES = np.geomspace(0.02, 50, 600)
_INTERCEPTS = np.linspace(-12, 12, 600)


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose confidence lies in (`low`, `high`]: `said` on average, and the share that was right."""

    low: float
    high: float
    said: float
    right: Estimate


def log_loss(answers: Answers) -> Metric:
    """The mean of minus the logarithm of the true class's probability."""
    return mean(-_own(answers.log_probabilities, answers.labels))


def brier(answers: Answers) -> Metric:
    """The mean squared distance of the probabilities from the truth, summed over classes: 0 to 2."""
    truth = np.eye(len(answers.classes))[answers.labels]
    return mean(((answers.probabilities - truth) ** 2).sum(axis=1))


def expected_calibration_error(answers: Answers, edges: NDArray[np.float64]) -> Metric:
    """The mean gap between confidence and accuracy over bins of confidence, weighted by their size.

    Chance makes gaps, so the value lies above the truth, the more so with few slices a bin, and even of perfect answers
    its interval need not reach zero. The slope has no such bias.

    Args:
        answers: n slices.
        edges: (bins + 1,) rising; the bins are (low, high].
    """
    member = _binned(answers, edges)
    gaps = np.zeros((len(answers), len(edges) - 1))
    gaps[np.arange(len(answers)), member] = answers.right - answers.confidences

    def error(draws: PatientBootstrap) -> Values:
        return ratio(np.abs(draws.totals(gaps)).sum(axis=1), draws.totals(np.ones(len(answers))))

    return error


def even_edges(bins: int = BINS) -> NDArray[np.float64]:
    """Edges of bins of equal width."""
    return np.linspace(0.0, 1.0, bins + 1)


def even_shares(answers: Answers, bins: int = BINS) -> NDArray[np.float64]:
    """Edges of bins with about equally many slices each (fewer where confidences are tied), from 0 to 1."""
    inner = np.quantile(answers.confidences, np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(np.concatenate([[0.0], inner, [1.0]]))


def reliability(answers: Answers, draws: PatientBootstrap, bins: int = 10) -> list[ReliabilityBin]:
    """The bins of a reliability diagram that have answers, each with about equally many."""
    edges = even_shares(answers, bins)
    member = _binned(answers, edges)
    found = []
    for number in range(len(edges) - 1):
        inside = member == number
        if inside.any():
            said = float(answers.confidences[inside].mean())
            right = share_estimate(draws, "accuracy", answers.right, inside)
            found.append(ReliabilityBin(float(edges[number]), float(edges[number + 1]), said, right))
    return found


def calibration_slope(answers: Answers) -> Metric:
    """The factor on the logits of all classes that fits the labels best: 1 is right, below 1 is overconfident.

    It is one over the temperature that would still be needed.
    """
    logits = answers.log_probabilities - answers.log_probabilities.max(axis=1, keepdims=True)
    own = _own(logits, answers.labels)

    def slope(draws: PatientBootstrap) -> Values:
        # The derivative of the log loss by the slope rises with it, and is a sum over patients: where is it zero?
        pulls = np.stack([(softmax(b * logits, axis=1) * logits).sum(axis=1) - own for b in _SLOPES], axis=1)
        return np.exp(_crossing(draws.totals(pulls), np.log(_SLOPES)))

    return slope


def calibration_in_the_large(answers: Answers, c: int) -> Metric:
    """The shift of class c's log odds, against the rest, that makes its mean probability that of the data.

    0 is right; above 0 the class is given too little.
    """
    odds = log_odds(answers, c)
    truth = answers.labels == c

    def intercept(draws: PatientBootstrap) -> Values:
        return _crossing(draws.totals(expit(odds[:, None] + _INTERCEPTS) - truth[:, None]), _INTERCEPTS)

    return intercept


def class_slope(answers: Answers, c: int) -> Metric:
    """The slope of a logistic regression of class c against the rest on its log odds, with an intercept of its own."""
    odds = np.clip(log_odds(answers, c), -30, 30)
    truth = (answers.labels == c).astype(np.float64)

    def slope(draws: PatientBootstrap) -> Values:
        everything = np.arange(len(odds))
        # From the fit to the data as they are a draw's own is a step or two away.
        start = _logistic_fit(np.ones((1, len(odds))), odds, truth, (1.0, 0.0))
        near = tuple(float(np.nan_to_num(value[0])) for value in start)
        return draws.by_slice(lambda weights: _logistic_fit(weights, odds, truth, near)[0], everything)

    return slope


def log_odds(answers: Answers, c: int) -> NDArray[np.float64]:
    """Of class c against the rest, (n,): unlike p and 1 - p they keep apart what is near certain."""
    shares = np.exp(answers.log_probabilities)
    return np.asarray(np.log(shares[:, c]) - np.log(np.delete(shares, c, axis=1).sum(axis=1)))


def _own(values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(values[np.arange(len(labels)), labels])


def _binned(answers: Answers, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which bin each confidence lies in."""
    return np.clip(np.searchsorted(edges, answers.confidences, side="left") - 1, 0, len(edges) - 2)


def _crossing(values: Values, places: NDArray[np.float64]) -> Values:
    """Where rows of rising values (r, k) at `places` (k,) cross zero, by interpolation; NaN where they do not."""
    after = np.argmax(values > 0, axis=1)
    rows = np.arange(len(values))
    before = np.maximum(after - 1, 0)
    low, high = values[rows, before], values[rows, after]
    step = np.divide(-low, high - low, out=np.zeros_like(low), where=high > low)
    return np.where(after > 0, places[before] + step * (places[after] - places[before]), np.nan)


def _logistic_fit(weights: Values, x: Values, y: Values, start: tuple[float, ...]) -> tuple[Values, Values]:
    """Slopes and intercepts (b,) of weighted logistic regressions of y (m,) on x (m,), by Newton's method from `start`.

    NaN without an end, and where y is all the same: the slope then says nothing while the intercept runs away.
    """
    slope, intercept = np.full(len(weights), start[0]), np.full(len(weights), start[1])
    step = np.full(len(weights), np.inf)
    for _ in range(12):
        p = expit(slope[:, None] * x + intercept[:, None])
        off, spread = weights * (y - p), weights * p * (1 - p)
        g0, g1 = off.sum(axis=1), off @ x
        h00, h01, h11 = spread.sum(axis=1), spread @ x, spread @ (x * x)
        determinant = h00 * h11 - h01**2
        step = np.clip(ratio(h00 * g1 - h01 * g0, determinant), -1, 1)
        intercept = intercept + np.clip(ratio(h11 * g0 - h01 * g1, determinant), -2, 2)
        slope = slope + step
        if not np.nanmax(np.abs(step), initial=0.0) > 1e-4:  # the next would be of its square
            break
    both = (weights @ y > 0) & (weights @ (1 - y) > 0)
    ended = both & (np.abs(step) < 1e-3)
    return np.where(ended, slope, np.nan), np.where(ended, intercept, np.nan)
