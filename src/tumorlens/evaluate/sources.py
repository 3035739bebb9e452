"""Figures of each source on its own: pooled ones hide that telling sources apart is easy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tumorlens.bootstrap import LEAST_GROUPS, ROUNDS, Metric, share
from tumorlens.evaluate.answers import NONE, TUMOURS, Answers
from tumorlens.evaluate.calibration import log_odds
from tumorlens.evaluate.metrics import Measures, tumour_measures
from tumorlens.evaluate.patients import patient_measures, patient_slices, pool
from tumorlens.evaluate.ranks import auc
from tumorlens.records import Estimate


@dataclass(frozen=True)
class Levels:
    """Figures by name for slices and for patients; either may be empty where it cannot be had."""

    slices: Mapping[str, Estimate]
    patients: Mapping[str, Estimate]


@dataclass(frozen=True)
class SourceFigures:
    """One source: its tumours told apart, and its tumours told from healthy slices."""

    tumours: Levels
    against_none: Levels


def figures_by_source(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> dict[str, SourceFigures]:
    """The figures of each known source, in alphabetical order, with 95 % intervals by patient.

    A question is left empty where fewer than LEAST_GROUPS patient groups could answer it, and a source that has no
    answer to any is left out.
    """
    found = {}
    for name in sorted(set(answers.origins) - {""}):
        part = answers.of(name)
        figures = SourceFigures(
            tumours=Levels(
                _enough(tumour_measures(part).estimates(rounds, seed)),
                _enough(patient_measures(part).estimates(rounds, seed)),
            ),
            against_none=Levels(
                _enough_of_both(none_measures(part).estimates(rounds, seed)),
                _enough_of_both(patient_none_figures(part, rounds, seed)),
            ),
        )
        if figures.tumours.slices or figures.against_none.slices:
            found[name] = figures
    return found


def none_measures(answers: Answers) -> Measures:
    """Tumour against none: `auc` of the log odds of any tumour, `sensitivity` and `specificity` of the predicted class.

    Where one of the two is missing, what remains is the accuracy of the other: its sensitivity or specificity. There
    are none for a model without the class `no_tumor`.
    """
    part = answers.only([*TUMOURS, NONE])
    if NONE not in part.classes or not len(part):
        return Measures({}, (), 0)
    none = part.classes.index(NONE)
    truth, said = part.labels != none, part.predicted != none
    metrics: dict[str, Metric] = {}
    if truth.any() and not truth.all():
        metrics["auc"] = auc(truth, -log_odds(part, none))
    if truth.any():
        metrics["sensitivity"] = share(said, truth)
    if not truth.all():
        metrics["specificity"] = share(~said, ~truth)
    return Measures(metrics, part.groups, len(part), {"sensitivity": truth, "specificity": ~truth})


def patient_none_figures(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Estimate]:
    """The same for patients: the tumour slices of one are pooled, and so are the slices without.

    They are only given where both kinds come from patients with ids.
    """
    slices = patient_slices(answers, [*TUMOURS, NONE])
    pooled = pool(slices)
    if len({pooled.classes[label] == NONE for label in pooled.labels}) < 2:
        return {}
    counts = {name: len(slices.only(labels)) for name, labels in (("sensitivity", TUMOURS), ("specificity", (NONE,)))}
    return {
        name: replace(figure, n_slices=counts.get(name, len(slices)))
        for name, figure in none_measures(pooled).estimates(rounds, seed).items()
    }


def _enough_of_both(figures: dict[str, Estimate]) -> dict[str, Estimate]:
    """The AUC needs enough groups of either kind."""
    enough = _enough(figures)
    both = {"sensitivity", "specificity"} <= set(enough)
    return {name: figure for name, figure in enough.items() if both or name != "auc"}


def _enough(figures: dict[str, Estimate]) -> dict[str, Estimate]:
    return {name: figure for name, figure in figures.items() if figure.n >= LEAST_GROUPS}
