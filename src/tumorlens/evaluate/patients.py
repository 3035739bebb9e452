"""Answers for patients: the slices of one patient speak together.

Slices are pooled by the mean of their log-probabilities, which is the mean of their logits up to a constant. Images
without a patient id, whose groups begin with `similar:` or `file:`, are no patients and are left out here.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from tumorlens.bootstrap import ROUNDS
from tumorlens.evaluate.answers import TUMOURS, Answers, restrict
from tumorlens.evaluate.metrics import Measures, Table, accuracy, macro_auc, tabulate
from tumorlens.records import FILE, SIMILAR, Estimate


def is_patient(group: str) -> bool:
    """Whether a patient group stands for a person, and not for images without a patient id."""
    return not group.startswith((SIMILAR, FILE))


def patient_slices(answers: Answers, names: Sequence[str]) -> Answers:
    """The slices of patients whose true class is one of `names`."""
    part = answers.only(names)
    return part.take(is_patient(group) for group in part.groups)


def pool(answers: Answers) -> Answers:
    """One answer for all slices of a patient that have one label: patient and label are the unit.

    Whoever has slices of two labels, such as tumour and none, is asked about each. `groups` keep the patient, so that
    a bootstrap draws both together.

    Args:
        answers: n slices.

    Returns:
        Answers of u units, u at most n, without origins.
    """
    units: dict[tuple[str, int], int] = {}
    pairs = zip(answers.groups, answers.labels.tolist(), strict=True)
    member = np.array([units.setdefault(pair, len(units)) for pair in pairs], dtype=np.int64)
    sums = np.zeros((len(units), len(answers.classes)))
    np.add.at(sums, member, answers.log_probabilities)
    means = sums / np.bincount(member, minlength=len(units))[:, None]
    return Answers(
        classes=answers.classes,
        labels=np.array([label for _, label in units], dtype=np.int64),
        probabilities=softmax(means, axis=1),
        groups=tuple(group for group, _ in units),
    )


def patient_measures(answers: Answers) -> Measures:
    """How well the tumour types of patients are told apart.

    Asked are a patient's tumour slices alone, and of them the tumour classes alone: that a tumour was overlooked does
    not count here. `accuracy`: the most probable type is the label. `auc`: the mean over the types that are there, each
    against the others; left out where there is but one. A model that knows but one type has no figures here.
    """
    slices = patient_slices(answers, TUMOURS)
    if not len(slices) or len(answers.tumour_types) < 2:
        return Measures({}, (), 0)
    pooled = pool(restrict(slices, TUMOURS))
    metrics = {"accuracy": accuracy(pooled)}
    if len(set(pooled.labels.tolist())) > 1:
        metrics["auc"] = macro_auc(pooled)
    return Measures(metrics, pooled.groups, len(slices))


def patient_table(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> Table | None:
    """Every figure of patients, over all classes: what is counted is a patient's slices of one label, pooled.

    None where no slice is of a patient with an id. Of its estimates `n` counts patients, `n_slices` what is counted.
    """
    slices = patient_slices(answers, answers.classes)
    return tabulate(pool(slices), rounds, seed) if len(slices) else None


def patient_figures(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Estimate]:
    """The figures of `patient_measures`, with 95 % intervals by patient; none where no patient has a tumour.

    `n` of an estimate counts patients, `n_slices` the slices that were pooled.
    """
    return patient_measures(answers).estimates(rounds, seed)
