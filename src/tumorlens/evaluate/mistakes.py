"""The confident mistakes: where a model is sure and wrong, ordered by rank and not chosen by eye."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tumorlens.records import Prediction

#: The folder of a run that keeps their pictures, where somebody had the images at hand.
PICTURES = "mistakes"
MOST = 24


@dataclass(frozen=True)
class Mistake:
    """A tested slice that was answered wrong, and its picture with the heatmap, where there is one."""

    prediction: Prediction
    picture: Path | None = None


def confident_mistakes(predictions: Iterable[Prediction], most: int = MOST) -> list[Prediction]:
    """The wrong answers, the most confident first.

    Args:
        predictions: of one side; those without a label or an answer are left out.
        most: how many at most.

    Returns:
        One slice a patient, the most confident: its neighbours are the same mistake again.
    """
    wrong = [item for item in predictions if item.status == "ok" and item.label and item.predicted != item.label]
    found: dict[str, Prediction] = {}
    for item in sorted(wrong, key=lambda item: (-item.confidence, item.source, item.frame)):
        found.setdefault(item.patient_group or item.source, item)
    return list(found.values())[:most]


def picture_name(item: Prediction) -> str:
    """The file of a mistake's picture: of what was shown, so that it is found again from the answer alone."""
    return hashlib.sha256(f"{item.source}\n{item.frame}".encode()).hexdigest()[:16] + ".jpg"


def with_pictures(mistakes: Sequence[Prediction], folders: Sequence[Path]) -> tuple[Mistake, ...]:
    """Each mistake with its picture, looked for in the run folders."""
    return tuple(Mistake(item, _find(picture_name(item), folders)) for item in mistakes)


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    return next((path for folder in folders if (path := folder / PICTURES / name).is_file()), None)
