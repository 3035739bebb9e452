"""How often answers of one class and one confidence are right: what a reader of a single answer wants to know."""

from itertools import pairwise
from typing import Any

from tumorlens.bootstrap import ROUNDS, PatientBootstrap, share
from tumorlens.evaluate.answers import Answers
from tumorlens.evaluate.kinds import estimate
from tumorlens.values import plain

#: Bands of confidence; a probability of the upper end belongs to the band.
EDGES = (0.5, 0.8, 0.95, 0.99, 1.0)
LEAST = 10  # slices of a band, fewer say nothing
#: Whose figures a card has where they are not of the model itself: one that learned from everybody has those of others.
FOLDS = "the models of its cross-validation"


def by_confidence(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The positive predictive value by answered class and band of confidence, with 95 % intervals by patient.

    Returns:
        For each class bands with `low`, `high` and `right`: an estimate as plain values whose `n` counts the patient
        groups and `n_slices` the slices of the band; None where there are fewer than 10.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for number, name in enumerate(answers.classes):
        bands = []
        for low, high in pairwise(EDGES):
            inside = (answers.predicted == number) & (answers.confidences > low) & (answers.confidences <= high)
            part = answers.take(inside)
            right = None
            if len(part) >= LEAST:
                draws = PatientBootstrap(part.groups, rounds, seed)
                right = plain(vars(estimate(draws, "ppv", share(part.right))))
            bands.append({"low": low, "high": high, "right": right})
        found[name] = bands
    return found
