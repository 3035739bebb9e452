"""The figures this field expects, each with an interval over patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorlens.bootstrap import ROUNDS, PatientBootstrap, Weights
from tumorlens.errors import RunError
from tumorlens.records import Estimate, Prediction

#: A scalar as numpy's products give it.
Number = float | np.floating[Any] | NDArray[np.float64]

TUMOURS = ("glioma", "meningioma", "pituitary")


@dataclass(frozen=True)
class Answers:
    """Labelled predictions as arrays: `labels` (n,), `probabilities` (n, C), `groups` (n,)."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: tuple[str, ...]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each slice."""
        return np.asarray(np.argmax(self.probabilities, axis=1), dtype=np.int64)

    def only(self, names: Sequence[str]) -> "Answers":
        """The slices whose true class is one of `names`; predictions may still be any class."""
        keep = np.isin(self.labels, [self.classes.index(name) for name in names if name in self.classes])
        groups = tuple(group for group, kept in zip(self.groups, keep, strict=True) if kept)
        return Answers(self.classes, self.labels[keep], self.probabilities[keep], groups)


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
        groups=tuple(item.patient_group or item.source for item in usable),
    )


def auc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Callable[[Weights], float]:
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


def tabulate(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> Table:
    """Every figure of one split, with 95 % intervals by patient.

    Returns:
        Overall: accuracy, balanced accuracy, macro AUC (one against the rest), macro F1, log loss. By class:
        sensitivity, specificity, precision, F1 and AUC.
    """
    bootstrap = PatientBootstrap(answers.groups, rounds, seed)
    labels, predicted, count = answers.labels, answers.predicted, len(answers.classes)
    present = [number for number in range(count) if (labels == number).any()]
    hits = labels == predicted
    own = np.clip(answers.probabilities[np.arange(len(labels)), labels], 1e-12, 1)

    def recalls(weights: Weights) -> NDArray[np.float64]:
        return np.array([_ratio(weights @ (hits & (labels == c)), weights @ (labels == c)) for c in present])

    aucs = [auc(labels == c, answers.probabilities[:, c]) for c in present]
    overall = {
        "accuracy": bootstrap.estimate(lambda w: _ratio(w @ hits, w.sum())),
        "balanced_accuracy": bootstrap.estimate(lambda w: _mean(recalls(w))),
        "auc": bootstrap.estimate(lambda w: _mean([area(w) for area in aucs])),
        "f1": bootstrap.estimate(lambda w: _mean([_f1(labels == c, predicted == c, w) for c in present])),
        "log_loss": bootstrap.estimate(lambda w: _ratio(w @ -np.log(own), w.sum()), "lower"),
    }
    by_class = {answers.classes[c]: _class_figures(answers, c, bootstrap) for c in present}
    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return Table(overall, by_class, confusion, answers.classes)


def tumour_figures(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Estimate]:
    """Accuracy and AUC over the slices with a tumour: a tumour called `no_tumor` is wrong.

    The AUC is the mean over the three tumour classes, each against the other two.
    """
    tumours = answers.only(TUMOURS)
    if not len(tumours.labels):
        return {}
    bootstrap = PatientBootstrap(tumours.groups, rounds, seed)
    hits = tumours.labels == tumours.predicted
    present = [c for c in range(len(tumours.classes)) if (tumours.labels == c).any()]
    aucs = [auc(tumours.labels == c, tumours.probabilities[:, c]) for c in present]
    return {
        "accuracy": bootstrap.estimate(lambda w: _ratio(w @ hits, w.sum())),
        "auc": bootstrap.estimate(lambda w: _mean([area(w) for area in aucs])),
    }


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
