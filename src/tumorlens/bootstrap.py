"""Intervals that know what a patient is: whole patient groups are drawn, never single slices.

Efron & Tibshirani, An Introduction to the Bootstrap, 1993. Slices of one patient are near copies of each other, so an
interval over slices is far too narrow. All draws of a figure are computed at once: sums by patient first, then one
matrix product.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tumorlens.records import Better, Estimate

Values = NDArray[np.float64]
ROUNDS = 2000
#: A part with fewer patient groups has no figures: an interval over so few says nothing.
LEAST_GROUPS = 5
_CHUNK = 2_000_000  # weights of slices held at once, for memory's sake


class PatientBootstrap:
    """Draws of patient groups, shared by all figures of a table so that they can be compared.

    Row 0 is the data as they are; each further row is a draw. With `rounds=0` figures come without intervals.
    """

    def __init__(self, groups: Sequence[str], rounds: int = ROUNDS, seed: int = 0) -> None:
        names, self._member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        self.units = len(names)
        generator = np.random.default_rng(seed)
        draws = generator.multinomial(self.units, np.full(self.units, 1 / max(self.units, 1)), size=rounds)
        self._counts = np.concatenate([np.ones((1, self.units)), draws])
        self._order = np.argsort(self._member, kind="stable")
        self._starts = np.searchsorted(self._member[self._order], np.arange(self.units))

    def __len__(self) -> int:
        return len(self._member)

    def speaking(self, among: NDArray[np.bool_]) -> int:
        """How many patient groups have one of the marked slices (n,)."""
        return len(np.unique(self._member[among]))

    def totals(self, values: NDArray[Any]) -> Values:
        """Sums over the drawn slices of a value (n,) or of several (n, k): (1 + rounds,) or (1 + rounds, k)."""
        ordered = np.asarray(values, dtype=np.float64)[self._order]
        sums: Values = self._counts @ np.add.reduceat(ordered, self._starts, axis=0)
        return sums

    def by_slice(self, figure: Callable[[Values], Values], order: NDArray[np.int64]) -> Values:
        """A figure that no sums can give, such as one of ranks.

        Args:
            figure: from weights (b, m) of slices, how often each one's patient was drawn, to b values.
            order: (m,) the slices in the order in which `figure` wants their weights.
        """
        rows = max(1, _CHUNK // max(len(order), 1))
        patients = self._member[order]
        return np.concatenate(
            [figure(self._counts[start : start + rows, patients]) for start in range(0, len(self._counts), rows)]
        )

    def estimate(
        self, metric: "Metric", better: Better = "higher", interval: Literal["percentile", "basic"] = "percentile"
    ) -> Estimate:
        """The metric with its 95 % interval; NaN where it is undefined (for instance an AUC of one class).

        A figure that is the same in every draw has no interval: the draws cannot say how far it might be off.

        Args:
            metric: draws in which it is NaN are left out.
            better: the figure's direction.
            interval: `basic` mirrors the draws about the value, which takes out the bias of figures that chance always
                makes larger, such as a calibration error; it then goes from 0 and includes the value.
        """
        drawn = metric(self)
        value, rest = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
        low, high = np.percentile(rest, [2.5, 97.5]) if rest.size and np.isfinite(value) else (np.nan, np.nan)
        if interval == "basic" and np.isfinite(low):
            low, high = max(0.0, min(value, 2 * value - high)), max(value, 2 * value - low)
        if np.allclose([low, high], value, rtol=0, atol=1e-12):  # sums differ in the last digits
            low = high = np.nan
        return Estimate(value, float(low), float(high), self.units, len(self), better)


#: A figure as a function of draws: (1 + rounds,) values, NaN where a draw leaves it undefined.
Metric = Callable[[PatientBootstrap], Values]


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """Element by element; NaN where `whole` is not positive."""
    undefined = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    found: Values = np.divide(part, whole, out=undefined, where=np.broadcast_to(whole, undefined.shape) > 0)
    return found


def share(hits: NDArray[np.bool_], among: NDArray[np.bool_] | None = None) -> Metric:
    """The share of `hits` (n,) among the marked slices (n,), or among all."""
    marked = np.ones(len(hits), dtype=bool) if among is None else among
    return lambda draws: ratio(draws.totals(hits & marked), draws.totals(marked))


def mean(values: NDArray[Any]) -> Metric:
    """The mean of a value (n,) over slices."""
    return lambda draws: ratio(draws.totals(values), draws.totals(np.ones(len(values))))


def difference(first: Metric, second: Metric) -> Metric:
    """First minus second on the same draws, so that what both share cancels."""
    return lambda draws: first(draws) - second(draws)


def remembered(metric: Metric) -> Metric:
    """The metric, computed once for the same draws: a figure and the mean that it is part of share the work."""
    return cache(metric)
