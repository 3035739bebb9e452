"""Does a model see tumours, or sources? Simple features of the pictures answer the same questions beside it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tumorlens.bootstrap import LEAST_GROUPS, ROUNDS, Metric, PatientBootstrap, difference
from tumorlens.errors import RunError
from tumorlens.evaluate.answers import NONE, TUMOURS, Answers, collect, restrict
from tumorlens.evaluate.kinds import estimate
from tumorlens.evaluate.metrics import balanced_accuracy
from tumorlens.evaluate.sources import none_measures
from tumorlens.records import Estimate, Prediction
from tumorlens.values import plain

#: What a forest on simple features says of the tested slices; in the form of predictions.csv.
SIMPLE = "simple_features.csv"


@dataclass(frozen=True)
class BiasRow:
    """One question: what simple features reach, what the model reaches, and how much more (paired); beside chance.

    `figure` is what is measured, by slice, with intervals by patient.
    """

    question: str
    figure: str
    chance: float
    features: Estimate
    model: Estimate
    difference: Estimate

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def bias_rows(
    model: Sequence[Prediction], features: Sequence[Prediction], rounds: int = ROUNDS, seed: int = 0
) -> tuple[BiasRow, ...]:
    """Put the same questions to the model and to simple features: classes, tumour or none, and type within a source.

    Args:
        model: its answers for one side.
        features: those of the simple features, for the same slices in any order.
        rounds: bootstrap draws.
        seed: of the draws.

    Raises:
        RunError: a slice has an answer of the model alone.
    """
    known = {(item.source, item.frame): item for item in features}
    asked = [item for item in model if item.status == "ok" and item.label]
    missing = [item for item in asked if (item.source, item.frame) not in known]
    if missing:
        raise RunError(
            f"{SIMPLE}: nothing there for {len(missing)} of {len(asked)} slices, first {missing[0].source}. "
            "Make it again with `tumorlens review RUN`"
        )
    first, second = collect(asked), collect([known[item.source, item.frame] for item in asked])
    rows = [_types("Which class", first, second, rounds, seed)]
    rows.append(_tumour_or_none("Tumour or none, all sources", first, second, rounds, seed))
    for name in sorted(set(first.origins) - {""}):
        own = first.of(name), second.of(name)
        rows.append(_tumour_or_none(f"Tumour or none, within {name}", *own, rounds, seed))
        if first.tumour_types:
            one, other = (restrict(part, TUMOURS) for part in own)
            rows.append(_types(f"Which tumour, within {name}", one, other, rounds, seed))
    return tuple(row for row in rows if row is not None)


def _types(question: str, model: Answers, features: Answers, rounds: int, seed: int) -> BiasRow | None:
    if len(model.present) < 2 or len(set(model.groups)) < LEAST_GROUPS:
        return None
    metrics = balanced_accuracy(model), balanced_accuracy(features)
    return _row(question, "balanced accuracy", 1 / len(model.present), model, metrics, rounds, seed)


def _tumour_or_none(question: str, model: Answers, features: Answers, rounds: int, seed: int) -> BiasRow | None:
    measures = none_measures(model), none_measures(features)
    kinds = model.only(TUMOURS), model.only([NONE])
    if "auc" not in measures[0].metrics or min(len(set(part.groups)) for part in kinds) < LEAST_GROUPS:
        return None
    return _row(question, "AUC", 0.5, model, (measures[0].metrics["auc"], measures[1].metrics["auc"]), rounds, seed)


def _row(
    question: str, figure: str, chance: float, answers: Answers, metrics: tuple[Metric, Metric], rounds: int, seed: int
) -> BiasRow:
    draws = PatientBootstrap(answers.groups, rounds, seed)
    model, features = metrics
    name = figure.lower().replace(" ", "_")
    return BiasRow(
        question,
        figure,
        chance,
        features=estimate(draws, name, features),
        model=estimate(draws, name, model),
        difference=draws.estimate(difference(model, features)),
    )
