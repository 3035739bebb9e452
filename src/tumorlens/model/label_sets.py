"""Label sets: the classes that cannot be ruled out, with a promise of how often the truth is among them.

Split conformal prediction, class by class (Vovk, Conditional validity of inductive conformal predictors, ACML 2012): a
class stays in the set where its probability reaches the threshold that so many of its own calibration slices reached.
Slices of one patient are no independent draws, so each patient weighs the same however many slices there are, and the
patient that comes next counts as one more (the pooled form of Dunn, Wasserman & Ramdas, Distribution-free prediction
sets for two-layer hierarchical models, JASA 2023). The promise holds for patients like those that it was fitted on.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tumorlens.errors import BundleError

DEFAULT_COVERAGE = 0.9
#: For which thresholds are kept.
COVERAGES = tuple(round(0.5 + step / 100, 2) for step in range(50))


class LabelSets(BaseModel):
    """What a bundle keeps: for each class the least probability at each of `coverages` (rising)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverages: tuple[float, ...] = Field(min_length=1)
    thresholds: dict[str, tuple[float, ...]]
    fitted_on: str = ""

    def at(self, coverage: float) -> dict[str, float]:
        """The threshold of each class for one coverage.

        Raises:
            BundleError: nothing was kept for it.
        """
        nearest = int(np.argmin(np.abs(np.array(self.coverages) - coverage)))
        if not abs(self.coverages[nearest] - coverage) <= 1e-6:  # also of what is no number
            raise BundleError(
                f"no label sets of coverage {coverage:g} in the bundle; it has {self.coverages[0]:g} to "
                f"{self.coverages[-1]:g} in steps of 0.01. Choose one of these"
            )
        return {name: values[nearest] for name, values in self.thresholds.items()}


def fit_label_sets(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: Sequence[str],
    classes: Sequence[str],
    fitted_on: str = "",
) -> LabelSets:
    """Thresholds for every coverage of COVERAGES.

    Args:
        probabilities: (n, C) of slices that the model did not learn from.
        labels: (n,) class numbers.
        groups: (n,) patient groups.
        classes: names of the C classes.
        fitted_on: what these slices are.

    Returns:
        The thresholds; 0 (the class is never ruled out) where it has too few patients for a coverage.
    """
    thresholds = {}
    for c, name in enumerate(classes):
        own = labels == c
        thresholds[name] = _thresholds(probabilities[own, c], [g for g, o in zip(groups, own, strict=True) if o])
    return LabelSets(coverages=COVERAGES, thresholds=thresholds, fitted_on=fitted_on)


def label_set(probabilities: Sequence[float], classes: Sequence[str], thresholds: dict[str, float]) -> tuple[str, ...]:
    """The classes that cannot be ruled out, in the order of `classes`; the most probable is always among them."""
    top = int(np.argmax(probabilities))
    return tuple(
        name
        for number, (name, share) in enumerate(zip(classes, probabilities, strict=True))
        if number == top or share >= thresholds[name]
    )


def _thresholds(shares: NDArray[np.float64], groups: Sequence[str]) -> tuple[float, ...]:
    """The greatest threshold that slices of enough patients reach, for each coverage."""
    if not len(shares):
        return (0.0,) * len(COVERAGES)
    _, member, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.argsort(-shares)
    reached = np.cumsum(1 / counts[member[order]])  # in patients
    found = []
    for coverage in COVERAGES:
        needed = coverage * (len(counts) + 1)
        place = int(np.searchsorted(reached, needed - 1e-9))
        # Written with nine digits in answers and cards alike; rounded down so that the slice itself stays in.
        found.append(float(np.floor(shares[order[place]] * 1e9) / 1e9) if place < len(order) else 0.0)
    return tuple(found)
