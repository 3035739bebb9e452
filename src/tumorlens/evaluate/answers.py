"""Labelled predictions as arrays: what every figure is computed from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tumorlens.errors import RunError
from tumorlens.records import FILE, Prediction

TUMOURS = ("glioma", "meningioma", "pituitary")
NONE = "no_tumor"

#: Below this a probability is taken for it, so that its logarithm is finite: the smallest normal float32.
FLOOR = 1.2e-38


@dataclass(frozen=True)
class Answers:
    """Labelled predictions as arrays: `labels` (n,), `probabilities` (n, C), `groups` (n,).

    Empty or (n,): `origins`, the data set that a slice is of; `planes`; `tumour_shares`, the share of the picture that
    the tumour's mask fills; `label_sets`, the classes that are not ruled out. Unknown are empty, or NaN.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: tuple[str, ...]
    origins: tuple[str, ...] = ()
    planes: tuple[str, ...] = ()
    tumour_shares: tuple[float, ...] = ()
    label_sets: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each slice."""
        return np.asarray(np.argmax(self.probabilities, axis=1), dtype=np.int64)

    @property
    def confidences(self) -> NDArray[np.float64]:
        """The probability of the most probable class, (n,)."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which slices are answered right, (n,)."""
        return np.asarray(self.labels == self.predicted)

    @property
    def present(self) -> list[int]:
        """The classes that are among the labels."""
        return [number for number in range(len(self.classes)) if (self.labels == number).any()]

    @property
    def tumour_types(self) -> list[str]:
        """The tumour classes that the model knows."""
        return [name for name in TUMOURS if name in self.classes]

    @property
    def log_probabilities(self) -> NDArray[np.float64]:
        """(n, C), finite: logits up to a constant a slice."""
        return np.asarray(np.log(np.clip(self.probabilities, FLOOR, None)))

    def only(self, names: Sequence[str]) -> "Answers":
        """The slices whose true class is one of `names`; predictions may still be any class."""
        return self.take(np.isin(self.labels, [self.classes.index(name) for name in names if name in self.classes]))

    def of(self, origin: str) -> "Answers":
        """The slices of one data set."""
        return self.take([own == origin for own in self.origins or [""] * len(self)])

    def take(self, keep: Iterable[bool] | NDArray[np.bool_]) -> "Answers":
        """The slices that are marked in `keep` (n,)."""
        kept = np.fromiter(keep, dtype=bool, count=len(self))

        def part(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(compress(values, kept))

        return Answers(
            self.classes,
            self.labels[kept],
            self.probabilities[kept],
            part(self.groups),
            part(self.origins),
            part(self.planes),
            part(self.tumour_shares),
            part(self.label_sets),
        )


def collect(predictions: Sequence[Prediction]) -> Answers:
    """Gather the answered, labelled predictions.

    Raises:
        RunError: there are none; a label that is not a class; classes that differ; a slice that is there twice.
    """
    usable = [item for item in predictions if item.status == "ok" and item.label]
    if not usable:
        raise RunError(
            "no labelled, answered predictions to evaluate. Give a run folder, whose predictions have a label column"
        )
    classes = usable[0].classes
    seen: set[tuple[str, int]] = set()
    for item in usable:
        where = f"{item.source}, frame {item.frame}"
        if item.classes != classes:
            raise RunError(
                f"{where}: its classes are {', '.join(item.classes)}, those before it {', '.join(classes)}. "
                "Evaluate answers of one model at a time"
            )
        if item.label not in classes:
            raise RunError(
                f"{where}: label {item.label!r} is none of the classes {', '.join(classes)}. Mend the label column"
            )
        if (item.source, item.frame) in seen:
            raise RunError(f"{where}: there twice, and would count twice. Remove one of the rows")
        seen.add((item.source, item.frame))
    return Answers(
        classes=classes,
        labels=np.array([classes.index(item.label) for item in usable], dtype=np.int64),
        probabilities=np.array([item.probabilities for item in usable]),
        groups=tuple(item.patient_group or f"{FILE}{item.source}" for item in usable),
        origins=tuple(item.origin for item in usable),
        planes=tuple(item.plane for item in usable),
        tumour_shares=tuple(item.tumour_share for item in usable),
        label_sets=tuple(item.label_set for item in usable),
    )


def restrict(answers: Answers, names: Sequence[str]) -> Answers:
    """The slices whose true class is one of `names`, with these classes alone, renormalised.

    Returns:
        Answers whose `classes` are those of `names` that the model knows, in their order there.
    """
    kept = tuple(name for name in names if name in answers.classes)
    columns = [answers.classes.index(name) for name in kept]
    part = answers.only(kept)
    labels = np.array([columns.index(label) for label in part.labels], dtype=np.int64)
    shares = softmax(part.log_probabilities[:, columns], axis=1)
    return replace(part, classes=kept, labels=labels, probabilities=shares)
