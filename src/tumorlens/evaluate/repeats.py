"""The same training several times: mean and spread of its figures, and what the models say together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from tumorlens.bootstrap import ROUNDS
from tumorlens.errors import RunError
from tumorlens.evaluate.answers import FLOOR, collect
from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.folds import headline, mean_and_sd
from tumorlens.evaluate.pairs import Pair, compare_pair
from tumorlens.evaluate.run_folder import read_pooled
from tumorlens.records import Estimate, Prediction

#: The rows of one side of a run, by file and frame: of tested pictures where there are any.
Rows = Mapping[tuple[str, int], Prediction]


@dataclass(frozen=True)
class Comparison:
    """Figures of several runs: `rows` has the values (runs,) of each figure by name, NaN where undefined.

    `ensemble` has the figures of the runs' joint answers with intervals by patient, of the names that `rows` has; it is
    empty where they tested different pictures, and `notes` says so. `pair` sets two runs against each other on the same
    pictures. `split_note` stands by the table.
    """

    names: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    ensemble: Mapping[str, Estimate]
    notes: tuple[str, ...] = ()
    split_note: str = ""
    pair: Pair | None = None

    def mean_and_sd(self, figure: str) -> tuple[float, float]:
        """Mean and sample standard deviation between the runs."""
        return mean_and_sd(self.rows[figure])


def compare_runs(folders: Sequence[Path], evaluations: Sequence[Evaluation], rounds: int = ROUNDS) -> Comparison:
    """Compare runs that repeat each other with other seeds or other folds.

    Args:
        folders: of runs or cross-validations.
        evaluations: theirs, in the same order.
        rounds: bootstrap draws for the ensemble.

    Raises:
        RunError: runs label the same picture differently or know different classes.
    """
    points = [
        {name: value for measures in headline(item.answers[item.main]).values()
         for name, value in measures.points().items()}
        for item in evaluations
    ]  # fmt: skip
    names = dict.fromkeys(name for row in points for name in row)
    rows = {name: tuple(row.get(name, float("nan")) for row in points) for name in names}
    tested = [_rows(folder, item.main) for folder, item in zip(folders, evaluations, strict=True)]
    alike = all(part and part.keys() == tested[0].keys() for part in tested)
    figures: dict[str, Estimate] = {}
    pair = None
    if alike:
        for measures in headline(collect(ensemble(tested))).values():
            figures |= measures.estimates(rounds)
        if len(tested) == 2:
            first, second = (collect([part[key] for key in tested[0]]) for part in tested)
            pair = compare_pair(first, second, rounds)
    notes = () if alike else ("The runs tested different pictures: their figures differ for that too, and no ensemble",)
    split_notes = sorted({item.split_note for item in evaluations if item.split_note})
    return Comparison(tuple(map(str, folders)), rows, figures, notes, "; ".join(split_notes), pair)


def ensemble(runs: Sequence[Rows]) -> list[Prediction]:
    """The runs' joint answer for each picture: the mean of their log-probabilities, renormalised.

    Args:
        runs: the tested rows of each, with the same pictures; in a cross-validation each is answered by the model of
            its run that did not learn from its patient.

    Raises:
        RunError: the label or the classes of a picture differ from run to run.
    """
    joint = []
    for key, first in runs[0].items():
        items = [run[key] for run in runs]
        if any((item.label, item.classes) != (first.label, first.classes) for item in items):
            raise RunError(f"{first.source}: label or classes differ from run to run. Compare runs of the same data")
        logs = np.log(np.clip([item.probabilities for item in items], FLOOR, None)).mean(axis=0)
        joint.append(replace(first, probabilities=tuple(softmax(logs).tolist())))
    return joint


def _rows(folder: Path, side: str) -> Rows:
    run, _ = read_pooled(folder)
    of_side = (item for item in run.predictions if (item.split or "test") == side)
    return {(item.source, item.frame): item for item in of_side if item.status == "ok" and item.label}
