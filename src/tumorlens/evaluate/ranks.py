"""Figures of order: areas under the ROC and the precision-recall curve, of thousands of draws at once."""

import numpy as np
from numpy.typing import NDArray

from tumorlens.bootstrap import Metric, PatientBootstrap, Values, ratio


def auc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Metric:
    """Area under the ROC curve, ties counted half; NaN unless both kinds are there.

    The Mann-Whitney form: the share of (positive, negative) pairs in the right order.

    Args:
        positive: (n,) which slices are positive.
        scores: (n,) higher for positives.
    """
    order, ends, ups = _ranked(positive, scores)

    def area(draws: PatientBootstrap) -> Values:
        def of_weights(weights: Values) -> Values:
            up, down = _by_tie(weights, ups, ends)
            below = np.cumsum(down, axis=1) - down
            return ratio((up * (below + down / 2)).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))

        return draws.by_slice(of_weights, order)

    return area


def average_precision(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Metric:
    """Area under the precision-recall curve as a sum of steps, without interpolation; NaN without positives.

    Args:
        positive: (n,) which slices are positive.
        scores: (n,) higher for positives.
    """
    order, ends, ups = _ranked(positive, -scores)

    def area(draws: PatientBootstrap) -> Values:
        def of_weights(weights: Values) -> Values:
            up, down = _by_tie(weights, ups, ends)
            found = np.cumsum(up, axis=1)
            precision = np.nan_to_num(ratio(found, found + np.cumsum(down, axis=1)))
            return ratio((up * precision).sum(axis=1), found[:, -1])

        return draws.by_slice(of_weights, order)

    return area


def _ranked(
    positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None, Values]:
    """The slices in rising order, where each run of ties begins (None without ties), and which are positive."""
    order = np.argsort(scores, kind="stable")
    new = np.concatenate([[True], np.diff(scores[order]) > 0])
    starts = None if new.all() else np.flatnonzero(new)
    return order, starts, positive[order].astype(np.float64)


def _by_tie(weights: Values, ups: Values, starts: NDArray[np.int64] | None) -> tuple[Values, Values]:
    """The weights (b, m) of positives and negatives, summed over ties."""
    up = weights * ups
    down = weights - up
    if starts is None:
        return up, down
    return np.add.reduceat(up, starts, axis=1), np.add.reduceat(down, starts, axis=1)
