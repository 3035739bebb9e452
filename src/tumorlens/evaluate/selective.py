"""What keeping quiet is worth: label sets, and answering only when sure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tumorlens.bootstrap import PatientBootstrap, mean, share
from tumorlens.evaluate.answers import Answers
from tumorlens.evaluate.kinds import estimate, share_estimate
from tumorlens.records import Estimate

#: Shares of the slices that are answered, the surest first.
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class SelectivePoint:
    """Answering those slices alone whose confidence is at least `threshold`."""

    threshold: float
    answered: Estimate
    accuracy: Estimate


@dataclass(frozen=True)
class LabelSetFigures:
    """How label sets do: `coverage` is how often the truth is in them, `size` their mean number of classes.

    `single` is the share of sets of one class; `by_class` has the coverage of each true class.
    """

    coverage: Estimate
    size: Estimate
    single: Estimate
    by_class: Mapping[str, Estimate]


def selective_curve(
    answers: Answers, draws: PatientBootstrap, shares: Sequence[float] = SHARES
) -> list[SelectivePoint]:
    """Accuracy against the share answered, where the least sure slices are left out first.

    El-Yaniv & Wiener, On the Foundations of Noise-free Selective Classification, JMLR 2010.

    Args:
        answers: n slices.
        draws: of their patients.
        shares: of the slices, at whose confidences thresholds are set; they are the same in every draw.
    """
    points = []
    for part in shares:
        threshold = float(np.quantile(answers.confidences, 1 - part, method="lower"))
        answered = answers.confidences >= threshold
        points.append(
            SelectivePoint(
                threshold,
                estimate(draws, "share", share(answered)),
                share_estimate(draws, "accuracy", answers.right, answered),
            )
        )
    return points


def label_set_figures(answers: Answers, draws: PatientBootstrap) -> LabelSetFigures | None:
    """The figures of the label sets that stand in predictions; None where a slice has none."""
    if not answers.label_sets or not all(answers.label_sets):
        return None
    sets = [set(names) for names in answers.label_sets]
    hit = np.array([answers.classes[label] in names for label, names in zip(answers.labels, sets, strict=True)])
    sizes = np.array([len(names) for names in sets])
    return LabelSetFigures(
        coverage=estimate(draws, "accuracy", share(hit)),
        size=draws.estimate(mean(sizes), "lower"),
        single=estimate(draws, "accuracy", share(sizes == 1)),
        by_class={
            answers.classes[c]: share_estimate(draws, "sensitivity", hit, answers.labels == c) for c in answers.present
        },
    )
