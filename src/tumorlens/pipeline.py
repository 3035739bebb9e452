"""From paths to answers with heatmaps: what the command line and the app share."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tumorlens.data.orientation import turn_back
from tumorlens.data.preprocess import to_picture
from tumorlens.data.readers import ALL_SLICES, Entry, ReadOptions, Refused, find_inputs, read_slices
from tumorlens.errors import InputError, TumorlensError
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.overlay import overlay
from tumorlens.records import Float32, Prediction, Slice
from tumorlens.runtime.predictor import Answer, Predictor, failed

BATCH = 16
_LONGEST_NAME = 120  # characters of a heatmap's name: file systems take 255 bytes
#: The model that comes with the package.
REFERENCE = Path(__file__).parent / "reference"


@dataclass(frozen=True)
class Explained:
    """A slice and its answer; `picture` is None where the input could not be read."""

    answer: Answer
    picture: Slice | None

    def heatmap(self, target_class: str = "", target: Literal["probability", "logit"] = "probability") -> Float32:
        """Grad-CAM at the picture's own size (height, width), float32, at least 0; of the predicted class by default.

        Raises:
            TumorlensError: there is no answer to explain, or no such class.
        """
        answer = self.answer
        if answer.evidence is None or answer.geometry is None:
            raise TumorlensError(f"{answer.prediction.source}: no answer, so nothing to explain")
        item = answer.prediction
        chosen = target_class or item.predicted
        small = gradcam(answer.evidence, item.probabilities, item.classes, chosen, target, answer.temperature)
        return to_picture(small.values, answer.geometry)

    def overlay(self, target_class: str = "", opacity: float = 0.5) -> Image.Image:
        """The heatmap over the picture, RGB, at the picture's own size.

        Raises:
            TumorlensError: there is no answer to explain, or no such class.
        """
        values = self.heatmap(target_class)
        assert self.picture is not None  # an answer has its picture
        return overlay(self.picture.pixels, values, opacity)


def explain_paths(
    paths: Sequence[Path],
    predictor: Predictor,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    options: ReadOptions = ALL_SLICES,
) -> Iterator[list[Explained]]:
    """Answer every slice of files, folders and archives, a batch at a time; memory stays bounded.

    Args:
        paths: files, folders and ZIP archives. Bad ones, and bad members, become a row with status `error`.
        predictor: the loaded model.
        on_progress: called with (files done, files in all).
        options: which slices of volumes and of files with several.
    """
    files = find_inputs(paths)
    waiting: list[Slice] = []
    for done, entry in enumerate(files, start=1):
        try:
            if isinstance(entry, Refused):
                raise InputError(entry.message)
            waiting += read_slices(entry, options)
        except InputError as error:
            # What came before it first: rows stand in the order of the inputs.
            yield from _answer_batches(waiting, predictor)
            waiting = []
            yield [Explained(Answer(failed(entry.address, 0, str(error), predictor.classes)), None)]
        if len(waiting) >= BATCH or done == len(files):
            yield from _answer_batches(waiting, predictor)
            waiting = []
        on_progress(done, len(files))


def _answer_batches(slices: list[Slice], predictor: Predictor) -> Iterator[list[Explained]]:
    for start in range(0, len(slices), BATCH):
        batch = slices[start : start + BATCH]
        yield [Explained(answer, item) for answer, item in zip(predictor.predict(batch), batch, strict=True)]


class HeatmapFolder:
    """Writes an overlay PNG and the raw map for each answered slice, under names that never collide."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, item: Explained) -> None:
        """Write `NAME.png` (overlay) and `NAME.npy` (float32, on the file's own pixel grid, predicted class)."""
        if item.answer.evidence is None or item.picture is None:
            return
        name = self._name(item.answer.prediction)
        # Who opens the map opens the file beside it, whose slices may not be stored upright.
        np.save(self._folder / f"{name}.npy", turn_back(item.heatmap(), item.picture.orientation))
        item.overlay().save(self._folder / f"{name}.png", compress_level=1)

    def _name(self, prediction: Prediction) -> str:
        source = Entry(prediction.source)
        stem = Path(source.name.removesuffix(".gz")).stem
        # Members of archives may have names that no file system takes.
        stem = re.sub(r'[\x00-\x1f<>:"|?*]', "_", stem)[:_LONGEST_NAME]
        stem += f"_frame{prediction.frame:04d}" if prediction.frame else ""
        name, number = stem, 1
        while name in self._used:
            number += 1
            name = f"{stem}-{number}"
        self._used.add(name)
        return name
