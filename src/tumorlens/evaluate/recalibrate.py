"""Calibration from a cross-validation: what every patient was told by a model that had not seen them.

Temperature and label sets are fitted on all tested slices of all folds, for a bundle that is to be used. How good they
are is measured across the folds: those of one fold are answered with what was fitted on the others. Folds whose logits
differ in scale have no temperature in common; where their own ones, from validation patients, do better, these stay, or
are all corrected by one factor: a few validation patients tend to make a model too bold, and by how much the folds say.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from tumorlens.bootstrap import ROUNDS, PatientBootstrap
from tumorlens.errors import RunError
from tumorlens.evaluate import calibration
from tumorlens.evaluate.answers import FLOOR, Answers, collect
from tumorlens.evaluate.kinds import estimate
from tumorlens.evaluate.leaks import between_folds
from tumorlens.evaluate.run_folder import Run
from tumorlens.evaluate.selective import LabelSetFigures, label_set_figures
from tumorlens.model.label_sets import LabelSets, fit_label_sets, label_set
from tumorlens.model.temperature import fit_temperature
from tumorlens.records import FILE, Estimate, Prediction
from tumorlens.textfile import write_whole
from tumorlens.values import estimates_json, plain

#: How probabilities are made from logits.
AS_TRAINED, TEMPERATURE, VECTOR = "each fold’s own temperature", "one temperature", "vector scaling"
CORRECTED = "own temperature, times one factor"
_EQUAL = 1e-6  # log losses that count as the same: the simpler way is taken


@dataclass(frozen=True)
class Recalibration:
    """What was fitted, and how good it is on patients that it was not fitted on.

    `temperature`, `factor` and `label_sets` are for a bundle of the same recipe. By log loss across folds either one
    temperature is taken, or each keeps its own, times `factor` (1 where it is as good uncorrected); the temperature is
    then None. `figures` has calibration figures by way of scaling, `sets` those of label sets at `coverage` after the
    way that was taken, both across folds; `across` has the tested slices as that way answers them.
    `n_slices` and the patient `groups` are what was fitted on.
    """

    temperature: float | None
    factor: float
    label_sets: LabelSets
    figures: dict[str, dict[str, Estimate]]
    sets: LabelSetFigures | None
    coverage: float
    across: Answers
    n_slices: int
    groups: frozenset[str]

    def applied(self, own: float) -> float:
        """The temperature of a bundle that has `own` from its validation patients."""
        return self.temperature or own * self.factor


def recalibrate(folds: Sequence[Run], coverage: float, rounds: int = ROUNDS) -> Recalibration:
    """Fit on the tested slices of all folds, and measure across them.

    Args:
        folds: of one cross-validation, each with the temperature of its bundle.
        coverage: of the label sets that are measured.
        rounds: bootstrap draws.

    Raises:
        RunError: fewer than two folds, one whose temperature is unknown, or patients who were learned from and tested.
    """
    if len(folds) < 2:
        raise RunError(
            f"{len(folds)} fold there; calibration needs two, as what is fitted on one is measured on the other. "
            "Give the folder of a cross-validation (`tumorlens crossval`)"
        )
    leaky = between_folds([run.predictions for run in folds])
    if leaky or any(run.leaky for run in folds):
        why = f"{leaky} patient groups are on two sides" if leaky else "they were split by slice"
        raise RunError(
            f"{folds[0].folder.parent}: its models learned from patients that they tested ({why}), so what they tested "
            "cannot say how sure to be. Split by patient (`tumorlens data split MANIFEST --folds K`) and train again"
        )
    parts = [collect(run.tested) for run in folds]
    logits = [_logits(run, part) for run, part in zip(folds, parts, strict=True)]
    whole = collect([item for run in folds for item in run.tested])
    # A fold whose bundle was corrected before is taken as its own validation patients left it.
    softened = [part.log_probabilities * run.temperature_factor for run, part in zip(folds, parts, strict=True)]
    scores = {AS_TRAINED: softened, CORRECTED: softened, TEMPERATURE: logits}
    numbers = range(len(parts))
    # For each fold what its scores are divided by, which the other folds say.
    scales = {
        AS_TRAINED: [1.0] * len(parts),
        CORRECTED: [fit_temperature(*_others(softened, parts, number)) for number in numbers],
        TEMPERATURE: [fit_temperature(*_others(logits, parts, number)) for number in numbers],
    }
    told = {name: [softmax(scores[name][n] / scales[name][n], axis=1) for n in numbers] for name in scores}
    told[VECTOR] = [_vector_scaled(*_others(logits, parts, number), logits[number]) for number in numbers]
    figures = {
        name: _figures(replace(whole, probabilities=np.concatenate(rows)), rounds) for name, rows in told.items()
    }
    loss = {name: figures[name]["log_loss"].value for name in (TEMPERATURE, AS_TRAINED, CORRECTED)}
    way = next(name for name, value in loss.items() if value <= min(loss.values()) + _EQUAL)
    scale = 1.0 if way == AS_TRAINED else fit_temperature(np.concatenate(scores[way]), whole.labels)
    sets = _sets_across(scores[way], scales[way], parts, coverage)
    after = replace(whole, probabilities=np.concatenate(told[way]), label_sets=sets)
    used = frozenset(whole.groups)
    return Recalibration(
        temperature=scale if way == TEMPERATURE else None,
        factor=scale if way == CORRECTED else 1.0,
        label_sets=fit_label_sets(
            softmax(np.concatenate(scores[way]) / scale, axis=1),
            whole.labels,
            whole.groups,
            whole.classes,
            f"{len(whole)} tested slices of {len(used)} patient groups in {len(folds)} folds",
        ),
        figures=figures,
        sets=label_set_figures(after, PatientBootstrap(after.groups, rounds)),
        coverage=coverage,
        across=after,
        n_slices=len(whole),
        groups=used,
    )


def _sets_across(
    scores: Sequence[NDArray[np.float64]], scales: Sequence[float], parts: Sequence[Answers], coverage: float
) -> tuple[tuple[str, ...], ...]:
    """The label sets of each fold's slices, by thresholds from the other folds after what these are divided by."""
    sets: list[tuple[str, ...]] = []
    for number, (part, scale) in enumerate(zip(parts, scales, strict=True)):
        others, labels = _others(scores, parts, number)
        groups = [group for index, other in enumerate(parts) if index != number for group in other.groups]
        fitted = fit_label_sets(softmax(others / scale, axis=1), labels, groups, part.classes)
        rows = softmax(scores[number] / scale, axis=1).tolist()
        sets += [label_set(row, part.classes, fitted.at(coverage)) for row in rows]
    return tuple(sets)


def recalibrated(run: Run, found: Recalibration, coverage: float) -> list[Prediction]:
    """A run's answers after a temperature and label sets that were fitted on others.

    Args:
        run: with the temperature that its answers have now.
        found: what was fitted.
        coverage: of the label sets.

    Raises:
        RunError: the run's temperature is unknown, or patients that it tests were among those fitted on, whose
            figures would be too good.
    """
    # As `collect` groups them: a slice without a patient is its own.
    shared = {item.patient_group or f"{FILE}{item.source}" for item in run.tested} & found.groups
    if shared:
        raise RunError(
            f"{run.folder}: {len(shared)} patient groups that it tests were among those that the temperature is fitted "
            f"on, first {min(shared)}. Leave its fold out of the cross-validation's folder, or give another bundle"
        )
    thresholds = found.label_sets.at(coverage)
    answered = [item for item in run.predictions if item.probabilities]
    log_shares = np.log(np.clip([item.probabilities for item in answered], FLOOR, None))
    now = known_temperature(run)
    factor = now / found.applied(now / run.temperature_factor)
    shares = iter(softmax(log_shares * factor, axis=1).tolist())
    renewed = []
    for item in run.predictions:
        if item.probabilities:
            row = next(shares)
            sets = label_set(row, item.classes, thresholds)
            renewed.append(replace(item, probabilities=tuple(row), label_set=sets))
        else:
            renewed.append(item)
    return renewed


def save_recalibration(found: Recalibration, path: Path) -> None:
    """Write calibration.json, whole: temperature, label sets, and the figures across folds."""
    values = {
        "schema_version": 1,
        "temperature": found.temperature,
        "factor": found.factor,
        "label_sets": found.label_sets.model_dump(),
        "figures": {name: estimates_json(rows) for name, rows in found.figures.items()},
        "measured_coverage": found.coverage,
        "sets": plain(asdict(found.sets)) if found.sets else None,
    }
    write_whole(path, json.dumps(values, indent=2) + "\n")


def _logits(run: Run, answers: Answers) -> NDArray[np.float64]:
    """Logits up to a constant a slice: probabilities were softened by the temperature of the run's bundle."""
    return answers.log_probabilities * known_temperature(run)


def known_temperature(run: Run) -> float:
    """The temperature that a run's probabilities were softened by.

    Raises:
        RunError: it is unknown.
    """
    if run.temperature is None:
        raise RunError(
            f"{run.folder}: the temperature of its bundle is unknown, as bundle/model.json is missing. Restore it"
        )
    return run.temperature


def _others(
    logits: Sequence[NDArray[np.float64]], parts: Sequence[Answers], number: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    kept = [index for index in range(len(parts)) if index != number]
    return np.concatenate([logits[index] for index in kept]), np.concatenate([parts[index].labels for index in kept])


def _vector_scaled(
    z: NDArray[np.float64], labels: NDArray[np.int64], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probabilities of `asked` (m, C) after a factor and a shift for each class, fitted on z (n, C) by log loss."""
    # Centred: logits are known up to a constant a slice, which a factor for each class would turn into something.
    z, asked = z - z.mean(axis=1, keepdims=True), asked - asked.mean(axis=1, keepdims=True)
    count = z.shape[1]

    def loss(values: NDArray[np.float64]) -> float:
        scaled = log_softmax(z * values[:count] + values[count:], axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    found = minimize(loss, np.concatenate([np.ones(count), np.zeros(count)]), method="L-BFGS-B").x
    return np.asarray(softmax(asked * found[:count] + found[count:], axis=1))


def _figures(answers: Answers, rounds: int) -> dict[str, Estimate]:
    draws = PatientBootstrap(answers.groups, rounds)
    metrics = {
        "log_loss": calibration.log_loss(answers),
        "brier": calibration.brier(answers),
        "ece": calibration.expected_calibration_error(answers, calibration.even_edges()),
        "ece_adaptive": calibration.expected_calibration_error(answers, calibration.even_shares(answers)),
        "calibration_slope": calibration.calibration_slope(answers),
    }
    return {name: estimate(draws, name, metric) for name, metric in metrics.items()}
