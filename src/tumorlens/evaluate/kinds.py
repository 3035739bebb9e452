"""What is known of each figure: how it is written, which way it is good, and how its interval is made."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tumorlens.bootstrap import Metric, PatientBootstrap, share
from tumorlens.records import Better, Estimate


@dataclass(frozen=True)
class Kind:
    """How a figure is written, which way it is good, and how its interval is made."""

    title: str
    better: Better = "higher"
    interval: Literal["percentile", "basic"] = "percentile"
    proportion: bool = False


#: Every figure by name, in the order of tables.
KINDS: dict[str, Kind] = {
    "accuracy": Kind("Accuracy", proportion=True),
    "balanced_accuracy": Kind("Balanced accuracy"),
    "sensitivity": Kind("Sensitivity", proportion=True),
    "specificity": Kind("Specificity", proportion=True),
    "ppv": Kind("PPV", proportion=True),
    "npv": Kind("NPV", proportion=True),
    "f1": Kind("F1"),
    "mcc": Kind("Matthews correlation"),
    "kappa": Kind("Cohen’s kappa"),
    "auc": Kind("AUC"),
    "average_precision": Kind("Average precision"),
    "log_loss": Kind("Log loss", "lower"),
    "brier": Kind("Brier score", "lower"),
    "ece": Kind("Calibration error (15 even bins)", "lower", "basic"),
    "ece_adaptive": Kind("Calibration error (15 equal shares)", "lower", "basic"),
    "calibration_slope": Kind("Calibration slope", "one"),
    "calibration_intercept": Kind("Calibration intercept", "zero"),
    "type_accuracy": Kind("Accuracy, type alone", proportion=True),
}


#: How the intervals of all figures are made.
INTERVALS = (
    "95 %, bootstrap over patient groups: percentiles, for calibration errors a basic interval; Wilson’s, with "
    "patients as trials, where a share is 0 or 1; none where a figure is the same in every draw"
)


def kind_of(name: str) -> Kind:
    """What is known of a figure by the end of its name: `tumour_slice_accuracy` is an `accuracy`."""
    return KINDS.get(max((key for key in KINDS if name.endswith(key)), key=len, default=""), Kind(name))


def estimate(draws: PatientBootstrap, name: str, metric: Metric, units: int | None = None) -> Estimate:
    """A figure with its 95 % interval, in the way that its kind asks for.

    A share of nothing or of all has the same value in every draw; its interval is then Wilson's, with the patients that
    speak (`units`, by default all) as independent trials. Other figures that are the same in every draw, such as the
    AUC of classes that nothing confuses, have no interval: the draws cannot say how far they might be off.
    """
    kind = kind_of(name)
    found = draws.estimate(metric, kind.better, kind.interval)
    if kind.proportion and found.value in (0.0, 1.0):
        low, high = wilson(found.value, units or draws.units)
        return replace(found, low=low, high=high)
    return found


def share_estimate(draws: PatientBootstrap, name: str, hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Estimate:
    """The share of `hits` (n,) among the marked slices (n,): only patients with such slices speak, and are counted."""
    groups = draws.speaking(among)
    return replace(estimate(draws, name, share(hits, among), groups), n=groups, n_slices=int(among.sum()))


def wilson(value: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n independent trials (Wilson, JASA 1927)."""
    z = float(ndtri(0.975))
    middle, half = value + z * z / (2 * n), z * np.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return float(max(0.0, (middle - half) / (1 + z * z / n))), float(min(1.0, (middle + half) / (1 + z * z / n)))
