"""What a report can say only where the pictures are at hand; who reads them hands it over."""

from dataclasses import dataclass

from tumorlens.records import Estimate, Prediction


@dataclass(frozen=True)
class Mistake:
    """A tested slice that was answered wrong, and a PNG of it with the heatmap of what was said."""

    prediction: Prediction
    png: bytes


@dataclass(frozen=True)
class Review:
    """The most confident mistakes, the worst first, and how much simple features of pictures know.

    `features` is the balanced accuracy of a forest on features that say nothing of anatomy (size, background, contrast,
    sharpness), trained and tested on the same sides; `model` is that of the model; `chance` that of guessing.
    """

    mistakes: tuple[Mistake, ...]
    features: Estimate | None
    model: Estimate
    chance: float
