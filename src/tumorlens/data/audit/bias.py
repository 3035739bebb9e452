"""How far the source gives the label away: what ten simple features of a picture predict of its class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tumorlens.bootstrap import Metric, PatientBootstrap, ratio
from tumorlens.data.audit.scan import FEATURES
from tumorlens.records import Estimate, Float32

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

FOLDS = 5
_ROUNDS = 500


@dataclass(frozen=True)
class SourceBias:
    """Balanced accuracy of a small forest on `FEATURES`, on patients that it did not see, beside chance.

    `importance` is (feature, share of the forest's splits' gain), largest first.
    """

    balanced_accuracy: Estimate
    chance: float
    importance: tuple[tuple[str, float], ...]

    @property
    def tells(self) -> bool:
        """Whether the features beat chance beyond doubt."""
        found = self.balanced_accuracy
        return (found.low if found.interval else found.value) > self.chance  # without one it is the same in every draw


def source_bias(features: Float32, labels: Sequence[str], groups: Sequence[str], seed: int = 0) -> SourceBias | None:
    """Predict the label from simple features by patient-grouped five-fold cross-validation.

    Args:
        features: (n, 10), see `FEATURES`.
        labels: a class name a picture.
        groups: a patient group a picture; whole groups are held out.
        seed: of folds, forest and bootstrap.

    Returns:
        The figure, or None where there are fewer than two classes with at least `FOLDS` groups each.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels_, groups_ = np.asarray(labels), np.asarray(groups)
    classes = [name for name in np.unique(labels_) if len(np.unique(groups_[labels_ == name])) >= FOLDS]
    if len(classes) < 2:
        return None
    kept = np.isin(labels_, classes)
    x, y, g = features[kept], labels_[kept], groups_[kept]
    predicted = np.empty_like(y)
    importance = np.zeros(len(FEATURES))
    for train, test in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(x, y, g):
        forest = fit_forest(x[train], y[train], seed)
        predicted[test] = forest.predict(x[test])
        importance += forest.feature_importances_ / FOLDS
    figure = PatientBootstrap([str(name) for name in g], _ROUNDS, seed).estimate(_balanced_accuracy(y == predicted, y))
    ranked = sorted(zip(FEATURES, importance, strict=True), key=lambda item: -item[1])
    return SourceBias(figure, 1 / len(classes), tuple((name, float(share)) for name, share in ranked))


def fit_forest(features: Float32, labels: NDArray[np.str_], seed: int = 0) -> "RandomForestClassifier":
    """Fit the small forest on `FEATURES` (n, 10) and class names (n,); classes weigh the same."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(100, min_samples_leaf=3, class_weight="balanced", random_state=seed, n_jobs=2)
    return forest.fit(features, labels)


def _balanced_accuracy(right: np.ndarray, labels: np.ndarray) -> Metric:
    own = np.unique(labels) == labels[:, None]
    return lambda draws: ratio(draws.totals(own & right[:, None]), draws.totals(own)).mean(axis=1)
