"""The figures this field expects, each with an interval over patients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tumorlens.bootstrap import ROUNDS, Metric, PatientBootstrap, Values, ratio, remembered, share
from tumorlens.evaluate import calibration
from tumorlens.evaluate.answers import TUMOURS, Answers, restrict
from tumorlens.evaluate.kinds import estimate, share_estimate
from tumorlens.evaluate.ranks import auc, average_precision
from tumorlens.records import Estimate

#: Confusion matrices (1 + rounds, C, C) of the drawn slices, true by predicted.
Confusions = Values


@dataclass(frozen=True)
class Measures:
    """Figures yet to be computed: `metrics` by name, over rows of `groups` (n,), made from `n_slices` slices.

    `among` (n,) marks the rows that a share is of, where these are not all.
    """

    metrics: Mapping[str, Metric]
    groups: tuple[str, ...]
    n_slices: int
    among: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def points(self) -> dict[str, float]:
        """The figures alone; NaN where undefined."""
        if not self.metrics:
            return {}
        data = PatientBootstrap(self.groups, rounds=0)
        return {name: float(metric(data)[0]) for name, metric in self.metrics.items()}

    def estimates(self, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Estimate]:
        """The figures with 95 % intervals by patient."""
        if not self.metrics:
            return {}
        draws = PatientBootstrap(self.groups, rounds, seed)
        found = {}
        for name, metric in self.metrics.items():
            units, count = draws.units, self.n_slices
            if name in self.among:  # only patients with such rows speak
                units, count = draws.speaking(self.among[name]), int(self.among[name].sum())
            found[name] = replace(estimate(draws, name, metric, units), n=units, n_slices=count)
        return found


@dataclass(frozen=True)
class Table:
    """All figures of one side and level: `overall` and `by_class` by name, and the confusion matrix (true, predicted).

    `rows` are what is counted: slices, or patients whose slices were pooled.
    """

    overall: dict[str, Estimate]
    by_class: dict[str, dict[str, Estimate]]
    confusion: NDArray[np.int64]
    classes: tuple[str, ...]


def accuracy(answers: Answers) -> Metric:
    """The share of slices answered right."""
    return share(answers.right)


def balanced_accuracy(answers: Answers) -> Metric:
    """The mean sensitivity of the classes that are there."""
    present = answers.present
    return _of_confusions(answers, lambda tables: _mean(_sensitivity(tables)[:, present]))


def macro_auc(answers: Answers) -> Metric:
    """The mean over the classes that are there of the AUC of each against the rest."""
    return _macro([_class_auc(answers, c) for c in answers.present])


def macro_f1(answers: Answers) -> Metric:
    """The mean over the classes that are there of F1, the harmonic mean of PPV and sensitivity."""
    present = answers.present
    return _of_confusions(answers, lambda tables: _mean(_f1(tables)[:, present]))


def matthews(answers: Answers) -> Metric:
    """Matthews' correlation of any number of classes (Gorodkin, Comput. Biol. Chem. 2004)."""

    def correlation(tables: Confusions) -> Values:
        n, true, said = tables.sum(axis=(1, 2)), tables.sum(axis=2), tables.sum(axis=1)
        hits = np.trace(tables, axis1=1, axis2=2)
        spread = (n**2 - (said**2).sum(axis=1)) * (n**2 - (true**2).sum(axis=1))
        return ratio(hits * n - (true * said).sum(axis=1), np.sqrt(spread))

    return _of_confusions(answers, correlation)


def kappa(answers: Answers) -> Metric:
    """Cohen's kappa: agreement beyond what the shares of the classes would give by chance."""

    def agreement(tables: Confusions) -> Values:
        n = tables.sum(axis=(1, 2))
        chance = ratio((tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1), n**2)
        return ratio(ratio(np.trace(tables, axis1=1, axis2=2), n) - chance, 1 - chance)

    return _of_confusions(answers, agreement)


def tabulate(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> Table:
    """Every figure of one side, with 95 % intervals by patient.

    Returns:
        Overall: accuracy, balanced accuracy, F1, Matthews' correlation, kappa, AUC and average precision (one against
        the rest, macro), log loss, Brier score, calibration errors, calibration slope. By class, against the rest:
        sensitivity, specificity, PPV, NPV, F1, AUC, average precision, calibration slope and intercept.
    """
    draws = PatientBootstrap(answers.groups, rounds, seed)
    aucs = {c: remembered(_class_auc(answers, c)) for c in answers.present}
    precisions = {c: remembered(_class_average_precision(answers, c)) for c in answers.present}
    metrics = {
        "accuracy": accuracy(answers),
        "balanced_accuracy": balanced_accuracy(answers),
        "f1": macro_f1(answers),
        "mcc": matthews(answers),
        "kappa": kappa(answers),
        "auc": _macro(list(aucs.values())),
        "average_precision": _macro(list(precisions.values())),
        "log_loss": calibration.log_loss(answers),
        "brier": calibration.brier(answers),
        "ece": calibration.expected_calibration_error(answers, calibration.even_edges()),
        "ece_adaptive": calibration.expected_calibration_error(answers, calibration.even_shares(answers)),
        "calibration_slope": calibration.calibration_slope(answers),
    }
    count = len(answers.classes)
    confusion = np.bincount(answers.labels * count + answers.predicted, minlength=count**2).reshape(count, count)
    return Table(
        overall={name: estimate(draws, name, metric) for name, metric in metrics.items()},
        by_class={
            answers.classes[c]: _class_figures(answers, c, draws, aucs[c], precisions[c]) for c in answers.present
        },
        confusion=confusion.astype(np.int64),
        classes=answers.classes,
    )


def tumour_figures(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Estimate]:
    """The figures of `tumour_measures`, with 95 % intervals by patient; none where there are no tumours."""
    return tumour_measures(answers).estimates(rounds, seed)


def tumour_measures(answers: Answers) -> Measures:
    """How well the slices with a tumour are told apart.

    Accuracy: a tumour called `no_tumor` is wrong. `type_accuracy`: the most probable of the tumour classes alone, as
    of a model that knows no other; it compares with the figures of patients. `auc`: the mean over the tumour classes
    that are there, each against the others. Where there is but one of them, only the accuracies are given; a model
    that knows but one has no `type_accuracy`.
    """
    tumours = answers.only(TUMOURS)
    if not len(tumours):
        return Measures({}, (), 0)
    metrics = {"accuracy": accuracy(tumours)}
    if len(tumours.tumour_types) > 1:
        metrics["type_accuracy"] = accuracy(restrict(tumours, TUMOURS))
    if len(tumours.present) > 1:
        metrics |= {"balanced_accuracy": balanced_accuracy(tumours), "auc": macro_auc(tumours)}
    return Measures(metrics, tumours.groups, len(tumours))


def _class_auc(answers: Answers, c: int) -> Metric:
    return auc(answers.labels == c, answers.probabilities[:, c])


def _class_average_precision(answers: Answers, c: int) -> Metric:
    return average_precision(answers.labels == c, answers.probabilities[:, c])


def _class_figures(
    answers: Answers, c: int, draws: PatientBootstrap, area: Metric, precision: Metric
) -> dict[str, Estimate]:
    truth, said = answers.labels == c, answers.predicted == c
    shares = {
        "sensitivity": (truth & said, truth),
        "specificity": (~truth & ~said, ~truth),
        "ppv": (truth & said, said),
        "npv": (~truth & ~said, ~said),
    }
    figures = {name: share_estimate(draws, name, hits, among) for name, (hits, among) in shares.items()}
    others = {
        "f1": _of_confusions(answers, lambda tables: _f1(tables)[:, c]),
        "auc": area,
        "average_precision": precision,
        "calibration_slope": calibration.class_slope(answers, c),
        "calibration_intercept": calibration.calibration_in_the_large(answers, c),
    }
    return figures | {name: estimate(draws, name, metric) for name, metric in others.items()}


def _of_confusions(answers: Answers, figure: Callable[[Confusions], Values]) -> Metric:
    count = len(answers.classes)
    cells = np.eye(count**2)[answers.labels * count + answers.predicted]
    return lambda draws: figure(draws.totals(cells).reshape(-1, count, count))


def _sensitivity(tables: Confusions) -> Values:
    """Of each class, (r, C)."""
    return ratio(np.diagonal(tables, axis1=1, axis2=2), tables.sum(axis=2))


def _f1(tables: Confusions) -> Values:
    """Of each class, (r, C); NaN where a draw has none of it, whatever was answered, as its sensitivity is."""
    true = tables.sum(axis=2)
    found = ratio(2 * np.diagonal(tables, axis1=1, axis2=2), true + tables.sum(axis=1))
    return np.where(true > 0, found, np.nan)


def _macro(metrics: list[Metric]) -> Metric:
    return lambda draws: _mean(np.stack([metric(draws) for metric in metrics], axis=1))


def _mean(values: Values) -> Values:
    """The mean of what is defined, by row: a draw may lack a class."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))
