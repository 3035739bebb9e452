"""Two models on the same patients: differences that a paired test can stand behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tumorlens.bootstrap import ROUNDS, PatientBootstrap, difference
from tumorlens.errors import RunError
from tumorlens.evaluate.answers import TUMOURS, Answers, restrict
from tumorlens.evaluate.folds import headline
from tumorlens.evaluate.kinds import kind_of
from tumorlens.evaluate.patients import patient_slices, pool
from tumorlens.records import Estimate


@dataclass(frozen=True)
class McNemar:
    """Units that one of two models alone has right, and the exact two-sided p (McNemar, Psychometrika 1947)."""

    first_only: int
    second_only: int
    n: int
    p: float


@dataclass(frozen=True)
class Pair:
    """The second model beside the first: `differences` (second minus first) by figure, with paired intervals.

    `patients` tests the tumour types of patients, None where there are none; slices of one patient are no independent
    trials, so there is no such test of slices.
    """

    differences: Mapping[str, Estimate]
    patients: McNemar | None


def compare_pair(first: Answers, second: Answers, rounds: int = ROUNDS, seed: int = 0) -> Pair:
    """Compare two models' answers for the same slices, in the same order.

    Raises:
        RunError: labels, patients or classes differ.
    """
    same = first.classes == second.classes and first.groups == second.groups
    if not same or not np.array_equal(first.labels, second.labels):
        raise RunError("the two runs have other slices, labels, patients or classes. Compare runs of the same split")
    # The same slices are of the same sources, whether or not each table of answers says so.
    known = (answers.origins or ("",) * len(answers) for answers in (first, second))
    origins = tuple(one or other for one, other in zip(*known, strict=True))
    first, second = replace(first, origins=origins), replace(second, origins=origins)
    differences: dict[str, Estimate] = {}
    theirs = headline(second)
    for scope, measures in headline(first).items():
        if not measures.metrics:
            continue
        draws = PatientBootstrap(measures.groups, rounds, seed)
        for name, metric in measures.metrics.items():
            change = difference(theirs[scope].metrics[name], metric)
            differences[name] = draws.estimate(change, kind_of(name).better)
    return Pair(differences, _patients(first, second))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Compare which of n independent units two models have right, (n,) each."""
    from scipy.stats import binomtest

    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    return McNemar(one, other, len(first), p)


def _patients(first: Answers, second: Answers) -> McNemar | None:
    slices = [patient_slices(item, TUMOURS) for item in (first, second)]
    if not len(slices[0]):  # of classes that have other names
        return None
    pooled: Sequence[Answers] = [pool(restrict(item, TUMOURS)) for item in slices]
    return mcnemar(pooled[0].right, pooled[1].right)
