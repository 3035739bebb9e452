"""The figures this field expects, each with an interval over patients."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tumorlens.bootstrap import ROUNDS, PatientBootstrap, Weights
from tumorlens.errors import RunError
from tumorlens.records import Estimate, Prediction

#: A scalar as numpy's products give it.
Number = float | np.floating[Any] | NDArray[np.float64]

#: A figure as a function of slice weights (n,); NaN where the weights leave it undefined.
Metric = Callable[[Weights], float]

TUMOURS = ("glioma", "meningioma", "pituitary")

#: Below this a probability is taken for it, so that its logarithm is finite: the smallest normal float32.
FLOOR = 1.2e-38

#: How groups of images without a patient id begin.
FILE, SIMILAR = "file:", "similar:"


@dataclass(frozen=True)
class Answers:
    """Labelled predictions as arrays: `labels` (n,), `probabilities` (n, C), `groups` (n,), `origins` (n,) or empty.

    An origin is the data set that a slice is of, an empty string where unknown.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: tuple[str, ...]
    origins: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each slice."""
        return np.asarray(np.argmax(self.probabilities, axis=1), dtype=np.int64)

    def only(self, names: Sequence[str]) -> "Answers":
        """The slices whose true class is one of `names`; predictions may still be any class."""
        return self.take(np.isin(self.labels, [self.classes.index(name) for name in names if name in self.classes]))

    def of(self, origin: str) -> "Answers":
        """The slices of one data set."""
        return self.take([own == origin for own in self.origins or [""] * len(self)])

    def take(self, keep: Iterable[bool] | NDArray[np.bool_]) -> "Answers":
        """The slices that are marked in `keep` (n,)."""
        kept = np.fromiter(keep, dtype=bool, count=len(self))
        return Answers(
            self.classes,
            self.labels[kept],
            self.probabilities[kept],
            tuple(compress(self.groups, kept)),
            tuple(compress(self.origins, kept)),
        )


@dataclass(frozen=True)
class Measures:
    """Figures yet to be computed: `metrics` by name, over rows of `groups` (n,), made from `n_slices` slices."""

    metrics: Mapping[str, Metric]
    groups: tuple[str, ...]
    n_slices: int

    def points(self) -> dict[str, float]:
        """The figures alone; NaN where undefined."""
        return {name: metric(np.ones(len(self.groups))) for name, metric in self.metrics.items()}

    def estimates(self, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Estimate]:
        """The figures with 95 % intervals by patient."""
        if not self.metrics:
            return {}
        bootstrap = PatientBootstrap(self.groups, rounds, seed)
        return {
            name: replace(bootstrap.estimate(metric), n_slices=self.n_slices) for name, metric in self.metrics.items()
        }


@dataclass(frozen=True)
class Table:
    """All figures of one split: `overall` and `by_class` by name, and the confusion matrix (true, predicted)."""

    overall: dict[str, Estimate]
    by_class: dict[str, dict[str, Estimate]]
    confusion: NDArray[np.int64]
    classes: tuple[str, ...]


def collect(predictions: Sequence[Prediction]) -> Answers:
    """Gather the answered, labelled predictions.

    Raises:
        RunError: there are none, or a label that is not a class.
    """
    usable = [item for item in predictions if item.status == "ok" and item.label]
    if not usable:
        raise RunError(
            "no labelled, answered predictions to evaluate. Give a run folder, whose predictions have a label column"
        )
    classes = usable[0].classes
    unknown = sorted({item.label for item in usable} - set(classes))
    if unknown:
        raise RunError(f"labels {', '.join(unknown)} are not among the classes {', '.join(classes)}")
    return Answers(
        classes=classes,
        labels=np.array([classes.index(item.label) for item in usable], dtype=np.int64),
        probabilities=np.array([item.probabilities for item in usable]),
        groups=tuple(item.patient_group or f"{FILE}{item.source}" for item in usable),
        origins=tuple(item.origin for item in usable),
    )


def auc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Metric:
    """Area under the ROC curve as a function of slice weights, ties counted half.

    The Mann-Whitney form: the share of (positive, negative) pairs in the right order; NaN unless the weights
    leave both kinds. Ranks are computed once, so that thousands of draws are quick.
    """
    _, rank = np.unique(scores, return_inverse=True)

    def of_weights(weights: Weights) -> float:
        up = np.bincount(rank, weights=weights * positive)
        down = np.bincount(rank, weights=weights * ~positive)
        below = np.cumsum(down) - down
        return _ratio((up * (below + down / 2)).sum(), up.sum() * down.sum())

    return of_weights


def accuracy(answers: Answers) -> Metric:
    """The share of slices answered right."""
    hits = answers.labels == answers.predicted
    return lambda weights: _ratio(weights @ hits, weights.sum())


def balanced_accuracy(answers: Answers) -> Metric:
    """The mean sensitivity of the classes that are there."""
    hits = answers.labels == answers.predicted
    own = [answers.labels == c for c in _present(answers)]
    return lambda weights: _mean([_ratio(weights @ (hits & truth), weights @ truth) for truth in own])


def macro_auc(answers: Answers) -> Metric:
    """The mean over the classes that are there of the AUC of each against the rest."""
    areas = [auc(answers.labels == c, answers.probabilities[:, c]) for c in _present(answers)]
    return lambda weights: _mean([area(weights) for area in areas])


def share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Metric:
    """The share of `hits` (n,) `among` (n,) marked slices."""
    return lambda weights: _ratio(weights @ (hits & among), weights @ among)


def tabulate(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> Table:
    """Every figure of one split, with 95 % intervals by patient.

    Returns:
        Overall: accuracy, balanced accuracy, macro AUC (one against the rest), macro F1, log loss. By class:
        sensitivity, specificity, precision, F1 and AUC.
    """
    bootstrap = PatientBootstrap(answers.groups, rounds, seed)
    labels, predicted, count = answers.labels, answers.predicted, len(answers.classes)
    present = _present(answers)
    own = np.clip(answers.probabilities[np.arange(len(labels)), labels], 1e-12, 1)

    overall = {
        "accuracy": bootstrap.estimate(accuracy(answers)),
        "balanced_accuracy": bootstrap.estimate(balanced_accuracy(answers)),
        "auc": bootstrap.estimate(macro_auc(answers)),
        "f1": bootstrap.estimate(lambda w: _mean([_f1(labels == c, predicted == c, w) for c in present])),
        "log_loss": bootstrap.estimate(lambda w: _ratio(w @ -np.log(own), w.sum()), "lower"),
    }
    by_class = {answers.classes[c]: _class_figures(answers, c, bootstrap) for c in present}
    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return Table(overall, by_class, confusion, answers.classes)


def tumour_figures(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Estimate]:
    """The figures of `tumour_measures`, with 95 % intervals by patient; none where there are no tumours."""
    return tumour_measures(answers).estimates(rounds, seed)


def tumour_measures(answers: Answers) -> Measures:
    """How well the slices with a tumour are told apart.

    Accuracy: a tumour called `no_tumor` is wrong. `type_accuracy`: the most probable of the tumour classes alone, as
    of a model that knows no other; it compares with the figures of patients. `auc`: the mean over the tumour classes
    that are there, each against the others. Where there is but one of them, only the accuracies are given.
    """
    tumours = answers.only(TUMOURS)
    if not len(tumours):
        return Measures({}, (), 0)
    metrics = {"accuracy": accuracy(tumours), "type_accuracy": accuracy(restrict(tumours, TUMOURS))}
    if len(_present(tumours)) > 1:
        metrics |= {"balanced_accuracy": balanced_accuracy(tumours), "auc": macro_auc(tumours)}
    return Measures(metrics, tumours.groups, len(tumours))


def restrict(answers: Answers, names: Sequence[str]) -> Answers:
    """The slices whose true class is one of `names`, with these classes alone, renormalised.

    Returns:
        Answers whose `classes` are those of `names` that the model knows, in their order there.
    """
    kept = tuple(name for name in names if name in answers.classes)
    columns = [answers.classes.index(name) for name in kept]
    part = answers.only(kept)
    logs = np.log(np.clip(part.probabilities[:, columns], FLOOR, None))
    labels = np.array([columns.index(label) for label in part.labels], dtype=np.int64)
    return replace(part, classes=kept, labels=labels, probabilities=softmax(logs, axis=1))


def _present(answers: Answers) -> list[int]:
    """The classes that are among the labels."""
    return [number for number in range(len(answers.classes)) if (answers.labels == number).any()]


def _class_figures(answers: Answers, c: int, bootstrap: PatientBootstrap) -> dict[str, Estimate]:
    truth, said = answers.labels == c, answers.predicted == c
    sensitivity = bootstrap.estimate(lambda w: _ratio(w @ (truth & said), w @ truth))
    own = {group for group, true in zip(answers.groups, truth, strict=True) if true}
    return {
        # Only patients with the class speak here.
        "sensitivity": replace(sensitivity, n=len(own), n_slices=int(truth.sum())),
        "specificity": bootstrap.estimate(lambda w: _ratio(w @ (~truth & ~said), w @ ~truth)),
        "precision": bootstrap.estimate(lambda w: _ratio(w @ (truth & said), w @ said)),
        "f1": bootstrap.estimate(lambda w: _f1(truth, said, w)),
        "auc": bootstrap.estimate(auc(truth, answers.probabilities[:, c])),
    }


def _f1(truth: NDArray[np.bool_], said: NDArray[np.bool_], weights: Weights) -> float:
    return _ratio(2 * (weights @ (truth & said)), weights @ truth + weights @ said)


def _ratio(part: Number, whole: Number) -> float:
    return float(part) / float(whole) if whole > 0 else float("nan")


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The mean of what is defined: a draw may lack a class."""
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
