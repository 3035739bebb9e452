"""The same figures for parts of the patients: who does the model serve less well?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tumorlens.bootstrap import LEAST_GROUPS, ROUNDS
from tumorlens.evaluate.answers import TUMOURS, Answers
from tumorlens.evaluate.metrics import Measures, accuracy, macro_auc
from tumorlens.records import Estimate, class_title


@dataclass(frozen=True)
class Subgroup:
    """One part of the slices: what divides them, which part it is, and its figures with intervals."""

    divided_by: str
    part: str
    figures: dict[str, Estimate]


def subgroups(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> list[Subgroup]:
    """Accuracy and macro AUC by true class, source, plane, and size of the tumour, where these are known.

    Parts of fewer than LEAST_GROUPS patient groups are left out, and so is a division into one part.
    """
    found = []
    for divided_by, parts in (
        ("Class", list(_classes(answers))),
        ("Source", list(_named(answers.origins))),
        ("Plane", list(_named(answers.planes))),
        ("Tumour size", list(_sizes(answers))),
    ):
        rows = []
        for part, marked in parts:
            own = answers.take(marked)
            if len(set(own.groups)) >= LEAST_GROUPS:
                figures = {"accuracy": accuracy(own)}
                if len(own.present) > 1:
                    figures["auc"] = macro_auc(own)
                rows.append(Subgroup(divided_by, part, Measures(figures, own.groups, len(own)).estimates(rounds, seed)))
        found += rows if len(rows) > 1 else []
    return found


def _classes(answers: Answers) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for c in answers.present:
        yield class_title(answers.classes[c]), answers.labels == c


def _named(names: tuple[str, ...]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    values = np.array(names, dtype=str)
    for name in sorted(set(names) - {""}):
        yield name, values == name


def _sizes(answers: Answers) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Thirds of the tumours whose masks are known."""
    shares = np.array(answers.tumour_shares or [np.nan] * len(answers))
    tumours = [answers.classes.index(name) for name in TUMOURS if name in answers.classes]
    known = np.isfinite(shares) & (shares > 0) & np.isin(answers.labels, tumours)
    if known.sum() < 3:
        return
    low, high = np.quantile(shares[known], [1 / 3, 2 / 3])
    yield f"small: up to {low:.1%} of the picture", known & (shares <= low)
    yield f"medium: to {high:.1%}", known & (shares > low) & (shares <= high)
    yield f"large: above {high:.1%}", known & (shares > high)
