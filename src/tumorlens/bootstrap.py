"""Intervals that know what a patient is: whole patient groups are drawn, never single slices.

Efron & Tibshirani, An Introduction to the Bootstrap, 1993; percentile intervals. Slices of one patient are near
copies of each other, so an interval over slices is far too narrow.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tumorlens.records import Estimate

Weights = NDArray[np.float64]
ROUNDS = 2000


class PatientBootstrap:
    """Draws of patient groups, shared by all figures of a table so that they can be compared.

    A draw is given to a metric as weights (n,) of the slices: how often each slice's patient was drawn.
    """

    def __init__(self, groups: Sequence[str], rounds: int = ROUNDS, seed: int = 0) -> None:
        names, self._member = np.unique(np.asarray(groups), return_inverse=True)
        self.units = len(names)
        generator = np.random.default_rng(seed)
        draws = generator.multinomial(self.units, np.full(self.units, 1 / max(self.units, 1)), size=rounds)
        self._draws = draws.astype(np.float64)

    def estimate(self, metric: Callable[[Weights], float], better: Literal["higher", "lower"] = "higher") -> Estimate:
        """The metric with its 95 % interval; NaN where it is undefined (for instance an AUC of one class).

        Args:
            metric: from slice weights (n,) to a figure; may return NaN for a draw, which is then left out.
            better: the figure's direction.
        """
        value = metric(np.ones(len(self._member)))
        drawn = np.array([metric(draw[self._member]) for draw in self._draws])
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.percentile(drawn, [2.5, 97.5]) if drawn.size and np.isfinite(value) else (np.nan, np.nan)
        return Estimate(float(value), float(low), float(high), self.units, len(self._member), better)
