"""Patients who were learned from and tested: what makes figures too good."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tumorlens.records import Prediction


def on_two_sides(predictions: Iterable[Prediction]) -> tuple[int, int]:
    """Patient groups on more than one side of a split, and all; rows without a side count as tested."""
    sides: dict[str, set[str]] = defaultdict(set)
    for item in predictions:
        if item.patient_group:
            sides[item.patient_group].add(item.split or "test")
    return sum(len(names) > 1 for names in sides.values()), len(sides)


def between_folds(folds: Sequence[Sequence[Prediction]]) -> int:
    """Patient groups on two sides of a fold, or tested by two: the one fold's model learned from what the other tested.

    Args:
        folds: the predictions of each.
    """
    shared = sum(on_two_sides(rows)[0] for rows in folds)
    testers: dict[str, set[int]] = defaultdict(set)
    for number, rows in enumerate(folds):
        for item in rows:
            if item.patient_group and (item.split or "test") == "test":
                testers[item.patient_group].add(number)
    return shared + sum(len(numbers) > 1 for numbers in testers.values())
