"""What a report can say only where the images are: mistakes with pictures, source bias, and the tumours' sizes.

What `tumorlens review` does; `train` does it at its end. No PyTorch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tumorlens.data.audit.bias import fit_forest
from tumorlens.data.audit.scan import scan
from tumorlens.data.predictions import read_predictions, write_predictions
from tumorlens.data.readers import read_mask, read_slice
from tumorlens.evaluate.bias import SIMPLE
from tumorlens.evaluate.mistakes import PICTURES, confident_mistakes, picture_name
from tumorlens.evaluate.run_folder import PREDICTIONS, read_folds, read_samples
from tumorlens.explain.overlay import outlined, to_grey
from tumorlens.pipeline import Explained
from tumorlens.records import Prediction, Sample
from tumorlens.runtime.predictor import Predictor

Progress = Callable[[str, int, int], None]
HEIGHT = 220  # pixels of a mistake's picture

_Key = tuple[str, int]


def review(folder: Path, progress: Progress = lambda stage, done, total: None) -> None:
    """Look at the tested images of a run, or of every fold of a cross-validation, again.

    Fills the column `tumour_share` of predictions.csv from the masks, writes what a forest on simple features says of
    the tested slices (`simple_features.csv`), and a picture of each of the most confident mistakes (`mistakes/`). The
    next evaluation puts them into the report.

    Args:
        folder: a run folder with a bundle, made by train or crossval.
        progress: called with (stage, done, total).

    Raises:
        RunError: no such run, or its manifest is gone or was changed.
        ManifestError: images or masks are missing.
        BundleError: its bundle cannot be used.
    """
    folds = read_folds(folder)
    for run in folds:
        _review_run(run.folder, progress)
    if not folds:
        _review_run(folder, progress)
    elif (folder / PREDICTIONS).is_file():
        answers = (item for run in folds for item in read_predictions(run.folder / PREDICTIONS))
        reviewed = {_key(item): item for item in answers if item.split == "test"}  # other folds learned from them
        pooled = read_predictions(folder / PREDICTIONS)
        filled = [replace(item, tumour_share=reviewed.get(_key(item), item).tumour_share) for item in pooled]
        write_predictions(filled, folder / PREDICTIONS, pooled[0].classes)


def _review_run(run: Path, progress: Progress) -> None:
    known, root = read_samples(run)
    samples = {(item.path, item.frame): item for item in known}
    predictions = read_predictions(run / PREDICTIONS)
    reviewed = [
        replace(item, tumour_share=_tumour_share(samples[_key(item)], root)) if item.split == "test" else item
        for item in predictions
    ]
    write_predictions(reviewed, run / PREDICTIONS, predictions[0].classes)
    _ask_simple_features(run, reviewed, samples, root, progress)
    _draw_mistakes(run, reviewed, samples, root, progress)


def _tumour_share(sample: Sample, root: Path) -> float:
    mask = read_mask(root, sample)
    return math.nan if mask is None else float(mask.mean())


def _ask_simple_features(
    run: Path, predictions: Sequence[Prediction], samples: dict[_Key, Sample], root: Path, progress: Progress
) -> None:
    """Train the forest on the side that the model was trained on, and let it answer what the model was tested on."""
    sides = {name: [item for item in predictions if item.split == name] for name in ("train", "test")}
    if not all(sides.values()):
        return
    asked = [samples[_key(item)] for item in (*sides["train"], *sides["test"])]
    seen = scan(asked, root, lambda done, total: progress("simple features", done, total))
    border = len(sides["train"])
    labels = np.array([item.label for item in sides["train"]])
    forest = fit_forest(seen.features[:border], labels)
    classes = predictions[0].classes
    shares = np.zeros((len(sides["test"]), len(classes)))
    shares[:, [classes.index(name) for name in forest.classes_]] = forest.predict_proba(seen.features[border:])
    said = [
        replace(item, probabilities=tuple(float(p) for p in row), label_set=(), message="")
        for item, row in zip(sides["test"], shares, strict=True)
    ]
    write_predictions(said, run / SIMPLE, classes)


def _draw_mistakes(
    run: Path, predictions: Sequence[Prediction], samples: dict[_Key, Sample], root: Path, progress: Progress
) -> None:
    chosen = confident_mistakes(item for item in predictions if item.split == "test")
    predictor = Predictor(run / "bundle", answer_all=True)
    (run / PICTURES).mkdir(exist_ok=True)
    wanted = {picture_name(item) for item in chosen}
    for path in (run / PICTURES).glob("*.jpg"):  # of an earlier review
        if path.name not in wanted:
            path.unlink()
    for done, item in enumerate(chosen, start=1):
        sample = samples[_key(item)]
        picture = read_slice(root, sample)
        (answer,) = predictor.predict([picture])
        heat = Explained(answer, picture).overlay(item.predicted)
        plain = Image.fromarray(to_grey(picture.pixels)).convert("RGB")
        panel = side_by_side(plain, heat, read_mask(root, sample))
        panel.save(run / PICTURES / picture_name(item), quality=88)
        progress("pictures of mistakes", done, len(chosen))


def side_by_side(left: Image.Image, right: Image.Image, mask: NDArray[np.bool_] | None) -> Image.Image:
    """Two RGB pictures of one size beside each other, `HEIGHT` pixels high, the mask (height, width) as an outline."""
    width = max(1, round(left.width * HEIGHT / left.height))
    parts = [np.asarray(picture.resize((width, HEIGHT), Image.Resampling.BICUBIC)) for picture in (left, right)]
    if mask is not None:
        parts = [outlined(part, mask) for part in parts]
    gap = np.zeros((HEIGHT, 4, 3), dtype=np.uint8)
    return Image.fromarray(np.concatenate([parts[0], gap, parts[1]], axis=1))


def _key(item: Prediction) -> _Key:
    return item.source, item.frame
