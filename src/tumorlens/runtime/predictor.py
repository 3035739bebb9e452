"""Answers from a bundle, without PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.preprocess import prepare
from tumorlens.errors import BundleError, InputError
from tumorlens.model.bundle import ONNX, REGION_MAP, STRANGENESS, load_card
from tumorlens.model.label_sets import DEFAULT_COVERAGE, label_set
from tumorlens.records import Float32, Geometry, Prediction, Slice, Status
from tumorlens.runtime.engine import EngineName, Precision, load_engine


@dataclass(frozen=True)
class Answer:
    """A prediction and what its explanation needs.

    `evidence` (C, h, w) are the class evidence maps; `temperature` is what the probabilities were softened by;
    `region` (h', w') is the probability of each finer cell to show tumour, None where the bundle has no region head.
    All are None, like `geometry`, where there is no answer.
    """

    prediction: Prediction
    evidence: Float32 | None = None
    geometry: Geometry | None = None
    temperature: float = 1.0
    region: Float32 | None = None


@dataclass(frozen=True)
class Outputs:
    """What the graph gives for prepared squares: `logits` (n, C), `evidence` (n, C, h, w), and where the bundle has
    them `strangeness` (n,), log odds that a picture is no brain MRI, and `region` (n, h', w'), log odds of cells."""

    logits: Float32
    evidence: Float32
    strangeness: Float32 | None
    region: Float32 | None


class Predictor:
    """A loaded bundle. Loading checks hashes and that the graph's outputs have the shapes that the card claims.

    Args:
        folder: the bundle.
        coverage: how often the truth is to be in the label set.
        answer_all: answer also what is no brain MRI or too uncertain; its message still says so.
        precision, many, engine, cache: how the graph is computed, see `runtime.engine.load_engine`.

    Raises:
        BundleError: the bundle is missing, altered, or does not do what it claims, or has no such coverage.
        TumorlensError: this processor or engine does not have the precision.
    """

    def __init__(
        self,
        folder: Path,
        coverage: float = DEFAULT_COVERAGE,
        answer_all: bool = False,
        precision: Precision = "fp32",
        many: bool = False,
        engine: EngineName = "auto",
        cache: Path | None = None,
    ) -> None:
        self.card = load_card(folder, needs=ONNX)
        self.engine = load_engine(folder, self.card, precision, many, engine, cache)
        self._check_claims(folder)
        sets = self.card.label_sets
        self._thresholds = sets.at(coverage) if sets else {}
        self._answer_all = answer_all

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of every probability and map."""
        return self.card.classes

    def predict(self, slices: Sequence[Slice]) -> list[Answer]:
        """Answer every slice; one that cannot be used gets status `error` and costs nothing else.

        Args:
            slices: as read by `data.readers`; at most a few dozen at once, for memory's sake.
        """
        answers: list[Answer | None] = [None] * len(slices)
        squares: list[Float32] = []
        ready: list[tuple[int, Geometry]] = []
        for number, item in enumerate(slices):
            try:
                square, geometry = prepare(item, self.card.preprocess)
            except InputError as error:
                answers[number] = Answer(failed(item.source, item.frame, str(error), self.classes))
                continue
            squares.append(square)
            ready.append((number, geometry))
        if squares:
            found = self.run(np.stack(squares)[:, None])
            rows = softmax(found.logits.astype(np.float64) / self.card.temperature)
            for position, (number, geometry) in enumerate(ready):
                item = slices[number]
                strange = "" if found.strangeness is None else self._strange(float(found.strangeness[position]))
                if strange and not self._answer_all:
                    answers[number] = Answer(
                        Prediction(item.source, item.frame, "refused", self.classes, message=strange, plane=item.plane)
                    )
                    continue
                region = None if found.region is None else _logistic(found.region[position])
                shares = tuple(float(p) for p in rows[position])
                prediction = self._prediction(item, shares, strange or self._contradicted(shares, region))
                answers[number] = Answer(prediction, found.evidence[position], geometry, self.card.temperature, region)
        return [answer for answer in answers if answer is not None]

    def _strange(self, score: float) -> str:
        """Why a picture is refused, or an empty string."""
        if self.card.refusal is None or score <= self.card.refusal.threshold:
            return ""
        return (
            f"not a brain MRI, as far as this model can tell: its score is {score:.2f}, brain slices lie below "
            f"{self.card.refusal.threshold:.2f}. Give a slice of the head"
        )

    def _contradicted(self, probabilities: tuple[float, ...], region: Float32 | None) -> str:
        """Why `no_tumor` is not to be believed, or an empty string."""
        limit = self.card.region.contradicts if self.card.region else None
        if region is None or limit is None or self.classes[int(np.argmax(probabilities))] != "no_tumor":
            return ""
        peak = float(region.max())
        if peak <= limit:
            return ""
        return (
            f"too uncertain: no tumour as a whole, but one place looks like a tumour ({peak:.1%}); it takes more than "
            f"{limit:.1%} to contradict. Look at the map of `tumorlens explain --way region`"
        )

    def _prediction(self, item: Slice, probabilities: tuple[float, ...], message: str) -> Prediction:
        names = label_set(probabilities, self.classes, self._thresholds) if self._thresholds else ()
        sure, least = max(probabilities), self.card.least_confidence
        if sure < least and not message:
            message = f"too uncertain: no class reaches a probability of {least:.0%}, the highest is {sure:.1%}"
        status: Status = "refused" if message and not self._answer_all else "ok"
        return Prediction(
            item.source, item.frame, status, self.classes, probabilities, names, message, plane=item.plane
        )

    def run(self, images: Float32) -> Outputs:
        """The graph's outputs for prepared squares (n, 1, size, size), float32 in [0, 1]."""
        found = self.engine.run(images)
        return Outputs(
            found["logits"],
            found["evidence"],
            found[STRANGENESS] if self.card.refusal else None,
            found[REGION_MAP] if self.card.region else None,
        )

    def _check_claims(self, folder: Path) -> None:
        size = self.card.preprocess.size
        try:
            found = self.run(np.zeros((1, 1, size, size), dtype=np.float32))
        except Exception as error:  # every engine has errors of its own
            raise BundleError(
                f"{folder / ONNX}: does not take (n, 1, {size}, {size}) or lacks an output ({error}). Export it again"
            ) from error
        count = len(self.classes)
        shapes = {name: None if values is None else values.shape for name, values in vars(found).items()}
        fits = shapes["logits"] == (1, count) and found.evidence.ndim == 4 and found.evidence.shape[:2] == (1, count)
        fits = fits and shapes["strangeness"] in (None, (1,)) and (found.region is None or found.region.ndim == 3)
        if not fits:
            raise BundleError(
                f"{folder / ONNX}: outputs are {shapes}, but the card claims {count} classes. Export the bundle again"
            )


def failed(source: str, frame: int, message: str, classes: tuple[str, ...]) -> Prediction:
    """The row for an input without an answer."""
    return Prediction(source, frame, "error", classes, message=message)


# SciPy has both, and takes longer to import than all else that an answer needs.
def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, C) to shares (n, C) that add up to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _logistic(odds: Float32) -> Float32:
    """Log odds to probabilities, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * odds)), dtype=np.float32)
